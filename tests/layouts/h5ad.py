"""A user's own AnnData file, in the names of the slide contract."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue

UM_PER_PIXEL = 0.12028
FILES = ("mine.h5ad",)


def write(folder: Path, seed: int = 0) -> Tissue:
    """Write mine.h5ad into `folder`."""
    tissue = make_tissue(seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    data = anndata.AnnData(
        sp.csr_matrix(tissue.counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical(tissue.cell_type),
                "domain": pd.Categorical(tissue.domain),
            },
            index=tissue.cells,
        ),
        var=pd.DataFrame(index=tissue.genes),
        obsm={"spatial": tissue.places_um},
    )
    data.write_h5ad(folder / FILES[0])
    return tissue


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "h5ad", "path": str(folder / FILES[0])}


def _in_pixels(data: anndata.AnnData) -> None:
    data.obsm["spatial"] = data.obsm["spatial"] / UM_PER_PIXEL


def _without_labels(data: anndata.AnnData) -> None:
    data.obs.loc[data.obs_names[:4], "cell_type"] = np.nan


FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_anndata(f / FILES[0]),
    "missing column": lambda f: edit.edit_anndata(f / FILES[0], lambda data: data.obs.pop("domain") is None),
    "log-normalised instead of counts": lambda f: edit.log_anndata(f / FILES[0]),
    "coordinates in pixels": lambda f: edit.edit_anndata(f / FILES[0], _in_pixels),
    "duplicated barcodes": lambda f: edit.double_anndata(f / FILES[0]),
    "barcodes in another order": lambda f: edit.edit_anndata(f / FILES[0], lambda data: data[::-1].copy()),
    "extra cells without labels": lambda f: edit.edit_anndata(f / FILES[0], _without_labels),
}
FAULTS |= kinds.of_labels(kinds.obs_column(FILES[0], "cell_type"))
FAULTS |= kinds.of_genes(kinds.gene_in_anndata(FILES[0], "Blank-7"))
FAULTS |= kinds.of_places(kinds.anndata_places(FILES[0], "spatial"))


def _overlaid_sections(data: anndata.AnnData) -> None:
    """A second section, moved by a fifth of its width: no cell stands exactly on another."""
    width = np.ptp(data.obsm["spatial"][:, 0])
    second = np.arange(data.n_obs) % 2 == 1
    data.obs["section"] = pd.Categorical(np.where(second, "s2", "s1"))
    data.obsm["spatial"] = data.obsm["spatial"] + np.outer(second, [0.2 * width, 3.0])


FAULTS["sections told apart by another column"] = lambda f: edit.edit_anndata(f / FILES[0], _overlaid_sections)
