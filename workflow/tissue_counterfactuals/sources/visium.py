"""Visium: the output folder of Space Ranger, of version 1 or later; several folders are several samples."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.headers import absent_columns, count_cells

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.bundles import Sample

# Runs share their barcodes, so that the sample stands before each.
BUNDLE = {"constants": {"cell_type": "spot", "domain": "tissue"}, "prefix": True}

# Labels stand in a file of their own, if anywhere.
absent = absent_columns
cells = partial(count_cells, role="matrix")


def read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    """One run of Space Ranger: spots in tissue, joined by barcode."""
    from tissue_counterfactuals.sources.spots import read_spots

    return read_spots(files, dataset)
