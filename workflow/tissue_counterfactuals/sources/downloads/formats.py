"""What tells a whole data file from a cut one, from another file, and from a web page."""

import gzip
import hashlib
import zipfile
import zlib
from pathlib import Path

import h5py

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5ad", ".h5", ".hdf5")
# Of files whose form tells where they end.
WITH_AN_END = (*_HDF5_SUFFIXES, ".gz", ".parquet", ".zip")
_BLOCK = 1 << 22


def format_fault(path: Path, name: str) -> str | None:
    """What is wrong with the form of a file, as the middle of a sentence; None if it is what its name says.

    Looks at the beginning and, where the format has one, at the end: a file that was cut off is told.

    Args:
        name: what the file is to be called; its suffix says which format it must have.
    """
    with open(path, "rb") as file:
        beginning = file.read(512)
    if not beginning:
        return "is empty"
    if beginning.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "leads to a web page (HTML) and not to data"
    suffix = Path(name).suffix
    if suffix in _HDF5_SUFFIXES:
        if not beginning.startswith(_HDF5_MAGIC):
            return f"is no HDF5 file, as {name} must be"
        return None if _hdf5_is_whole(path) else "is an HDF5 file that is cut short"
    if suffix == ".gz":
        if not beginning.startswith(b"\x1f\x8b"):
            return f"is no gzip file, as {name} must be"
        return None if _gzip_is_whole(path) else "is a gzip file that is cut short or damaged"
    if suffix == ".parquet":
        if not beginning.startswith(b"PAR1"):
            return f"is no parquet file, as {name} must be"
        with open(path, "rb") as file:
            file.seek(-4, 2)
            return None if file.read() == b"PAR1" else "is a parquet file that is cut short"
    if suffix == ".zip":
        if not beginning.startswith(b"PK"):
            return f"is no zip archive, as {name} must be"
        return None if zipfile.is_zipfile(path) else "is a zip archive that is cut short"
    return None


def digest_of(path: str | Path, algorithm: str) -> str:
    """Hexadecimal checksum of a file; `algorithm` is one of hashlib's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _hdf5_is_whole(path: Path) -> bool:
    try:
        # Without a lock: shared disks that are read-only or know no locks would refuse it.
        h5py.File(path, "r", locking=False).close()
    except OSError:
        return False
    return True


def _gzip_is_whole(path: Path) -> bool:
    try:
        with gzip.open(path, "rb") as file:
            while file.read(_BLOCK):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return True
