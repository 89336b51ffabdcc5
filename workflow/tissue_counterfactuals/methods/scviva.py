"""scVIVA (scvi-tools): scVI that also explains the niche of a cell; the counterfactual swaps the domain.

Niches are counted among the cells that may be seen: the held-out ones are nobody's neighbours. As in the authors'
benchmark, the niche is described by the latent of scANVI.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.methods.scanvi import train_scanvi
from tissue_counterfactuals.methods.scvi import architecture, batch_of, latent_of, swap_domain
from tissue_counterfactuals.methods.scvi_tools import Seen, accelerator, seed_everything, train, write_history

_KEYS = {
    "sample_key": "sample",
    "labels_key": "cell_type",
    "cell_coordinates_key": "spatial",
    "expression_embedding_key": "embedding",
}


def fit(task, folder: Path) -> None:
    """Train scVI, scANVI, then scVIVA; leaves the model, the embedding of the cells and history.tsv."""
    from scvi.external import SCVIVA

    seen = Seen.of(task)
    embedding = train_scanvi(task, seen, stages=3).get_latent_representation()
    np.save(folder / "embedding.npy", embedding)
    cells = _with_niches(task, seen, embedding)
    seed_everything(task.seed)
    model = SCVIVA(cells, **architecture(task.settings))
    train(model, task, seen, stages=3)
    write_history(model.history, folder)
    model.save(folder / "model", save_anndata=False)


def _with_niches(task, seen: Seen, embedding: np.ndarray):
    from scvi.external import SCVIVA

    cells = seen.counts()
    cells.obsm["embedding"] = embedding
    smallest = int(cells.obs["sample"].value_counts().min())
    wanted = task.settings["n_neighbors"]
    neighbors = min(wanted, smallest - 1)
    if neighbors < 1:
        raise ValueError("scVIVA needs at least 2 cells of every sample that are not held out, and one sample has 1.")
    if neighbors < wanted:
        task.report(
            f"niches of {neighbors} neighbours instead of {wanted} (scvi.n_neighbors): the smallest sample has "
            f"{smallest} cells that are not held out"
        )
    SCVIVA.preprocessing_anndata(cells, k_nn=neighbors, **_KEYS)
    SCVIVA.setup_anndata(cells, batch_key=batch_of(task), **_KEYS)
    return cells


def _without_niches(seen: Seen, cells: np.ndarray, registered: AnnData) -> AnnData:
    """Counts of some cells, indices (m,), in the form of the registered ones.

    Niches are explained and not read: only training compares with them. So all cells bear those, and the sample, of one
    that is registered; samples that were left out have none of their own.
    """
    table, rows = seen.counts(cells), np.zeros(len(cells), dtype=int)
    table.obs["sample"] = registered.obs["sample"].to_numpy()[rows]
    for key in {*registered.obsm} - {*table.obsm}:
        values = registered.obsm[key]
        frame = isinstance(values, pd.DataFrame)
        table.obsm[key] = values.iloc[rows].set_axis(table.obs_names) if frame else values[rows]
    return table


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """The latent (n, n_latent), of cell and niche together: posterior means."""
    return latent_of(*_load(task, folder))


def predict(task, folder: Path, target: str) -> dict[str, Prediction]:
    """The focal cells decoded in the target domain, and in their own (the twin)."""
    model, seen = _load(task, folder)
    return swap_domain(task, model, seen, target, _without_niches(seen, task.focal, model.adata))


def _load(task, folder: Path):
    """The fitted model, and the cells that it knows."""
    from scvi.external import SCVIVA

    seen = Seen.of(task)
    cells = _with_niches(task, seen, np.load(folder / "embedding.npy"))
    return SCVIVA.load(folder / "model", adata=cells, accelerator=accelerator(task.device)), seen
