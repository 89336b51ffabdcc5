"""Ridge regression of a cell's log expression on its neighbourhood, within cell types.

y_u = a_type(u) + W' f_u, with y the log-normalised expression of a cell and f the mean of its neighbours' (the features
of Cellina's spatial encoder). The intercept of a type is not penalised, so W is learnt from cells of one type in
different neighbourhoods. Of the penalties the one with the smallest validation error is taken. A counterfactual is the
observed cell with the change W' (f_new - f_own) of its log expression: its twin is the observed cell itself.
"""

from pathlib import Path

import numpy as np

from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.slide import log_normalize, normalize_counts

# Cells whose dense features are held at once.
_BLOCK = 4096


def fit(task, folder: Path) -> None:
    """Solve for every penalty; leaves ridge.npz: weights (g, g), mean features of the held-out type (g,), penalty."""
    expression = log_normalize(task.slide.X)
    types, code = np.unique(task.slide.obs["cell_type"].astype(str), return_inverse=True)
    # A cell without neighbours says nothing about them.
    heard = np.diff(task.masked_graph.indptr) > 0
    train = _Sums(task, expression, np.flatnonzero(task.split.train & heard), code, len(types))
    n = np.maximum(train.n, 1)[:, None]
    means = train.sum_f / n, train.sum_y / n
    covariance, cross = train.about(*means)
    scale = np.sqrt(np.diag(covariance))
    # A gene that never varies around cells has no weight.
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 1e-6)
    values, vectors = np.linalg.eigh(covariance * inverse * inverse[:, None])
    projected = vectors.T @ (cross * inverse[:, None])

    # Types that no training cell has say nothing about the penalty.
    seen = np.flatnonzero(task.split.validation & heard)
    seen = seen[train.n[code[seen]] > 0]
    if not len(seen):
        raise ValueError(
            "ridge chooses its penalty on validation cells, and none that has neighbours is of a type that was trained "
            "on: raise holdout.validation_fraction."
        )
    validation = _Sums(task, expression, seen, code, len(types)).about(*means)

    def weights(penalty):
        return inverse[:, None] * (vectors @ (projected / (values.clip(0) + penalty)[:, None]))

    def error(penalty):
        """Squared error over the validation cells, less what no penalty changes."""
        w = weights(penalty)
        return float(((validation[0] @ w - 2 * validation[1]) * w).sum())

    penalties = task.settings["penalties"]
    errors = [error(penalty) for penalty in penalties]
    best = penalties[int(np.argmin(errors))]
    for penalty, value in zip(penalties, errors, strict=True):
        task.report(f"penalty {penalty:g}: validation error {value:.4f} above that without neighbours")
    held_out = np.searchsorted(types, task.fold.cell_type)
    np.savez(
        folder / "ridge.npz", weights=weights(best).astype(np.float32), mean_features=means[0][held_out], penalty=best
    )


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin, which is the observed cell."""
    slide, focal = task.slide, task.focal
    with np.load(folder / "ridge.npz") as model:
        weights, mean, penalty = (model[k] for k in ("weights", "mean_features", "penalty"))
    expression, observed = log_normalize(slide.X), normalize_counts(slide.X[focal]).toarray()
    graph = task.masked_graph[focal]
    own = _features(graph, expression, mean)

    def moved(features):
        change = (features - own) @ weights
        values = np.clip((observed + 1) * np.exp(change) - 1, 0, None)
        return Prediction(
            at_library(values, slide, focal), focal, diagnostics={"penalty": float(penalty)}, keeps_noise=True
        )

    made = task.counterfactuals(target, lambda new: moved(neighborhood_features(new.graph(slide.n_obs), expression)))
    made |= task.altered(target, lambda node: moved(_features(graph, task.altered_log(node), mean)))
    # As observed to the last digit: a correlation with rounding would look like a result.
    twin = Prediction(slide.X[focal].toarray().astype(np.float32), focal, keeps_noise=True)
    return made | {"no_intervention": twin}


def _features(graph, expression, mean):
    """What neighbours show (m, g); a cell without neighbours stands where its type usually does."""
    features = neighborhood_features(graph, expression)
    features[np.diff(graph.indptr) == 0] = mean
    return features


class _Sums:
    """Sums over some cells of features f and expression y, (g,) each: per type, and of f f' and f y' over all."""

    def __init__(self, task, expression, cells, code, n_types):
        g = expression.shape[1]
        self.n = np.bincount(code[cells], minlength=n_types)
        self.sum_f, self.sum_y = np.zeros((2, n_types, g))
        self.ff, self.fy = np.zeros((2, g, g))
        for start in range(0, len(cells), _BLOCK):
            rows = cells[start : start + _BLOCK]
            f = neighborhood_features(task.masked_graph[rows], expression).astype(np.float64)
            y = expression[rows].toarray().astype(np.float64)
            np.add.at(self.sum_f, code[rows], f)
            np.add.at(self.sum_y, code[rows], y)
            self.ff += f.T @ f
            self.fy += f.T @ y

    def about(self, mean_f, mean_y):
        """Mean products of f and f, and of f and y, about a mean per type: (g, g) each."""
        n = self.n[:, None]
        ff = self.ff - mean_f.T @ self.sum_f - self.sum_f.T @ mean_f + mean_f.T @ (n * mean_f)
        fy = self.fy - mean_f.T @ self.sum_y - self.sum_f.T @ mean_y + mean_f.T @ (n * mean_y)
        total = max(int(self.n.sum()), 1)
        return ff / total, fy / total
