"""MintFlow (mintflow 0.3.0): expression drawn from a cell's type and the types around it.

The published counterfactual swaps the expression of cells before it generates, but generation reads cell types, the
graph and the section alone (`generate_insilico_ST_data`, 0.2.0 and 0.3.0). So the question is put to it as it can
answer it: a focal cell's type among the types of its donors, of whom it takes as many at random as MintFlow looks for
around a cell; its graph, made undirected, has some more. All that is the focal cell's own beside its type and its total
count is lost: read its twin, which is drawn from its own neighbours' types. Held-out cells are absent from training,
and the answers from the graph. A prediction is the mean of several draws.

As run, it trains on all cells, and what it draws are the cells to be predicted, where they stand: the expression of
control cells that the authors put into them is never read.
"""

import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy import sparse, spatial

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.methods.scvi_tools import Seen, seed_everything
from tissue_counterfactuals.streams import stream


def fit(task, folder: Path) -> None:
    """Train; leaves model.pt, MintFlow's own checkpoint, which holds the cells that it saw."""
    mintflow, settings, seen = _package(), task.settings, _seen(task)
    with tempfile.TemporaryDirectory() as scratch:
        configs = _configuration(mintflow, task, _sections(seen, Path(scratch)))
        seed_everything(task.seed)
        silent = {"flag_verbose": False, "flag_visualise_tissue_sections": False}
        data = mintflow.setup_data(configs, **silent)
        n_batches = [len(section.pyg_dl_train) for section in data["train_list_tissue_section"].list_slice]
        steps = steps_of_epoch(n_batches, configs["config_training"]["numsteps_accumgrad"])
        epochs = task.epochs(settings["epochs"], steps)
        # The phases of its annealing are shares of these.
        configs["config_training"]["num_training_epochs"] = epochs
        model = mintflow.setup_model(dict_all4_configs=configs, data_mintflow=data, **silent)
        trainer = mintflow.Trainer(dict_all4_configs=configs, model=model, data_mintflow=data)
        for epoch in range(epochs):
            try:
                trainer.train_one_epoch()
            except StopIteration:
                raise ValueError(
                    f"MintFlow found no square of {settings['window_um']:g} um with cells to train on: they stand too "
                    "far apart. Enlarge mintflow.window_um."
                ) from None
            task.report(f"epoch {epoch + 1} of {epochs}")
    mintflow.dump_checkpoint(model=model, data_mintflow=data, dict_all4_configs=configs, path_dump=folder / "model.pt")


def steps_of_epoch(n_batches: list[int], accumulated: int) -> int:
    """Optimiser steps of an epoch on sections of so many batches, each on the gradients of some `accumulated` ones.

    Sections take turns until the last of them runs out; the others begin anew meanwhile.

    Raises:
        ValueError: they are too few for one step, and MintFlow would end untrained without a word.
    """
    longest = max(n_batches)
    turns = len(n_batches) * longest + max(i for i, n in enumerate(n_batches) if n == longest)
    if 0 < turns < accumulated:
        raise ValueError(
            f"MintFlow takes a step after every {accumulated} batches, and the squares with cells make {turns} in an "
            "epoch. Make mintflow.window_um smaller, which makes more of them."
        )
    return max(1, turns // accumulated)


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """Of all cells: z, the intrinsic state, and s, the signals that come in; posterior means, each (n, n_latent)."""
    import torch

    mintflow, seen = _package(), _seen(task)
    stored = torch.load(folder / "model.pt", map_location="cpu", weights_only=False)
    seed_everything(task.seed)
    found = mintflow.predict(
        stored["dict_all4_configs"], stored["data_mintflow"], stored["model"], device=torch.device("cpu")
    )
    samples = seen.counts().obs["sample"].astype(str).to_numpy()
    latents = {}
    for name, key in {"z": "MintFlow_Z", "s": "MintFlow_S_in"}.items():
        parts = [section[key] for section in found.values()]
        parts = [x.toarray() if sparse.issparse(x) else np.asarray(x) for x in parts]
        values = np.empty((len(samples), parts[0].shape[1]), np.float32)
        # Sections are those of `_sections`, in its order, each with its cells in theirs.
        for sample, part in zip(sorted(set(samples)), parts, strict=True):
            values[samples == sample] = part
        latents[name] = seen.of_all(values)
    return latents


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per donor rule, as run one in place; and the twin."""
    import torch

    mintflow, slide = _package(), task.slide
    stored = torch.load(folder / "model.pt", map_location="cpu", weights_only=False)
    data, configs = stored["data_mintflow"], stored["dict_all4_configs"]
    codes = Seen.of(task).counts(np.arange(slide.n_obs)).obs
    sections = list(data["train_list_tissue_section"].map_Batchname_to_inflowBatchID)
    n_neighbors = task.settings["n_neighbors"]

    def drawn(cells: np.ndarray, neighbors: np.ndarray) -> Prediction:
        """Cells (m,) among neighbours (m, k), indices in the slide, each in the section of its sample. Those of a
        sample that was left out are drawn in every section, and averaged.
        """
        values, sample = np.zeros((len(cells), slide.n_vars)), codes["sample"].astype(str).to_numpy()[cells]
        for section, name in enumerate(sections):
            here = np.flatnonzero((sample == name) | ~np.isin(sample, sections))
            if len(here):
                values[here] += mean_draw(cells[here], neighbors[here], section)
        return Prediction(at_library(values, slide, cells), cells)

    def in_place(cells: np.ndarray) -> Prediction:
        return drawn(cells, _own_neighbors(task, cells, n_neighbors))

    def mean_draw(cells: np.ndarray, neighbors: np.ndarray, section: int) -> np.ndarray:
        """(m, g) of cells (m,) among neighbours (m, k), each of them a cell of a tissue of its own."""
        m, k = neighbors.shape
        around, place = np.unique(neighbors, return_inverse=True)
        rows = np.repeat(np.arange(m), k)
        edges = sparse.coo_array((np.ones(m * k), (rows, m + place.ravel())), (m + len(around),) * 2)
        tissue = AnnData(
            sparse.csr_matrix((m + len(around), slide.n_vars), dtype=np.float32),
            obs=codes.iloc[np.concatenate([cells, around])].reset_index(drop=True),
        )
        tissue.obsp["spatial_connectivities"] = sparse.csr_matrix(edges + edges.T)
        made = mintflow.generate_insilico_ST_data(
            adata=tissue,
            obskey_celltype="cell_type",
            obspkey_neighbourhood_graph="spatial_connectivities",
            device=torch.device("cpu"),
            batch_index_trainingdata=section,
            num_generated_realisations=task.settings["n_draws"],
            model=stored["model"],
            data_mintflow=data,
            dict_all4_configs=configs,
            estimate_spatial_sizefactors_on_sections=[section],
        )["list_generated_realisations_ie_expressions"]
        # The names are spelled so.
        draws = [d["MintFlow_Generated_Xint"] + d["MintFLow_Generated_Xmic"] for d in made]
        return np.mean(draws, axis=0)[:m]

    def moved(perturbation) -> Prediction:
        return drawn(task.focal, perturbation.shuffled(stream(task.seed, "mintflow_donors"))[:, :n_neighbors])

    seed_everything(task.seed)
    made = {"-": in_place(task.target_cells(target))} if _sees_all(task) else task.counterfactuals(target, moved)
    return made | {"no_intervention": in_place(task.focal)}


def _sees_all(task) -> bool:
    return task.switches["mintflow_cells"] == "all_cells"


def _seen(task) -> Seen:
    return Seen(task, np.arange(task.slide.n_obs)) if _sees_all(task) else Seen.of(task)


def _sections(seen: Seen, folder: Path) -> list[Path]:
    """An h5ad for each sample, of the cells that may be seen, as MintFlow reads them."""
    files = []
    for sample in sorted(set(seen.counts().obs["sample"])):
        cells = seen.counts()
        cells = cells[(cells.obs["sample"] == sample).to_numpy()].copy()
        cells.obs[["x", "y"]] = cells.obsm["spatial"]
        files.append(folder / f"{sample}.h5ad")
        cells.write_h5ad(files[-1])
    return files


def _configuration(mintflow, task, files: list[Path]) -> dict:
    """MintFlow's own defaults, with the files and what the settings say; its booleans are texts."""
    settings, n = task.settings, len(files)
    train, evaluation, network, training = mintflow.get_default_configurations(
        num_tissue_sections_training=n, num_tissue_sections_evaluation=n
    )
    keys = {
        "obskey_cell_type": "cell_type",
        "obskey_sliceid_to_checkUnique": "sample",
        "obskey_biological_batch_key": "sample",
        "obskey_x": "x",
        "obskey_y": "y",
    }
    graph = {"n_neighs": settings["n_neighbors"], "set_diag": "False", "delaunay": "False"}
    loaders = ((train, "config_dataloader_train"), (evaluation, "config_dataloader_test"))
    for config, loader in loaders:
        for file, section in zip(files, config["list_tissue"].values(), strict=True):
            section.update(keys, file=str(file), config_neighbourhood_graph=dict(graph))
            section[loader]["width_window"] = settings["window_um"]
    for section in train["list_tissue"].values():
        # Left to itself it takes 5, and more than the graph has are not allowed.
        section["config_dataloader_train"]["num_neighbors"] = settings["n_neighbors"]
    training.update(
        numiters_updateduals_seprately_perepoch=settings["adversary_steps"],
        flag_enable_wandb="False",
        flag_use_GPU="False",
        sleeptime_gccollect_aftertraining=0,
        sleeptime_gccollect_dumpOnePred=0,
    )
    return {
        "config_data_train": mintflow.verify_and_postprocess_config_data_train(train),
        "config_data_evaluation": mintflow.verify_and_postprocess_config_data_evaluation(evaluation),
        "config_model": mintflow.verify_and_postprocess_config_model(network, num_tissue_sections=n),
        "config_training": mintflow.verify_and_postprocess_config_training(training),
    }


def _own_neighbors(task, cells: np.ndarray, n_neighbors: int) -> np.ndarray:
    """(m, k) nearest cells of each of some cells (m,), of the same sample and among those that may be read."""
    places = np.asarray(task.slide.obsm["spatial"])
    sample = task.slide.obs["sample"].astype(str).to_numpy()
    readable = np.full(task.slide.n_obs, True) if _sees_all(task) else ~task.answers
    found = np.empty((len(cells), n_neighbors), dtype=int)
    for name in np.unique(sample[cells]):
        own = np.flatnonzero(sample[cells] == name)
        others = np.flatnonzero((sample == name) & readable)
        _, nearest = spatial.KDTree(places[others]).query(places[cells[own]], n_neighbors + 1)
        nearest = others[nearest]
        # Itself goes last: of cells in one place it need not be the first, nor be found at all.
        order = np.argsort(nearest == cells[own, None], axis=1, kind="stable")
        found[own] = np.take_along_axis(nearest, order, axis=1)[:, :n_neighbors]
    return found


def _package():
    """mintflow, importable: what it imports and never needs here is empty, and what PyG compiles is Python."""
    os.environ.setdefault("MPLBACKEND", "Agg")

    def empty(name: str, **names) -> None:
        made = sys.modules.setdefault(name, types.ModuleType(name))
        vars(made).update(names)

    empty("wandb")
    empty("gdown")
    empty("IPython")
    empty("IPython.utils", io=None)
    empty("scib_metrics")
    empty("scib_metrics.nearest_neighbors", NeighborsResults=None)
    _sample_neighbors_in_python()
    import mintflow
    import mintflow.utils_pyg
    import torch

    # MintFlow seeds Python's generator from the clock, over and over; so that a seed counts, its clock is a draw.
    clock = types.SimpleNamespace(timestamp=lambda: torch.rand(1).item())
    mintflow.utils_pyg.datetime = types.SimpleNamespace(now=lambda: clock)
    return mintflow


def _sample_neighbors_in_python() -> None:
    """PyG's loader of neighbourhoods calls torch_sparse, which is compiled from source; the one function it needs,
    here.
    """
    import torch
    import torch_geometric.typing as support

    if support.WITH_PYG_LIB or support.WITH_TORCH_SPARSE:
        return
    library = torch.library.Library("torch_sparse", "DEF")
    library.define(
        "neighbor_sample(Tensor colptr, Tensor row, Tensor input_node, int[] num_neighbors, bool replace, bool "
        "directed) -> (Tensor, Tensor, Tensor, Tensor)"
    )
    library.impl("neighbor_sample", neighbor_sample, "CPU")
    support.WITH_TORCH_SPARSE = True
    # The registration lives as long as the library.
    _sample_neighbors_in_python.library = library


def neighbor_sample(colptr, row, input_node, num_neighbors, replace: bool, directed: bool):
    """Nodes, and edges between them (source, target, number in `row`), sampled hop by hop around the input nodes.

    Args:
        colptr, row: the graph by target: sources of node i are row[colptr[i]:colptr[i + 1]].
        num_neighbors: of each hop; -1 takes all.
        directed: whether only the edges along which nodes were found are returned, or all among the nodes.
    """
    import torch

    starts, sources = colptr.numpy(), row.numpy()
    nodes = input_node.tolist()
    place = {node: i for i, node in enumerate(nodes)}
    edges, first = [], 0
    for wanted in num_neighbors:
        last = len(nodes)
        for target in range(first, last):
            numbers = np.arange(starts[nodes[target]], starts[nodes[target] + 1])
            if len(numbers) and wanted >= 0 and (replace or wanted < len(numbers)):
                n = len(numbers)
                drawn = torch.randint(n, (wanted,)) if replace else torch.randperm(n)[:wanted]
                numbers = numbers[drawn.numpy()]
            for number in numbers:
                source = int(sources[number])
                if source not in place:
                    place[source] = len(nodes)
                    nodes.append(source)
                edges.append((place[source], target, number))
        first = last
    if not directed:
        edges = [
            (place[int(sources[number])], target, number)
            for target, node in enumerate(nodes)
            for number in range(starts[node], starts[node + 1])
            if int(sources[number]) in place
        ]
    table = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    return (torch.tensor(nodes), *map(torch.from_numpy, np.ascontiguousarray(table)))
