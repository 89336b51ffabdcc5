"""Take away the lock that a killed run of Snakemake left in this folder, where no run can still be alive.

Snakemake writes its computer into its log: a lock of another computer that shares the disk is left alone.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil


def is_running(folder: Path) -> bool:
    """Whether a process of Snakemake works in a folder, or may do so because it cannot be looked at."""
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        here = process.info["cwd"] is None or Path(process.info["cwd"]) == folder
        if here and process.info["pid"] != os.getpid() and any("snakemake" in w for w in words):
            return True
    return False


def main(folder: Path) -> None:
    """Unlock a folder if that is safe; say what was done or why not."""
    if not any((folder / ".snakemake/locks").glob("*")):
        return
    logs = sorted((folder / ".snakemake/log").glob("*.snakemake.log"))
    hosts = [
        line.split(": ")[1]
        for line in (logs[-1].read_text().splitlines() if logs else [])
        if line.strip().startswith("Host: ")
    ]
    if hosts != [platform.node()] or is_running(folder):
        print("This folder is locked by a run that may still be alive: it is left alone.")
        return
    print("A run was cut off here and left its lock: it is taken away.")
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=folder, check=False)


if __name__ == "__main__":
    main(Path.cwd().resolve())
