"""Visium: the output folder of Space Ranger, of version 1 or later; several folders are several samples."""

from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.folders import bundle_samples, locate_bundles, locate_roles

if TYPE_CHECKING:
    from anndata import AnnData

_PATTERNS = {
    "matrix": (
        "filtered_feature_bc_matrix.h5",
        "*filtered_feature_bc_matrix.h5",
        "filtered_feature_bc_matrix/",
    ),
    "positions": tuple(
        f"{folder}{name}"
        for folder in ("spatial/", "", "*_")
        for name in (
            *("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv"),
            *("tissue_positions.csv.gz", "tissue_positions_list.csv.gz"),
        )
    ),
    "scalefactors": tuple(
        f"{folder}scalefactors_json.json{packed}"
        for folder in ("spatial/", "", "*_")
        for packed in ("", ".gz")
    ),
}

LABELS = {"cell_type": "spot", "domain": "tissue"}


def locate(folder: Path) -> dict[str, Path]:
    """The files of one run, or of one run in each folder below."""
    return locate_bundles(folder, lambda own: locate_roles(own, _PATTERNS, "matrix"))


samples = bundle_samples


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read runs of Space Ranger into a slide: spots in tissue, joined by barcode, sample put before each barcode.

    Raises:
        InputError: a file is not whole, two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.sources.bundles import read_bundles
    from tissue_counterfactuals.sources.spots import read_spots

    return read_bundles(
        files,
        dataset,
        samples,
        read_spots,
        constants=LABELS,
        prefix=True,
    )
