"""The plain model: own cells keep what is their own, and change as neighbours and domain changed other cells.

Its twin is what it says of the cells where they are: in the form `delta` their observed counts, scaled to what their
population is likely to express where counts are few, in the form `mean` the regression's own expectation.
"""

from collections.abc import Callable
from dataclasses import astuple, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.metrics.populations import mean_expression, overdispersion
from tissue_counterfactuals.models import hierarchical as model
from tissue_counterfactuals.question.donors import DONOR_RULES, EdgePerturbation, edge_perturbation
from tissue_counterfactuals.question.folds import Split, cells_of
from tissue_counterfactuals.question.named import FEWEST_CELLS
from tissue_counterfactuals.question.nodes import NodePerturbation, altered_cells, pseudobulk_shift
from tissue_counterfactuals.slide import log_normalize, noise_of_log_mean
from tissue_counterfactuals.streams import stream

# Cells that stand for a type whose answer is known.
_MOST_CELLS = 500
# Genes, those with the largest change, about which each cell is told.
_GENES_PER_CELL = 20
# Cells of a type in a place, near each other, that show what a move misses cell by cell; near is above this weight.
_CELLS_OF_PATCH, _NEAR = 2000, 0.7
# Genes that are altered around them, where a user asks for other changes of neighbours.
_N_ALTERED = 200


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
    shared = model.predictive_prior(list(evidence.values()), spread)
    slopes = shared.update(own)
    elsewhere = ~slide.obs["domain"].isin(compared_domains(task)).to_numpy()

    def without_answer(label: str) -> tuple[model.Prior, model.Evidence | None]:
        """Slopes of a type that is known, learnt without its cells in the targets; and what its others say.

        Axes, and how far types scatter, are those of all cells.
        """
        others = [found for name, found in evidence.items() if name != label]
        seen = regress((cell_type == label) & elsewhere)
        return model.predictive_prior(others, spread).update(seen), seen

    stored = {"mean": axes.mean, "loadings": axes.loadings}
    stored |= {"slopes": slopes.mean, "covariance": slopes.covariance}
    stored |= {"shared_covariance": shared.covariance}
    if own is not None:
        stored |= {"level": own.level, "centre": own.centre}
    bends = {}
    if _is_asked(task):
        bends = _bends(task, axes, log_expression, design, library)
        stored |= {f"bend:{key}": np.append(bend.direction, bend.variance) for key, bend in bends.items()}
    of_known = sorted(evidence), without_answer, likely_shares(task)
    stored |= _calibrations(task, axes, log_expression, design, bends, *of_known)
    np.savez(folder / "model.npz", **stored)
    table = [(label, e.n_cells, float(np.median(e.dispersion))) for label, e in evidence.items()]
    pd.DataFrame(table, columns=["cell_type", "n_cells", "dispersion"]).to_csv(
        folder / "types.tsv", sep="\t", index=False, float_format="%.6g"
    )


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin."""
    slide, focal = task.slide, task.focal
    with np.load(folder / "model.npz") as file:
        stored = dict(file)
    axes = model.Axes(stored["mean"], stored["loadings"])
    slopes = model.Prior(stored["slopes"], stored["covariance"])
    log_expression = log_normalize(slide.X)
    own = axes.project(task.masked_graph[focal], log_expression)
    counts = slide.X[focal].toarray().astype(float)
    compared, control = compared_domains(task), task.fold.control
    domain = _at(compared, target, len(focal)) - _at(compared, control, len(focal))
    # Not in `fit`: nothing may be learnt from cells of a patient who is left out.
    start, keeps_noise = model.told(counts, likely_shares(task)(focal)), True
    if task.settings["form"] == "mean":
        if "level" not in stored:
            raise ValueError(f"form mean: too few cells of {task.fold.cell_type!r} are there to learn its level from")
        here = np.hstack([own, _at(compared, control, len(focal))]) - stored["centre"]
        start = at_library(np.exp(stored["level"] + model.change(slopes, here)), slide, focal)
        start, keeps_noise = start.astype(float), False

    shared = stored["shared_covariance"]
    before = _mean_received(task.masked_graph[focal], log_expression)

    def moved(rule: str, new: np.ndarray, received: np.ndarray) -> Prediction:
        # Who alters neighbours moves nobody to another domain.
        altered = rule in task.question.nodes(target)
        move, asked = np.hstack([new - own, 0 * domain if altered else domain]), received - before
        values = model.moved(start, slopes, move)
        prediction = Prediction(values.astype(np.float32), focal, keeps_noise=keeps_noise)
        if altered:
            prediction.diagnostics["off_axes"] = axes.off(asked)
        key = f"{target}:{rule}"
        n_types = stored.get(f"n_types:{key}", 0)
        prediction.diagnostics["n_types_known"] = float(n_types)
        if f"calibration:{key}" in stored:
            calibration = model.Calibration(*stored[f"calibration:{key}"])
            names = [f"rehearsal_{field.name}" for field in fields(model.Rehearsal)]
            prediction.diagnostics |= dict(zip(names, stored[f"rehearsal:{key}"].tolist(), strict=True))
            mean = move.mean(axis=0)
            without = model.variance_of_change(model.Prior(slopes.mean, shared), mean)
            prediction.per_gene["own_evidence"] = 1 - model.variance_of_change(slopes, mean) / np.maximum(
                without, 1e-12
            )
            beyond = 0.0
            if _is_asked(task):
                bend = model.Bend(stored[f"bend:{key}"][:-1], stored[f"bend:{key}"][-1])
                centre = stored["centre"][: own.shape[1]] if "centre" in stored else np.zeros(own.shape[1])
                beyond = model.variance_beyond(slopes, axes, asked) + bend.variance_of_change(own, new, centre)
            told = model.answer(start, values, slopes, move, beyond)
            # Who is asked to stay may be asked for more, or less, than others were.
            scale = np.sqrt(calibration.variance(told)) if _stays(task, target) else 1.0
            for number, errors in enumerate(stored[f"errors:{key}"]):
                prediction.per_gene[f"error_{number}"] = errors * scale
            # Neighbours that are there differ from others in many genes at once; what is altered may be the one that
            # counts, or none that does, and no width is honest.
            unseen = _is_asked(task) and altered and axes.off(asked) > model.MOST_OFF
            if not unseen:
                half = calibration.half_width(told)
                if _is_asked(task) and not _stays(task, target):
                    there, heard = _in_place(task, axes, log_expression, target)
                    steps = np.hstack([new.mean(axis=0) - there, 0 * domain[0]]), np.hstack([0 * there, domain[0]])
                    half = np.hypot(half, model.half_width_apart(told, slopes, axes, steps, received - heard))
                limits = np.expm1(told.base + told.change + [-half, half])
                prediction.interval = np.maximum(limits, 0)
                prediction.abstained = calibration.abstains(half)
            # Who benchmarks looks at populations; who asks may look at cells.
            if _is_asked(task):
                top = _most_changed(told.change)
                every = model.change_per_cell(start, slopes, move)
                prediction.per_cell = {"genes": top, "change": every[:, top]}
                if f"cells:{key}" in stored and not unseen:
                    few = model.Prior(slopes.mean[top], slopes.covariance[top])
                    half = model.half_width_per_cell(few, move, stored[f"cells:{key}"] + beyond[top])
                    prediction.per_cell["half"] = half
        return prediction

    variants = {
        rule: new if isinstance(new, str) else moved(rule, *new)
        for rule, new in _neighbourhoods(task, axes, log_expression, target).items()
    }
    twin = Prediction(start.astype(np.float32), focal, keeps_noise=keeps_noise)
    return variants | {"no_intervention": twin}


def _is_asked(task) -> bool:
    """Whether a user asks, and nothing is held out: what is asked may be far from all that was seen."""
    return not task.split.held_out.any()


def _stays(task, target: str) -> bool:
    """Whether a user asks about cells that are left in their domain, among other neighbours."""
    return _is_asked(task) and target not in compared_domains(task)


def _mean_received(graph: sparse.csr_array, log_expression: sparse.csr_array) -> np.ndarray:
    """What those cells receive on average (g,) that have neighbours by the rows of `graph` (m, n); 0 without any."""
    total = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    weights = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0) / max((total > 0).sum(), 1)
    return (weights @ graph) @ log_expression


def _in_place(task, axes, log_expression, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean neighbourhood (k,), and what is received there (g,), of cells of the type that stand in the target, or of
    all cells there where the type has too few.
    """
    there = task.target_cells(target)
    if len(there) < FEWEST_CELLS:
        there = np.flatnonzero((task.slide.obs["domain"] == target).to_numpy())
    around = task.masked_graph[there]
    return axes.project(around, log_expression).mean(axis=0), _mean_received(around, log_expression)


def _neighbourhoods(task, axes, log_expression, target: str) -> dict[str, tuple[np.ndarray, np.ndarray] | str]:
    """Where focal cells stand afterwards (m, k), and what they receive there on average (g,), by perturbation."""
    found = {}
    for rule, donors in task.question.donors(target).items():
        found[rule] = donors
        if not isinstance(donors, str):
            around = EdgePerturbation(task.focal, donors).graph(task.slide.n_obs)
            found[rule] = axes.project(around, log_expression), _mean_received(around, log_expression)
    for rule, node in task.question.nodes(target).items():
        found[rule] = node
        if not isinstance(node, str):
            around, altered = task.masked_graph[task.focal], task.altered_log(node)
            found[rule] = axes.project(around, altered), _mean_received(around, altered)
    return found


def _bends(task, axes, log_expression, design, library) -> dict[str, model.Bend]:
    """How far types bend along the way that each perturbation leads, from regressions with its square."""
    labels, bends = task.slide.obs["cell_type"].astype(str).to_numpy(), {}
    k = axes.loadings.shape[1]
    before = axes.project(task.masked_graph[task.focal], log_expression)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for target in task.fold.targets:
        for rule, new in _neighbourhoods(task, axes, log_expression, target).items():
            if isinstance(new, str):
                continue
            way = (new[0] - before).mean(axis=0)
            way /= max(np.linalg.norm(way), 1e-12)
            along, found = design[:, :k] @ way, []
            for cells in groups:
                if len(cells) >= task.settings["min_cells"]:
                    square = model.Bend.square(along[cells], along[cells].mean())
                    columns = np.column_stack([design[cells], square])
                    found.append(model.regress(task.slide.X[cells], library[cells], columns))
            bends[f"{target}:{rule}"] = model.Bend.of(way, found)
    return bends


def _axes(task, log_expression) -> model.Axes:
    # A cell without neighbours stands where the average does, and not where nothing is received.
    train = np.flatnonzero(~task.split.held_out & (np.diff(task.masked_graph.indptr) > 0))
    if len(train) > model.N_CELLS_OF_AXES:
        draw = stream(task.seed, "hierarchical_axes")
        train = np.sort(draw.choice(train, model.N_CELLS_OF_AXES, replace=False))
    received = neighborhood_features(task.masked_graph[train], log_expression)
    return model.Axes.of(received, task.settings["n_components"])


def _design(task, axes: model.Axes, log_expression) -> np.ndarray:
    """(n, k + targets): what neighbours express, and in which target domain a cell stands."""
    domain = task.slide.obs["domain"].astype(str).to_numpy()
    columns = [(domain == name).astype(float) for name in compared_domains(task)]
    return np.column_stack([axes.project(task.masked_graph, log_expression), *columns])


def compared_domains(task) -> tuple[str, ...]:
    """Domains that get a column of their own, and in which types are asked whose answer is known: the targets.

    A question that leaves its cells in their domain has none, and takes the largest other domain.
    """
    fold = task.fold
    targets = tuple(name for name in fold.targets if name != fold.control)
    sizes = task.slide.obs["domain"].astype(str).value_counts().drop(fold.control, errors="ignore")
    return targets or tuple(sizes.index[:1])


def _at(compared: tuple[str, ...], domain: str, n_cells: int) -> np.ndarray:
    """Columns of the domains for cells that stand in one of them, or in none."""
    return np.tile([float(name == domain) for name in compared], (n_cells, 1))


def likely_shares(task) -> Callable[..., np.ndarray]:
    """Likely shares of focal cells (see `model.likely_share`) in the light of all other types and domains.

    The function takes the cells' indices, of one type, and the domains in which that type must not be known.
    """
    slide, train = task.slide, ~task.split.held_out
    labels, domains = slide.obs["cell_type"].cat, slide.obs["domain"].cat
    shape = len(labels.categories), len(domains.categories)
    group = np.ravel_multi_index((labels.codes, domains.codes), shape)

    def totals(cells: np.ndarray) -> np.ndarray:
        """Counts of types in domains (types, domains, g)."""
        ones = np.ones(len(cells)), (group[cells], cells)
        member = sparse.csr_array(ones, shape=(np.prod(shape), slide.n_obs))
        return (member @ slide.X).toarray().reshape(*shape, slide.n_vars)

    every = totals(np.flatnonzero(train))
    # How far counts scatter is not seen in few cells: all types say, where no answer is.
    told = train & ~slide.obs["domain"].isin(compared_domains(task)).to_numpy()
    groups = (np.flatnonzero(told & (group == one)) for one in np.unique(group[told]))
    dispersion = overdispersion(sparse.csr_array(slide.X[cells]) for cells in groups)

    def share_of(focal: np.ndarray, hidden: tuple[str, ...] = ()) -> np.ndarray:
        own = labels.codes.iloc[focal[0]]
        others = every - totals(focal[train[focal]])
        others[own, domains.categories.isin(hidden)] = 0
        others = np.vstack([others.sum(axis=1), others.sum(axis=0)])
        return model.likely_share(sparse.csr_array(slide.X[focal]), others[others.any(axis=1)], dispersion)

    return share_of


def _altered(task, node: NodePerturbation, label: str, focal: np.ndarray, place: str, split: Split):
    """Log expression (n, g) after the node perturbation that another type, with its cells `focal`, would be asked
    with.
    """
    fold, origin = task.fold, node.origin
    told = origin.get("n_genes", _N_ALTERED), origin.get("by_type", True)
    shift = pseudobulk_shift(task.slide, fold.control, place, split.held_out, label, *told)
    if "n_genes" not in origin:
        # What nobody knows the answer to is compared with what is nearest to it.
        return task.altered_log(NodePerturbation(shift))
    cells, share = node.cells, origin.get("share_of_neighbors")
    if share is not None:
        # Neighbours of these cells, not of those that the question is about.
        cells = altered_cells("neighbors", share, task.seed, task.masked_graph, focal, label)
    return task.altered_log(replace(node, shift=shift, cells=cells))


def _calibrations(task, axes, log_expression, design, bends, labels, without_answer, share_of) -> dict[str, np.ndarray]:
    """What the types whose answer is known say of each target and donor rule: see `model.Calibration`."""
    slide, graph, control = task.slide, task.masked_graph, task.fold.control
    compared = compared_domains(task)
    level = model.levels(mean_expression(slide.X[~task.split.held_out]))
    asked = {
        (target, rule): donors.shape[1]
        for target in task.fold.targets
        for rule, donors in task.question.donors(target).items()
        if not isinstance(donors, str)
    }
    asked |= {
        (target, rule): node
        for target in task.fold.targets
        for rule, node in task.question.nodes(target).items()
        if not isinstance(node, str)
    }
    known: dict[tuple, dict] = {key: {} for key in asked if compared}
    per_cell: dict[str, list[np.ndarray]] = {}
    cell_type, domain = slide.obs["cell_type"], slide.obs["domain"]
    for number, label in enumerate(labels):
        # Of a patient who is left out, nothing may be learnt, nor how far off answers are.
        focal = cells_of(slide, label, control)
        focal = focal[~task.split.held_out[focal]]
        there = {name: cells_of(slide, label, name) for name in compared}
        there = {name: cells[~task.split.held_out[cells]] for name, cells in there.items()}
        if not there or min(map(len, (focal, *there.values()))) < FEWEST_CELLS:
            continue
        chosen, every = stream(task.seed, "hierarchical_known", number), focal
        if len(focal) > _MOST_CELLS:
            focal = np.sort(chosen.choice(focal, _MOST_CELLS, replace=False))
        hidden = ((cell_type == label) & domain.isin(compared)).to_numpy()
        split = Split(task.split.train, task.split.validation, task.split.held_out | hidden)
        (slopes, seen), own = without_answer(label), axes.project(graph[focal], log_expression)
        before = _mean_received(graph[focal], log_expression)
        raw = slide.X[focal].toarray().astype(float)
        counts = model.told(raw, share_of(focal, compared))
        if seen is not None and _is_asked(task):
            for place, cells in there.items():
                # Of the genes that change most, for of these the cells are told.
                away = design[cells].mean(axis=0) - design[every].mean(axis=0)
                top = _most_changed(model.change(slopes, away[None])[0])
                near = [_near_cells(task, design, c, slopes, seen, number) for c in (every, cells)]
                per_cell.setdefault(place, []).append(np.array(near)[:, :, top])
        for (target, rule), drawn in asked.items():
            # An intervention within a domain has no known answer: a move to another one stands for it.
            place = target if target in compared else compared[0]
            domains = np.zeros((len(focal), len(compared)))
            try:
                if isinstance(drawn, NodePerturbation):
                    altered = _altered(task, drawn, label, focal, place, split)
                    new, received = axes.project(graph[focal], altered), _mean_received(graph[focal], altered)
                else:
                    perturbation = edge_perturbation(
                        *(slide, graph, split, label, place, focal),
                        rule if rule in DONOR_RULES else "any_type",
                        restrict_to_domain=task.switches["donor_domain"] == "target_only",
                        n_donors=drawn,
                        seed=task.seed,
                    )
                    around = perturbation.graph(slide.n_obs)
                    new, received = axes.project(around, log_expression), _mean_received(around, log_expression)
                    # Neighbours alone must say what a question says that moves nobody to another domain.
                    if target in compared:
                        domains = _at(compared, place, len(focal))
            except InputError:
                continue
            move = np.hstack([new - own, domains])
            beyond = 0.0
            if bend := bends.get(f"{target}:{rule}"):
                centre = design[every].mean(axis=0) if seen is None else seen.centre
                beyond = model.variance_beyond(slopes, axes, received - before)
                beyond += bend.variance_of_change(own, new, centre[: own.shape[1]])
            told = model.answer(counts, model.moved(counts, slopes, move), slopes, move, beyond)
            real = slide.X[there[place]]
            observed = np.log1p(mean_expression(real)) - told.base
            noise = noise_of_log_mean(real) + noise_of_log_mean(slide.X[focal])
            shown = raw.any(axis=0) | (np.asarray(real.sum(axis=0)).ravel() > 0)
            known[target, rule][label] = model.Known(told, observed, noise, shown)
    stored = {}
    for (target, rule), types in known.items():
        key, told = f"{target}:{rule}", list(types.values())
        stored[f"n_types:{key}"] = np.array(len(types))
        if found := model.calibrate(told, level, _is_asked(task)):
            stored[f"calibration:{key}"] = np.stack(astuple(found))
            stored[f"errors:{key}"] = np.array([t.observed - t.answer.change for t in told])
            if _stays(task, target):
                stored[f"errors:{key}"] /= np.sqrt([found.variance(t.answer) for t in told])
            stored[f"rehearsal:{key}"] = np.array(astuple(model.rehearse(told, level, _is_asked(task))))
        place = target if target in compared else next(iter(compared), target)
        if place in per_cell:
            missed = model.error_per_cell(np.stack(per_cell[place], axis=1))
            if np.isfinite(missed):
                stored[f"cells:{key}"] = np.array(missed)
    return stored


def _most_changed(change: np.ndarray) -> np.ndarray:
    """Indices of the genes about which cells are told, of changes (g,)."""
    return np.argsort(-np.abs(change), kind="stable")[:_GENES_PER_CELL]


def _near_cells(task, design, cells, slopes, seen, number) -> np.ndarray:
    """`products_of_near_cells` of a type in a place, or in a patch of it, expected by slopes and the type's own
    level.
    """
    if len(cells) > _CELLS_OF_PATCH:
        where = task.slide.obsm["spatial"][cells]
        centre = where[stream(task.seed, "hierarchical_patch", number).integers(len(cells))]
        away = ((where - centre) ** 2).sum(axis=1)
        cells = np.sort(cells[np.argsort(away, kind="stable")[:_CELLS_OF_PATCH]])
    near = sparse.coo_array(task.masked_graph[cells][:, cells])
    kept = (near.data > _NEAR) & (near.row != near.col)
    ones = np.ones(kept.sum())
    near = sparse.csr_array((ones, (near.row[kept], near.col[kept])), shape=near.shape)
    counts = task.slide.X[cells].toarray().astype(float)
    rate = np.exp(seen.level + model.change(slopes, design[cells] - seen.centre))
    expected = rate * counts.sum(axis=1, keepdims=True)
    # What all genes gain, each loses.
    expected *= counts.sum() / max(expected.sum(), 1e-12)
    return model.products_of_near_cells(counts, expected, near)
