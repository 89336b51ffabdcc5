"""Labels straight from the obs table of an h5ad file, with h5py alone: planning a run must not load a slide."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.hdf5 import Malformed, attribute, open_hdf5, read_codes, read_flat
from tissue_counterfactuals.sources.labels import tidy_labels


@contextmanager
def open_h5ad(path: str | Path) -> Iterator[h5py.File]:
    """Open an h5ad file for reading; whatever goes wrong until the block ends is told by its cause (see `open_hdf5`).

    Raises:
        InputError: as `open_hdf5`, or no AnnData inside.
    """
    with open_hdf5(path) as file:
        if not all(isinstance(file.get(part), h5py.Group) for part in ("obs", "var")):
            raise InputError(f"file {path}: it holds no AnnData tables obs and var; save it with anndata 0.7 or newer.")
        yield file


def pick(parent: h5py.Group | None, name: str, where: str, what: str, key: str) -> h5py.Group | h5py.Dataset:
    """The child of a group, or an InputError that lists the children and the nearest name.

    `where` and `what` begin the message ("file x.h5ad", "obs column"); `key` is the configuration key to mend.
    """
    if parent is not None and name in parent:
        return parent[name]
    hidden = () if parent is None else (attribute(parent, "_index"), "__categories")
    names = sorted(child for child in parent or () if child not in hidden)
    near = difflib.get_close_matches(name, names, n=1)
    raise InputError(
        f"{where}: there is no {what} {name!r} (key {key}); "
        f"{f'did you mean {near[0]!r}, of ' if near else 'there is '}{', '.join(names) or 'none at all'}."
    )


def feature_names(path: Path, table: str = "var") -> list[str]:
    """The index of a table of genes.

    Raises:
        InputError: the file cannot be read.
    """
    with open_h5ad(path) as file:
        return read_texts(file[table][attribute(file[table], "_index", "_index")])


def count_labels(path: Path, name: str) -> dict[str, int]:
    """The labels that cells have in an obs column of a file, in the file's order -> how many cells.

    Raises:
        InputError: the column is not there, or the file cannot be read.
    """
    with open_h5ad(path) as file:
        codes, categories = read_labels(pick(file["obs"], name, f"file {path}", "obs column", "source"))
    counts = np.bincount(codes[codes >= 0], minlength=len(categories)).tolist()
    return {label: n for label, n in zip(categories, counts, strict=True) if n}


def find_coordinates(
    file: h5py.File, name: str, n_cells: int, where: str, key: str = "spatial"
) -> h5py.Dataset | np.ndarray:
    """An array of obsm, unread where it is stored as one, if it holds numbers (cells, 2); `where`, `key` as in `pick`.

    Raises:
        InputError: it is not there, or of another shape or type.
    """
    stored = pick(file.get("obsm"), name, where, "array of coordinates in obsm", key)
    if isinstance(stored, h5py.Group) and "indptr" in stored:
        raise InputError(
            f"{where}: the coordinates obsm[{name!r}] are stored as a sparse matrix; store them as a dense one."
        )
    if isinstance(stored, h5py.Group):
        # A data frame: its columns in their order, without the index.
        names = [write_text(axis) for axis in stored.attrs.get("column-order", ())]
        axes = [read_flat(stored[axis]) for axis in names]
        stored = np.stack(axes, axis=1) if axes else np.empty((n_cells, 0))
    if stored.shape != (n_cells, 2) or stored.dtype.kind not in "iuf":
        raise InputError(
            f"{where}: the coordinates obsm[{name!r}] have the shape {stored.shape} and are of type {stored.dtype}, "
            f"but must be numbers of {n_cells} cells x 2 axes (x, y)."
        )
    return stored


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
        categories = read_texts(column["categories"])
        return read_codes(column["codes"], len(categories)), categories
    if isinstance(column, h5py.Group):
        codes, categories = _encode(read_texts(column))
        return np.where(read_flat(column["mask"]).astype(bool), np.int32(-1), codes), categories
    # Before anndata 0.8 the categories of all columns stood together, and not every writer points to them.
    name = column.name.rsplit("/", 1)[-1]
    stored = column.attrs.get("categories", f"{column.parent.name}/__categories/{name}")
    if not isinstance(stored, str) or stored in column.file:
        categories = read_texts(column.file[stored])
        return read_codes(column, len(categories)), categories
    return _encode(read_texts(column))


def read_texts(values: h5py.Group | h5py.Dataset) -> list[str]:
    """A stored array (n,), maybe beside a mask, or of categories, as text; whole numbers without a decimal point.

    Raises:
        Malformed: it holds neither text nor numbers.
    """
    if isinstance(values, h5py.Group) and "codes" in values:
        categories = [*read_texts(values["categories"]), ""]
        return [categories[code] for code in read_codes(values["codes"], len(categories) - 1)]
    stored = read_flat(values["values"] if isinstance(values, h5py.Group) else values)
    if stored.dtype.kind not in "OSTUbiuf":
        raise Malformed(f"{values.name} holds {stored.dtype}, where text or numbers are needed")
    return write_texts(stored)


def write_texts(values: np.ndarray) -> list[str]:
    """Values (n,) as text, each as `write_text` writes it."""
    return [write_text(value) for value in values.tolist()]


def write_text(value: object) -> str:
    """A value as text: bytes decoded, whole numbers without a decimal point where they are exact."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return value.decode() if isinstance(value, bytes) else str(value)


def _encode(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    categories = sorted(set(texts))
    codes = {text: code for code, text in enumerate(categories)}
    return np.array([codes[text] for text in texts], dtype=np.int32), categories
