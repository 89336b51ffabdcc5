"""The one error that a user is meant to read, and what to tell where memory ran out."""

import re

# What PyTorch, CUDA, XLA and the system say in errors of their own.
_NO_MEMORY = re.compile(r"out of memory|can(?:'|no)t allocate memory|ALLOC_FAILED|RESOURCE_EXHAUSTED", re.IGNORECASE)


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one sentence that names the file or slide, the key or column, what is wrong with it and how to
    mend it. Steps let it through, so that a run stops before hours are spent; what a method does wrong becomes a failed
    result record instead (see methods/run.py).
    """


class DamagedFile(OSError):
    """A file of the workflow's own that cannot be read as what was written: a fault of the machine, not of a method."""


def memory_fault(error: BaseException) -> str | None:
    """What to do about an error where it means that the memory of the machine or of its GPU ran out; else None."""
    said = " ".join(str(error).split())
    native = isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(said)
    return no_memory(said) if native or isinstance(error, MemoryError) else None


def no_memory(said: str) -> str:
    """What to do where memory ran out; `said` is what was told of it."""
    told = f" ({said[:200]})" if said else ""
    return (
        f"memory ran out{told}: give the job more, or less to hold (fewer cells or genes, a smaller batch_size), and "
        "run again; a training goes on where it was."
    )
