"""The plain model: own cells keep what is their own, and change as neighbours and domain changed other cells.

Its twin are the observed counts: with the neighbours as they are, nothing changes.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.models import hierarchical as model
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream


def fit(task, folder: Path) -> None:
    """Regress every type; leaves model.npz (axes, and the slopes of the held-out type) and types.tsv (who was learnt from)."""
    slide, settings, held_out = task.slide, task.settings, task.split.held_out
    log_expression = log_normalize(slide.X)
    train = np.flatnonzero(~held_out)
    shown = train
    if len(train) > model.N_CELLS_OF_AXES:
        draw = stream(task.seed, "hierarchical_axes")
        shown = np.sort(draw.choice(train, model.N_CELLS_OF_AXES, replace=False))
    received = neighborhood_features(task.masked_graph[shown], log_expression)
    axes = model.Axes.of(received, settings["n_components"])
    design = _design(task, axes, log_expression)
    library = np.maximum(np.asarray(slide.X.sum(axis=1), dtype=float).ravel(), 1.0)
    cell_type = slide.obs["cell_type"].astype(str).to_numpy()
    evidence = {}
    for label in np.unique(cell_type):
        own = np.flatnonzero((cell_type == label) & ~held_out)
        if len(own) >= settings["min_cells"]:
            evidence[label] = model.regress(slide.X[own], library[own], design[own])
            task.report(f"{label}: {len(own)} cells")
    own = evidence.pop(task.fold.cell_type, None)
    if len(evidence) < 2:
        raise ValueError(
            f"only {len(evidence)} other cell types have {settings['min_cells']} cells to learn from, and it takes two "
            "to see how far types agree"
        )
    spread = model.learn_spread(list(evidence.values()))
    slopes = model.predictive_prior(list(evidence.values()), spread).update(own)
    np.savez(
        folder / "model.npz",
        mean=axes.mean,
        loadings=axes.loadings,
        slopes=slopes.mean,
        covariance=slopes.covariance,
    )
    table = [(label, e.n_cells, float(np.median(e.dispersion))) for label, e in evidence.items()]
    pd.DataFrame(table, columns=["cell_type", "n_cells", "dispersion"]).to_csv(
        folder / "types.tsv", sep="\t", index=False, float_format="%.6g"
    )


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per donor rule, and the twin."""
    slide, focal = task.slide, task.focal
    with np.load(folder / "model.npz") as stored:
        axes = model.Axes(stored["mean"], stored["loadings"])
        slopes = model.Prior(stored["slopes"], stored["covariance"])
    log_expression = log_normalize(slide.X)
    own = axes.project(task.masked_graph[focal], log_expression)
    counts = slide.X[focal].toarray().astype(float)
    # The column of a domain: 0 where the focal cells are, 1 in the target.
    domain = np.tile([float(name == target) for name in task.fold.targets], (len(focal), 1))

    def moved(perturbation) -> Prediction:
        new = axes.project(perturbation.graph(slide.n_obs), log_expression)
        change, _ = model.change(slopes, np.hstack([new - own, domain]))
        return Prediction(at_library(counts * np.exp(change), slide, focal), focal)

    twin = Prediction(counts.astype(np.float32), focal)
    return task.counterfactuals(target, moved) | {"no_intervention": twin}


def _design(task, axes: model.Axes, log_expression) -> np.ndarray:
    """(n, k + targets): what neighbours express, and in which target domain a cell stands."""
    domain = task.slide.obs["domain"].astype(str).to_numpy()
    columns = [(domain == name).astype(float) for name in task.fold.targets]
    return np.column_stack([axes.project(task.masked_graph, log_expression), *columns])
