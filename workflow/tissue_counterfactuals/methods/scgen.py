"""scGen (scgen 2.1.0): the mean difference of the domains in latent space, added to the focal cells.

The authors of Cellina registered all cells, so that the held-out ones took part in the difference: so as run; else
they are absent. A cell is autoencoded as log1p of counts per 10,000.
"""

from pathlib import Path

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.methods.scvi_tools import Seen, accelerator, seed_everything, shim, train, write_history


def fit(task, folder: Path) -> None:
    """Train; leaves the model and history.tsv."""
    scgen, seen = _package(), Seen.of(task)
    cells = seen.log_expression()
    scgen.SCGEN.setup_anndata(cells, batch_key="domain", labels_key="cell_type")
    seed_everything(task.seed)
    model = scgen.SCGEN(cells, n_latent=task.settings["n_latent"])
    train(model, task, seen, warms_up=False)
    write_history(model.history, folder)
    model.save(folder / "model", save_anndata=False)


def predict(task, folder: Path, target: str) -> dict[str, Prediction]:
    """Focal cells moved along the difference; their twin is their reconstruction, moved along nothing."""
    import torch

    scgen, seen = _package(), Seen.of(task)
    all_cells = np.arange(task.slide.n_obs) if task.switches["scgen_difference"] == "all_cells" else None
    known = seen.log_expression(all_cells)
    model = scgen.SCGEN.load(folder / "model", adata=known, accelerator=accelerator(task.device))
    model.module.eval()
    focal = seen.log_expression(task.focal)

    def decoded(latent: np.ndarray) -> Prediction:
        with torch.no_grad():
            values = model.module.generative(torch.as_tensor(latent, dtype=torch.float32, device=model.device))["px"]
        counts = np.expm1(values.cpu().numpy()).clip(min=0)
        return Prediction(at_library(counts, task.slide, task.focal), task.focal)

    # Averaged over draws: each balances the types by drawing cells.
    moves = []
    for draw in range(task.settings["n_draws"]):
        seed_everything(task.seed, draw)
        _, move = model.predict(
            ctrl_key=seen.domain(task.fold.control), stim_key=seen.domain(target), adata_to_predict=focal[:2].copy()
        )
        moves.append(move)
    latent = model.get_latent_representation(focal)
    return {"-": decoded(latent + np.mean(moves, axis=0)), "no_intervention": decoded(latent)}


def _package():
    """scgen, made importable beside the scvi-tools of this environment."""
    shim()
    import scgen

    inference = scgen.SCGENVAE.inference
    if not getattr(inference, "names_moments", False):

        def with_names(self, x):
            """scvi-tools asks for the moments of q(z) under its own names."""
            outputs = inference(self, x)
            return outputs | {"qzm": outputs["qz_m"], "qzv": outputs["qz_v"]}

        with_names.names_moments = True
        scgen.SCGENVAE.inference = with_names
    return scgen
