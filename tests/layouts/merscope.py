"""MERSCOPE output folder: blanks among the genes, ids of 19 digits, micrometres, metadata in another order."""

from pathlib import Path

import numpy as np
import pandas as pd

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue, shuffled

UM_PER_PIXEL = 0.108


def write(folder: Path, seed: int = 0) -> Tissue:
    """Write cell_by_gene.csv and cell_metadata.csv into `folder`, and labels.csv beside them."""
    tissue = make_tissue(seed=seed)
    # Neighbouring numbers, which a floating-point number cannot tell apart.
    tissue.cells = [str(1101234567890123456 + i) for i in range(len(tissue.cells))]
    folder.mkdir(parents=True, exist_ok=True)
    n = len(tissue.cells)
    table = pd.DataFrame(tissue.counts, columns=tissue.genes)
    table.insert(0, "cell", tissue.cells)
    blanks = np.random.default_rng(seed + 1).poisson(0.05, (n, 2))
    table[["Blank-1", "Blank-2"]] = blanks
    table.to_csv(folder / "cell_by_gene.csv", index=False)
    metadata = pd.DataFrame(
        {
            "EntityID": tissue.cells,
            "fov": 1,
            "volume": 500.0,
            "center_x": tissue.places_um[:, 0],
            "center_y": tissue.places_um[:, 1],
        }
    )
    metadata.iloc[shuffled(n, seed)].to_csv(folder / "cell_metadata.csv", index=False)
    pd.DataFrame({"cell": tissue.cells, "cell_type": tissue.cell_type, "domain": tissue.domain}).to_csv(
        folder / "labels.csv", index=False
    )
    return tissue


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "merscope", "path": str(folder), "labels": str(folder / "labels.csv")}


FILES = ("cell_by_gene.csv", "cell_metadata.csv")


def _double(table: pd.DataFrame) -> pd.DataFrame:
    table.loc[1, "cell"] = table.loc[0, "cell"]
    return table


FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_csv(f / "cell_by_gene.csv"),
    "missing column": lambda f: edit.drop_column(f / "cell_metadata.csv", "center_y"),
    "log-normalised instead of counts": lambda f: edit.log_csv(f / "cell_by_gene.csv"),
    "coordinates in pixels": lambda f: edit.scale_columns(
        f / "cell_metadata.csv", ["center_x", "center_y"], 1 / UM_PER_PIXEL
    ),
    "duplicated barcodes": lambda f: edit.edit_csv(f / "cell_by_gene.csv", _double),
    "barcodes in another order": lambda f: edit.reverse_rows(f / "cell_metadata.csv"),
    "extra cells without labels": lambda f: edit.drop_rows(f / "labels.csv", 4),
}
FAULTS |= kinds.of_labels(kinds.csv_column("labels.csv", "cell_type")) | kinds.of_label_file()
FAULTS |= kinds.of_ids({"cell_by_gene.csv": ["cell"], "cell_metadata.csv": ["EntityID"], "labels.csv": ["cell"]})
FAULTS |= kinds.of_rounded_ids("cell_by_gene.csv", "cell")
FAULTS |= kinds.of_genes(kinds.gene_in_csv("cell_by_gene.csv", "Blank-77"), "cell_by_gene.csv")
FAULTS |= kinds.of_places(kinds.csv_places("cell_metadata.csv", "center_x", "center_y"))
FAULTS |= kinds.of_folder()
