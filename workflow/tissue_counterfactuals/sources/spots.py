"""What all Visium layouts share: the places of the spots, and how many pixels 100 micrometres are."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import bundles
from tissue_counterfactuals.sources.tenx import read_10x
from tissue_counterfactuals.sources.text_tables import column_names, read_table

# Distance of the centres of neighbouring spots, by the design of the slide.
PITCH_UM = 100.0

# Space Ranger's "spot diameter" is that of the 65 um that a spot covers; the rest leaves room for rounded pixels.
_DIAMETER_PER_PITCH = (0.5, 0.85)

_COLUMNS = (*("barcode", "in_tissue", "array_row", "array_col"), *("pxl_row_in_fullres", "pxl_col_in_fullres"))
_NUMBERS = _COLUMNS[1:]


def read_spots(files: dict[str, Path], dataset: dict) -> bundles.Sample:
    """Counts and places (micrometres) of the spots in tissue, joined by barcode.

    Args:
        files: roles matrix, positions and, if there, scalefactors.
    Raises:
        InputError: a file is not whole, or the positions are not those of a Visium slide.
    """
    matrix = read_10x(files["matrix"])
    bundles.refuse_fractions(matrix.counts, matrix.barcodes, matrix.names, files["matrix"])
    positions = read_positions(files["positions"])
    scales = _read_scales(files.get("scalefactors"))
    um_per_pixel, decided, measured = _um_per_pixel(positions, scales, files["positions"], dataset)
    notes = [decided]
    spots, found = bundles.join(matrix.barcodes, positions, files["matrix"], files["positions"], notes)
    # Only the spots of the matrix count here: the table of positions always has those beside the tissue.
    notes[1:] = [note for note in notes[1:] if "belong to no row" not in note]
    cells = pd.DataFrame(
        {"x": spots["pxl_col_in_fullres"] * um_per_pixel, "y": spots["pxl_row_in_fullres"] * um_per_pixel},
        index=matrix.barcodes,
    )
    in_tissue = (spots["in_tissue"] == 1).to_numpy()
    _refuse_several(spots[in_tissue], files["positions"])
    sample = bundles.Sample(
        matrix.counts,
        matrix.names,
        cells,
        notes=notes,
        unit_measured=measured,
        placed_in=files["positions"],
        gene_ids=matrix.ids,
    )
    sample.keep_genes(matrix.types)
    sample.keep_cells(found, f"spots that stand in {files['positions'].name}")
    sample.keep_cells(in_tissue[found], "spots in tissue")
    return sample


def _refuse_several(spots: pd.DataFrame, path: Path) -> None:
    """Raise where spots (index: barcodes) share a place of the array, as those of several slides do."""
    places = spots[["array_row", "array_col"]].dropna()
    doubled = places.duplicated(keep=False)
    if doubled.any():
        first, second = places[(places == places[doubled].iloc[0]).all(axis=1)].index[:2]
        raise InputError(
            f"file {path}: {doubled.sum()} spots share their row and column of the array with another ({first} and "
            f"{second}), so that it holds several slides (spaceranger aggr); give each run's own folder instead."
        )


def read_positions(path: Path) -> pd.DataFrame:
    """Positions by barcode: without a header (Space Ranger 1), with one (2 and later), or parquet (HD).

    Raises:
        InputError: it is no such table.
    """
    first = column_names(path)
    if "in_tissue" in first or path.suffix == ".parquet":
        table = read_table(path, texts=("barcode",), numbers=_NUMBERS)
    elif len(first) == len(_COLUMNS):
        table = read_table(path, texts=("barcode",), numbers=_NUMBERS, names=_COLUMNS)
    else:
        raise InputError(
            f"file {path}: it has {len(first)} columns, but the positions of Space Ranger have {len(_COLUMNS)} "
            f"({', '.join(_COLUMNS)}); use the file as Space Ranger wrote it."
        )
    return table.set_index("barcode")


def _read_scales(path: Path | None) -> dict[str, float]:
    if path is None:
        return {}
    try:
        text = path.read_bytes()
        scales = json.loads(gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text)
        return {name: float(value) for name, value in scales.items()}
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"file {path}: it is cut short or no table of scale factors (JSON); fetch it again."
        ) from error


def _um_per_pixel(
    positions: pd.DataFrame, scales: dict[str, float], path: Path, dataset: dict
) -> tuple[float, str, bool]:
    """Micrometres per pixel of the positions, how that was decided, and whether the files prove it."""
    if (configured := dataset.get("unit_um")) is not None:
        return configured, f"one pixel is {configured:.5g} um, as configured (unit_um)", False
    if "microns_per_pixel" in scales:
        scale = scales["microns_per_pixel"]
        return scale, f"one pixel is {scale:.5g} um, as the scale factors say", True
    pitch = lattice_pitch(positions, path)
    if "spot_diameter_fullres" in scales:
        ratio = scales["spot_diameter_fullres"] / pitch
        if not _DIAMETER_PER_PITCH[0] <= ratio <= _DIAMETER_PER_PITCH[1]:
            raise InputError(
                f"file {path}: spots lie {pitch:.4g} pixels apart, but a spot is {scales['spot_diameter_fullres']:.4g} "
                "pixels wide in the scale factors (0.65 of the distance is right), so the positions are not in pixels "
                "of the full-resolution image; use both files of one run of Space Ranger."
            )
    return PITCH_UM / pitch, f"the lattice pitch of {pitch:.4g} pixels was taken for 100 um", True


def lattice_pitch(positions: pd.DataFrame, path: Path) -> float:
    """Distance in pixels of neighbouring spots, from a plane fitted to the pixels over rows and columns of the array.

    Raises:
        InputError: the pixels are not those of a hexagonal lattice with these rows and columns.
    """
    array = positions[["array_row", "array_col"]].to_numpy()
    pixels = positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]].to_numpy()
    design = np.column_stack([np.ones(len(array)), array])
    if not np.isfinite(design).all() or not np.isfinite(pixels).all():
        raise InputError(f"file {path}: a position is empty or no number; use the file as Space Ranger wrote it.")
    plane, _, rank, _ = np.linalg.lstsq(design, pixels, rcond=None)
    if rank < 3:
        raise InputError(
            f"file {path}: its {len(array)} spots lie on one line, so their distance cannot be measured; set unit_um "
            "to the micrometres per pixel."
        )
    # Neighbours lie two columns apart in the same row, or one column and one row apart.
    along, across = np.linalg.norm(2 * plane[2]), np.linalg.norm(plane[1] + plane[2])
    off = np.sqrt(np.mean(np.sum((design @ plane - pixels) ** 2, axis=1)))
    pitch = (along + across) / 2
    if pitch == 0 or abs(along - across) > 0.1 * pitch or off > 0.15 * pitch:
        raise InputError(
            f"file {path}: pixels and array rows and columns do not make the hexagonal lattice of Visium (neighbours "
            f"{along:.4g} pixels apart along a row, {across:.4g} across, {off:.3g} off); use the file as Space Ranger "
            "wrote it."
        )
    return float(pitch)
