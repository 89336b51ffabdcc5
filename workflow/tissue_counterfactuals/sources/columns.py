"""Labels straight from the obs table of an h5ad file, with h5py alone: planning a run must not load a slide."""

import difflib
from pathlib import Path

import h5py
import numpy as np

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.labels import tidy_labels


def open_h5ad(path: str | Path) -> h5py.File:
    """Open an h5ad file for reading.

    Raises:
        InputError: no such file, not HDF5 (or cut short), or no AnnData inside.
    """
    if not Path(path).is_file():
        raise InputError(f"file {path}: there is no such file; check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"file {path}: it cannot be opened as h5ad, it is cut short or of another format; fetch it again "
            "or save it as h5ad."
        ) from error
    if not all(isinstance(file.get(part), h5py.Group) for part in ("obs", "var")):
        file.close()
        raise InputError(
            f"file {path}: it holds no AnnData tables obs and var; save it with anndata 0.7 or newer."
        )
    return file


def pick(
    parent: h5py.Group | None, name: str, where: str, what: str, key: str
) -> h5py.Group | h5py.Dataset:
    """The child of a group, or an InputError that lists the children and the nearest name.

    `where` and `what` begin the message ("file x.h5ad", "obs column"); `key` is the configuration key to mend.
    """
    if parent is not None and name in parent:
        return parent[name]
    hidden = () if parent is None else (parent.attrs.get("_index"), "__categories")
    names = sorted(child for child in parent or () if child not in hidden)
    near = difflib.get_close_matches(name, names, n=1)
    raise InputError(
        f"{where}: there is no {what} {name!r} (key {key}); "
        f"{f'did you mean {near[0]!r}, of ' if near else 'there is '}{', '.join(names) or 'none at all'}."
    )


def read_labels(
    column: h5py.Group | h5py.Dataset, what: str = "label", notes: list[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Codes and categories of a column of obs, whatever its encoding.

    Understands categoricals (also those of anndata < 0.8), text, numbers, and arrays with a mask. Whole numbers
    become text without a decimal point.

    Args:
        what, notes: as in `tidy_labels`, which every label goes through.
    Returns:
        codes (n,) int32, -1 where the label is missing; categories as text, in the file's order (categoricals) or
        sorted (others).
    """
    return tidy_labels(*_stored_labels(column), what, notes)


def _stored_labels(column: h5py.Group | h5py.Dataset) -> tuple[np.ndarray, list[str]]:
    if isinstance(column, h5py.Group) and "codes" in column:
        return column["codes"][:].astype(np.int32), read_texts(column["categories"])
    if isinstance(column, h5py.Group):
        codes, categories = _encode(read_texts(column["values"]))
        return np.where(column["mask"][:], np.int32(-1), codes), categories
    if "categories" in column.attrs:
        return column[:].astype(np.int32), read_texts(column.file[column.attrs["categories"]])
    return _encode(read_texts(column))


def read_texts(values: h5py.Dataset) -> list[str]:
    """A stored array (n,) as text; whole numbers without a decimal point."""
    if h5py.check_string_dtype(values.dtype):
        return list(values.asstr()[:])
    return write_texts(values[:])


def write_texts(values: np.ndarray) -> list[str]:
    """Values (n,) as text: bytes decoded, whole numbers without a decimal point."""
    if np.issubdtype(values.dtype, np.floating):
        return [str(int(x)) if float(x).is_integer() else str(x) for x in values]
    return [x.decode() if isinstance(x, bytes) else str(x) for x in values]


def _encode(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    categories = sorted(set(texts))
    codes = {text: code for code, text in enumerate(categories)}
    return np.array([codes[text] for text in texts], dtype=np.int32), categories
