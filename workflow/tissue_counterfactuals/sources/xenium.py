"""Xenium output bundle: the matrix of its cells, and their centroids in micrometres."""

from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.folders import bundle_samples, locate_bundles, locate_roles

if TYPE_CHECKING:
    from anndata import AnnData

    from tissue_counterfactuals.sources.bundles import Sample

_PATTERNS = {
    "matrix": ("cell_feature_matrix.h5", "*_cell_feature_matrix.h5", "cell_feature_matrix/"),
    "cells": ("cells.parquet", "cells.csv.gz", "cells.csv", "*_cells.csv.gz", "*_cells.parquet"),
}


def locate(folder: Path) -> dict[str, Path]:
    """The files of a bundle (`outs`), or of one bundle in each folder below."""
    return locate_bundles(folder, lambda own: locate_roles(own, _PATTERNS, "matrix"))


samples = bundle_samples


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read bundles into a slide: features of the type Gene Expression, cells joined by id.

    Raises:
        InputError: a file is not whole, the two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.sources.bundles import read_bundles

    return read_bundles(files, dataset, samples, _read_sample)


def _read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    from tissue_counterfactuals.sources import bundles
    from tissue_counterfactuals.sources.tenx import read_10x
    from tissue_counterfactuals.sources.text_tables import column_names, read_table

    matrix = read_10x(files["matrix"])
    bundles.refuse_fractions(matrix.counts, matrix.barcodes, matrix.names, files["matrix"])
    path = files["cells"]
    labels = [c for c in (dataset.get("columns") or {}).values() if c in column_names(path)]
    area = [column for column in ("cell_area",) if column in column_names(path)]
    table = read_table(
        path,
        texts=tuple(dict.fromkeys(["cell_id", *labels])),
        numbers=("x_centroid", "y_centroid", *area),
    )
    cells = table.set_index("cell_id").rename(columns={"x_centroid": "x", "y_centroid": "y"})
    notes: list[str] = []
    cells, found = bundles.join(
        matrix.barcodes, cells, files["matrix"], path, notes, same_cells=True
    )
    cells[["x", "y"]] *= dataset.get("unit_um") or 1.0
    sample = bundles.Sample(
        matrix.counts,
        matrix.names,
        cells.drop(columns=area),
        notes=notes,
        placed_in=path,
        cell_area_um2=float(cells["cell_area"].median()) if area else None,
    )
    sample.keep_genes(matrix.types == "Gene Expression", "features of the type Gene Expression")
    sample.keep_cells(found, f"cells that stand in {path.name}")
    return sample
