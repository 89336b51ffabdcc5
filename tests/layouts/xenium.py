"""Xenium output bundle: features with control probes, cells in another order, centroids in micrometres."""

from pathlib import Path

import numpy as np
import pandas as pd

from layouts import edit, kinds
from layouts.tenx_files import write_10x_folder, write_10x_h5
from layouts.tissue import Tissue, make_tissue, shuffled

CONTROLS = ["Negative Control Probe", "Negative Control Codeword", "Unassigned Codeword"]
UM_PER_PIXEL = 0.2125


def write(
    folder: Path,
    seed: int = 0,
    matrix: str = "h5",
    cells: str = "csv.gz",
    labels: bool = True,
    tissue: Tissue | None = None,
) -> Tissue:
    """Write a bundle into `folder`, and labels.csv beside its files.

    Args:
        matrix: h5, or mtx for the folder of Matrix Market.
        cells: csv.gz or parquet.
        tissue: what to write; None makes a small one.
    """
    tissue = make_tissue(seed=seed) if tissue is None else tissue
    folder.mkdir(parents=True, exist_ok=True)
    n = len(tissue.cells)
    controls = np.random.default_rng(seed + 1).poisson(0.1, (n, len(CONTROLS)))
    counts = np.hstack([tissue.counts, controls])
    names = [*tissue.genes, *[f"Control_{i}" for i in range(len(CONTROLS))]]
    types = ["Gene Expression"] * len(tissue.genes) + CONTROLS
    if matrix == "h5":
        write_10x_h5(folder / "cell_feature_matrix.h5", counts, tissue.cells, names, types)
    else:
        write_10x_folder(folder / "cell_feature_matrix", counts, tissue.cells, names, types)
    table = pd.DataFrame(
        {
            "cell_id": tissue.cells,
            "x_centroid": tissue.places_um[:, 0],
            "y_centroid": tissue.places_um[:, 1],
            "transcript_counts": tissue.counts.sum(axis=1),
            "control_probe_counts": controls[:, 0],
            "control_codeword_counts": controls[:, 1],
            "total_counts": counts.sum(axis=1),
            "cell_area": 80.0,
            "nucleus_area": 30.0,
        }
    ).iloc[shuffled(n, seed)]
    if cells == "parquet":
        # As the instrument writes it: ids as bytes.
        table["cell_id"] = table["cell_id"].str.encode("utf-8")
        table.to_parquet(folder / "cells.parquet", index=False)
    else:
        table.to_csv(folder / "cells.csv.gz", index=False)
    if labels:
        pd.DataFrame(
            {
                "cell_id": tissue.cells,
                "cell_type": tissue.cell_type,
                "domain": tissue.domain,
            }
        ).to_csv(folder / "labels.csv", index=False)
    return tissue


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "xenium", "path": str(folder), "labels": str(folder / "labels.csv")}


FILES = ("cell_feature_matrix.h5", "cells.csv.gz")

FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_10x(f / "cell_feature_matrix.h5"),
    "missing column": lambda f: edit.drop_column(f / "cells.csv.gz", "x_centroid"),
    "log-normalised instead of counts": lambda f: edit.log_10x(f / "cell_feature_matrix.h5"),
    "coordinates in pixels": lambda f: edit.scale_columns(
        f / "cells.csv.gz", ["x_centroid", "y_centroid"], 1 / UM_PER_PIXEL
    ),
    "duplicated barcodes": lambda f: edit.double_10x(f / "cell_feature_matrix.h5"),
    "barcodes in another order": lambda f: edit.reverse_rows(f / "cells.csv.gz"),
    "extra cells without labels": lambda f: edit.drop_rows(f / "labels.csv", 4),
}
FAULTS |= kinds.of_labels(kinds.csv_column("labels.csv", "cell_type")) | kinds.of_label_file()
FAULTS |= kinds.of_ids({"cells.csv.gz": ["cell_id"], "labels.csv": ["cell_id"]})
FAULTS |= kinds.of_genes(kinds.gene_in_10x("cell_feature_matrix.h5", "NegControlProbe_00042"))
FAULTS |= kinds.of_places(kinds.csv_places("cells.csv.gz", "x_centroid", "y_centroid"))
FAULTS |= kinds.of_folder()
