"""The last thing on the screen after a failed run: why each of its jobs failed, once."""

import atexit
import sys
from pathlib import Path

_SENTENCE = "error: "


def reasons(logs: Path, since: float) -> list[str]:
    """What the logs that were written since a time say of a failure: the sentence, or where the traceback is.

    Args:
        logs: folder of the logs of all jobs.
        since: seconds since the epoch.
    """
    found = []
    for path in sorted(logs.rglob("*.log")):
        if path.stat().st_mtime < since:
            continue
        lines = path.read_text(errors="replace").splitlines()
        starts = [n for n, line in enumerate(lines) if line.startswith(_SENTENCE)]
        if starts:
            found.append("\n".join(lines[starts[-1] :]))
        elif any(line.startswith("Traceback (most recent call last)") for line in lines):
            found.append(f"{_SENTENCE}{lines[-1]} (a fault of this program; all of it: {path})")
    return list(dict.fromkeys(found))


def show_at_exit(logs: Path, since: float) -> None:
    """Print the reasons when the process ends, after all that Snakemake has to say."""
    said = reasons(logs, since) or [
        f"{_SENTENCE}a job ended without a reason in its log, as one does that is killed (memory, time): run again without "
        "--quiet to see which job it was."
    ]
    atexit.register(lambda: print("", *said, sep="\n", file=sys.stderr))
