"""scANVI (scvi-tools): scVI whose latent space knows the cell types; the counterfactual swaps the domain."""

from pathlib import Path

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.methods.scvi import latent_of, swap_domain, train_scvi
from tissue_counterfactuals.methods.scvi_tools import Seen, accelerator, train, write_history


def fit(task, folder: Path) -> None:
    """Train scVI, then scANVI from it, each with its own epochs; leaves the model and history.tsv."""
    seen = Seen.of(task)
    model = train_scanvi(task, seen)
    write_history(model.history, folder)
    model.save(folder / "model", save_anndata=False)


def train_scanvi(task, seen: Seen, stages: int = 2):
    """The trained model; `stages` share a budget, scVI's training being one of them."""
    from scvi.model import SCANVI

    model = SCANVI.from_scvi_model(
        train_scvi(task, seen, stages), unlabeled_category="unlabelled", labels_key="cell_type"
    )
    train(model, task, seen, stages)
    return model


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """The latent (n, n_latent): posterior means."""
    return latent_of(*_load(task, folder))


def predict(task, folder: Path, target: str) -> dict[str, Prediction]:
    """The focal cells decoded in the target domain, and in their own (the twin)."""
    model, seen = _load(task, folder)
    return swap_domain(task, model, seen, target, seen.counts(task.focal))


def _load(task, folder: Path):
    """The fitted model, and the cells that it knows."""
    from scvi.model import SCANVI

    seen = Seen.of(task)
    return SCANVI.load(folder / "model", adata=seen.counts(), accelerator=accelerator(task.device)), seen
