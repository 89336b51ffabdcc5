"""Slides of the colorectal CosMx data (Crowell et al. 2025): a file each, counts by gene, places in pixels."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue

PIXEL_UM = 0.12028
# Stored fine type -> label of the benchmark.
TYPES = {
    "epi1": "Epithelial",
    "epi4": "Epithelial",
    "fib2": "Fibroblast",
    "TC": "T_cell",
    "mye1": "Myeloid",
    "EC": "Endothelial",
    "PC_IgA": "Plasma_cell",
}
REGIONS = ("REF", "TVA", "CRC")
UNKNOWN = "doublet"
FILES = ("242.h5ad",)


def write(
    folder: Path,
    seed: int = 0,
    slides: tuple[str, ...] = ("242",),
    n_cells: int = 120,
    n_genes: int = 12,
) -> Tissue:
    """Write slides into `folder`, 242.h5ad and so on.

    The first three cells of each have no histology, the next two no type, the next one a type that no table knows.

    Returns:
        What must come of the last slide.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i, slide in enumerate(slides):
        tissue = _write_slide(folder / f"{slide}.h5ad", slide, seed + i, n_cells, n_genes)
    return tissue


def _write_slide(path: Path, slide: str, seed: int, n_cells: int, n_genes: int) -> Tissue:
    tissue = make_tissue(n_cells, n_genes, seed)
    rng = np.random.default_rng(seed + 2)
    types = rng.choice(list(TYPES), n_cells)
    # Three regions side by side.
    rank = np.argsort(np.argsort(tissue.places_um[:, 0]))
    regions = np.array(REGIONS)[rank * len(REGIONS) // n_cells]
    typ = pd.Series([f"{slide}_{region}" for region in regions], dtype=object)
    ist = pd.Series(types, dtype=object)
    typ[:3], ist[3:5], ist[5] = np.nan, np.nan, UNKNOWN
    obs = pd.DataFrame(
        {
            "run": 1,
            "sec": int(slide[-1]),
            "sid": int(slide),
            "fov": rng.integers(1, 9, n_cells),
            "ist": pd.Categorical(ist),
            "typ": pd.Categorical(typ),
            "ctx": pd.Categorical(rng.choice(["stroma", "epithelium"], n_cells)),
            "CenterX_global_px": tissue.places_um[:, 0] / PIXEL_UM,
            "CenterY_global_px": tissue.places_um[:, 1] / PIXEL_UM,
            "nCount_RNA": tissue.counts.sum(axis=1),
        }
    ).set_index(pd.Index(tissue.cells))
    data = anndata.AnnData(
        sparse.csc_matrix(tissue.counts.astype(np.float64)),
        obs=obs,
        var=pd.DataFrame(index=tissue.genes),
        obsm={"PCA": rng.normal(size=(n_cells, 3))},
    )
    data.write_h5ad(path)
    kept = slice(6, None)
    return replace(
        tissue,
        cells=tissue.cells[kept],
        counts=tissue.counts[kept],
        places_um=tissue.places_um[kept],
        cell_type=np.array([TYPES[t] for t in types[kept]]),
        domain=regions[kept],
    )


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "cosmx_crc", "path": str(folder)}


FAULTS = {
    "wrong gene ids": lambda f: edit.ensembl_anndata(f / FILES[0]),
    "missing column": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a.obs.pop("typ") is None),
    "log-normalised instead of counts": lambda f: edit.log_anndata(f / FILES[0]),
    "coordinates in pixels": lambda f: edit.edit_anndata(f / FILES[0], _in_micrometres),
    "duplicated barcodes": lambda f: edit.edit_anndata(f / FILES[0], _same_cell_twice),
    "barcodes in another order": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a[::-1].copy()),
    "extra cells without labels": lambda f: edit.edit_anndata(f / FILES[0], _without_labels),
}
FAULTS |= kinds.of_labels(kinds.obs_column(FILES[0], "ist"), first=6)
FAULTS |= kinds.of_genes(kinds.gene_in_anndata(FILES[0], "Negative3"))
FAULTS |= kinds.of_places(kinds.anndata_places(FILES[0], "Center*_global_px")) | kinds.of_folder()


def _in_micrometres(data: anndata.AnnData) -> None:
    """Here pixels are right, so the fault is the other unit."""
    for axis in "XY":
        data.obs[f"Center{axis}_global_px"] *= PIXEL_UM


def _same_cell_twice(data: anndata.AnnData) -> anndata.AnnData:
    return anndata.concat([data, data[-1:]], merge="same")


def _without_labels(data: anndata.AnnData) -> None:
    data.obs.loc[data.obs_names[6:10], "ist"] = np.nan
