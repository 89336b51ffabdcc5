"""The one data contract: what a slide is, how it is checked, read, written and normalised.

A slide is an AnnData with
    X                 raw counts, CSR, float32, whole numbers >= 0 (cells x genes)
    obs               `cell_type`, `domain`, `sample`: categorical, no gaps; index: unique cell ids
    var               index: unique gene symbols
    obsm["spatial"]   float64 (cells, 2), micrometres
    uns["provenance"] dict: where the slide comes from and every filter that it went through
"""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from tissue_counterfactuals import __version__
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.sources.labels import MISSING, clean_label, is_missing, refuse_ids

# Column of `var` (bool): genes chosen as variable, see `sources.prepare`.
VARIABLE = "variable_genes"

LABELS = ("cell_type", "domain", "sample")

# Entries of X looked at together: large enough to be fast, small enough to cost no memory (16 MB of float32).
_BLOCK = 1 << 22

# No cell and no spot holds more molecules of one gene than this, and no slide reaches farther from its origin (1 km).
MAX_COUNT = 1_000_000
_MAX_UM = 1e9


def make_slide(
    counts: sp.csr_matrix | sp.csr_array | np.ndarray,
    labels: pd.DataFrame,
    genes: pd.Index,
    coordinates_um: np.ndarray,
    provenance: dict,
) -> AnnData:
    """Put parts into the form of the contract; `check_slide` says whether what they hold is right.

    Args:
        counts: (cells, genes), any number type; dense is made sparse, sparse is made CSR.
        labels: one row per cell, index = cell ids; columns of LABELS and any others.
        genes: symbols, (genes,).
        coordinates_um: (cells, 2) in micrometres.
        provenance: what uns["provenance"] shall hold.
    """
    counts = sp.csr_matrix(counts, dtype=np.float32)
    counts.sum_duplicates()
    obs = labels.copy()
    obs.index = obs.index.astype(str)
    for label in LABELS:
        if label in obs:
            filled = obs[label].astype("category").cat.remove_unused_categories()
            obs[label] = filled.cat.rename_categories([str(c) for c in filled.cat.categories])
    return AnnData(
        counts,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes, dtype=str)),
        obsm={"spatial": np.asarray(coordinates_um, dtype=np.float64)},
        uns={"provenance": provenance},
    )


def new_provenance(source: str, sha256: str = "") -> dict[str, str]:
    """The start of uns["provenance"]: where the counts come from, and no filter yet."""
    return {"source": source, "sha256": sha256, "version": __version__, "filters": "[]"}


def record_filter(provenance: dict, name: str, before: tuple[int, int], after: tuple[int, int]) -> None:
    """Append a filter to a provenance; `before` and `after` are shapes (cells, genes).

    The list is kept as JSON text, because h5ad has no list of records.
    """
    filters = json.loads(provenance.get("filters", "[]"))
    filters.append(
        {
            "filter": name,
            "cells_before": int(before[0]),
            "cells_after": int(after[0]),
            "genes_before": int(before[1]),
            "genes_after": int(after[1]),
        }
    )
    provenance["filters"] = json.dumps(filters)


def record_notes(provenance: dict, notes: list[str]) -> None:
    """Append sentences about what was found or decided to a provenance, under `notes`, as JSON text."""
    if notes:
        provenance["notes"] = json.dumps([*json.loads(provenance.get("notes", "[]")), *notes])


def check_slide(slide: AnnData, name: str) -> None:
    """Refuse a slide that breaks the contract; `name` is what the message calls it.

    Raises:
        InputError: the first breach, with the column, cell or gene and the way to mend it.
    """
    check_tables(slide, name)
    _check_counts(slide, f"slide {name}")


def check_tables(slide: AnnData, name: str) -> None:
    """The part of `check_slide` that looks at all but X, for slides whose counts are still in a file.

    Raises:
        InputError: the first breach.
    """
    where = f"slide {name}"
    if slide.n_obs == 0 or slide.n_vars == 0:
        empty = "cells" if slide.n_obs == 0 else "genes"
        raise InputError(
            f"{where}: it has no {empty} ({slide.n_obs} cells x {slide.n_vars} genes); check the filters "
            "(preprocess) and the chosen samples."
        )
    _check_names(slide.obs_names, where, "cell id", "make the ids unique, for example by a sample prefix")
    _check_names(slide.var_names, where, "gene symbol", "merge the doubles or rename them")
    for label in LABELS:
        _check_label(slide.obs, label, where)
    _check_coordinates(slide, where)
    if not isinstance(slide.uns.get("provenance"), dict):
        raise InputError(
            f"{where}: uns['provenance'] is missing; write there a dict that says where the slide comes from."
        )


def _check_names(names: pd.Index, where: str, what: str, fix: str) -> None:
    doubled = names.duplicated()
    if doubled.any():
        first = names[doubled.argmax()]
        raise InputError(
            f"{where}: the {what} {first!r} occurs {(names == first).sum()} times ({doubled.sum()} "
            f"duplicates in all); {fix}."
        )
    missing = names.str.strip().str.lower().isin(MISSING)
    if missing.any():
        raise InputError(
            f"{where}: the {what} {names[missing.argmax()]!r} at place {missing.argmax()} says that there is none "
            f"({missing.sum()} such in all); name it, or leave it out."
        )


def _check_label(obs: pd.DataFrame, label: str, where: str) -> None:
    if label not in obs:
        raise InputError(
            f"{where}: obs has no column {label!r} (it has {', '.join(map(str, obs.columns)) or 'none'}); "
            f"name the column to use under columns.{label}."
        )
    column = obs[label]
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{where}: obs column {label!r} is empty for {missing.sum()} cells, the first is "
            f"{obs.index[missing.argmax()]!r}; label these cells or drop them."
        )
    if not isinstance(column.dtype, pd.CategoricalDtype):
        raise InputError(
            f"{where}: obs column {label!r} is of type {column.dtype}; make it categorical "
            f"(obs[{label!r}].astype('category'))."
        )
    refuse_ids(len(column.cat.categories), len(obs), f"obs column {label!r}", where)
    for name in map(str, column.cat.categories):
        if is_missing(name) or clean_label(name) != name:
            raise InputError(
                f"{where}: obs column {label!r} holds the label {name!r}, which is empty, says that there is none, or "
                "has a line break, tab or space at an end; rename it or drop its cells."
            )


def _check_coordinates(slide: AnnData, where: str) -> None:
    if "spatial" not in slide.obsm:
        raise InputError(
            f"{where}: there are no coordinates, obsm['spatial'] is missing (obsm has "
            f"{', '.join(slide.obsm) or 'nothing'}); name the array to use under spatial."
        )
    coordinates = slide.obsm["spatial"]
    if not isinstance(coordinates, np.ndarray) or coordinates.shape != (slide.n_obs, 2):
        raise InputError(
            f"{where}: the coordinates obsm['spatial'] have shape {np.shape(coordinates)}, but must be an "
            f"array of {slide.n_obs} cells x 2 axes (x, y)."
        )
    if coordinates.dtype != np.float64:
        raise InputError(
            f"{where}: the coordinates obsm['spatial'] are of type {coordinates.dtype}; give float64, in micrometres."
        )
    # Written so that NaN is refused too.
    bad = ~(np.abs(coordinates) <= _MAX_UM).all(axis=1)
    if bad.any():
        first = bad.argmax()
        raise InputError(
            f"{where}: {bad.sum()} cells have no coordinates within 1 km, the first is {slide.obs_names[first]!r} at "
            f"{tuple(coordinates[first].tolist())} um; drop or place them, or correct the unit (unit_um)."
        )


def _check_counts(slide: AnnData, where: str) -> None:
    counts = slide.X
    if not (sp.issparse(counts) and counts.format == "csr"):
        kind = counts.format.upper() if sp.issparse(counts) else type(counts).__name__
        raise InputError(f"{where}: X is {kind}; give the counts as a scipy CSR matrix.")
    if counts.dtype != np.float32:
        raise InputError(f"{where}: X is of type {counts.dtype}; give the counts as float32.")
    for start in range(0, len(counts.data), _BLOCK):
        block = counts.data[start : start + _BLOCK]
        good = are_counts(block)
        if good.all():
            continue
        position = start + int(np.argmin(good))
        cell = slide.obs_names[np.searchsorted(counts.indptr, position, side="right") - 1]
        gene = slide.var_names[counts.indices[position]]
        raise InputError(f"{where}: cell {cell!r}, gene {gene!r} {count_fault(float(counts.data[position]))}.")


def are_counts(values: np.ndarray) -> np.ndarray:
    """Which values (n,) are counts that a cell can have: whole, not negative, at most MAX_COUNT."""
    # A comparison with NaN is false, so one expression finds all faults.
    return (values >= 0) & (values <= MAX_COUNT) & (values == np.rint(values))


def count_fault(value: float) -> str:
    """What is wrong with a value that is no count, and how to mend it: the end of a sentence."""
    if np.isnan(value):
        return "has no count (NaN); put 0 where nothing was seen, or drop the cell"
    if np.isinf(value):
        return f"has an infinite count ({value}); repair or drop the cell"
    if value < 0:
        return (
            f"has the negative count {value:g}; give raw counts, not scaled or batch-corrected values "
            "(key layer says where they are)"
        )
    if value > MAX_COUNT:
        return (
            f"has the count {value:.10g}, and no cell can have more than {MAX_COUNT:,}; give raw counts (key layer "
            "says where they are), or repair or drop the cell"
        )
    return (
        f"has the fractional count {value:g}, which looks log-normalised; give raw counts (key layer "
        "says where they are)"
    )


def read_slide(path: str | Path, check: bool = True, counts: bool = True) -> AnnData:
    """Read a slide from h5ad; X stays sparse, and without `counts` on the disk.

    Raises:
        InputError: no such file, not h5ad, or (with `check`) not a slide.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"slide {path}: there is no such file; check the path.")
    try:
        slide = anndata.read_h5ad(path, backed=None if counts else "r")
    except OSError as error:
        raise InputError(
            f"slide {path}: it cannot be read as h5ad ({str(error).splitlines()[0]}); fetch or make it again."
        ) from error
    if check:
        check_slide(slide, str(path))
    return slide


def write_slide(slide: AnnData, path: str | Path) -> None:
    """Check a slide and write it as h5ad, lightly compressed (gzip); the file appears whole or not at all.

    Raises:
        InputError: the slide breaks the contract.
    """
    check_slide(slide, str(path))
    with atomic_path(path) as temporary:
        # Not LZF: its table starts with what the memory last held, so that one run in dozens has other bytes.
        slide.write_h5ad(temporary, compression="gzip", compression_opts=1)


def normalize_counts(
    counts: sp.csr_matrix | sp.csr_array | np.ndarray, target_sum: float = 1e4
) -> sp.csr_matrix | sp.csr_array | np.ndarray:
    """Scale every cell to `target_sum` counts (CP10K): x / sum(x) * target_sum; empty cells stay 0.

    Args:
        counts: (cells, genes), sparse or dense.
    Returns:
        float32 of the same shape: CSR where the input is sparse (its own copy), else dense.
    """
    library = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = np.divide(target_sum, library, out=np.zeros_like(library), where=library > 0)
    scale = scale.astype(np.float32)
    if not sp.issparse(counts):
        return np.asarray(counts, dtype=np.float32) * scale[:, None]
    normalized = counts.tocsr().astype(np.float32, copy=True)
    normalized.data *= np.repeat(scale, np.diff(normalized.indptr))
    return normalized


def noise_of_log_mean(counts: sp.csr_matrix | sp.csr_array) -> np.ndarray:
    """Variance (genes,) of log1p of the mean CP10K of counts (cells, genes), from the scatter of its cells."""
    normalized = normalize_counts(counts).astype(np.float64)
    n = normalized.shape[0]
    mean = np.asarray(normalized.mean(axis=0)).ravel()
    squares = np.asarray(normalized.multiply(normalized).mean(axis=0)).ravel()
    return np.maximum(squares - mean**2, 0) / max(n - 1, 1) / (1 + mean) ** 2


def log_normalize(
    counts: sp.csr_matrix | sp.csr_array | np.ndarray, target_sum: float = 1e4
) -> sp.csr_matrix | sp.csr_array | np.ndarray:
    """log(1 + CP10K), natural logarithm: the scale on which neighbourhoods are averaged.

    Same forms in and out as `normalize_counts`: (n, genes), CSR or dense.
    """
    normalized = normalize_counts(counts, target_sum)
    values = normalized.data if sp.issparse(normalized) else normalized
    np.log1p(values, out=values)
    return normalized
