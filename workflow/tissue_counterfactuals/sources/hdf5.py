"""HDF5 files of any writer: opened safely, read in the few forms that writers differ in, and faults told by their
cause.

Nothing outside the file is followed, and no index goes to native code before its bounds are known.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from tissue_counterfactuals.errors import InputError

# Filters that h5py lacks, by their number in the registry of the HDF Group; hdf5plugin brings all of them.
_FILTERS = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
# How files begin that are often called h5ad and are something else.
_OTHER_FORMATS = {
    b"\x1f\x8b": "it is packed with gzip; unpack it",
    b"PK\x03\x04": "it is a zip archive; unpack it",
    b"BZh": "it is packed with bzip2; unpack it",
    b"\xfd7zXZ": "it is packed with xz; unpack it",
    b"<": "it is a web page; fetch the file itself",
}
# How R writes a missing whole number.
_R_MISSING = -(1 << 31)


class Malformed(ValueError):
    """A part of a file has not the form that it must have; the message says which and how."""


@contextmanager
def open_hdf5(path: str | Path, what: str = "h5ad") -> Iterator[h5py.File]:
    """Open a file for reading; whatever goes wrong until the block ends is told by its cause.

    Raises:
        InputError: not there, locked, no HDF5, cut short, leading outside itself, packed by a filter that is not
            installed, or of another form than what the block reads.
    """
    where = f"file {path}"
    with suppress(ImportError):
        # Registers the filters that h5py lacks, where somebody has installed them.
        import hdf5plugin  # noqa: F401
    try:
        file = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {_why_not_opened(path, error, what)}.") from error
    with file:
        try:
            _refuse_outside(file)
            yield file
        except (InputError, MemoryError):
            raise
        except Exception as error:
            # h5py and what is built on it raise nearly every kind of exception over a file of another form.
            raise InputError(f"{where}: {_why_not_read(file, error, what)}.") from error


def attribute(part: h5py.Group | h5py.Dataset, name: str, default: str = "") -> str:
    """A text attribute, whether it is stored as text, bytes or an array of one."""
    value = part.attrs.get(name, default)
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size == 1 else default
    return value.decode() if isinstance(value, bytes) else str(value)


def read_flat(part: h5py.Dataset) -> np.ndarray:
    """A stored array as (n,): some writers make it n x 1, or a single number where n is 1.

    Raises:
        Malformed: it is empty of values, or has two dimensions that are not 1.
    """
    if not isinstance(part, h5py.Dataset) or part.shape is None:
        raise Malformed(f"{part.name} holds no array")
    if max(part.shape, default=1) != part.size and part.size:
        raise Malformed(f"{part.name} has the shape {part.shape}, where a single column is needed")
    text = h5py.check_string_dtype(part.dtype)
    # Text of a fixed length says that it is ASCII and often is not.
    values = part.asstr("utf-8")[()] if text else part[()]
    return np.asarray(values).reshape(-1)


def read_codes(part: h5py.Dataset, n_categories: int) -> np.ndarray:
    """Codes of categories (n,) int32, -1 where there is none.

    Raises:
        Malformed: one is no whole number, or names a category that there is not.
    """
    stored = read_flat(part)
    if stored.dtype.kind not in "biuf":
        raise Malformed(f"{part.name} holds {stored.dtype}, where codes of categories are needed")
    missing = np.isnan(stored) if stored.dtype.kind == "f" else np.zeros(len(stored), dtype=bool)
    if stored.dtype.kind != "u":
        missing |= (stored == -1) | (stored == _R_MISSING)
    given = stored[~missing]
    wrong = (given != np.rint(given)) | (given < 0) | (given >= n_categories)
    if wrong.any():
        raise Malformed(
            f"{part.name} holds the code {given[wrong.argmax()]:g}, where there are {n_categories} categories"
        )
    codes = np.full(len(stored), -1, dtype=np.int32)
    codes[~missing] = given
    return codes


def check_indptr(indptr: np.ndarray, n: int, n_entries: int, what: str) -> np.ndarray:
    """Where the n rows (or columns) of a sparse matrix begin and end, (n + 1,), as int64.

    Raises:
        Malformed: it has another length, does not begin at 0, falls, or does not end at the number of entries.
    """
    if indptr.ndim != 1 or indptr.dtype.kind not in "iuf" or len(indptr) != n + 1:
        raise Malformed(f"{what} is {indptr.dtype} of shape {indptr.shape}, where {n + 1} places are needed")
    # R writes whole numbers beyond 32 bits as floating-point; NaN and fractions are unequal to what becomes of them.
    with np.errstate(invalid="ignore"):
        places = indptr.astype(np.int64)
    if (places != indptr).any() or places[0] != 0 or (places[1:] < places[:-1]).any():
        raise Malformed(f"{what} does not rise from 0")
    if places[-1] != n_entries:
        raise Malformed(f"{what} ends at {places[-1]}, but there are {n_entries} entries")
    return places


def check_indices(indices: np.ndarray, n: int, what: str) -> np.ndarray:
    """Indices of entries (m,), all from 0 to n - 1, as int32.

    Raises:
        Malformed: one is out of range or no whole number.
    """
    if indices.dtype.kind not in "iuf":
        raise Malformed(f"{what} holds {indices.dtype}, where indices are needed")
    if len(indices):
        # Written so that NaN is refused too.
        inside = indices.min() >= 0 and indices.max() < n
        if not inside or indices.dtype.kind == "f" and (indices != np.rint(indices)).any():
            raise Malformed(
                f"{what} holds an index outside 0 to {n - 1} (they go from {indices.min()} to {indices.max()})"
            )
    return indices.astype(np.int32, copy=False)


def _refuse_outside(file: h5py.File) -> None:
    """Raise where a part of the file lies in another file, which the file could choose freely."""

    def look(name: str, link: object) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"{name} is a link to another file ({link.filename})"
        part = file[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(part, h5py.Dataset) and (part.external or part.is_virtual):
            return f"the values of {name} lie in another file"
        return None

    if fault := file.visititems_links(look):
        raise Malformed(fault)


def _why_not_opened(path: str | Path, error: Exception, what: str) -> str:
    if isinstance(error, ValueError) or not os.path.exists(path):
        return "there is no such file; check the path"
    if os.path.isdir(path):
        return f"it is a folder; name the {what} file itself"
    number = error.errno or int((re.findall(r"errno = (\d+)", str(error)) or [0])[0])
    if number in (11, 35):
        return "another process holds it open for writing, perhaps a notebook; close it there and run again"
    if number in (37, 38, 45, 95):
        return (
            f"its disk knows no locks ({os.strerror(number)}); set the environment variable "
            "HDF5_USE_FILE_LOCKING=FALSE and run again"
        )
    if number:
        return f"it cannot be opened ({os.strerror(number)}); mend that and run again"
    with open(path, "rb") as stream:
        begin = stream.read(8)
    for magic, advice in _OTHER_FORMATS.items():
        if begin.startswith(magic):
            return f"it cannot be opened as {what}, {advice}"
    if "truncated file" in str(error):
        return "it is cut short; fetch or copy it again"
    if begin.startswith(b"\x89HDF"):
        return f"it is damaged ({_first_line(error)}); fetch or copy it again"
    return f"it cannot be opened as {what}, it is empty or of another format; save it as {what}"


def _why_not_read(file: h5py.File, error: Exception, what: str) -> str:
    if isinstance(error, Malformed):
        return f"{error}; the file is damaged or written by other rules, write or fetch it again"
    if isinstance(error, UnicodeDecodeError):
        return f"it holds text that is not UTF-8 ({error.object[:20]!r}); write the file again as UTF-8"
    if isinstance(error, OSError):
        for name, number in _missing_filters(file):
            return (
                f"{name} is compressed by {_FILTERS.get(number, 'a filter')} (HDF5 filter {number}), which is not "
                "installed here; install hdf5plugin beside h5py, or write the file again with gzip"
            )
        if error.errno:
            return f"it cannot be read ({os.strerror(error.errno)}); mend that and run again"
        return f"it cannot be read to its end, it is damaged ({_first_line(error)}); fetch or copy it again"
    return f"it has not the form of {what} ({type(error).__name__}: {_first_line(error)}); write or fetch it again"


def _missing_filters(file: h5py.File) -> list[tuple[str, int]]:
    """Names of parts, and numbers of the filters without which they cannot be read."""
    found = []

    def look(name: str, part: object) -> None:
        if isinstance(part, h5py.Dataset):
            made = part.id.get_create_plist()
            numbers = (made.get_filter(i)[0] for i in range(made.get_nfilters()))
            found.extend((name, number) for number in numbers if not h5py.h5z.filter_avail(number))

    file.visititems(look)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]
