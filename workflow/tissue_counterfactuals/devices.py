"""A GPU for each job: Snakemake counts cards and gives out none, so that jobs side by side would all take the first.

A job holds a lock on the card that it uses. The system releases it when the job ends, however it ends.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS_BETWEEN_TRIES = 1.0


def cards() -> list[str]:
    """Names of the NVIDIA GPUs that this process may use: what CUDA_VISIBLE_DEVICES says, or all that the driver
    lists, by their UUIDs: the driver counts by slots, and CUDA the fastest first.
    """
    if _VISIBLE in os.environ:
        return [name.strip() for name in os.environ[_VISIBLE].split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return []
    return re.findall(r"^GPU .*\(UUID: (.+)\)$", listed.stdout, re.MULTILINE) if listed.returncode == 0 else []


@contextmanager
def card_of_its_own(device: str, report: Callable[[str], None]) -> Iterator[None]:
    """Where the device is `cuda` or `auto`, hold a GPU and show it alone to this process and its children.

    With none, or one that a scheduler gave out, nothing changes; where all are held, wait. Enter it before PyTorch
    looks for GPUs.

    Args:
        device: `auto`, `cpu` or `cuda`.
        report: receives a line that says which card it is, and one before waiting.
    """
    names = cards() if device != "cpu" else []
    if len(names) < 2:
        report(f"device: {device}; GPUs here: {len(names)}")
        yield
        return
    # All jobs of this user on a machine share it.
    folder = Path(tempfile.gettempdir()) / f"tissue-counterfactuals-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while (held := _first_free(folder, names)) is None:
        if not waiting:
            report(f"all {len(names)} GPUs are in use by other jobs: waiting")
            waiting = True
        time.sleep(_SECONDS_BETWEEN_TRIES)
    name, lock = held
    before = os.environ.get(_VISIBLE)
    os.environ[_VISIBLE] = name
    report(f"device: {device}; GPU {name.removeprefix('GPU-')}, one of {len(names)}")
    try:
        yield
    finally:
        os.close(lock)
        if before is None:
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = before


def _first_free(folder: Path, names: list[str]) -> tuple[str, int] | None:
    for name in names:
        lock = os.open(folder / f"{name.replace(os.sep, '_')}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return name, lock
        except BlockingIOError:
            os.close(lock)
    return None
