"""CosMx flat files: two fields of view, background rows, control probes, places in pixels."""

from pathlib import Path

import numpy as np
import pandas as pd

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue, shuffled

UM_PER_PIXEL = 0.12028
CONTROLS = ["Negative1", "SystemControl7"]
MATRIX, METADATA = "S1_exprMat_file.csv.gz", "S1_metadata_file.csv.gz"
POSITIONS = "S1_fov_positions_file.csv.gz"


def write(folder: Path, seed: int = 0, um_per_pixel: float = UM_PER_PIXEL) -> Tissue:
    """Write the flat files of one slide into `folder`, and labels.csv beside them."""
    tissue = make_tissue(seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    n = len(tissue.cells)
    rng = np.random.default_rng(seed + 1)
    fov = np.repeat([3, 11], [n // 2, n - n // 2])
    number = np.concatenate([rng.permutation((fov == f).sum()) + 1 for f in (3, 11)])
    tissue.cells = [f"{f}_{i}" for f, i in zip(fov, number, strict=True)]

    columns = [*tissue.genes, *CONTROLS]
    counts = np.hstack([tissue.counts, rng.poisson(0.2, (n, 2))])
    table = pd.DataFrame(counts, columns=columns)
    table.insert(0, "fov", fov)
    table.insert(1, "cell_ID", number)
    outside = pd.DataFrame(rng.poisson(20, (2, len(columns))), columns=columns)
    outside.insert(0, "fov", [3, 11])
    outside.insert(1, "cell_ID", 0)
    pd.concat([outside, table]).to_csv(folder / MATRIX, index=False)

    pixels = tissue.places_um / um_per_pixel
    pd.DataFrame(
        {
            "fov": fov,
            "cell_ID": number,
            "Area": 5000,
            "CenterX_local_px": 1,
            "CenterY_local_px": 1,
            "CenterX_global_px": pixels[:, 0],
            "CenterY_global_px": pixels[:, 1],
        }
    ).iloc[shuffled(n, seed)].to_csv(folder / METADATA, index=False)
    corners = np.array([[0.0, 0.0], [4256.0, 4256.0]])
    pd.DataFrame(
        {
            "FOV": [3, 11],
            "x_global_px": corners[:, 0],
            "y_global_px": corners[:, 1],
            "x_global_mm": corners[:, 0] * um_per_pixel / 1000,
            "y_global_mm": corners[:, 1] * um_per_pixel / 1000,
        }
    ).to_csv(folder / POSITIONS, index=False)
    pd.DataFrame({"cell_id": tissue.cells, "cell_type": tissue.cell_type, "domain": tissue.domain}).to_csv(
        folder / "labels.csv", index=False
    )
    return tissue


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "cosmx_flat", "path": str(folder), "labels": str(folder / "labels.csv")}


FILES = (MATRIX, METADATA, POSITIONS)


def _double(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[3, ["fov", "cell_ID"]] = table.loc[2, ["fov", "cell_ID"]]
    return table


FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_csv(f / MATRIX),
    "missing column": lambda f: edit.drop_column(f / METADATA, "CenterX_global_px"),
    "log-normalised instead of counts": lambda f: edit.log_csv(f / MATRIX),
    # Pixels are the unit of this layout; its fault is a table that somebody has already converted.
    "coordinates in micrometres": lambda f: edit.scale_columns(
        f / METADATA, ["CenterX_global_px", "CenterY_global_px"], UM_PER_PIXEL
    ),
    "duplicated barcodes": lambda f: edit.edit_csv(f / MATRIX, _double),
    "barcodes in another order": lambda f: edit.reverse_rows(f / METADATA),
    "extra cells without labels": lambda f: edit.drop_rows(f / "labels.csv", 4),
}
FAULTS |= kinds.of_labels(kinds.csv_column("labels.csv", "cell_type")) | kinds.of_label_file()
FAULTS |= kinds.of_ids({METADATA: ["fov", "cell_ID"], MATRIX: ["fov", "cell_ID"], "labels.csv": ["cell_id"]})
FAULTS |= kinds.of_genes(kinds.gene_in_csv(MATRIX, "NegPrb12"), MATRIX)
FAULTS |= kinds.of_places(kinds.csv_places(METADATA, "CenterX_global_px", "CenterY_global_px"))
FAULTS |= {"pixels of unknown size": lambda f: (f / POSITIONS).unlink()} | kinds.of_folder()
