"""Sections of a mouse brain as CELLxGENE gives them: counts in raw.X, genes under Ensembl ids, places in obsm."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue, shuffled

SECTIONS = ("C57BL6J-2.036", "C57BL6J-2.039", "C57BL6J-2.041")
TYPES = ("glutamatergic neuron", "oligodendrocyte", "astrocyte", "GABAergic neuron", "endothelial cell")
REGIONS = ("Thalamus", "Isocortex", "Fiber_tracts", "Hypothalamus")
WIDTH_UM = 7000.0
PIXEL_UM = 0.109
FILES = ("brain.h5ad",)


def write(folder: Path, seed: int = 0, n_cells: int = 120, n_genes: int = 12) -> Tissue:
    """Write `brain.h5ad` with three sections of `n_cells` cells each, in mixed order.

    The first two cells of each section have no region. raw.X holds its genes in another order than X.

    Returns:
        What must come of the second section.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + 2)
    ids = [f"ENSMUSG{i:011d}" for i in range(n_genes)]
    parts, sections = [], {}
    for i, section in enumerate(SECTIONS):
        tissue = make_tissue(n_cells, n_genes, seed + i)
        # Two dense patches, one at either side of the section: as wide as a brain, with few cells.
        places = tissue.places_um - tissue.places_um.min(axis=0)
        rank = np.argsort(np.argsort(places[:, 0]))
        places[rank * 2 >= n_cells, 0] += WIDTH_UM - places[:, 0].max()
        region = np.array(REGIONS)[rank * len(REGIONS) // n_cells].astype(object)
        sections[section] = replace(
            tissue,
            cells=[f"{section}_{cell}" for cell in tissue.cells],
            places_um=places,
            cell_type=rng.choice(TYPES, n_cells),
            domain=region,
        )
        region = region.copy()
        region[:2] = np.nan
        parts.append(
            pd.DataFrame(
                {
                    "cell_type": sections[section].cell_type,
                    "major_brain_region": region,
                    "brain_section_label": section,
                    "x": places[:, 0],
                    "y": places[:, 1],
                },
                index=sections[section].cells,
            )
        )
    order = shuffled(n_cells * len(SECTIONS), seed)
    obs = pd.concat(parts).iloc[order]
    counts = np.vstack([tissue.counts for tissue in sections.values()])[order]
    places = obs[["x", "y"]].to_numpy()
    obs = obs.drop(columns=["x", "y"]).astype("category")
    var = pd.DataFrame({"feature_name": pd.Categorical(tissue.genes), "feature_is_filtered": False}, index=ids)
    data = anndata.AnnData(
        sparse.csr_matrix(np.log1p(counts).astype(np.float32)),
        obs=obs,
        var=var,
        obsm={"X_spatial_coords": places, "X_umap": rng.normal(size=(len(obs), 2))},
    )
    reverse = np.arange(n_genes)[::-1]
    data.raw = anndata.AnnData(
        sparse.csr_matrix(counts[:, reverse].astype(np.float32)),
        obs=obs,
        var=pd.DataFrame(index=np.array(ids)[reverse]),
    )
    data.write_h5ad(folder / FILES[0])
    second = sections[SECTIONS[1]]
    kept = [i for i in range(n_cells) if i > 1]
    place = {cell: at for at, cell in enumerate(obs.index)}
    kept.sort(key=lambda i: place[second.cells[i]])
    return replace(
        second,
        cells=[second.cells[i] for i in kept],
        genes=tissue.genes[::-1],
        counts=second.counts[kept][:, reverse],
        places_um=second.places_um[kept],
        cell_type=second.cell_type[kept],
        domain=second.domain[kept],
    )


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {
        "source": "merfish_brain",
        "path": str(folder / FILES[0]),
        "samples": [SECTIONS[1]],
    }


FAULTS = {
    "wrong gene ids": lambda f: edit.edit_anndata(f / FILES[0], _without_symbols),
    "missing column": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a.obs.pop("major_brain_region") is None),
    "log-normalised instead of counts": lambda f: edit.edit_anndata(f / FILES[0], _log_in_raw),
    "coordinates in pixels": lambda f: scale_places(f, 1 / PIXEL_UM),
    "duplicated barcodes": lambda f: edit.double_anndata(f / FILES[0]),
    "barcodes in another order": lambda f: edit.edit_anndata(f / FILES[0], lambda a: a[::-1].copy()),
    "extra cells without labels": lambda f: edit.edit_anndata(f / FILES[0], _without_labels),
}
FAULTS |= kinds.of_genes(kinds.gene_in_anndata(FILES[0], "Blank-7", raw=True))
FAULTS |= kinds.of_labels(kinds.obs_column(FILES[0], "cell_type"), first=8)
FAULTS |= kinds.of_places(kinds.anndata_places(FILES[0], "X_spatial_coords"))


def scale_places(folder: Path, factor: float) -> None:
    """The same places in another unit."""

    def change(data: anndata.AnnData) -> None:
        data.obsm["X_spatial_coords"] = data.obsm["X_spatial_coords"] * factor

    edit.edit_anndata(folder / FILES[0], change)


def _without_symbols(data: anndata.AnnData) -> None:
    del data.var["feature_name"]


def _log_in_raw(data: anndata.AnnData) -> None:
    raw = data.raw.to_adata()
    raw.X = raw.X.log1p()
    data.raw = raw


def _without_labels(data: anndata.AnnData) -> None:
    own = data.obs_names[data.obs["brain_section_label"] == SECTIONS[1]]
    data.obs.loc[own[5:9], "cell_type"] = np.nan
