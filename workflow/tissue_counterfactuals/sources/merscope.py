"""MERSCOPE output folder: cell_by_gene.csv and cell_metadata.csv, in micrometres."""

from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.folders import bundle_samples, locate_bundles, locate_roles

if TYPE_CHECKING:
    from anndata import AnnData

    from tissue_counterfactuals.sources.bundles import Sample

_PATTERNS = {
    "matrix": ("cell_by_gene.csv", "cell_by_gene.csv.gz", "*cell_by_gene*.csv*"),
    "metadata": ("cell_metadata.csv", "cell_metadata.csv.gz", "*cell_metadata*.csv*"),
}


def locate(folder: Path) -> dict[str, Path]:
    """The files of one region, or of one region in each folder below."""
    return locate_bundles(folder, lambda own: locate_roles(own, _PATTERNS, "matrix"))


samples = bundle_samples


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read regions into a slide, block by block: blanks are left out, cells joined by id.

    Raises:
        InputError: a file is not whole, the two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.sources.bundles import read_bundles

    return read_bundles(files, dataset, samples, _read_sample)


def _read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    from tissue_counterfactuals.sources.dense_tables import place_cells, read_counts

    sample = read_counts(files["matrix"])
    unit = dataset.get("unit_um") or 1.0
    place_cells(sample, files["matrix"], files["metadata"], "center_x", "center_y", unit, dataset)
    return sample
