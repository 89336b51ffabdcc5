"""Space Ranger output folders: hexagonal lattice, spots beside the tissue, v1 and v2 tables of positions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from layouts import edit, kinds
from layouts.tenx_files import write_10x_folder, write_10x_h5
from layouts.tissue import Tissue, make_tissue, shuffled

PITCH_PX = 137.0
UM_PER_PIXEL = 100 / PITCH_PX
N_ROWS, N_COLUMNS = 16, 20
COLUMNS = [
    *("barcode", "in_tissue", "array_row", "array_col"),
    *("pxl_row_in_fullres", "pxl_col_in_fullres"),
]


def lattice(angle: float = 0.03, pitch: float = PITCH_PX) -> pd.DataFrame:
    """All spots of a small array, slightly turned, as Space Ranger lists them."""
    rows = np.repeat(np.arange(N_ROWS), N_COLUMNS // 2)
    columns = 2 * np.tile(np.arange(N_COLUMNS // 2), N_ROWS) + rows % 2
    flat = np.column_stack([columns * pitch / 2, rows * pitch * np.sqrt(3) / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = np.rint(flat @ turn.T + 1000).astype(int)
    letters = np.array(list("ACGT"))[np.random.default_rng(8).integers(0, 4, (len(rows), 16))]
    return pd.DataFrame(
        {
            "barcode": ["".join(code) + "-1" for code in letters],
            "in_tissue": 1,
            "array_row": rows,
            "array_col": columns,
            "pxl_row_in_fullres": pixels[:, 1],
            "pxl_col_in_fullres": pixels[:, 0],
        }
    )


def write(folder: Path, seed: int = 0, version: int = 2, matrix: str = "h5") -> Tissue:
    """Write one run into `folder`; `labels.csv` stands beside its files.

    The matrix holds two spots that are not in tissue, as edited matrices do.

    Args:
        version: 1 writes tissue_positions_list.csv without a header, 2 tissue_positions.csv with one, 3 parquet.
        matrix: h5, or mtx for the folder of Matrix Market.
    """
    spots = lattice()
    rng = np.random.default_rng(seed)
    inside = np.sort(rng.choice(len(spots), 100, replace=False))
    tissue = make_tissue(n_cells=100, seed=seed)
    tissue.cells = list(spots["barcode"].iloc[inside])
    pixels = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()[inside]
    tissue.places_um = pixels * UM_PER_PIXEL
    spots["in_tissue"] = 0
    spots.loc[inside, "in_tissue"] = 1
    beside = spots.index.difference(inside)[:2]

    counts = np.vstack([tissue.counts, np.ones((2, len(tissue.genes)), dtype=int)])
    barcodes = [*tissue.cells, *spots["barcode"].iloc[beside]]
    names, types = [*tissue.genes, "ProteinA"], ["Gene Expression"] * len(tissue.genes)
    counts = np.hstack([counts, np.full((len(counts), 1), 7)])
    types.append("Antibody Capture")
    (folder / "spatial").mkdir(parents=True, exist_ok=True)
    if matrix == "h5":
        path = folder / "filtered_feature_bc_matrix.h5"
        write_10x_h5(path, counts, barcodes, names, types)
    else:
        write_10x_folder(folder / "filtered_feature_bc_matrix", counts, barcodes, names, types)
    spots = spots.iloc[shuffled(len(spots), seed)]
    if version == 3:
        spots.to_parquet(folder / "spatial/tissue_positions.parquet", index=False)
    else:
        name = "tissue_positions_list.csv" if version == 1 else "tissue_positions.csv"
        spots.to_csv(folder / "spatial" / name, index=False, header=version == 2)
    scales = {
        "spot_diameter_fullres": 0.652 * PITCH_PX,
        "tissue_hires_scalef": 0.1,
        "fiducial_diameter_fullres": 1.05 * PITCH_PX,
        "tissue_lowres_scalef": 0.03,
    }
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(scales))
    pd.DataFrame({"Barcode": tissue.cells, "cell_type": tissue.cell_type, "domain": tissue.domain}).to_csv(
        folder / "labels.csv", index=False
    )
    return tissue


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "visium", "path": str(folder), "labels": str(folder / "labels.csv")}


FILES = (
    "filtered_feature_bc_matrix.h5",
    "spatial/tissue_positions.csv",
    "spatial/scalefactors_json.json",
)
_MATRIX, _POSITIONS = FILES[:2]

FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_10x(f / _MATRIX),
    "missing column": lambda f: edit.drop_column(f / _POSITIONS, "pxl_col_in_fullres"),
    "log-normalised instead of counts": lambda f: edit.log_10x(f / _MATRIX),
    # Pixels of the full-resolution image are the unit of this layout; the fault is those of the small image.
    "coordinates in other pixels": lambda f: edit.scale_columns(f / _POSITIONS, COLUMNS[4:], 0.1),
    "duplicated barcodes": lambda f: edit.double_10x(f / _MATRIX),
    "barcodes in another order": lambda f: edit.reverse_rows(f / _POSITIONS),
    "extra cells without labels": lambda f: edit.drop_rows(f / "labels.csv", 4),
}
FAULTS |= kinds.of_labels(kinds.csv_column("labels.csv", "cell_type")) | kinds.of_label_file()
FAULTS |= kinds.of_ids({_POSITIONS: ["barcode"], "labels.csv": ["Barcode"]})
FAULTS |= kinds.of_genes(kinds.gene_in_10x(_MATRIX, "ERCC-00002")) | kinds.of_folder()
