"""A slide as a user would bring it: names, units and layers of their own."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from tissue_counterfactuals.simulate import simulate_tissue

UM_PER_PIXEL = 0.12028

# How the file is described in the configuration.
ENTRY = {
    "path": "mine.h5ad",
    "layer": "raw counts",
    "columns": {"cell_type": "cluster", "domain": "region"},
    "spatial": "centroids_px",
    "unit_um": UM_PER_PIXEL,
    "control_domain": "normal",
    "target_domains": ["tumour core/edge"],
    "holdout": {"cell_types": ["T cell (CD4+)"]},
    "graph": {"max_neighbors": 20},
}


def write_users_slide(path: Path, n_slides: int = 1) -> anndata.AnnData:
    """Write and return cells of the simulator in sections "s 1", "s 2" ..., without its truth; X is normalised."""
    tissue = simulate_tissue(n_cells=900 * n_slides, n_genes=30, n_slides=n_slides, seed=5)
    labels = tissue.obs.astype(str)
    domains = {"domain_0": "normal", "domain_1": "tumour core/edge", "domain_2": "stroma"}
    obs = pd.DataFrame(
        {
            "cluster": labels["cell_type"].replace("type_0", "T cell (CD4+)"),
            "region": labels["domain"].map(domains),
            "section": [f"s {int(name.removeprefix('slide_')) + 1}" for name in labels["sample"]],
        }
    )
    slide = anndata.AnnData(np.log1p(tissue.X.toarray()), obs=obs, var=tissue.var[[]])
    slide.layers["raw counts"] = tissue.X.astype(np.int64)
    slide.obsm["centroids_px"] = tissue.obsm["spatial"] / UM_PER_PIXEL
    slide.write_h5ad(path)
    return slide
