"""CosMx flat files: the matrix of counts, the cells with their places in pixels, and the fields of view."""

from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.folders import bundle_samples, locate_bundles, locate_roles

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from tissue_counterfactuals.sources.bundles import Sample

# Side of a pixel of the instrument's camera on the tissue.
UM_PER_PIXEL = 0.12028

_PATTERNS = {
    role: (f"*{name}.csv", f"*{name}.csv.gz")
    for role, name in (
        ("matrix", "exprMat_file"),
        ("metadata", "metadata_file"),
        ("fov_positions", "fov_positions_file"),
    )
}
_IDS = ("fov", "cell_ID")
_NO_GENES = ("", "cell", "cell_id", "slide_ID", "Slide")
_CONTROLS = r"Negative|NegPrb|NegAdd|SystemControl|FalseCode"


def locate(folder: Path) -> dict[str, Path]:
    """The flat files of one slide, or of one slide in each folder below."""
    return locate_bundles(folder, lambda own: locate_roles(own, _PATTERNS, "matrix"))


samples = bundle_samples


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read flat files into a slide: cells are known by field of view and number, control probes left out.

    The matrix is read block by block. Its rows with cell number 0 hold what lies outside of cells.

    Raises:
        InputError: a file is not whole, two do not belong together, or the data break the contract.
    """
    from tissue_counterfactuals.sources.bundles import read_bundles

    return read_bundles(files, dataset, samples, _read_sample)


def _read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    from tissue_counterfactuals.sources.dense_tables import place_cells, read_counts

    sample = read_counts(files["matrix"], _IDS, _NO_GENES, _CONTROLS, _name_cells)
    unit, source = dataset.get("unit_um"), "configured (unit_um)"
    if unit is None:
        unit, source = _pixel_size(files.get("fov_positions"))
    place_cells(
        sample,
        files["matrix"],
        files["metadata"],
        _IDS,
        _name_cells,
        "CenterX_global_px",
        "CenterY_global_px",
        unit,
        dataset,
    )
    sample.notes.append(f"one pixel is {unit:.5g} um, as {source}")
    return sample


def _name_cells(ids: "pd.DataFrame") -> "pd.Index":
    """ "12_345" for cell 345 of field 12; nothing for cell 0, which is no cell."""
    import pandas as pd

    return pd.Index((ids["fov"] + "_" + ids["cell_ID"]).where(ids["cell_ID"] != "0"))


def _pixel_size(path: Path | None) -> tuple[float, str]:
    """Micrometres per pixel: from the fields of view where they are given in pixels and millimetres."""
    import numpy as np

    from tissue_counterfactuals.sources.text_tables import column_names, read_table

    columns = ("x_global_px", "y_global_px", "x_global_mm", "y_global_mm")
    if path is None or not set(columns) <= set(column_names(path)):
        return UM_PER_PIXEL, "of the instrument"
    places = read_table(path, numbers=columns).to_numpy()
    centred = places - places.mean(axis=0)
    pixels, millimetres = centred[:, :2].ravel(), centred[:, 2:].ravel()
    if not np.isfinite(centred).all() or not pixels.any():
        return UM_PER_PIXEL, "of the instrument"
    size = float(abs(pixels @ millimetres) / (pixels @ pixels) * 1000)
    if not 0.05 < size < 0.5:
        raise InputError(
            f"file {path}: its fields of view say that a pixel is {size:.3g} um, but those of CosMx are 0.12 to 0.18 "
            "um; use the file as the instrument wrote it."
        )
    return size, f"{path.name} says in pixels and millimetres"
