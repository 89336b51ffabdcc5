"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one sentence that names the file or slide, the key or column, what is wrong with it and how to
    mend it. Steps let it through, so that a run stops before hours are spent; what a method does wrong becomes a failed
    result record instead (see methods/run.py).
    """


class DamagedFile(OSError):
    """A file of the workflow's own that cannot be read as what was written: a fault of the machine, not of a method."""
