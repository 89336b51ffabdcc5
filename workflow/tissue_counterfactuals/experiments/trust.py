"""When can a tissue counterfactual be trusted? Error against the true counterfactual, where it is known.

Tissue is simulated, a type is held out of the target domain, and its control cells are asked about among donors that
lead further and further from what was seen: other cells of the slide, drawn with chance exp(reach x score), where the
score orders them by how much more they send of what the target domain sends more of. Each knob of the simulation is
turned by itself, the others stay as usual. The same fit answers all questions about a tissue.

Error and effect are root mean squares, over the genes that truly change most, of differences of log1p of mean CP10K: of
the prediction and the true counterfactual, and of the true counterfactual and the truth where the cells are. An error
as large as the effect is that of no answer. For Cellina, canonical correlations say what its latents carry: s the
signals that a cell truly receives, z what it sends itself and its type.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals import protocols
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.methods.run import fit, read_status, reason_of
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.question.question import DONORS, Question, fingerprint
from tissue_counterfactuals.question.support import support_of
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import TWIN, write_tsv
from tissue_counterfactuals.simulate import simulate_tissue, true_counterfactual, true_expression
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream

CONTROL, TARGET = "domain_0", "domain_1"
N_GENES_OF_ERROR = 50
# Knobs in the order of the figure; distance is a knob of the question.
KNOBS = ("distance", "effect_size", "confounding", "label_noise", "spill", "n_cells")
COLUMNS = [
    *("knob", "level", "seed", "reach", "method", "error", "effect", "inside", "distance"),
    *("inside_type", "distance_type", "n_focal", "status", "reason"),
]
LATENT_COLUMNS = ["knob", "level", "seed", "method", "latent", "variables", "correlation"]


def run(settings: dict, methods: dict[str, dict], outputs: dict[str, Path]) -> None:
    """Tables `errors` and `latents` (TSV), and where they come from, `provenance` (JSON).

    Args:
        settings: section cellina_experiments.trust of the configuration.
        methods: method -> its section of the configuration.
    """
    rows, latents, n_cells = [], [], 0
    seeds = list(range(settings["n_simulations"]))
    for knob, level, knobs in scenarios(settings):
        for seed in seeds:
            print(f"{knob} {level:g}, tissue {seed}", flush=True)
            task = ask_far(knobs, seed, settings)
            found, carried = answer(task, methods)
            where = {"knob": knob, "level": level, "seed": seed}
            rows += [where | row for row in found]
            latents += [where | row for row in carried]
            n_cells += task.slide.n_obs
    write_tsv(pd.DataFrame(latents).reindex(columns=LATENT_COLUMNS), outputs["latents"])
    write_tsv(pd.DataFrame(rows).reindex(columns=COLUMNS), outputs["errors"])
    provenance.write_simulated(outputs["provenance"], "When to trust an answer", n_cells, seeds, settings, {})


def scenarios(settings: dict) -> list[tuple[str, float, dict]]:
    """Knob, its level and all knobs of the tissue: each level of each knob once, the tissue as usual first."""
    usual = {key: settings[key] for key in ("n_cells", "n_genes", "effect_size")} | {"n_slides": 1}
    varied = [("usual", 0.0, usual)]
    for knob, key in {
        "effect_size": "effect_sizes",
        "confounding": "confounding",
        "label_noise": "label_noise",
        "spill": "spill",
        "n_cells": "numbers_of_cells",
    }.items():
        varied += [(knob, float(level), usual | {knob: level}) for level in settings[key]]
    return varied


def ask_far(knobs: dict, seed: int, settings: dict) -> Task:
    """A tissue and a question about it, with one donor rule for each reach, named by it.

    Held out is the type that has most cells in the domain where it has fewer.
    """
    slide = simulate_tissue(seed=seed, **knobs)
    slide.obs_names_make_unique()
    sizes = pd.crosstab(slide.obs["cell_type"], slide.obs["domain"])[[CONTROL, TARGET]]
    fold = Fold(sizes.min(axis=1).idxmax(), CONTROL, (TARGET,))
    split = split_cells(slide, fold, seed, 0.1)
    focal = cells_of(slide, fold.cell_type, CONTROL)
    pool = np.flatnonzero(~split.held_out)
    score = sending(slide, pool)
    perturbations = {}
    for reach in settings["reaches"]:
        # The same donors whatever other reaches are asked about.
        rng, again = stream(seed, "far_donors", f"{reach:g}"), stream(seed, "far_donors_again", f"{reach:g}")
        chance = np.exp(reach * score)
        chance /= chance.sum()
        shape = (len(focal), settings["n_donors"])
        donors = rng.choice(pool, shape, p=chance)
        # Nobody stands beside itself.
        for row in np.flatnonzero((donors == focal[:, None]).any(axis=1)):
            own, others = donors[row] == focal[row], np.where(pool == focal[row], 0, chance)
            donors[row, own] = again.choice(pool, int(own.sum()), p=others / others.sum())
        perturbations[DONORS, TARGET, f"{reach:g}"] = donors
    switches = protocols.resolve("corrected")
    graph = {"bandwidth_um": 100.0, "max_neighbors": 200, "cutoff": 0.1}
    question = Question(fold, split, focal, perturbations, "corrected", seed, switches, graph, fingerprint(slide))
    return Task(slide, question, device="cpu", report=lambda line: None)


def sending(slide: AnnData, pool: np.ndarray) -> np.ndarray:
    """Score (pool,), of mean 0 and variance 1: how much more a cell sends of what the target domain sends more of."""
    sent = np.log(np.asarray(slide.obsm["simulation_secretion"])[pool])
    domain = slide.obs["domain"].to_numpy()[pool]
    direction = sent[domain == TARGET].mean(axis=0) - sent[domain == CONTROL].mean(axis=0)
    score = sent @ direction
    return (score - score.mean()) / max(score.std(), 1e-12)


def answer(task: Task, methods: dict[str, dict]) -> tuple[list[dict], list[dict]]:
    """A row for each method and reach: error, effect and support; and a row for each latent of Cellina."""
    slide, focal = task.slide, task.focal
    support, donors = support_of(task, TARGET), task.question.donors(TARGET)
    here = log_mean(true_expression(slide, focal))
    true = {rule: log_mean(true_counterfactual(slide, focal, chosen)) for rule, chosen in donors.items()}
    rows, latents = [], []
    for method, settings in methods.items():
        predicted, reason = _predict(task, method, settings, latents)
        for rule, truth in true.items():
            top = np.argsort(-np.abs(truth - here), kind="stable")[:N_GENES_OF_ERROR]
            row = {"reach": float(rule), "method": method, "n_focal": len(focal)}
            row |= {"effect": _rms((truth - here)[top]), **vars(support[rule])}
            values = predicted.get(rule, predicted.get("-"))
            if values is None or isinstance(values, str):
                rows.append(row | {"status": "failed", "reason": values or reason})
                continue
            change = log_mean(values.values) - truth
            rows.append(row | {"error": _rms(change[top]), "status": "ok", "reason": ""})
    return rows, latents


def _predict(task: Task, method: str, settings: dict, latents: list) -> tuple[dict, str]:
    """What a method says, by donor rule; or nothing and the reason."""
    row = METHODS[method]
    task.settings = settings
    with TemporaryDirectory() as folder:
        model = None
        if row.learned:
            model = Path(folder) / method
            fit(method, task, model, Path(folder) / "checkpoint.pt")
            status = read_status(model)
            if status["status"] != "ok":
                return {}, status["reason"]
        try:
            predicted = row.adapter.predict(task, model, TARGET)
        except Exception as error:
            return {}, reason_of(error, method, "predict", Path(folder))
        if row.settings == "cellina":
            latents += [{"method": method} | found for found in carried(task, model)]
    predicted.pop(TWIN, None)
    return predicted, ""


def carried(task: Task, folder: Path) -> list[dict]:
    """What the latents of a fitted Cellina carry: mean canonical correlation, on cells that it was not fitted to."""
    from tissue_counterfactuals.models.cellina import Cellina

    slide = task.slide
    model = Cellina.load(folder / "model.pt", device=task.device)
    cells = np.flatnonzero(~task.split.held_out & (np.diff(task.masked_graph.indptr) > 0))
    received = neighborhood_features(task.masked_graph[cells], log_normalize(slide.X))
    z, s = model.latents(slide, cells, received)
    code = np.asarray(slide.obsm.get("simulation_type", slide.obs["cell_type"].cat.codes.to_numpy()[:, None]))[cells, 0]
    variables = {
        "received": np.log(np.asarray(slide.obsm["simulation_received"])[cells] + 1e-3),
        "type": np.eye(code.max() + 1)[code][:, 1:],
        "sent": np.log(np.asarray(slide.obsm["simulation_secretion"])[cells]),
    }
    half = stream(task.seed, "canonical_halves").random(len(cells)) < 0.5
    return [
        {"latent": name, "variables": what, "correlation": canonical(latent, values, half)}
        for name, latent in (("z", z), ("s", s))
        for what, values in variables.items()
    ]


def canonical(x: np.ndarray, y: np.ndarray, half: np.ndarray) -> float:
    """Mean canonical correlation of x (n, p) and y (n, q) over the pairs that there are, found on one half of the rows
    and measured on the other; a pair that turns round there counts as 0."""
    (x, white_x), (y, white_y) = (_whitened(v.astype(float), half) for v in (x, y))
    left, _, right = np.linalg.svd((x[half] @ white_x).T @ (y[half] @ white_y), full_matrices=False)
    a, b = x[~half] @ white_x @ left, y[~half] @ white_y @ right.T
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    found = np.divide((a * b).sum(axis=0), size, out=np.zeros_like(size), where=size > 0)
    return float(np.mean(np.maximum(found, 0))) if len(found) else np.nan


def _whitened(values: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values about their mean, and what makes them uncorrelated; directions without variance are left out."""
    values = values - values[half].mean(axis=0)
    _, size, axes = np.linalg.svd(values[half], full_matrices=False)
    kept = size > 1e-6 * max(size.max(initial=0), 1e-12)
    return values, axes[kept].T / size[kept]


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))
