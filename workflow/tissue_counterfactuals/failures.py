"""The last thing on the screen after a failed run: why each of its jobs failed, once."""

import atexit
import sys
from collections.abc import Iterable
from pathlib import Path

_SENTENCE = "error: "
# What SLURM writes of a job that it ends -> what the job ran out of, and the resource that asks for more.
_ENDED_BY_SLURM = {
    "exceeded memory limit": ("memory", "mem_mb"),
    "oom_kill": ("memory", "mem_mb"),
    "DUE TO TIME LIMIT": ("time", "runtime"),
}


def reasons(jobs: Iterable, since: float, slurm_logs: Path | None = None) -> list[str]:
    """Why jobs failed: the sentence in a job's log, where its traceback is, or that it was ended from outside.

    Args:
        jobs: jobs of Snakemake that failed for good, or groups of them.
        since: seconds since the epoch; what a log has said before is of an earlier run.
        slurm_logs: folder of SLURM's own logs, if jobs were its.
    """
    found = []
    for job in jobs:
        logs = [Path(str(log)) for log in job.log]
        told = [reason for log in logs if (reason := _reason(log, since))]
        # Of a group only the jobs that failed say why.
        ended = "ended without a word, as one does that is killed (memory, time); what ended it may stand above."
        # Where the executor puts the log of a job that travelled alone.
        if slurm_logs and hasattr(job, "wildcards"):
            own = slurm_logs / f"rule_{job.name}" / "_".join(job.wildcards or ()).replace("/", "_")
            ended = _slurm_says(own, since) or ended
        found += told or [f"{_SENTENCE}{', '.join(map(str, logs[:3])) or job}: this job {ended}"]
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


def _slurm_says(folder: Path, since: float) -> str:
    """What a job ran out of, by the last of its logs of SLURM that says so; nothing where none does."""
    logs = [log for log in folder.glob("*.log") if log.stat().st_mtime >= since]
    for log in sorted(logs, key=lambda log: -log.stat().st_mtime):
        text = log.read_text(errors="replace")
        for mark, (what, resource) in _ENDED_BY_SLURM.items():
            if mark in text:
                return f"was ended by SLURM because it ran out of {what} ({log}); ask for more {resource}."
    return ""


def show_at_exit(workflow: object, since: float) -> None:
    """Print the reasons when the process ends, after all that Snakemake has to say; nothing where no job had failed."""
    failed = workflow.scheduler.failed if workflow.scheduler else ()
    logs = getattr(workflow.executor_settings, "logdir", None)
    if said := reasons(failed, since, logs and Path(logs)):
        atexit.register(lambda: print("", *said, sep="\n", file=sys.stderr))
