"""Colorectal cancer, CosMx whole transcriptome (Crowell et al. 2025, Zenodo 15574384): one AnnData file per slide.

X holds the raw counts, by gene (CSC) and many: they stay in the file until the filters have chosen. obs holds the
cell type `ist`, the histology `typ` and the centre in pixels of 0.12028 micrometres. Which slides the benchmark uses,
which it leaves out and whose patient each is stands in resources/slides_cosmx_crc.tsv.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import RESOURCES, files_by_sample
from tissue_counterfactuals.sources.columns import feature_names, open_h5ad
from tissue_counterfactuals.sources.hdf5 import attribute
from tissue_counterfactuals.sources.headers import in_all, require_samples

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.stored import StoredSlide

PIXEL_UM = 0.12028
LABELS = "labels_cosmx_crc.tsv"
SLIDES = "slides_cosmx_crc.tsv"
_POSITION = ("CenterX_global_px", "CenterY_global_px")


def samples(files: dict[str, Path], dataset: dict) -> list[str]:
    """Names of the slides that there are files of; those that the benchmark leaves out only where they are asked
    for.
    """
    return _used(files) if dataset["samples"] is None else sorted(_by_slide(files))


def cells(files: dict[str, Path], dataset: dict, enough: int) -> dict[str, int]:
    """Cells of the slides that would be read."""
    own, sizes = _by_slide(files), {}
    for name in samples(files, dataset):
        with open_h5ad(own[name]) as file:
            sizes[name] = file["obs"][attribute(file["obs"], "_index", "_index")].size
    return sizes


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The genes that all slides have which would be read."""
    own = _by_slide(files)
    return in_all([feature_names(own[name]) for name in samples(files, dataset)])


def left_out() -> dict[str, str]:
    """Slides that the benchmark does not use -> why."""
    return {name: row.why for name, row in _slides().items() if row.used != "yes"}


def locate(folder: Path) -> dict[str, Path]:
    """The slides in a folder: files called 242.h5ad or crc_242.h5ad."""
    found = {}
    for path in sorted(folder.glob("*.h5ad")):
        if match := re.fullmatch(r"(?:crc_)?(\d+)", path.stem):
            found[f"{match[1]}/h5ad"] = path
    return found


def stored(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> StoredSlide:
    """The slide, or several slides below each other, with the counts still in the files.

    Args:
        samples: names of slides; None takes those that the benchmark uses.
    Raises:
        InputError: a slide is not there, or its file is not what was published.
    """
    from tissue_counterfactuals.slide import new_provenance
    from tissue_counterfactuals.sources.stored import note, stack

    own = _by_slide(files)
    wanted = _used(files) if samples is None else samples
    require_samples("config", wanted, own, "of which there is no file")
    slides = [_open(name, own[name], dataset["sha256"]) for name in wanted]
    if len(slides) == 1:
        return slides[0]
    provenance = new_provenance(
        ", ".join(str(own[name]) for name in wanted),
        ", ".join(slide.frame.uns["provenance"]["sha256"] for slide in slides),
    )
    own = {n: s.frame.uns["provenance"] for n, s in zip(wanted, slides, strict=True)}
    note(provenance, "slides", own)
    held = [json.loads(record["in_file"]) for record in own.values()]
    cells = {name: n for record in held for name, n in record["cells"].items()}
    note(provenance, "in_file", {"cells": cells, "genes": max(record["genes"] for record in held)})
    return stack(slides, provenance, f"files of slides {', '.join(wanted)}")


def _open(name: str, path: Path, sha256: str | None) -> StoredSlide:
    from tissue_counterfactuals.slide import new_provenance
    from tissue_counterfactuals.sources.genes import unique_symbols
    from tissue_counterfactuals.sources.h5ad import check_sha256
    from tissue_counterfactuals.sources.labels import map_labels, tell
    from tissue_counterfactuals.sources.places import check_places
    from tissue_counterfactuals.sources.stored import keep_given, note, read_column, read_index, read_numbers, store

    where = f"file {path}"
    provenance = new_provenance(str(path))
    with open_h5ad(path) as file:
        provenance["sha256"] = check_sha256(path, sha256)
        obs = file["obs"]
        ids = read_index(obs)
        genes = unique_symbols(read_index(file["var"]), provenance, where)
        pixels = np.column_stack([read_numbers(obs, column, where) for column in _POSITION])
        columns, unknown = {}, {}
        for label, column in (("domain", "typ"), ("cell_type", "ist")):
            stored_labels = read_column(obs, column, where, "source", provenance)
            columns[label], unknown[column] = map_labels(stored_labels, column, LABELS, where)
        if "X" not in file:
            raise InputError(f"{where}: it has no X; use the file as it was published.")
    note(provenance, "in_file", {"cells": {name: len(ids)}, "genes": len(genes)})
    if name in _slides():
        note(provenance, "patient", _slides()[name].patient)
    note(provenance, "unit", f"pixels of {PIXEL_UM} um")
    ids = _unique_ids(ids, pixels, provenance, where)
    for column, labels in unknown.items():
        if labels:
            print(
                f"warning: {where}: labels of {column} that resources/{LABELS} does not know: {tell(labels)}; their "
                "cells are left out."
            )
    note(provenance, "unmapped_labels", unknown)
    keep = keep_given(np.ones(len(ids), dtype=bool), columns, len(genes), provenance)
    if not keep.any():
        raise InputError(
            f"{where}: no cell has both a cell type (ist) and a histology (typ); use the file as it was published."
        )
    coordinates = pixels[keep] * PIXEL_UM
    check_places(coordinates, where, published=True)
    labels = pd.DataFrame({label: column[keep] for label, column in columns.items()}, index=ids[keep])
    labels["sample"] = pd.Categorical([name] * len(labels))
    return store(path, "X", keep, labels, genes, coordinates, provenance, where)


def _unique_ids(ids: pd.Index, pixels: np.ndarray, provenance: dict, where: str) -> pd.Index:
    """Cell ids, doubles numbered: published ids repeat between the parts of a slide.

    Raises:
        InputError: two cells have the same id and the same place: they are the same cell.
    """
    import anndata.utils

    doubled = ids.duplicated(keep=False)
    if not doubled.any():
        return ids
    places = pd.DataFrame({"id": ids[doubled], "x": pixels[doubled, 0], "y": pixels[doubled, 1]})
    same = places.duplicated()
    if same.any():
        raise InputError(
            f"{where}: the cell id {places['id'][same.to_numpy().argmax()]!r} occurs more than once at the same place "
            f"({same.sum()} such cells), so these cells would count twice; use the file as it was published."
        )
    provenance["repeated_ids"] = str(int(ids.duplicated().sum()))
    return anndata.utils.make_index_unique(ids)


def _by_slide(files: dict[str, Path]) -> dict[str, Path]:
    """Slide -> file; a single file that was named without its slide is called after its name."""
    return {
        sample or re.sub(r"^crc_", "", roles["h5ad"].stem): roles["h5ad"]
        for sample, roles in files_by_sample(files).items()
    }


def _used(files: dict[str, Path]) -> list[str]:
    unused, own = left_out(), sorted(_by_slide(files))
    if set(own) <= set(unused):
        reasons = ", ".join(f"{name} ({unused[name]})" for name in own)
        raise InputError(
            f"config: the benchmark leaves out every slide that was given: {reasons}; list slides under samples to "
            "use them all the same."
        )
    return [name for name in own if name not in unused]


def _slides() -> dict[str, tuple]:
    """Slide -> its row of the table: patient, whether the benchmark uses it, why not."""
    table = pd.read_csv(RESOURCES / SLIDES, sep="\t", dtype=str, keep_default_na=False)
    return {row.slide: row for row in table.itertuples()}
