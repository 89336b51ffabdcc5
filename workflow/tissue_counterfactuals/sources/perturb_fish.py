"""Perturb-FISH of a tumour (Binan et al. 2025): the tables of one section, whose rows are joined by their order.

Three tables have a row for every segmented cell, without a header; the fourth column of numbers among them, the place
of the centroid in the mask of the mosaic, proves that they belong together. The tables of the authors' tumour and T
cells are parts of the first without any id, so that their rows are found by their counts.

What the deposit does not say and is decided here: the size of a pixel (0.108 um, checked by how far cells lie apart),
and the type of a cell. Types follow the authors' own cells: each other cell is `T cells` or `cancer` by which of their
two mean profiles explains its counts better, and `other` where neither does by a factor of ten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.headers import require_samples
from tissue_counterfactuals.sources.text_tables import column_names, count_rows, header_names, read_matrix, read_table
from tissue_counterfactuals.streams import stream

if TYPE_CHECKING:
    from anndata import AnnData

SAMPLE = "tumour"
CONTROL = "Control"
UM_PER_PIXEL = 0.108
# Rows of the mask that the published centroids are numbered in.
MASK_ROWS = 169_973
N_BLANKS = 50
TARGETS = (
    "CD14", "CHUK", "IKBKB", "IRAK1", "IRAK4", "IRF3", "IRF5", "IRF7", "JUN", "LBP", "LY96", "MAP2K1", "MAP2K2",
    "MAP2K3", "MAP2K4", "MAP2K6", "MAP2K7", "MAP3K7", "MAPK14", "MYD88", "NFKB1", "NFKBIA", "PELI1", "PIK3CA",
    "RELA", "RIPK1", "TAB1", "TAB2", "TBK1", "TICAM1", "TIRAP", "TLR4", "TRADD", "TRAF6", "TRAM1",
)  # fmt: skip
N_GUIDES = 77
# Columns of guides, counted from 1: detections that are noise, and control guides. Those after 74 are not used.
_NOISY, _CONTROL_GUIDES = (7, 30, 68), (71, 72, 73, 74)
# The authors' filter of cells: counts and area in pixels, borders excluded.
_COUNTS, _AREA_PX = (40, 800), (2000, 30_000)
# A neighbour of the authors' graph: Gaussian of 250 pixels cut at a weight of 0.1.
_NEIGHBOUR_UM = 57.9
_AGAIN = "fetch the tables of one version again"


def samples(files: dict[str, Path], dataset: dict) -> list[str]:
    """The one section."""
    return [SAMPLE]


def cells(files: dict[str, Path], dataset: dict, enough: int) -> dict[str, int]:
    """Segmented cells of the one section, counted up to `enough`."""
    return {SAMPLE: count_rows(files["coordinates"], enough, header=False)}


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The genes of the authors' table of tumour cells, which alone names them."""
    return header_names(files["tumour"])


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> AnnData:
    """Read the section: domain is the authors' (`perturbed`: a cancer cell with any guide, and other cells beside one).

    obs holds area_um2, n_counts, n_guides_raw, guide_raw and target_raw (by the table of all detections, one guide
    exactly), and target_published (by the authors' table of tumour cells). Cells with several guides go, and cells
    outside the authors' limits of counts and area.

    Raises:
        InputError: a table is not whole, two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.files import digest
    from tissue_counterfactuals.slide import check_slide, make_slide, new_provenance, record_filter, record_notes
    from tissue_counterfactuals.sources.genes import unique_symbols
    from tissue_counterfactuals.sources.places import check_places, nearest_distance
    from tissue_counterfactuals.sources.stored import note

    require_samples(f"folder {dataset.get('path')}", samples, [SAMPLE], "which is no section")
    genes = column_names(files["tumour"])
    if len(set(genes)) < len(genes):
        raise InputError(f"file {files['tumour']}: a gene stands twice in its header; {_AGAIN}.")
    provenance = new_provenance(str(dataset.get("path") or dataset.get("files")))
    unique_symbols(pd.Index(genes), provenance, f"file {files['tumour']}")
    counts, area, centroid = _read_counts(files["counts"], genes)
    places = _read_places(files["coordinates"], len(area))
    rows_note = _check_order(files, places, centroid)
    guides = _read_guides(files["guides"], len(area))
    notes = [rows_note, f"one pixel is taken for {UM_PER_PIXEL} um, which no table says"]
    cells = pd.DataFrame(index=[str(i + 1) for i in range(len(area))])
    cells["area_um2"] = area * UM_PER_PIXEL**2
    cells["n_counts"] = np.asarray(counts.sum(axis=1)).ravel()
    cells["n_guides_raw"] = guides.sum(axis=1)
    cells["guide_raw"] = _raw_guides(guides)
    cells["target_raw"] = cells["guide_raw"].str.rsplit("_", n=1).str[0]

    tumour = _find_rows(counts, genes, files["tumour"], files["counts"])
    cells["target_published"] = ""
    cells.iloc[tumour, cells.columns.get_loc("target_published")] = _one_target(files["tumour_guides"], len(tumour))
    t_cells = _find_rows(counts, genes, files["t_cells"], files["counts"])
    cells["cell_type"], told = _types(counts, tumour, t_cells)
    notes.append(told)

    where = f"file {files['coordinates']}"
    places_um = places * UM_PER_PIXEL
    area_um2 = float(np.median(cells["area_um2"]))
    check_places(places_um, where, cell_area_um2=area_um2, published=True)
    notes.append(
        f"with it neighbours lie {nearest_distance(places_um):.1f} um apart (10.7 in the published section) and the "
        f"median cell has {np.median(cells['area_um2']):.0f} um2 (139)"
    )
    carriers = ((cells["n_guides_raw"] > 0) & (cells["cell_type"] == "cancer")).to_numpy()
    near = np.zeros(len(cells), bool)
    if carriers.any():
        distance, _ = cKDTree(places_um[carriers]).query(places_um)
        near = np.where(cells["cell_type"] == "cancer", carriers, distance <= _NEIGHBOUR_UM)
    cells["domain"] = np.where(near, "perturbed", "control")
    cells["sample"] = SAMPLE
    note(provenance, "in_file", {"cells": {SAMPLE: len(cells)}, "genes": counts.shape[1] + N_BLANKS})
    kept = np.ones(len(cells), bool)
    limits = {
        "one guide at most": cells["n_guides_raw"] <= 1,
        f"counts between {_COUNTS[0]} and {_COUNTS[1]}": cells["n_counts"].between(*_COUNTS, inclusive="neither"),
        f"area between {_AREA_PX[0]} and {_AREA_PX[1]} pixels": pd.Series(area, cells.index).between(*_AREA_PX,
        inclusive="neither"),
    }  # fmt: skip
    for name, passed in limits.items():
        before, kept = kept.sum(), kept & passed.to_numpy()
        record_filter(provenance, name, (before, len(genes)), (kept.sum(), len(genes)))
    listed = json.dumps({role: digest(path) for role, path in files.items()}, sort_keys=True)
    note(provenance, "files", listed)
    record_notes(provenance, [f"{SAMPLE}: {line}" for line in notes])
    slide = make_slide(counts[kept], cells[kept], pd.Index(genes), places_um[kept], provenance)
    check_slide(slide, SAMPLE)
    return slide


def _read_counts(path: Path, genes: list[str]) -> tuple:
    """Counts (n, g) CSR, area in pixels (n,) and place of the centroid in the mask (n,)."""
    from tissue_counterfactuals.sources import bundles

    n_columns = len(column_names(path))
    if n_columns != 3 + len(genes) + N_BLANKS:
        raise InputError(
            f"file {path}: it has {n_columns} columns, and {3 + len(genes) + N_BLANKS} are needed: number, area, "
            f"centroid, the {len(genes)} genes of tumorMerfish.csv and {N_BLANKS} blanks; {_AGAIN}."
        )
    features = [*genes, *(f"blank {i + 1}" for i in range(N_BLANKS))]
    names = ("number", "area", "centroid", *features)
    blocks, first = [], []
    # The centroid is too large a number for the 32 bits of counts, so the three columns come as text.
    for ids, values in read_matrix(path, names[:3], features, names):
        blocks.append(sp.csr_matrix(values))
        first.append(ids)
    ids = pd.concat(first, ignore_index=True)
    try:
        number, area, centroid = ids.astype(float).to_numpy().T
    except ValueError as error:
        raise InputError(f"file {path}: one of its first three columns is no number ({error}); {_AGAIN}.") from None
    wrong = number != np.arange(1, len(number) + 1)
    if wrong.any():
        raise InputError(
            f"file {path}: its first column is not 1, 2, 3, ... (row {wrong.argmax() + 1} is "
            f"{number[wrong.argmax()]:g}), by which the other tables are joined; {_AGAIN}."
        )
    counts = sp.vstack(blocks, format="csr")
    bundles.refuse_fractions(counts, ids["number"], np.array(features, dtype=object), path)
    return counts[:, : len(genes)], area, centroid


def _read_places(path: Path, n: int) -> np.ndarray:
    """Places (n, 2) in pixels, x the column and y the row of the mosaic."""
    _need_columns(path, 2)
    places = read_table(path, numbers=("x", "y"), names=("x", "y")).to_numpy()
    _need_rows(path, len(places), n)
    return places


def _check_order(files: dict[str, Path], places: np.ndarray, centroid: np.ndarray) -> str:
    """Refuse where the centroid of a row is not its place: the tables stand in different orders.

    The number of rows of the mask is found from the table itself, and noted where it is not the published one.
    """
    x, y = places.T
    inside = x > 1.5
    rows = np.rint(np.median((centroid - y)[inside] / (x - 1)[inside])) if inside.any() else np.nan
    off = np.abs(centroid - (y + (x - 1) * rows))
    if not (off < 0.5).all():
        wrong = int((~(off < 0.5)).argmax())
        raise InputError(
            f"file {files['coordinates']}: row {wrong + 1} is not where {files['counts'].name} has the centroid of "
            f"this cell, so that the two do not stand in one order; {_AGAIN}."
        )
    mask = "" if rows == MASK_ROWS else f" (the published one has {MASK_ROWS})"
    return f"rows of counts and places agree in all {len(x)} centroids, in a mask of {rows:.0f} rows{mask}"


def _read_guides(path: Path, n: int) -> np.ndarray:
    """Detections (n, 77) bool, those that are noise or not used taken out."""
    _need_columns(path, N_GUIDES)
    names = tuple(f"guide {i}" for i in range(1, N_GUIDES + 1))
    values = read_table(path, numbers=names, names=names).to_numpy()
    _need_rows(path, len(values), n)
    if not np.isin(values, [0, 1]).all():
        row = int((~np.isin(values, [0, 1])).any(axis=1).argmax())
        raise InputError(
            f"file {path}: row {row + 1} holds a value that is neither 0 nor 1; use the table of detections as it was "
            "published."
        )
    seen = values == 1
    seen[:, np.array(_NOISY) - 1] = False
    seen[:, max(_CONTROL_GUIDES) :] = False
    return seen


def _raw_guides(guides: np.ndarray) -> np.ndarray:
    """The one guide of each cell, TARGET_1, TARGET_2 or Control_1 to Control_4; "" for none or several."""
    names = [f"{target}_{i}" for target in TARGETS for i in (1, 2)]
    names += [f"{CONTROL}_{i + 1}" for i in range(len(_CONTROL_GUIDES))]
    one = guides.sum(axis=1) == 1
    found = np.full(len(guides), "", dtype=object)
    found[one] = np.array(names, dtype=object)[guides[one].argmax(axis=1)]
    return found


def _find_rows(counts: sp.csr_matrix, genes: list[str], path: Path, whole: Path) -> np.ndarray:
    """Which cells the rows of a part are, found by their counts.

    Raises:
        InputError: a row is no cell or several, or a gene is none of the panel.
    """
    own = column_names(path)
    unknown = [gene for gene in own if gene not in genes]
    if unknown:
        raise InputError(f"file {path}: its column {unknown[0]!r} is no gene of tumorMerfish.csv; {_AGAIN}.")
    part = sp.vstack([sp.csr_matrix(v) for _, v in read_matrix(path, (), own)], format="csr")
    columns = [genes.index(gene) for gene in own]
    same_genes = counts[:, columns]
    # A number per row that rows of other counts share by chance only: sums modulo 2^64 with random weights.
    weights = stream(0, "row_keys").integers(1, 2**62, len(own)).astype(np.uint64)
    keys, wanted = (m.astype(np.uint64) @ weights for m in (same_genes, part))
    order = np.argsort(keys, kind="stable")
    left, right = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    for found, words in ((right == left, "no row of"), (right - left > 1, "more than one row of")):
        if found.any():
            raise InputError(
                f"file {path}: the counts of its row {found.argmax() + 1} are those of {words} {whole.name}, so that "
                f"it cannot be told which cell it is; {_AGAIN}."
            )
    rows = order[left]
    if (same_genes[rows] != part).nnz:
        raise InputError(f"file {path}: its rows are no rows of {whole.name}; {_AGAIN}.")
    return rows


def _one_target(path: Path, n: int) -> np.ndarray:
    """(n,) the one target of each column of a table of targets by cells; "" for none or several."""
    first, *cells = column_names(path)
    if len(cells) != n:
        raise InputError(f"file {path}: it has {len(cells)} cells, and the table of their counts has {n}; {_AGAIN}.")
    table = read_table(path, texts=(first,), numbers=tuple(cells))
    names = table[first].to_numpy()
    wrong = [name for name in names if name not in (*TARGETS, CONTROL)]
    if wrong:
        raise InputError(
            f"file {path}: its row {wrong[0]!r} is none of the {len(TARGETS)} targets nor {CONTROL}; {_AGAIN}."
        )
    carried = table[cells].to_numpy() > 0
    one = carried.sum(axis=0) == 1
    return np.where(one, names[carried.argmax(axis=0)], "")


def _types(counts: sp.csr_matrix, tumour: np.ndarray, t_cells: np.ndarray) -> tuple[np.ndarray, str]:
    """Type of every cell by the profiles of the authors' cells, and a sentence about how well it finds them again."""
    profiles = []
    for members in (t_cells, np.setdiff1d(tumour, t_cells)):
        total = np.asarray(counts[members].sum(axis=0)).ravel() + 1.0
        profiles.append(np.log(total / total.sum()))
    evidence = counts @ (profiles[0] - profiles[1])
    types = np.where(np.abs(evidence) < np.log(10), "other", np.where(evidence > 0, "T cells", "cancer"))
    agreed = (types[t_cells] == "T cells").mean()
    types[tumour], types[t_cells] = "cancer", "T cells"
    return types, (
        f"types by the mean profiles of the authors' T cells and guide-bearing tumour cells: {agreed:.1%} of their "
        f"{len(t_cells)} T cells are found again, {(types == 'T cells').sum()} cells are T cells and "
        f"{(types == 'other').sum()} neither"
    )


def _need_columns(path: Path, n: int) -> None:
    if len(column_names(path)) != n:
        raise InputError(f"file {path}: it has {len(column_names(path))} columns, and {n} are needed; {_AGAIN}.")


def _need_rows(path: Path, found: int, n: int) -> None:
    if found != n:
        raise InputError(f"file {path}: it has {found} rows, and the table of counts has {n}; {_AGAIN}.")
