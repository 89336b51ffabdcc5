"""What every job has in common: its log, its number of threads, and how it fails."""

import atexit
import errno
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn, TextIO

from tissue_counterfactuals.errors import InputError, memory_fault
from tissue_counterfactuals.files import verify

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# The disk, or the rights on it: nothing that this program or its input could do better.
_FAULTS_OF_THE_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE),
)


def python_without_spaces(executable: str) -> str:
    """The path of an interpreter in a form without spaces, because Snakemake writes it into commands without quotes.

    Where it has one, the environment's folder gets a second name: a link in a folder of this process alone.

    Raises:
        InputError: the folder for temporary files has a space too.
    """
    if " " not in executable:
        return executable
    folder = tempfile.mkdtemp(prefix="python-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if " " in folder:
        raise InputError(
            f"file {executable}: Snakemake cannot run a Python with a space in its path; install into a folder without "
            "one, or set TMPDIR to such a folder."
        )
    binaries = Path(executable).parent
    link = Path(folder) / "env"
    link.symlink_to(binaries.parent)
    return str(link / binaries.name / Path(executable).name)


@contextmanager
def job(log: str | Path, threads: int = 1, inputs: Iterable[str | Path] = ()) -> Iterator[None]:
    """Run a step: output goes to its log, an `InputError` ends it with that one sentence on the screen.

    So do a disk that is full or fails, rights that are missing, and memory that ran out.

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
        except Exception as error:
            if sentence := memory_fault(error):
                traceback.print_exc(file=stream)
                _stop(sentence, stream)
            if not isinstance(error, OSError) or error.errno not in _FAULTS_OF_THE_MACHINE:
                traceback.print_exc(file=stream)
                raise
            # HDF5 names the file, and much else, in its message alone.
            told = re.search(r"filename = '([^']+)'", str(error))
            name = error.filename or (told and told[1])
            _stop(
                f"{f'file {name}' if name else 'the disk'}: {os.strerror(error.errno)}; see that there is room and "
                "the right to read and write, then run the same command again.",
                stream,
            )


def _stop(sentence: str, log: TextIO) -> NoReturn:
    """End the job with one sentence, the last in its log and on the screen."""
    print(f"error: {sentence}", file=log)
    print(f"error: {sentence}", file=sys.__stderr__)
    raise SystemExit(1) from None
