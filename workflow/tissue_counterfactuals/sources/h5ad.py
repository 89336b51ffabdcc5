"""A user's own h5ad file to a slide; only the wanted rows are read, and the counts stay sparse."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import read_elem

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import check_slide, make_slide, new_provenance, record_filter
from tissue_counterfactuals.sources.columns import open_h5ad, pick, read_labels, read_texts
from tissue_counterfactuals.sources.download import sha256_of

# Stored entries of a matrix read at once (64 MB with their indices).
_BLOCK = 1 << 23

# Name, or beginning of the names, of what a simulated slide carries so that its truth can be computed.
_TRUTH = "simulation"


def read_h5ad_source(
    path: str | Path,
    layer: str | None = None,
    columns: dict[str, str | None] | None = None,
    spatial: str = "spatial",
    unit_um: float = 1.0,
    samples: list[str] | None = None,
    source: str | None = None,
    sha256: str | None = None,
) -> AnnData:
    """Read a file into the slide contract.

    Cells without a type or domain are dropped and counted in the provenance. The truth of a simulated slide
    (uns["simulation"] and all that is called simulation_*) is kept; other extras are left behind.

    Args:
        layer: where the raw counts are: None for X, "raw" for raw.X, else the name of a layer.
        columns: names in obs under the keys cell_type, domain, sample; sample None means one sample, named after
            the file.
        spatial: name in obsm of the coordinates (cells, 2).
        unit_um: micrometres per unit of the coordinates.
        samples: values of the sample column to keep; None keeps all.
        source: what the provenance calls the file, for example its address; None means its path.
        sha256: checksum that the file must have; None does not check.
    Returns:
        A slide that `check_slide` has passed.
    Raises:
        InputError: something named is missing (with what there is), or the data break the contract.
    """
    columns = {"cell_type": "cell_type", "domain": "domain", "sample": None} | (columns or {})
    where = f"file {path}"
    with open_h5ad(path) as file:
        checksum = sha256_of(path)
        if sha256 not in (None, checksum):
            raise InputError(
                f"{where}: its SHA-256 is {checksum}, but {sha256} is configured; use the right file or correct "
                "sha256."
            )
        labels = _read_labels(file, columns, where, Path(path).stem)
        matrix, var = _find_counts(file, layer, where)
        coordinates = _read_coordinates(file, spatial, len(labels), where)

        provenance = new_provenance(source or str(path), checksum)
        if isinstance(file.get("uns/provenance"), h5py.Group):
            upstream = read_elem(file["uns/provenance"])
            provenance["upstream"] = json.dumps(upstream, default=lambda value: value.tolist())
        genes = pd.Index(read_texts(var[var.attrs.get("_index", "_index")]))
        keep = _choose_cells(labels, columns, samples, len(genes), provenance, where)
        rows = np.flatnonzero(keep)

        counts = _read_rows(matrix, keep, (len(labels), len(genes)), where)
        slide = make_slide(
            counts, labels.iloc[rows], genes, coordinates[rows] * float(unit_um), provenance
        )
        if layer != "raw" and f"uns/{_TRUTH}" in file:
            _copy_truth(file, slide, rows)
    check_slide(slide, str(path))
    return slide


def _read_labels(
    file: h5py.File, columns: dict[str, str | None], where: str, name: str
) -> pd.DataFrame:
    """Cell ids (index) and labels, categorical, of all cells."""
    obs = file["obs"]
    labels = pd.DataFrame(index=read_texts(obs[obs.attrs.get("_index", "_index")]))
    for label, column in columns.items():
        if column is None:
            labels[label] = pd.Categorical([name] * len(labels))
            continue
        codes, categories = read_labels(pick(obs, column, where, "obs column", f"columns.{label}"))
        # Two stored categories may read the same as text (1 and "1"); pandas wants each once.
        unique = list(dict.fromkeys(categories))
        merged = np.array([unique.index(c) for c in categories] + [-1], dtype=np.int32)
        labels[label] = pd.Categorical.from_codes(merged[codes], unique)
    return labels


def _choose_cells(
    labels: pd.DataFrame,
    columns: dict[str, str | None],
    samples: list[str] | None,
    n_genes: int,
    provenance: dict,
    where: str,
) -> np.ndarray:
    """Mask of the cells to read; what is left out goes into the provenance."""
    keep = np.ones(len(labels), dtype=bool)
    if samples is not None:
        for sample in samples:
            if sample not in labels["sample"].cat.categories:
                raise InputError(
                    f"{where}: samples names {sample!r}, which no cell has in column {columns['sample']!r}; there "
                    f"are {', '.join(labels['sample'].cat.categories)}."
                )
        keep &= labels["sample"].isin(samples).to_numpy()
        record_filter(provenance, "chosen samples", (len(keep), n_genes), (keep.sum(), n_genes))
    for label in ("sample", "cell_type", "domain"):
        before = keep.sum()
        keep &= labels[label].notna().to_numpy()
        if keep.sum() < before:
            record_filter(provenance, f"{label} given", (before, n_genes), (keep.sum(), n_genes))
    if not keep.any():
        raise InputError(
            f"{where}: no cell has both a cell type (column {columns['cell_type']!r}) and a domain (column "
            f"{columns['domain']!r}); check columns and samples."
        )
    return keep


def _find_counts(
    file: h5py.File, layer: str | None, where: str
) -> tuple[h5py.Group | h5py.Dataset, h5py.Group]:
    """The matrix of counts and the gene table that belongs to it."""
    if layer == "raw":
        raw = pick(file, "raw", where, "part", "layer")
        return raw["X"], raw["var"]
    if layer is not None:
        return pick(file.get("layers"), layer, where, "layer", "layer"), file["var"]
    if "X" not in file:
        raise InputError(f"{where}: it has no X; key layer must say where the raw counts are.")
    return file["X"], file["var"]


def _read_coordinates(file: h5py.File, spatial: str, n_cells: int, where: str) -> np.ndarray:
    stored = pick(file.get("obsm"), spatial, where, "array of coordinates in obsm", "spatial")
    if not isinstance(stored, h5py.Dataset) or stored.shape != (n_cells, 2):
        shape = getattr(stored, "shape", "a table")
        raise InputError(
            f"{where}: the coordinates obsm[{spatial!r}] have the shape {shape}, but must be an array of {n_cells} "
            "cells x 2 axes (x, y)."
        )
    return stored[:].astype(np.float64)


def _read_rows(
    matrix: h5py.Group | h5py.Dataset, keep: np.ndarray, shape: tuple[int, int], where: str
) -> sp.csr_matrix:
    """The kept rows of a stored matrix (CSR, CSC or dense) as CSR float32, block by block."""
    if isinstance(matrix, h5py.Dataset):
        kind, stored = "dense", matrix.shape
    else:
        kind = str(matrix.attrs.get("encoding-type", matrix.attrs.get("h5sparse_format", "")))[:3]
        stored = tuple(matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape", ())))
    reader = {"dense": _read_dense, "csr": _read_csr, "csc": _read_csc}.get(kind)
    if reader is None or tuple(stored) != shape:
        raise InputError(
            f"{where}: the counts are stored as {kind or 'an unknown format'} of shape {tuple(map(int, stored))}, "
            f"but must be CSR, CSC or dense with {shape[0]} cells x {shape[1]} genes; save the file again."
        )
    return reader(matrix, keep, shape)


def _blocks(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows (or columns) that hold about _BLOCK entries each, one row at least."""
    start, last = 0, len(indptr) - 1
    while start < last:
        stop = int(np.searchsorted(indptr, indptr[start] + _BLOCK, side="right")) - 1
        stop = max(start + 1, min(stop, last))
        yield start, stop
        start = stop


def _read_csr(matrix: h5py.Group, keep: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    indptr = matrix["indptr"][:].astype(np.int64)
    lengths = np.diff(indptr)
    kept = np.concatenate([[0], np.cumsum(lengths[keep])])
    # Filled in place, so that the peak is one copy of the result and one block.
    data = np.empty(kept[-1], dtype=np.float32)
    indices = np.empty(kept[-1], dtype=np.int32)
    end = 0
    for start, stop in _blocks(indptr):
        if not keep[start:stop].any():
            continue
        entries = slice(indptr[start], indptr[stop])
        wanted = np.repeat(keep[start:stop], lengths[start:stop])
        begin, end = end, end + np.count_nonzero(wanted)
        data[begin:end] = matrix["data"][entries][wanted]
        indices[begin:end] = matrix["indices"][entries][wanted]
    return sp.csr_matrix((data, indices, kept), shape=(int(keep.sum()), shape[1]))


def _read_csc(matrix: h5py.Group, keep: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    indptr = matrix["indptr"][:].astype(np.int64)
    position = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    # Room for all entries: what stays empty is never touched and costs no memory.
    data = np.empty(indptr[-1], dtype=np.float32)
    indices = np.empty(indptr[-1], dtype=np.int32)
    kept = np.zeros_like(indptr)
    for start, stop in _blocks(indptr):
        entries = slice(indptr[start], indptr[stop])
        rows = position[matrix["indices"][entries]]
        wanted = rows >= 0
        ends = np.concatenate([[0], np.cumsum(wanted)])[indptr[start : stop + 1] - indptr[start]]
        kept[start + 1 : stop + 1] = kept[start] + ends[1:]
        filled = slice(kept[start], kept[stop])
        data[filled] = matrix["data"][entries][wanted]
        indices[filled] = rows[wanted]
    parts = (data[: kept[-1]], indices[: kept[-1]], kept)
    return sp.csc_matrix(parts, shape=(int(keep.sum()), shape[1])).tocsr()


def _read_dense(matrix: h5py.Dataset, keep: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    step = max(1, _BLOCK // shape[1])
    blocks = []
    for start in range(0, shape[0], step):
        wanted = keep[start : start + step]
        if wanted.any():
            block = matrix[start : start + step][wanted].astype(np.float32)
            blocks.append(sp.csr_matrix(block))
    return sp.vstack(blocks, format="csr")


def _copy_truth(file: h5py.File, slide: AnnData, rows: np.ndarray) -> None:
    """Carry over what the truth of a simulated slide needs; genes are those of X, cells the rows kept."""
    slide.uns[_TRUTH] = read_elem(file["uns"][_TRUTH])
    for part, table in (
        ("obs", slide.obs),
        ("var", slide.var),
        ("obsm", slide.obsm),
        ("varm", slide.varm),
    ):
        for name in [n for n in file.get(part, ()) if n.startswith(_TRUTH)]:
            value = read_elem(file[part][name])
            table[name] = value[rows] if part in ("obs", "obsm") else value
