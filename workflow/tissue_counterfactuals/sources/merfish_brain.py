"""Whole mouse brain, MERFISH (Zhang et al. 2023), one animal in one file as CELLxGENE gives it.

Raw counts are in raw.X, a few million cells by 1,120 genes; only the rows of the wanted sections are read. obs holds
`cell_type`, `major_brain_region` and `brain_section_label`, obsm the coordinates `X_spatial_coords`.

The authors of the benchmark took the coordinates for pixels of 0.109 um in one place and for micrometres in another.
Here the extent of the section decides: a coronal section of a mouse brain measures a few to some 15 mm across.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.columns import count_labels, feature_names, open_h5ad, pick, read_labels
from tissue_counterfactuals.sources.headers import require_samples

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.stored import StoredSlide

PIXEL_UM = 0.109
COORDINATES = "X_spatial_coords"
COLUMNS = {"sample": "brain_section_label", "cell_type": "cell_type", "domain": "major_brain_region"}

# Unit -> micrometres, and the extents (larger side of a section, micrometres) that a section can have. The ranges of
# the three units do not meet: in micrometres a section measures thousands, in millimetres a few, in pixels more.
UNITS_UM = {"micrometres": 1.0, "millimetres": 1000.0, f"pixels of {PIXEL_UM} um": PIXEL_UM}
_SECTION_UM = (2_000.0, 15_000.0)

# Column of the gene table in which CELLxGENE keeps the symbols; its index holds Ensembl ids.
_SYMBOLS = "feature_name"


def cells(files: dict[str, Path], dataset: dict, enough: int) -> dict[str, int]:
    """Cells of each section, in the file's order."""
    return count_labels(files["h5ad"], COLUMNS["sample"])


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The symbols of the genes of raw.X; a gene without one keeps its id."""
    ids, symbols = feature_names(files["h5ad"], "raw/var"), {}
    with open_h5ad(files["h5ad"]) as file:
        table = next((name for name in ("raw/var", "var") if _SYMBOLS in file[name]), None)
        if table:
            codes, names = read_labels(file[table][_SYMBOLS])
            of_table = zip(feature_names(files["h5ad"], table), codes, strict=True)
            symbols = {gene: names[code] for gene, code in of_table if code >= 0}
    return [symbols.get(gene, gene) for gene in ids]


def stored(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> StoredSlide:
    """Some sections, None for all, with the counts still in the file.

    Raises:
        InputError: a section is not there, or the file is not what was published.
    """
    from tissue_counterfactuals.slide import new_provenance, record_filter
    from tissue_counterfactuals.sources.h5ad import check_sha256
    from tissue_counterfactuals.sources.ids import check_ids
    from tissue_counterfactuals.sources.stored import keep_given, note, read_column, read_coordinates, read_index, store

    path = files["h5ad"]
    where = f"file {path}"
    provenance = new_provenance(str(path))
    with open_h5ad(path) as file:
        provenance["sha256"] = check_sha256(path, dataset["sha256"])
        obs = file["obs"]
        ids = read_index(obs)
        check_ids(ids, where)
        columns = {label: read_column(obs, column, where, "source", provenance) for label, column in COLUMNS.items()}
        section = columns["sample"]
        require_samples(where, samples, section.categories, f"which no cell has in column {COLUMNS['sample']!r}")
        raw = pick(file, "raw", where, "part", "source")
        genes = _symbols(raw["var"], file["var"], provenance, where)
        coordinates = read_coordinates(file, COORDINATES, len(ids), where, "source")
    keep = ~pd.isna(section)
    if samples is not None:
        keep &= section.isin(samples)
        record_filter(provenance, "chosen samples", (len(ids), len(genes)), (keep.sum(), len(genes)))
    sizes = section[keep].remove_unused_categories().value_counts()
    note(provenance, "in_file", {"cells": {str(name): int(n) for name, n in sizes.items()}, "genes": len(genes)})
    unit, extent = _decide_unit(coordinates[keep], section[keep], where)
    note(provenance, "unit", f"{unit}, because the largest section measures {extent:,.4g} of them")
    note(provenance, "unit_um", str(UNITS_UM[unit]))
    note(provenance, "unit_um_as_run", str(PIXEL_UM))
    print(f"{where}: the coordinates are {provenance['unit']}")
    given = {label: columns[label] for label in ("cell_type", "domain")}
    keep = keep_given(keep, given, len(genes), provenance)
    if not keep.any():
        raise InputError(
            f"{where}: no cell of the wanted sections has both a cell type ({COLUMNS['cell_type']}) and a region "
            f"({COLUMNS['domain']}); use the file as it was published."
        )
    labels = pd.DataFrame({label: column[keep] for label, column in columns.items()}, index=ids[keep])
    labels = labels[["cell_type", "domain", "sample"]]
    return store(path, "raw/X", keep, labels, genes, coordinates[keep] * UNITS_UM[unit], provenance, where)


def _symbols(raw: h5py.Group, var: h5py.Group, provenance: dict, where: str) -> pd.Index:
    """Symbols of the genes of raw.X, found by gene id in whichever gene table holds them."""
    from tissue_counterfactuals.sources.genes import unique_symbols
    from tissue_counterfactuals.sources.stored import read_column, read_index

    ids = read_index(raw)
    for table in (raw, var):
        if _SYMBOLS in table:
            symbols = pd.Series(
                np.asarray(read_column(table, _SYMBOLS, where, "source"), dtype=object), index=read_index(table)
            )
            found = symbols[~symbols.index.duplicated()].reindex(ids)
            # A gene without a symbol keeps its id.
            ids = pd.Index(np.where(found.isna(), ids, found), dtype=str)
            break
    return unique_symbols(ids, provenance, where)


def _decide_unit(coordinates: np.ndarray, section: pd.Categorical, where: str) -> tuple[str, float]:
    """The unit of the coordinates, and the extent of the largest section in it.

    Raises:
        InputError: no unit makes a mouse brain of it.
    """
    sides = pd.DataFrame(coordinates).groupby(np.asarray(section), observed=True).agg(np.ptp)
    extent = float(sides.to_numpy().max()) if len(sides) else float("nan")
    for unit, um in UNITS_UM.items():
        if _SECTION_UM[0] <= extent * um <= _SECTION_UM[1]:
            return unit, extent
    raise InputError(
        f"{where}: the coordinates obsm[{COORDINATES!r}] span {extent:.4g}, which is a section of a mouse brain "
        f"({_SECTION_UM[0] / 1000:g} to {_SECTION_UM[1] / 1000:g} mm) in none of the units {', '.join(UNITS_UM)}; use "
        "the file as it was published."
    )
