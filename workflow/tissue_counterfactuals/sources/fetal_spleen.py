"""Human fetal spleen, Visium (Suo et al. 2022), four samples in one file `Visium10X_data_SP.h5ad`.

X holds log-normalised values, not counts, but these can be had back: within a spot every value is one and the same
step times a whole number. obs holds `sample_id`, obsm the coordinates `spatial` in pixels; gene symbols repeat.
A spot has neither cell type nor domain here: all are called `spot` and `spleen`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.columns import count_labels, feature_names, open_h5ad
from tissue_counterfactuals.sources.headers import require_samples

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

SAMPLE = "sample_id"
N_SAMPLES = 4

# How far from a whole number a recovered count may lie: float32 logarithms leave about 1e-6 of the count, a value
# that is no multiple of the spot's step lies anywhere up to 0.5.
_TOLERANCE = 0.05


def cells(files: dict[str, Path], dataset: dict, enough: int) -> dict[str, int]:
    """Spots of each sample, in the file's order."""
    return count_labels(files["h5ad"], SAMPLE)


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The symbols of the file, as they stand there."""
    return feature_names(files["h5ad"])


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> AnnData:
    """Some samples, None for all, as a slide of recovered counts.

    Raises:
        InputError: the file is that of another organ, or its values are not those of counts.
    """
    from tissue_counterfactuals.slide import check_slide, make_slide, new_provenance, record_filter
    from tissue_counterfactuals.sources.counts import FileCounts
    from tissue_counterfactuals.sources.genes import unique_symbols
    from tissue_counterfactuals.sources.h5ad import check_sha256
    from tissue_counterfactuals.sources.ids import check_ids
    from tissue_counterfactuals.sources.stored import keep_genes, note, read_column, read_coordinates, read_index

    path = files["h5ad"]
    where = f"file {path}"
    provenance = new_provenance(str(path))
    with open_h5ad(path) as file:
        provenance["sha256"] = check_sha256(path, dataset["sha256"])
        ids = read_index(file["obs"])
        check_ids(ids, where)
        sample = read_column(file["obs"], SAMPLE, where, "source", provenance)
        genes = unique_symbols(read_index(file["var"]), provenance, where)
        pixels = read_coordinates(file, "spatial", len(ids), where, "source")
        base = _log_base(file)
        if "X" not in file:
            raise InputError(f"{where}: it has no X; use the file as it was published.")
    keep = _choose(sample, samples, where)
    shape = (len(ids), len(genes))
    note(provenance, "in_file", _held(sample, len(genes)))
    if keep.sum() < len(keep):
        record_filter(provenance, "chosen samples", shape, (keep.sum(), len(genes)))
    stored = FileCounts(path, "X", ids[keep], genes, keep, where)
    values = stored.take(np.ones(keep.sum(), dtype=bool), np.ones(len(genes), dtype=bool))
    counts, totals = recover_counts(values, base, ids[keep], where)
    are_genes = keep_genes(genes, None, len(ids[keep]), provenance)
    counts, genes = counts[:, are_genes], genes[are_genes]
    note(
        provenance,
        "counts",
        f"recovered from log-normalised values: whole numbers within {_TOLERANCE:g}, spots had been scaled to "
        f"{np.median(totals):,.6g} (median)",
    )
    sample = sample[keep].remove_unused_categories()
    labels = pd.DataFrame({"cell_type": "spot", "domain": "spleen"}, index=ids[keep])
    labels["sample"] = sample
    coordinates, units = _to_micrometres(pixels[keep], sample, where)
    note(provenance, "unit", {name: f"{um:.5g} um per pixel" for name, um in units.items()})
    slide = make_slide(counts, labels, genes, coordinates, provenance)
    check_slide(slide, str(path))
    return slide


def recover_counts(values: sp.csr_matrix, base: float, spots: pd.Index, where: str) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts of each spot from log(1 + counts * step), whose step is unknown: its smallest value is one count.

    Args:
        values: (spots, genes), the logarithms.
        base: of the logarithm.
    Returns:
        Counts, CSR float32 of whole numbers; what each spot's values add up to (spots,): the depth that it had been
        scaled to.
    Raises:
        InputError: a spot whose values are no multiples of its smallest one, or negative, or raw counts already.
    """
    values = sp.csr_matrix(values, dtype=np.float64)
    values.eliminate_zeros()
    if values.nnz == 0 or not (values.data > 0).all():
        raise InputError(
            f"{where}: X holds {'negative values or NaN' if values.nnz else 'no values'}, but must hold log-normalised "
            "counts; use the file as it was published."
        )
    if (values.data == np.rint(values.data)).all():
        raise InputError(
            f"{where}: X holds whole numbers, so these are counts already and not log-normalised; read the file with "
            "source h5ad."
        )
    linear = values.copy()
    linear.data = np.expm1(values.data * np.log(base))
    lengths = np.diff(linear.indptr)
    filled = np.flatnonzero(lengths)
    step = np.ones(linear.shape[0])
    step[filled] = np.minimum.reduceat(linear.data, linear.indptr[filled])
    rough = linear.data / np.repeat(step, lengths)
    # The smallest value carries its rounding into all others: with whole numbers for them the step is known better.
    whole = sp.csr_matrix((np.rint(rough), linear.indices, linear.indptr), shape=linear.shape)
    totals = np.asarray(linear.sum(axis=1)).ravel()
    step[filled] = (totals / np.maximum(np.asarray(whole.sum(axis=1)).ravel(), 1))[filled]
    scaled = linear.data / np.repeat(step, lengths)
    counts = np.rint(scaled)
    off = np.abs(scaled - counts)
    if (off > _TOLERANCE).any():
        entry = int(off.argmax())
        spot = np.searchsorted(linear.indptr, entry, side="right") - 1
        raise InputError(
            f"{where}: the values of spot {spots[spot]!r} are no log-normalised counts: relative to its smallest one "
            f"there is {scaled[entry]:.3f}, which is no whole number; use the file as it was published."
        )
    recovered = sp.csr_matrix((counts.astype(np.float32), linear.indices, linear.indptr), shape=linear.shape)
    return recovered, totals


def _choose(sample: pd.Categorical, samples: list[str] | None, where: str) -> np.ndarray:
    present = list(sample.remove_unused_categories().categories)
    if len(present) != N_SAMPLES:
        raise InputError(
            f"{where}: it holds {len(present)} samples ({', '.join(present)}), but the spleen has {N_SAMPLES}; the "
            "portal's labels of Visium10X_data_SP.h5ad and Visium10X_data_TH.h5ad are swapped, so take the other file."
        )
    require_samples(where, samples, present, f"which no spot has in column {SAMPLE!r}")
    given = ~pd.isna(sample)
    return given if samples is None else given & sample.isin(samples)


def _held(sample: pd.Categorical, n_genes: int) -> dict:
    sizes = sample.value_counts()
    cells = {str(name): int(n) for name, n in sizes.items() if n}
    return {"cells": cells, "genes": n_genes, "samples": len(cells)}


def _log_base(file: h5py.File) -> float:
    """Base of the logarithm of X; scanpy notes it only where it is not e."""
    stored = file.get("uns/log1p/base")
    value = stored[()] if stored is not None and stored.shape == () else None
    return float(value) if isinstance(value, int | float | np.number) else float(np.e)


def _to_micrometres(pixels: np.ndarray, sample: pd.Categorical, where: str) -> tuple[np.ndarray, dict[str, float]]:
    """Coordinates in micrometres, and sample -> micrometres per pixel: the pitch of the spots is the ruler."""
    from tissue_counterfactuals.sources.places import check_places, nearest_distance
    from tissue_counterfactuals.sources.spots import PITCH_UM

    coordinates, units = np.empty_like(pixels), {}
    for name in sample.categories:
        own = np.asarray(sample == name)
        pitch = nearest_distance(pixels[own])
        if not pitch > 0:
            raise InputError(
                f"{where}: the spots of sample {name!r} lie on top of each other, so the pixel size cannot be told; "
                "use the file as it was published."
            )
        units[name] = PITCH_UM / pitch
        coordinates[own] = pixels[own] * units[name]
        check_places(coordinates[own], f"{where}, sample {name!r}", published=True)
    return coordinates, units
