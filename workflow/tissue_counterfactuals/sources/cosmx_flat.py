"""CosMx flat files: the matrix of counts, the cells with their places in pixels, and the fields of view."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import files_by_sample
from tissue_counterfactuals.sources.headers import absent_columns, count_cells

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.bundles import Sample

# Pixels of a field of view along x and y -> side of a pixel on the tissue: the instrument as it is sold, and the one
# that made the first public set.
_CAMERAS = {(4256, 4256): 0.12028, (5472, 3648): 0.18}

# What a pixel can be, with room for other cameras; how far fields may lie off, as a share, and the axes may differ.
_PIXELS_UM, _MAX_OFF = (0.1, 0.2), 0.05

_PLACES = ("CenterX_global_px", "CenterY_global_px")

# What says how large a pixel is: places of fields of view in both units, or places of cells in their field.
_BOTH_UNITS = ("x_global_px", "y_global_px", "x_global_mm", "y_global_mm")
_IN_FIELD = ("CenterX_local_px", "CenterY_local_px")

cells = partial(count_cells, role="metadata")


def absent(files: dict[str, Path], dataset: dict) -> list[str]:
    """As `absent_columns`, and files that cannot tell the size of a pixel."""
    faults = absent_columns(files, dataset, "metadata", _PLACES)
    if faults or dataset["unit_um"] is not None:
        return faults
    tables = files_by_sample(files).values()
    return [
        str(_unknown_pixel(own["metadata"]))
        for own in tables
        if not _has(own.get("fov_positions"), _BOTH_UNITS) and not _has(own["metadata"], _IN_FIELD)
    ]


def read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    """One slide, its matrix read block by block: cells known by field of view and number, places in pixels.

    Raises:
        InputError: a file is not whole, two do not belong together, or no file tells the size of a pixel.
    """
    from tissue_counterfactuals.sources.dense_tables import place_cells, read_counts

    sample = read_counts(files["matrix"])
    unit, source = dataset.get("unit_um"), "configured (unit_um)"
    if unit is None:
        unit, source = _pixel_size(files.get("fov_positions"), files["metadata"])
    place_cells(sample, files["matrix"], files["metadata"], *_PLACES, unit, dataset)
    sample.notes.append(f"one pixel is {unit:.5g} um, as {source}")
    return sample


def _pixel_size(path: Path | None, metadata: Path) -> tuple[float, str]:
    """Micrometres per pixel, from fields of view in pixels and millimetres, or from the only camera that holds the
    cells.

    Raises:
        InputError: the files do not tell.
    """
    import numpy as np

    from tissue_counterfactuals.sources.text_tables import read_table

    if _has(path, _BOTH_UNITS):
        places = read_table(path, numbers=_BOTH_UNITS).to_numpy()
        pixels, millimetres = np.hsplit(places - places.mean(axis=0), 2)
        # Axis by axis, because either may run the other way on the stage; along one there may be a single field.
        axes = [axis for axis in (0, 1) if pixels[:, axis].any()]
        if np.isfinite(places).all() and axes:
            pixels, millimetres = pixels[:, axes], millimetres[:, axes]
            slopes = (pixels * millimetres).sum(axis=0) / (pixels**2).sum(axis=0)
            off = np.linalg.norm(millimetres - pixels * slopes, axis=0)
            sizes = abs(slopes) * 1000
            if (off > _MAX_OFF * np.linalg.norm(millimetres, axis=0)).any() or np.ptp(sizes) > _MAX_OFF * sizes.max():
                raise InputError(
                    f"file {path}: its fields of view do not lie in pixels as they do in millimetres, so that they do "
                    "not tell how large a pixel is; use the file as the instrument wrote it, or set unit_um."
                )
            size = float(sizes.mean())
            if not _PIXELS_UM[0] < size < _PIXELS_UM[1]:
                raise InputError(
                    f"file {path}: its fields of view say that a pixel is {size:.3g} um, but those of CosMx are 0.12 "
                    "to 0.18 um; use the file as the instrument wrote it, or set unit_um."
                )
            return size, f"{path.name} says in pixels and millimetres"
    fitting = []
    if _has(metadata, _IN_FIELD):
        width, height = read_table(metadata, numbers=_IN_FIELD).max()
        fitting = [side for side in _CAMERAS if width <= side[0] and height <= side[1]]
    if len(fitting) == 1:
        return _CAMERAS[fitting[0]], f"of the camera with {fitting[0][0]} x {fitting[0][1]} pixels"
    raise _unknown_pixel(metadata)


def _has(path: Path | None, columns: tuple[str, ...]) -> bool:
    """Whether there is a table with all of these columns."""
    from tissue_counterfactuals.sources.text_tables import column_names

    return path is not None and set(columns) <= set(column_names(path))


def _unknown_pixel(metadata: Path) -> InputError:
    return InputError(
        f"file {metadata}: neither the fields of view (in pixels and millimetres) nor the places in them tell how "
        "large a pixel is; set unit_um, 0.12028 for the instrument as it is sold and 0.18 for the first public set."
    )
