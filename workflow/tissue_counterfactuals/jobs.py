"""What every job has in common: its log, its number of threads, and how it fails."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn, TextIO

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import verify

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@contextmanager
def job(log: str | Path, threads: int = 1, inputs: Iterable[str | Path] = ()) -> Iterator[None]:
    """Run a step: output goes to its log, an `InputError` ends it with that one sentence on the screen.

    `inputs` are files that other steps made; one that has been damaged since ends the step too (see `files.verify`).

    Enter it before numpy, torch or numba are imported. The number of threads comes from the configuration and not
    from the cores at hand, because it is part of what makes floating-point results repeatable.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", buffering=1) as stream, redirect_stdout(stream), redirect_stderr(stream):
        try:
            verify(inputs)
            yield
        except InputError as error:
            _stop(str(error), stream)
        except OSError as error:
            traceback.print_exc(file=stream)
            # Without a number it is some library's own error, and no fault of the machine.
            if not error.errno:
                raise
            where = f"file {error.filename}" if error.filename else "the disk"
            _stop(
                f"{where}: {error.strerror}; see that there is room and the right to read and write, then run the "
                "same command again.",
                stream,
            )
        except Exception:
            traceback.print_exc(file=stream)
            raise


def _stop(sentence: str, log: TextIO) -> NoReturn:
    """End the job with one sentence, the last in its log and on the screen."""
    print(f"error: {sentence}", file=log)
    print(f"error: {sentence}", file=sys.__stderr__)
    raise SystemExit(1) from None
