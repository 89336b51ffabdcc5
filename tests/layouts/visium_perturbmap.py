"""GSE193460 as GEO ships it: four sections of simulated lesions, two of them small enough for every test."""

from pathlib import Path

import numpy as np

from layouts import edit, kinds
from layouts.tissue import Tissue
from tissue_counterfactuals.simulate.lesions import simulate_lesions
from unit.perturbmap_files import PIXELS_PER_UM, write_perturbmap

PREFIX = "GSM5808054_KP_1_"


def write(folder: Path, seed: int = 0, n_sections: int = 2, doubled_symbols: int = 0, n_genes: int = 30) -> Tissue:
    """Write the sections into `folder`; the places are those of the rounded pixels."""
    slide = simulate_lesions(n_genes=n_genes, n_sections=n_sections, seed=seed)
    write_perturbmap(slide, folder, doubled_symbols=doubled_symbols)
    return Tissue(
        cells=list(slide.obs_names),
        genes=list(slide.var_names),
        counts=slide.X.toarray().astype(int),
        places_um=np.rint(slide.obsm["spatial"] * PIXELS_PER_UM) / PIXELS_PER_UM,
        cell_type=np.where(slide.obs["cell_type"] == "tumour", "tumor", "normal"),
        domain=slide.obs["domain"].astype(str).to_numpy(),
    )


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "visium_perturbmap", "path": str(folder)}


FILES = tuple(
    PREFIX + name
    for name in (
        "filtered_feature_bc_matrix.h5",
        "tissue_positions_list.csv.gz",
        "spot_annotation.csv.gz",
        "off_tissue.csv.gz",
        "scalefactors_json.json.gz",
    )
)
_MATRIX, _POSITIONS, _ANNOTATION = FILES[:3]

FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_10x(f / _MATRIX),
    "missing column": lambda f: edit.drop_column(f / _ANNOTATION, "phenotypes"),
    "log-normalised instead of counts": lambda f: edit.log_10x(f / _MATRIX),
    # Pixels of the full-resolution image are the unit of this layout; the fault is those of the small image.
    "coordinates in other pixels": lambda f: edit.scale_columns(f / _POSITIONS, [4, 5], 0.1, header=False),
    "duplicated barcodes": lambda f: edit.double_10x(f / _MATRIX),
    "barcodes in another order": lambda f: edit.reverse_rows(f / _ANNOTATION),
    "extra spots without labels": lambda f: edit.drop_rows(f / _ANNOTATION, 4),
}
# From the 20th row on four spots have no label: normal tissue.
FAULTS |= kinds.of_labels(kinds.csv_column(_ANNOTATION, "phenotypes"), first=19)
FAULTS |= kinds.of_ids({_ANNOTATION: ["barcode"]})
FAULTS |= kinds.of_genes(kinds.gene_in_10x(_MATRIX, "ERCC-00002")) | kinds.of_folder()
