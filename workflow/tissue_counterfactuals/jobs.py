"""What every job has in common: its log, its number of threads, and how it fails."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from tissue_counterfactuals.errors import InputError

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@contextmanager
def job(log: str | Path, threads: int = 1) -> Iterator[None]:
    """Run a step: output goes to its log, an `InputError` ends it with that one sentence on the screen.

    Enter it before numpy, torch or numba are imported. The number of threads comes from the configuration and not
    from the cores at hand, because it is part of what makes floating-point results repeatable.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        try:
            yield
        except InputError as error:
            print(f"error: {error}", file=stream)
            print(f"error: {error}", file=sys.__stderr__)
            raise SystemExit(1) from None
        except Exception:
            traceback.print_exc(file=stream)
            raise
