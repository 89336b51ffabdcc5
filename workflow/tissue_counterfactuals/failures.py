"""The last thing on the screen after a failed run: why each of its jobs failed, once."""

import atexit
import sys
from collections.abc import Iterable
from pathlib import Path

_SENTENCE = "error: "


def reasons(jobs: Iterable, since: float) -> list[str]:
    """Why jobs failed: the sentence in a job's log, where its traceback is, or that it was ended from outside.

    Args:
        jobs: jobs of Snakemake that failed for good, or groups of them.
        since: seconds since the epoch; what a log has said before is of an earlier run.
    """
    found = []
    for job in jobs:
        logs = [Path(str(log)) for log in job.log]
        told = [reason for log in logs if (reason := _reason(log, since))]
        # Of a group only the jobs that failed say why.
        found += told or [
            f"{_SENTENCE}{', '.join(map(str, logs[:3])) or job}: this job ended without a word, as one does that is "
            "killed (memory, time); what ended it may stand above."
        ]
    return sorted(dict.fromkeys(found))


def _reason(log: Path, since: float) -> str:
    if not log.is_file() or log.stat().st_mtime < since:
        return ""
    lines = log.read_text(errors="replace").splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(_SENTENCE)]
    if starts:
        return "\n".join(lines[starts[-1] :])
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return f"{_SENTENCE}{lines[-1]} (a fault of this program; all of it: {log})"
    return ""


def show_at_exit(workflow: object, since: float) -> None:
    """Print the reasons when the process ends, after all that Snakemake has to say; nothing where no job had failed."""
    failed = workflow.scheduler.failed if workflow.scheduler else ()
    if said := reasons(failed, since):
        atexit.register(lambda: print("", *said, sep="\n", file=sys.stderr))
