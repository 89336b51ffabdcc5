"""Celcomen: the focal cells keep what is their own and answer their new neighbours as the fitted field's forces say.

The field is that of `models/celcomen_gaussian.py`, fitted on log-normalised expression about the mean of each sample,
in the graph of neighbourhoods (J: the mean of a cell's neighbours). Given all others, the mean of cell i is
sum_j J_ij s_j K with K = 2 g (1 - 2 g')^-1, so that with the neighbours held at their donors' values

    x' = x + w K (mean of the donors - mean of the old neighbours),

w the weight of all of a cell's neighbours together. That is the exact counterfactual of the field for a cell whose
surroundings are held, and its twin is the observed cell.

What it can answer: other neighbours, neighbours that express something else, and a gene that is taken out of the focal
cells themselves (then neighbours answer in turn, see `models/celcomen_field.py`). What it cannot: it knows neither cell
types nor domains, so that all cells answer alike, and that neighbours are of a kind (composition) cannot be told from
what they do. Donors do not answer in turn. Nobody published this use of the model, so that it is the same under both
protocols.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, fit_gaussian, neighbor_response, precision_of
from tissue_counterfactuals.models.celcomen_spectrum import bounds, symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.slide import log_normalize, normalize_counts

# Cells x genes whose field answers a knock-out; it is held dense a few times over.
_LARGEST_FIELD = 100_000_000
# Smallest precision, of 1 for a cell by itself, that the smoothest pattern of a field keeps.
_FROM_BORDER = 0.01


def fit(task, folder: Path) -> None:
    """Fit the field to the cells that are not held out; leaves forces.npz (inter, intra: k x k; genes: k of g; mean)
    and history.tsv.
    """
    slide, seen = task.slide, ~task.split.held_out
    expression = log_normalize(slide.X)
    groups = (cells[seen[cells]] for cells in slide.obs.groupby("sample", observed=True).indices.values())
    # One cell of a sample says nothing about the mean of the sample.
    groups = [cells for cells in groups if len(cells) > 1]
    if not groups:
        raise ValueError("Celcomen needs a sample of which at least 2 cells are not held out, and none has them.")
    # A gene that is the same in all cells has no force.
    genes = np.flatnonzero(_variance(expression[np.concatenate(groups)]) > 0)
    samples = []
    for cells in groups:
        edges = task.masked_graph[cells][:, cells]
        # Cells without edges tell of forces within cells alone.
        weights = interaction_weights(edges, "row") if edges.count_nonzero() else None
        samples.append((sparse.csr_array(expression[cells][:, genes]), weights))
    if all(weights is None for _, weights in samples):
        raise ValueError("Celcomen needs cells that are neighbours, and no two of those that are not held out are.")
    try:
        forces = fit_gaussian(samples, ridge=task.settings["ridge"], errors=False, seed=task.seed)
    except InputError as error:
        raise ValueError(str(error)) from error
    task.report(f"forces between {len(genes)} genes, from {sum(map(len, groups))} cells")
    history = pd.DataFrame(forces.history)[["epoch", "loss"]]
    history.rename(columns={"loss": "train_loss"}).to_csv(
        folder / "history.tsv", sep="\t", index=False, float_format="%.6g"
    )
    np.savez(folder / "forces.npz", inter=forces.inter, intra=forces.intra, mean=forces.mean, genes=genes)


def knock_out_around(
    task, folder: Path, graph, altered: np.ndarray, lost: dict[str, int]
) -> dict[str, Prediction | str]:
    """The focal cells when a gene is held at 0 in other cells: the whole field between them answers.

    Args:
        graph: (n, n) of all cells, held-out ones with their neighbours too.
        altered: (k,) cells without the gene.
        lost: name -> the gene, by its place on the slide.
    """
    slide, focal = task.slide, task.focal
    with np.load(folder / "forces.npz") as stored:
        forces, genes = (stored["inter"], stored["intra"]), stored["genes"]
    expression = sparse.csr_array(log_normalize(slide.X)[:, genes])
    observed = normalize_counts(slide.X[focal]).toarray()
    field, made = _field(symmetric_part(interaction_weights(graph, "row")), *forces), {}
    for name, gene in lost.items():
        change = _without(np.array([gene]), genes, altered, focal, expression, field, tolerance=1e-5)
        made[name] = change if isinstance(change, str) else _changed(task, observed, genes, change)
    return made


def _changed(task, observed: np.ndarray, genes: np.ndarray, change: np.ndarray) -> Prediction:
    """Focal cells (CP10K) after a change of the logarithm of 1 + counts per 10,000 of some genes."""
    values = observed.copy()
    values[:, genes] = np.clip((values[:, genes] + 1) * np.exp(change) - 1, 0, None)
    return Prediction(at_library(values, task.slide, task.focal), task.focal, keeps_noise=True)


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin, which is the observed cell."""
    slide, focal = task.slide, task.focal
    with np.load(folder / "forces.npz") as stored:
        forces = stored["inter"], stored["intra"]
        genes, mean = stored["genes"], stored["mean"]
    response = neighbor_response(*forces)
    expression = sparse.csr_array(log_normalize(slide.X)[:, genes])
    every = symmetric_part(interaction_weights(task.masked_graph, "row"))
    weights = every[focal]
    weight = weights.sum(axis=1)
    alone = weight == 0
    weight[alone] = 1

    def around(values) -> np.ndarray:
        """What neighbours show; around a cell without neighbours the field stands at its mean."""
        features = neighborhood_features(weights, values)
        features[alone] = mean
        return features

    own = around(expression)
    observed = normalize_counts(slide.X[focal]).toarray()

    def moved(features) -> Prediction:
        return changed(weight[:, None] * ((features - own) @ response))

    def changed(change) -> Prediction:
        return _changed(task, observed, genes, change)

    made = task.counterfactuals(target, lambda new: moved(neighborhood_features(new.graph(slide.n_obs), expression)))
    made |= task.altered(target, lambda node: moved(around(task.altered_log(node)[:, genes])))
    knock_outs = task.question.knock_outs(target)
    field = _field(every, *forces) if knock_outs else None
    for rule, knocked_out in knock_outs.items():
        change = _without(knocked_out, genes, focal, focal, expression, field)
        made[rule] = change if isinstance(change, str) else changed(change)
    # As observed to the last digit: a correlation with rounding would look like a result.
    twin = Prediction(slide.X[focal].toarray().astype(np.float32), focal, keeps_noise=True)
    return made | {"no_intervention": twin}


def _field(weights: sparse.csr_array, inter: np.ndarray, intra: np.ndarray) -> GaussianField:
    """The field on a graph, kept at a distance from where its variance has no end.

    Where a tissue drifts smoothly the likeliest forces lie next to that border, and on a graph with other cells beyond
    it. All neighbours then count for as much less as it takes, which their answer over a few cells hardly feels.
    """
    _, strength = diagonalise(precision_of(inter, intra)[0], inter)
    nearest = 2 * np.multiply.outer(bounds(weights), strength).max()
    return GaussianField(weights * min(1.0, (1 - _FROM_BORDER) / max(nearest, 1e-12)), inter, intra)


def _without(knocked_out, genes, altered, focal, expression, field, tolerance: float = 1e-8) -> np.ndarray | str:
    """Change of log expression (m, k) of focal cells when genes are held at 0 in others, or in themselves: exact, the
    whole field answers."""
    missing = np.setdiff1d(knocked_out, genes)
    if len(missing):
        return "a gene that is knocked out is the same in all cells, so that no force reaches it"
    if expression.shape[0] * len(genes) > _LARGEST_FIELD:
        return (
            f"a field of {expression.shape[0]:,} cells x {len(genes):,} genes does not fit in memory (at most "
            f"{_LARGEST_FIELD:,} values): take one sample, or fewer genes (preprocess.n_top_genes)"
        )
    values = expression.toarray().astype(np.float64)
    clamp = np.zeros(values.shape, dtype=bool)
    clamp[np.ix_(altered, np.searchsorted(genes, knocked_out))] = True
    answered = field.counterfactual(values, np.zeros_like(values), clamp, tolerance)
    return answered[focal] - values[focal]


def _variance(expression: sparse.csr_matrix) -> np.ndarray:
    """(g,) of cells (n, g)."""
    mean = np.asarray(expression.mean(axis=0)).ravel()
    return np.asarray(expression.multiply(expression).mean(axis=0)).ravel() - mean**2
