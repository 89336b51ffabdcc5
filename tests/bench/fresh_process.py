"""A stage of a benchmark in a process of its own, so that its peak of memory is its own: what it takes of both."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def run_alone(stage: Callable, folder: Path, *arguments) -> None:
    """Run `stage(folder, *arguments)` in a process of its own, and end with it where it fails."""
    process = multiprocessing.get_context("spawn").Process(target=stage, args=(folder, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def measured(stage: Callable, folder: Path, *arguments) -> tuple[float, float]:
    """Run `stage(folder, *arguments)` so: seconds, and peak resident memory in GB."""
    started = time.perf_counter()
    run_alone(_run, folder, stage, *arguments)
    return time.perf_counter() - started, float((folder / "peak").read_text())


def peak_gb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))


def _run(folder: Path, stage: Callable, *arguments) -> None:
    stage(folder, *arguments)
    (folder / "peak").write_text(str(peak_gb()))
