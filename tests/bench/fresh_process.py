"""A stage of a benchmark in a process of its own: its time and its peak memory."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def measured(stage: Callable, folder: Path, *arguments) -> tuple[float, float]:
    """Run `stage(folder, *arguments)`: seconds, and peak resident memory in GB."""
    started = time.perf_counter()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(stage, folder, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{stage.__name__} failed")
    return time.perf_counter() - started, float((folder / "peak").read_text())


def _run(stage: Callable, folder: Path, *arguments) -> None:
    stage(folder, *arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    (folder / "peak").write_text(str(peak))
