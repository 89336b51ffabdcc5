"""SIMVI (simvi 0.1.2): intrinsic and spatial latents of a cell. It has no counterfactual: its latents are compared
only.

Held-out cells are absent from the data and from the graph.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.methods.scvi_tools import Seen, seed_everything, shim


def fit(task, folder: Path) -> None:
    """Train; leaves latents.npz (cells: indices in the slide; z, s: one row per cell) and history.tsv."""
    shim()
    from simvi.model import SimVI

    settings, seen = task.settings, Seen.of(task)
    cells = seen.counts()
    SimVI.setup_anndata(cells, batch_key=None)
    edges = SimVI.extract_edge_index(cells, batch_key="sample", n_neighbors=settings["n_neighbors"])
    seed_everything(task.seed)
    model = SimVI(
        cells,
        n_intrinsic=settings["n_latent"],
        n_spatial=settings["n_latent"],
        kl_weight=1.0,
        kl_gatweight=0.01,
        lam_mi=settings["independence_weight"],
        permutation_rate=0.5,
    )
    losses = model.train(edges, max_epochs=settings["max_epochs"], batch_size=settings["batch_size"], use_gpu=False)
    history = pd.DataFrame(dict(zip(("train_loss", "validation_loss"), losses, strict=True)))
    history.rename_axis("epoch").reset_index().to_csv(
        folder / "history.tsv", sep="\t", index=False, float_format="%.6g"
    )
    z, s = (model.get_latent_representation(edges, representation_kind=kind) for kind in ("intrinsic", "interaction"))
    np.savez(folder / "latents.npz", cells=seen.cells, z=z, s=s)


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """z and s of all cells, each (n, n_latent)."""
    with np.load(folder / "latents.npz") as stored:
        return {name: Seen.of(task).of_all(stored[name]) for name in "zs"}
