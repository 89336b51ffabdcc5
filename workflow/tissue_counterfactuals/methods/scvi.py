"""scVI (scvi-tools) with the domain as batch: the counterfactual decodes a focal cell as if it came from the target.

It knows nothing of neighbours. The paper has it among the latent models only (Cellina, appendix H), with the settings
that are the defaults here; the swap of the batch is scvi-tools' own call.
"""

from pathlib import Path

import numpy as np
from anndata import AnnData

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.methods.scvi_tools import Seen, accelerator, seed_everything, train, write_history


def fit(task, folder: Path) -> None:
    """Train; leaves the model of scvi-tools and history.tsv."""
    model = train_scvi(task, Seen.of(task))
    write_history(model.history, folder)
    model.save(folder / "model", save_anndata=False)


def train_scvi(task, seen: Seen, stages: int = 1):
    """The trained model, on cells whose counts are registered with their batch and type; `stages` share a budget."""
    from scvi.model import SCVI

    cells = seen.counts()
    SCVI.setup_anndata(cells, batch_key=batch_of(task), labels_key="cell_type")
    seed_everything(task.seed)
    model = SCVI(cells, **architecture(task.settings))
    train(model, task, seen, stages)
    return model


def batch_of(task) -> str:
    """What differs beside the latent: the domain, which a counterfactual exchanges. Where nothing is asked and latents
    alone are looked at, the sample, as published: the domain is looked for in them, and would be taken out.
    """
    return "domain" if task.fold.targets else "sample"


def architecture(settings: dict) -> dict:
    """Arguments of the network."""
    return {key: settings[key] for key in ("n_hidden", "n_latent", "n_layers", "gene_likelihood")}


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """The latent (n, n_latent): posterior means."""
    return latent_of(*_load(task, folder))


def latent_of(model, seen: Seen) -> dict[str, np.ndarray]:
    """The one latent that a model of scvi-tools has: (n, n_latent) float32 of all cells, NaN for those not seen."""
    return {"latent": seen.of_all(model.get_latent_representation())}


def predict(task, folder: Path, target: str) -> dict[str, Prediction]:
    """The focal cells decoded in the target domain, and in their own (the twin)."""
    model, seen = _load(task, folder)
    return swap_domain(task, model, seen, target, seen.counts(task.focal))


def _load(task, folder: Path):
    """The fitted model, and the cells that it knows."""
    from scvi.model import SCVI

    seen = Seen.of(task)
    return SCVI.load(folder / "model", adata=seen.counts(), accelerator=accelerator(task.device)), seen


def swap_domain(task, model, seen: Seen, target: str, focal: AnnData) -> dict[str, Prediction]:
    """What a model of scvi-tools expects of the focal cells in the target domain and in their own.

    Args:
        focal: the focal cells (m, g) with all that the model has registered; it need not have seen them.
    """

    def expected(domain: str) -> Prediction:
        seed_everything(task.seed)
        share = model.get_normalized_expression(
            focal,
            transform_batch=seen.domain(domain),
            n_samples=task.settings["n_samples"],
            return_numpy=True,
        )
        return Prediction(at_library(share, task.slide, task.focal), task.focal)

    return {"-": expected(target), "no_intervention": expected(task.fold.control)}
