"""CONCERT (re-implementation): the focal cells keep their own vectors and get the vector of the target domain.

Who stands around a cell enters only through places, which do not move, and through what neighbours are: a node
perturbation gives the neighbours the vector of the domain that they shall express as, and the process smooths the focal
cells with them. The vector is a whole: no genes of it are chosen, and the types that a change names all get the same.
A cell that did not train has no vector, so that nothing can be said of it, nor of a domain without a cell that did.
"""

from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.models import concert as model
from tissue_counterfactuals.models.training import n_batches, resolve_device, save_network
from tissue_counterfactuals.streams import stream, stream_seed


def fit(task, folder: Path) -> None:
    """Train; leaves model.pt and history.tsv."""
    settings = task.settings
    cells, _, _ = _inputs(task)
    torch.manual_seed(stream_seed(task.seed, "concert_network"))
    network = _network(task, cells)
    epochs = task.epochs(settings["epochs"], n_batches(len(cells.domain), settings["batch_size"]))
    history = model.train(
        network,
        cells,
        epochs,
        settings["batch_size"],
        settings["learning_rate"],
        task.patience(settings["patience"], epochs),
        stream(task.seed, "concert_training"),
        resolve_device(task.device),
        task.report,
    )
    save_network(network, history, folder)


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """The focal cells in the target domain, in their own (the twin), and there among neighbours of the target domain.

    Where neighbours are altered, all variants are predicted together with these neighbours: the process smooths over
    the cells that it sees, and a twin that saw others would differ by that.
    """
    cells, seen, domains = _inputs(task)
    network = _network(task, cells)
    network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    focal = np.searchsorted(seen, task.focal)
    nodes = task.question.nodes(target)
    around = sparse.csr_array(task.masked_graph[task.focal][:, seen]) if nodes else None

    def expected(domain: str, codes=cells.domain) -> Prediction:
        codes = codes.copy()
        codes[focal] = domains.index(domain)
        device = resolve_device(task.device)
        values = model.predict(network, cells, focal, codes, device, around=around)
        return Prediction(at_library(values, task.slide, task.focal), task.focal)

    def altered(node) -> Prediction | str:
        if "towards" not in node.origin:
            return "CONCERT is told no genes: neighbours can only be made those of another domain"
        if node.origin.get("dose", 1) != 1:
            return "CONCERT gives neighbours the vector of another domain as a whole: it can answer no dose but 1"
        codes = cells.domain.copy()
        types = task.slide.obs["cell_type"].cat.codes.to_numpy()[seen]
        changed = (node.shift != 0).any(axis=1)[types]
        if node.cells is not None:
            changed &= np.isin(seen, node.cells)
        codes[changed] = domains.index(node.origin["towards"])
        return expected(task.fold.control, codes)

    made = task.altered(target, altered) | {"no_intervention": expected(task.fold.control)}
    if target == task.fold.control:
        return made
    if domains.index(target) not in cells.domain:
        return {"-": f"CONCERT was trained on no cell of {target!r}, and has no vector of this domain"} | made
    return {"-": expected(target)} | made


def _network(task, cells: model.Cells) -> model.Concert:
    n_domains = int(task.slide.obs["domain"].nunique())
    return model.Concert(np.bincount(cells.section), n_domains, task.slide.n_vars, task.settings["n_basal"])


def _inputs(task) -> tuple[model.Cells, np.ndarray, list[str]]:
    """All cells but the held-out ones, their indices in the slide, and the names of the domains by their codes.

    Raises:
        ValueError: focal cells are held out; told before anything is trained.
    """
    if task.split.held_out[task.focal].any():
        raise ValueError("CONCERT has no vector for cells that it was not trained on, and the focal cells are such")
    slide = task.slide
    seen = np.flatnonzero(~task.split.held_out)
    labels = slide.obs["domain"].astype(str).to_numpy()
    domains = sorted(set(labels))
    codes = np.searchsorted(domains, labels[seen])
    sections = np.unique(slide.obs["sample"].astype(str).to_numpy()[seen], return_inverse=True)[1]
    cells = model.Cells.of(slide.X[seen], codes, sections, np.asarray(slide.obsm["spatial"])[seen])
    return cells, seen, domains
