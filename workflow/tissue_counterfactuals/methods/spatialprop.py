"""SpatialProp (re-implementation): a focal cell's expression predicted from its new neighbours alone.

The published use alters the expression of neighbours (node perturbation); exchanging them is the same network with
other neighbours. The focal cell's own expression is masked, so everything that is its own is lost: read its twin.
"""

from pathlib import Path

import numpy as np
import torch

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.models import spatialprop as model
from tissue_counterfactuals.models.training import n_batches, resolve_device, save_network
from tissue_counterfactuals.streams import stream, stream_seed


def fit(task, folder: Path) -> None:
    """Train; leaves model.pt and history.tsv."""
    slide, settings = task.slide, task.settings
    expression, graph = _inputs(task)
    torch.manual_seed(stream_seed(task.seed, "spatialprop_network"))
    network = model.SpatialProp(slide.n_vars, settings["n_hidden"], settings["dropout"])
    rng = stream(task.seed, "spatialprop_training")
    labels = (slide.obs[column].astype(str).to_numpy() for column in ("cell_type", "sample"))
    centres = model.training_centres(graph, *labels, task.split.train, settings["cells_per_type"], rng)
    history = model.train(
        network,
        expression,
        graph,
        centres,
        task.epochs(settings["epochs"], n_batches(len(centres), settings["batch_size"])),
        settings["batch_size"],
        settings["learning_rate"],
        rng,
        resolve_device(task.device),
        task.report,
    )
    save_network(network, history, folder)


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin."""
    slide, settings, device = task.slide, task.settings, resolve_device(task.device)
    network = model.SpatialProp(slide.n_vars, settings["n_hidden"], settings["dropout"])
    network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    expression, graph = _inputs(task)

    def expected(scene: model.Scene, shown=expression) -> Prediction:
        values = model.predict(network, shown, graph, scene, device)
        return Prediction(at_library(values, slide, task.focal), task.focal)

    def moved(perturbation) -> Prediction:
        # The same places for all rules, so that they differ by who stands there.
        donors = perturbation.shuffled(stream(task.seed, "spatialprop_donors"))
        return expected(model.Scene.moved(graph, perturbation.focal, donors))

    in_place = model.Scene.in_place(graph, task.focal)

    def altered(node) -> Prediction:
        total = np.asarray(slide.X.sum(axis=1)).ravel()
        return expected(in_place, model.scale_to_genes(task.altered_counts(node), total))

    made = task.counterfactuals(target, moved) | task.altered(target, altered)
    return made | {"no_intervention": expected(in_place)}


def _inputs(task):
    """Scaled expression, and the graph without the answers."""
    slide = task.slide
    graph = model.delaunay_graph(
        np.asarray(slide.obsm["spatial"]),
        slide.obs["sample"].astype(str).to_numpy(),
        ~task.answers,
        task.settings["longest_edge_um"],
    )
    return model.scale_to_genes(slide.X), graph
