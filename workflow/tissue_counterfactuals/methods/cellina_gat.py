"""Cellina-GAT: each focal cell keeps its z and gets the s of its donors (edge), or of its altered neighbours (node)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tissue_counterfactuals.methods.cellina import fit_model, latents_among, variants
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.models.cellina_gat import CellinaGAT
from tissue_counterfactuals.models.settings import CellinaGATSettings, under_switches


def fit(task, folder: Path) -> None:
    """Train; leaves model.pt and history.tsv."""
    settings = arguments(task.settings, task.switches)
    graph = _graph(task, settings.pop("max_neighbors"))
    fit_model(task, folder, CellinaGAT, settings, graph)


def arguments(settings: dict, switches: dict[str, str]) -> dict:
    """Arguments of `CellinaGAT`, and `max_neighbors`, from its section of the configuration."""
    settings = under_switches(settings, switches, CellinaGATSettings()) | {
        "field": "hops" if switches["gat_field"] == "three_hops" else "induced",
        "edges": switches["gat_edges"],
        "inputs": switches["gat_inputs"],
    }
    return settings | ({"patch_cells": 1} if settings["field"] == "induced" else {})


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin; diagnostics say whether s is used at all."""
    slide, switches = task.slide, task.switches
    new = bool(task.fold.samples)
    model = CellinaGAT.load(folder / "model.pt", device=task.device, new_samples=new)
    own = model.surroundings(_graph(task, _settings(task)["max_neighbors"]), slide.X)
    both_ways = switches["gat_new_edges"] == "both_ways"

    def moved(perturbation):
        return own.moved(perturbation.focal, perturbation.donors, both_ways)

    def altered(node):
        # Counts are multiplied, where the question does not say otherwise: the form that the paper gives this model.
        node = replace(node, scale="counts") if node.scale == "own" else node
        if switches["gat_altered_inputs"] == "raw_counts":
            expression = task.altered_counts(node)
        elif model.settings.inputs == "log_counts":
            expression = task.altered_counts(node).log1p()
        else:
            expression = task.altered_log(node)
        return own.altered(expression, task.focal)

    def listen(around):
        return model.attention(slide, task.focal, around)

    return variants(task, target, model, own, moved, altered, listen)


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """z and s of all cells, each (n, n_latent): posterior means, as run one draw."""
    model = CellinaGAT.load(folder / "model.pt", device=task.device)
    graph = _graph(task, _settings(task)["max_neighbors"])
    return latents_among(task, model, model.surroundings(graph, task.slide.X))


def _settings(task) -> dict:
    return under_switches(task.settings, task.switches, CellinaGATSettings())


def _graph(task, max_neighbors: int):
    """(n, n) each cell's own nearest cells, fewer than Cellina's, without the held-out cells."""
    cutoff = {"cutoff": 0.0} if task.switches["gat_cutoff"] == "none" else {}
    return task.graph_without_answers(max_neighbors=max_neighbors, **cutoff)
