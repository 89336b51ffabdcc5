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

    matrix = read_10x(files["matrix"])
    bundles.refuse_fractions(matrix.counts, matrix.barcodes, matrix.names, files["matrix"])
    path = files["cells"]
    cells = bundles.read_cells(path, dataset, "x_centroid", "y_centroid", more=("cell_area",))
    notes: list[str] = []
    cells, found = bundles.join(
        matrix.barcodes, cells, files["matrix"], path, notes, same_cells=True
    )
    cells[["x", "y"]] *= dataset.get("unit_um") or 1.0
    sample = bundles.Sample(
        matrix.counts,
        matrix.names,
        cells,
        notes=notes,
        placed_in=path,
        cell_area_um2=float(cells["cell_area"].median()) if "cell_area" in cells else None,
    )
    sample.keep_genes(matrix.types)
    sample.keep_cells(found, f"cells that stand in {path.name}")
    return sample
