"""The plain model: own cells keep what is their own, and change as neighbours and domain changed other cells.

Its twin is what it says of the cells where they are: in the form `delta` their observed counts, in the form `mean` the
regression's own expectation.
"""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.models import hierarchical as model
from tissue_counterfactuals.question.donors import EdgePerturbation, edge_perturbation
from tissue_counterfactuals.question.folds import FEWEST_CELLS, Split, cells_of
from tissue_counterfactuals.slide import log_normalize, noise_of_log_mean, normalize_counts
from tissue_counterfactuals.streams import stream

# Cells that stand for a type whose answer is known.
_MOST_CELLS = 500


def fit(task, folder: Path) -> None:
    """Regress every type, then ask of each what the question asks of the held-out one.

    Leaves model.npz (axes, slopes of the held-out type, calibration per target and donor rule) and types.tsv (who was
    learnt from).
    """
    slide, settings = task.slide, task.settings
    log_expression = log_normalize(slide.X)
    axes = _axes(task, log_expression)
    design = _design(task, axes, log_expression)
    cell_type = slide.obs["cell_type"].astype(str).to_numpy()
    library = np.maximum(np.asarray(slide.X.sum(axis=1), dtype=float).ravel(), 1.0)

    def regress(cells: np.ndarray) -> model.Evidence | None:
        own = np.flatnonzero(cells & ~task.split.held_out)
        if len(own) < settings["min_cells"]:
            return None
        return model.regress(slide.X[own], library[own], design[own])

    evidence = {}
    for label in np.unique(cell_type):
        if found := regress(cell_type == label):
            evidence[label] = found
            task.report(f"{label}: {found.n_cells} cells")
    own = evidence.pop(task.fold.cell_type, None)
    if len(evidence) < 2:
        raise ValueError(
            f"only {len(evidence)} other cell types have {settings['min_cells']} cells to learn from, and it takes two "
            "to see how far types agree"
        )
    spread = model.learn_spread(list(evidence.values()))
    slopes = model.predictive_prior(list(evidence.values()), spread).update(own)
    elsewhere = ~slide.obs["domain"].isin(task.fold.targets).to_numpy()

    def without_answer(label: str) -> model.Prior:
        """Slopes of a type that is known, as if its cells in the targets were not."""
        others = [found for name, found in evidence.items() if name != label]
        seen = regress((cell_type == label) & elsewhere)
        return model.predictive_prior(others, spread).update(seen)

    stored = {"mean": axes.mean, "loadings": axes.loadings}
    stored |= {"slopes": slopes.mean, "covariance": slopes.covariance}
    if own is not None:
        stored |= {"level": own.level, "centre": own.centre}
    stored |= _calibrations(task, axes, log_expression, sorted(evidence), without_answer)
    np.savez(folder / "model.npz", **stored)
    table = [(label, e.n_cells, float(np.median(e.dispersion))) for label, e in evidence.items()]
    pd.DataFrame(table, columns=["cell_type", "n_cells", "dispersion"]).to_csv(
        folder / "types.tsv", sep="\t", index=False, float_format="%.6g"
    )


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per donor rule, and the twin."""
    slide, focal = task.slide, task.focal
    with np.load(folder / "model.npz") as file:
        stored = dict(file)
    axes = model.Axes(stored["mean"], stored["loadings"])
    slopes = model.Prior(stored["slopes"], stored["covariance"])
    log_expression = log_normalize(slide.X)
    own = axes.project(task.masked_graph[focal], log_expression)
    counts = slide.X[focal].toarray().astype(float)
    domain = _at(task.fold, target, len(focal))
    start = counts
    if task.settings["form"] == "mean":
        if "level" not in stored:
            raise ValueError(
                f"form mean: too few cells of {task.fold.cell_type!r} are there to learn its level from"
            )
        here = np.hstack([own, _at(task.fold, task.fold.control, len(focal))]) - stored["centre"]
        start = at_library(np.exp(stored["level"] + model.change(slopes, here)), slide, focal)
        start = start.astype(float)

    def moved(rule: str, donors: np.ndarray) -> Prediction:
        around = EdgePerturbation(focal, donors).graph(slide.n_obs)
        move = np.hstack([axes.project(around, log_expression) - own, domain])
        values = model.moved(start, slopes, move)
        prediction = Prediction(values.astype(np.float32), focal)
        prediction.diagnostics["n_types_known"] = float(stored[f"n_types:{target}:{rule}"])
        if f"calibration:{target}:{rule}" in stored:
            calibration = model.Calibration(*stored[f"calibration:{target}:{rule}"])
            told = model.answer(start, values, slopes, move)
            half = calibration.half_width(told)
            limits = np.expm1(told.base + told.change + [-half, half])
            prediction.interval = np.maximum(limits, 0)
            prediction.abstained = calibration.abstains(told)
        return prediction

    variants = {
        rule: donors if isinstance(donors, str) else moved(rule, donors)
        for rule, donors in task.question.donors(target).items()
    }
    return variants | {"no_intervention": Prediction(start.astype(np.float32), focal)}


def _axes(task, log_expression) -> model.Axes:
    train = np.flatnonzero(~task.split.held_out)
    if len(train) > model.N_CELLS_OF_AXES:
        draw = stream(task.seed, "hierarchical_axes")
        train = np.sort(draw.choice(train, model.N_CELLS_OF_AXES, replace=False))
    received = neighborhood_features(task.masked_graph[train], log_expression)
    return model.Axes.of(received, task.settings["n_components"])


def _design(task, axes: model.Axes, log_expression) -> np.ndarray:
    """(n, k + targets): what neighbours express, and in which target domain a cell stands."""
    domain = task.slide.obs["domain"].astype(str).to_numpy()
    columns = [(domain == name).astype(float) for name in task.fold.targets]
    return np.column_stack([axes.project(task.masked_graph, log_expression), *columns])


def _at(fold, domain: str, n_cells: int) -> np.ndarray:
    """Columns of the targets for cells that stand in one domain."""
    return np.tile([float(name == domain) for name in fold.targets], (n_cells, 1))


def _calibrations(task, axes, log_expression, labels, without_answer) -> dict[str, np.ndarray]:
    """What the types whose answer is known say of each target and donor rule: see `model.Calibration`."""
    slide, fold, graph = task.slide, task.fold, task.masked_graph
    shown = normalize_counts(slide.X[~task.split.held_out]).mean(axis=0)
    level = model.levels(np.asarray(shown).ravel())
    asked = {
        (target, rule): donors.shape[1]
        for target in fold.targets
        for rule, donors in task.question.donors(target).items()
        if not isinstance(donors, str)
    }
    known = {key: [] for key in asked}
    cell_type, domain = slide.obs["cell_type"], slide.obs["domain"]
    for number, label in enumerate(labels):
        focal = cells_of(slide, label, fold.control)
        there = {target: cells_of(slide, label, target) for target in fold.targets}
        if min(map(len, (focal, *there.values()))) < FEWEST_CELLS:
            continue
        chosen = stream(task.seed, "hierarchical_known", number)
        if len(focal) > _MOST_CELLS:
            focal = np.sort(chosen.choice(focal, _MOST_CELLS, replace=False))
        hidden = ((cell_type == label) & domain.isin(fold.targets)).to_numpy()
        split = Split(task.split.train, task.split.validation, task.split.held_out | hidden)
        slopes, own = without_answer(label), axes.project(graph[focal], log_expression)
        for (target, rule), n_donors in asked.items():
            try:
                perturbation = edge_perturbation(
                    *(slide, graph, split, label, target, focal, rule),
                    restrict_to_domain=task.switches["donor_domain"] == "target_only",
                    n_donors=n_donors,
                    seed=task.seed,
                )
            except InputError:
                continue
            new = axes.project(perturbation.graph(slide.n_obs), log_expression)
            move = np.hstack([new - own, _at(fold, target, len(focal))])
            counts = slide.X[focal].toarray().astype(float)
            told = model.answer(counts, model.moved(counts, slopes, move), slopes, move)
            real = slide.X[there[target]]
            observed = np.log1p(np.asarray(normalize_counts(real).mean(axis=0)).ravel()) - told.base
            noise = noise_of_log_mean(real) + noise_of_log_mean(slide.X[focal])
            known[target, rule].append(model.Known(told, observed, noise))
    stored = {}
    for (target, rule), types in known.items():
        stored[f"n_types:{target}:{rule}"] = np.array(len(types))
        if found := model.calibrate(types, level):
            stored[f"calibration:{target}:{rule}"] = np.stack(astuple(found))
    return stored
