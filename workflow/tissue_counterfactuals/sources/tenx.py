"""The matrix of a 10x bundle (Xenium, Space Ranger): HDF5 or Matrix Market, counts of barcodes x features."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.columns import read_texts
from tissue_counterfactuals.sources.genes import GENE_TYPE
from tissue_counterfactuals.sources.hdf5 import Malformed, check_indices, check_indptr, open_hdf5, read_flat
from tissue_counterfactuals.sources.text_tables import count_rows, read_table, refuse_web_page

# Stored entries read at once (64 MB with their indices).
_BLOCK = 1 << 23


@dataclass(frozen=True)
class TenxMatrix:
    """Counts (barcodes, features) CSR float32; ids of the rows; name, type and, if it is there, id of each feature."""

    counts: sp.csr_matrix
    barcodes: pd.Index
    names: np.ndarray
    types: np.ndarray
    ids: np.ndarray | None


def read_10x(path: Path) -> TenxMatrix:
    """Read `*_matrix.h5`, or the folder with matrix.mtx, barcodes.tsv and features.tsv (each also as .gz).

    scanpy's reader takes the types of numbers as they are stored; bundles written from R hold floating-point
    indices, at which it fails, so the arrays are read and cast here, block by block.

    Raises:
        InputError: not there, not whole, or not such a matrix.
    """
    matrix = _read_folder(path) if path.is_dir() else _read_h5(path)
    n_rows, n_columns = len(matrix.barcodes), len(matrix.names)
    if matrix.counts.shape != (n_rows, n_columns):
        raise InputError(
            f"file {path}: its counts have {matrix.counts.shape[0]} barcodes x {matrix.counts.shape[1]} features, but "
            f"it names {n_rows} x {n_columns}; fetch it again."
        )
    if not (matrix.types == GENE_TYPE).any():
        raise InputError(
            f"file {path}: it has no feature of the type {GENE_TYPE} (it has {', '.join(sorted(set(matrix.types)))}); "
            "use the matrix that holds the genes."
        )
    matrix.counts.sum_duplicates()
    matrix.counts.eliminate_zeros()
    return matrix


def count_barcodes(path: Path, enough: int) -> int:
    """How many barcodes a matrix names, in a folder counted up to `enough`; errors as `read_10x`."""
    if path.is_dir():
        return count_rows(_part(path, "barcodes.tsv"), enough, header=False)
    with open_hdf5(path, "HDF5 matrix of 10x") as file:
        return file["matrix/barcodes"].size


def read_features(path: Path) -> tuple[list[str], list[str]]:
    """Name and type of each feature; errors as `read_10x`."""
    if path.is_dir():
        table = _features_of(path)
        return list(table["name"]), list(table["type"])
    with open_hdf5(path, "HDF5 matrix of 10x") as file:
        group = file["matrix/features"]
        return read_texts(group["name"]), read_texts(group["feature_type"])


def _read_h5(path: Path) -> TenxMatrix:
    if path.is_file() and not h5py.is_hdf5(path):
        refuse_web_page(path)
    with open_hdf5(path, "HDF5 matrix of 10x") as file:
        if not isinstance(file.get("matrix"), h5py.Group):
            raise InputError(
                f"file {path}: it is no feature matrix of 10x (it has no group matrix); use the file that ends in "
                "feature_matrix.h5 or feature_bc_matrix.h5."
            )
        group = file["matrix"]
        n_features, n_barcodes = (int(size) for size in read_flat(group["shape"]))
        stored = _read_arrays(group, n_features, n_barcodes)
        return TenxMatrix(
            sp.csr_matrix(stored, shape=(n_barcodes, n_features)),
            pd.Index(read_texts(group["barcodes"])),
            np.array(read_texts(group["features/name"]), dtype=object),
            np.array(read_texts(group["features/feature_type"]), dtype=object),
            np.array(read_texts(group["features/id"]), dtype=object) if "features/id" in group else None,
        )


def _read_arrays(group: h5py.Group, n_features: int, n_barcodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n_entries = group["data"].size
    if group["data"].shape != (n_entries,) or group["indices"].shape != (n_entries,):
        raise Malformed("matrix/data and matrix/indices have not the same length")
    indptr = check_indptr(group["indptr"][:], n_barcodes, n_entries, "matrix/indptr")
    data = np.empty(n_entries, dtype=np.float32)
    indices = np.empty(n_entries, dtype=np.int32)
    for start in range(0, n_entries, _BLOCK):
        block = slice(start, start + _BLOCK)
        data[block] = group["data"][block]
        indices[block] = check_indices(group["indices"][block], n_features, "matrix/indices")
    return data, indices, indptr


def _read_folder(folder: Path) -> TenxMatrix:
    from scipy.io import mmread

    matrix = _part(folder, "matrix.mtx")
    barcodes = _part(folder, "barcodes.tsv")
    refuse_web_page(matrix)
    try:
        with pa.input_stream(str(matrix), compression="detect") as stream:
            counts = mmread(stream).T.tocsr().astype(np.float32)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"file {matrix}: it is cut short or no Matrix Market file; fetch it again.") from error
    table = _features_of(folder)
    return TenxMatrix(
        counts,
        pd.Index(read_table(barcodes, texts=("barcode",), names=("barcode",))["barcode"]),
        table["name"].to_numpy(),
        table["type"].to_numpy(),
        table["id"].to_numpy(),
    )


def _features_of(folder: Path) -> pd.DataFrame:
    columns = ("id", "name", "type")
    return read_table(_part(folder, "features.tsv"), texts=columns, names=columns)


def _part(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    raise InputError(f"folder {folder}: it holds no {name} or {name}.gz; fetch the folder again as a whole.")
