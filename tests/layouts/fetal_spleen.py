"""Fetal spleen (Suo et al. 2022): four Visium samples in one file, log-normalised, gene symbols repeated."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue

SAMPLES = ("WSSS_F_IMMsp1", "WSSS_F_IMMsp2", "WSSS_F_IMMsp3", "WSSS_F_IMMsp4")
PITCH_PX = 137.0
FILES = ("Visium10X_data_SP.h5ad",)


def write(
    folder: Path,
    seed: int = 0,
    samples: tuple[str, ...] = SAMPLES,
    n_cells: int = 60,
    n_genes: int = 80,
) -> Tissue:
    """Write the file with some samples of `n_cells` spots each; the last gene has the name of the first.

    Returns:
        What must come of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [make_tissue(n_cells, n_genes, seed + i) for i in range(len(samples))]
    side = int(np.ceil(np.sqrt(n_cells)))
    row, column = np.divmod(np.arange(n_cells), side)
    lattice = np.column_stack([column + row % 2 / 2, row * np.sqrt(0.75)])
    counts = np.vstack([part.counts for part in parts])
    # Deep spots too: a count must come back exactly where it is large.
    counts[:, 0] *= 300
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    cells = [f"{s}_{cell}" for s, part in zip(samples, parts, strict=True) for cell in part.cells]
    genes = [*parts[0].genes[:-1], parts[0].genes[0]]
    data = anndata.AnnData(
        sparse.csr_matrix(np.log1p(scaled).astype(np.float32)),
        obs=pd.DataFrame({"sample_id": np.repeat(samples, n_cells)}, index=cells),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": np.tile(lattice * PITCH_PX + 500, (len(samples), 1))},
        uns={"log1p": {"base": None}},
    )
    data.obs["sample_id"] = data.obs["sample_id"].astype("category")
    data.write_h5ad(folder / FILES[0])
    return replace(
        parts[0],
        cells=cells,
        genes=[*genes[:-1], f"{genes[-1]}-1"],
        counts=counts,
        places_um=np.tile(lattice * 100 + 500 * 100 / PITCH_PX, (len(samples), 1)),
        cell_type=np.full(len(cells), "spot"),
        domain=np.full(len(cells), "spleen"),
    )


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {
        "source": "fetal_spleen",
        "path": str(folder / FILES[0]),
        "experiments": ["celcomen_spleen"],
    }


FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_anndata(f / FILES[0]),
    "missing column": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a.obs.pop("sample_id") is None),
    "log-normalised instead of counts": lambda f: edit.edit_anndata(f / FILES[0], _scaled),
    "coordinates in pixels": lambda f: edit.edit_anndata(f / FILES[0], _in_one_place),
    "duplicated barcodes": lambda f: edit.double_anndata(f / FILES[0]),
    "barcodes in another order": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a[::-1].copy()),
    "extra cells without labels": lambda f: edit.edit_anndata(f / FILES[0], _without_sample),
}
FAULTS |= kinds.of_places(kinds.anndata_places(FILES[0], "spatial"))
FAULTS |= kinds.of_genes(kinds.gene_in_anndata(FILES[0], "ERCC-00002"))


def _scaled(data: anndata.AnnData) -> None:
    """Log-normalised is right here; scaled by gene as well, the counts cannot be had back."""
    data.X = sparse.csr_matrix(data.X.multiply(np.linspace(0.5, 1.5, data.n_vars)))


def _in_one_place(data: anndata.AnnData) -> None:
    """Pixels are right here, of whatever size; places that were lost are not."""
    data.obsm["spatial"] = np.zeros_like(data.obsm["spatial"])


def _without_sample(data: anndata.AnnData) -> None:
    data.obs.loc[data.obs_names[:4], "sample_id"] = np.nan
