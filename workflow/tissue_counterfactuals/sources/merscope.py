"""MERSCOPE output folder: cell_by_gene.csv and cell_metadata.csv, in micrometres."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.headers import absent_columns, count_cells

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.bundles import Sample

_PLACES = ("center_x", "center_y")

absent = partial(absent_columns, role="metadata", coordinates=_PLACES)
cells = partial(count_cells, role="metadata")


def read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    """One region, its matrix read block by block: features that are genes, cells joined by id.

    Raises:
        InputError: a file is not whole, or the two do not belong together.
    """
    from tissue_counterfactuals.sources.dense_tables import place_cells, read_counts

    sample = read_counts(files["matrix"])
    unit = dataset.get("unit_um") or 1.0
    place_cells(sample, files["matrix"], files["metadata"], *_PLACES, unit, dataset)
    return sample
