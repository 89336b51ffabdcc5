"""Every switch of Cellina's protocols, through the steps and adapters: each value computes what it says, and its own.

A switch is a row of protocols/cellina.py. A new one fails here until it has a case.
"""

import itertools
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from slides import small_slide
from tasks import CELLINA, FOLD, SECTIONS, Question
from tissue_counterfactuals import metrics
from tissue_counterfactuals.graph import neighborhood_features, slide_graph
from tissue_counterfactuals.methods import mintflow, scgen
from tissue_counterfactuals.models import spatialprop
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.models.cellina_gat import CellinaGAT
from tissue_counterfactuals.protocols import cellina as switches_of_cellina
from tissue_counterfactuals.question.donors import EdgePerturbation, edge_perturbation
from tissue_counterfactuals.question.folds import cells_of, split_cells
from tissue_counterfactuals.question.nodes import pseudobulk_shift
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream

MAX_NEIGHBORS = 20
GAT_NEIGHBORS = SECTIONS["cellina_gat"]["max_neighbors"]
# Not the default of any function: a draw that the question's seed does not reach is another draw.
SEED = 3


def ask(folder, slide, **options):
    return Question(folder, slide, seed=SEED, graph={"bandwidth_um": 20.0}, **options)


def split_of(slide):
    return split_cells(slide, FOLD, SEED)


@pytest.fixture(scope="module")
def slide():
    made = small_slide(n_cells=500)
    # As the reader of the mouse brain leaves it: found to be micrometres, taken for halves of them by the authors.
    made.uns["provenance"] |= {"unit_um": 1.0, "unit_um_as_run": 0.5}
    return made


def history_of(model) -> np.ndarray:
    return model.history.drop(columns="seconds").to_numpy(dtype=float)


def masked_graph(slide, bandwidth_um=20.0):
    return slide_graph(slide, split_of(slide).held_out, bandwidth_um, MAX_NEIGHBORS)


def directly(slide, graph, **settings):
    """A model fitted without the adapter."""
    model = Cellina(device="cpu", **(CELLINA | settings))
    return model.fit(slide, graph, split_of(slide), SEED)


# --- one case for each switch: what the workflow made, and what the value must give ---------------------------------


def training(slide, folder, name, value, settings, setting):
    """What a model learnt, from its file of history and from its predictions."""
    question = ask(folder, slide, switches={name: value}, cellina=settings)
    folder = question.fit("cellina")
    history = pd.read_csv(folder / "history.tsv", sep="\t").drop(columns="seconds")
    twin = question.predict("cellina")["cellina", "right", "no_intervention"]
    graph = masked_graph(slide)
    expected = directly(slide, graph, **(settings | setting))
    focal = cells_of(slide, "A", "left")
    own = neighborhood_features(graph[focal], log_normalize(slide.X))
    return (
        np.concatenate([history.to_numpy(float).ravel(), twin.ravel()]),
        np.concatenate([history_of(expected).ravel(), expected.predict(slide, focal, own).ravel()]),
    )


def hyperparameters(slide, folder, value):
    """As published: Table A1 and the authors' defaults, whatever the configuration asks for."""
    published = {"batch_size": 2048, "epochs": 100, "n_hidden": 128, "n_latent": 64}
    setting = {"configured": {}, "published": published}[value]
    return training(slide, folder, "hyperparameters", value, {}, setting)


def restore(slide, folder, value):
    # So fast that it gets worse after the best epoch.
    fast = {"learning_rate": 0.1, "epochs": 6}
    return training(slide, folder, "restore", value, fast, {"restore": value})


def monitor(slide, folder, value):
    settings = {"kl_warmup_epochs": 1}
    return training(slide, folder, "monitor", value, settings, {"monitor": value})


def donors_of(slide, bandwidth_um=20.0, restricted=True, features=None) -> np.ndarray:
    """Mean features of the donors of each focal cell."""
    graph = slide_graph(slide, None, bandwidth_um, MAX_NEIGHBORS)
    perturbation = edge_perturbation(
        slide, graph, split_of(slide), "A", "right", cells_of(slide, "A", "left"),
        n_donors=10, restrict_to_domain=restricted, seed=SEED,
    )  # fmt: skip
    features = (log_normalize(slide.X) if features is None else features).toarray()
    return np.stack([features[row].mean(axis=0) for row in perturbation.donors], dtype=np.float32)


def counterfactual(slide, folder, switch, latent="mean", **drawn):
    """Predictions under new neighbours of a model that was fitted under the default switches."""
    question = ask(folder, slide)
    question.fit("cellina")
    question.switches = switch
    observed = question.predict("cellina")["cellina", "right", "published"]
    model, focal = Cellina.load(folder / "cellina/model.pt", "cpu"), cells_of(slide, "A", "left")
    new = donors_of(slide, **drawn)
    return observed, model.predict(slide, focal, new, latent=latent, seed=SEED)


def donor_features(slide, folder, value):
    features = {"log1p": log_normalize(slide.X), "raw_counts": slide.X}[value]
    return counterfactual(slide, folder, {"donor_features": value}, features=features)


def donor_domain(slide, folder, value):
    restricted = {"target_only": True, "any": False}[value]
    return counterfactual(slide, folder, {"donor_domain": value}, restricted=restricted)


NODE = {"shifts": ["node"], "n_genes": 6}


def altered(slide, folder, method, switch):
    """A method's prediction with altered neighbours, the change of each cell's type (n, g), and the slide of both."""
    # Genes that all change one way, so that a cell's total does too.
    slide, counts = slide.copy(), slide.X.toarray()
    counts[np.ix_(slide.obs["domain"] == "right", np.arange(6))] *= 8
    slide.X = sparse.csr_matrix(counts)
    # So fast that the spatial latent is used after six epochs.
    question = ask(folder, slide, node=NODE, cellina={"learning_rate": 0.1, "epochs": 6})
    question.fit(method)
    question.switches = switch
    observed = question.predict(method)[method, "right", "node"]
    shift = pseudobulk_shift(slide, "left", "right", split_of(slide).held_out, "A", NODE["n_genes"])
    return observed, shift[slide.obs["cell_type"].cat.codes], slide


def node_renormalization(slide, folder, value):
    """What neighbours of Cellina's focal cells show, added up by hand."""
    observed, shift, slide = altered(slide, folder, "cellina", {"node_renormalization": value})
    before = log_normalize(slide.X).toarray()
    after = np.maximum(before + shift, 0)
    if value == "totals":
        after *= (before.sum(axis=1) / after.sum(axis=1))[:, None]
    model, focal = Cellina.load(folder / "cellina/model.pt", "cpu"), cells_of(slide, "A", "left")
    features = neighborhood_features(masked_graph(slide)[focal], sparse.csr_array(after))
    return observed, model.predict(slide, focal, features.astype(np.float32), seed=SEED)


def node_scaling(slide, folder, value):
    """SpatialProp, a method of counts."""
    observed, shift, slide = altered(slide, folder, "spatialprop", {"node_scaling": value})
    more = {"counts": 0, "counts_plus_one": 1}[value]
    counts = np.maximum((slide.X.toarray() + more) * np.exp(shift) - more, 0)
    task = ask(folder, slide).task
    task.settings = SECTIONS["spatialprop"]
    network = spatialprop.SpatialProp(slide.n_vars, task.settings["n_hidden"], task.settings["dropout"])
    network.load_state_dict(torch.load(folder / "spatialprop/model.pt", weights_only=True))
    total = np.asarray(slide.X.sum(axis=1))
    shown = sparse.csr_array(counts / total * slide.n_vars, dtype=np.float32)
    focal = cells_of(slide, "A", "left")
    touching = spatialprop.delaunay_graph(
        slide.obsm["spatial"], slide.obs["sample"].to_numpy(), ~split_of(slide).held_out,
        task.settings["longest_edge_um"]
    )  # fmt: skip
    scene = spatialprop.Scene.in_place(touching, focal)
    values = spatialprop.predict(network, shown, touching, scene, torch.device("cpu"))
    return observed, values / values.sum(axis=1, keepdims=True) * total[focal]


def latent(slide, folder, value):
    return counterfactual(slide, folder, {"latent": value}, latent=value)


def gat_training(slide, folder, name, value, neighborhood=None, **setting):
    """What Cellina-GAT learnt and predicts of cells in their own place."""
    question = ask(folder, slide, switches={name: value})
    folder = question.fit("cellina_gat")
    history = pd.read_csv(folder / "history.tsv", sep="\t").drop(columns="seconds")
    twin = question.predict("cellina_gat")["cellina_gat", "right", "no_intervention"]
    graph = gat_graph(slide, **(neighborhood or {}))
    model = CellinaGAT(device="cpu", **(CELLINA | setting))
    model.fit(slide, graph, split_of(slide), SEED)
    expected = model.predict(slide, cells_of(slide, "A", "left"), model.surroundings(graph, slide.X))
    return (
        np.concatenate([history.to_numpy(float).ravel(), twin.ravel()]),
        np.concatenate([history_of(model).ravel(), expected.ravel()]),
    )


def gat_graph(slide, **settings):
    settings = {"bandwidth_um": 20.0, "max_neighbors": GAT_NEIGHBORS} | settings
    return slide_graph(slide, split_of(slide).held_out, **settings)


def gat_edges(slide, folder, value):
    return gat_training(slide, folder, "gat_edges", value, edges=value)


def gat_field(slide, folder, value):
    setting = {"three_hops": {"field": "hops"}, "one_hop": {"field": "induced", "patch_cells": 1}}
    return gat_training(slide, folder, "gat_field", value, **setting[value])


def gat_inputs(slide, folder, value):
    return gat_training(slide, folder, "gat_inputs", value, inputs=value)


def gat_cutoff(slide, folder, value):
    neighborhood = {"applied": {}, "none": {"cutoff": 0.0}}[value]
    return gat_training(slide, folder, "gat_cutoff", value, neighborhood)


def gat_counterfactual(slide, folder, switch, variant, around):
    """Predictions of a Cellina-GAT that was fitted under the default switches, in surroundings that `around` makes."""
    question = ask(folder, slide, node=NODE)
    # Long enough that neighbours matter.
    longer = {"epochs": 6, "learning_rate": 0.03}
    question.settings["cellina_gat"] = question.settings["cellina_gat"] | longer
    question.fit("cellina_gat")
    question.switches = switch
    observed = question.predict("cellina_gat")["cellina_gat", "right", variant]
    model = CellinaGAT.load(question.folder / "cellina_gat/model.pt", "cpu")
    own = model.surroundings(gat_graph(slide), slide.X)
    return observed, model.predict(slide, cells_of(slide, "A", "left"), around(model, own, question.task))


def gat_new_edges(slide, folder, value):
    def around(model, own, task):
        donors = task.question.donors("right")["published"]
        return own.moved(task.focal, donors, {"to_focal": False, "both_ways": True}[value])

    return gat_counterfactual(slide, folder, {"gat_new_edges": value}, "published", around)


def gat_altered_inputs(slide, folder, value):
    def around(model, own, task):
        shift = task.question.nodes("right")["node"].shift
        counts = slide.X.toarray() * np.exp(shift[slide.obs["cell_type"].cat.codes])
        total = slide.X.toarray().sum(axis=1, keepdims=True)
        expression = {"as_trained": np.log1p(counts / total * 1e4), "raw_counts": counts}[value]
        return own.altered(sparse.csr_array(expression.astype(np.float32)), cells_of(slide, "A", "left"))

    return gat_counterfactual(slide, folder, {"gat_altered_inputs": value}, "node", around)


def brain_unit(slide, folder, value):
    """Training, twin and donors on the graph whose bandwidth follows the unit that the authors assumed."""
    made = ask(folder, slide, switches={"brain_unit": value}).predict("cellina")
    observed = [made["cellina", "right", variant] for variant in ("no_intervention", "published")]
    bandwidth_um = {"by_extent": 20.0, "pixels": 40.0}[value]
    graph = masked_graph(slide, bandwidth_um)
    model, focal = directly(slide, graph), cells_of(slide, "A", "left")
    own = neighborhood_features(graph[focal], log_normalize(slide.X))
    around = own, donors_of(slide, bandwidth_um)
    return np.stack(observed), np.stack([model.predict(slide, focal, x) for x in around])


def scores(slide, folder, switch):
    """All scores of a prediction, in the order of their names."""
    # More genes than principal components, or any rotation of all genes would do.
    slide = small_slide(n_cells=400, n_genes=60)
    question = ask(folder, slide, switches=switch)
    predicted = question.predict("mean_shift")["mean_shift", "right", "-"]
    table = question.score().set_index("metric")["value"]
    groups = (slide.X[cells_of(slide, "A", domain)] for domain in ("left", "right"))
    reference = metrics.Reference(*groups, train=slide.X[split_of(slide).train], n_deg=10, seed=SEED, **switch)
    expected = pd.Series(reference.score(predicted) | reference.unbiased_scores(predicted))
    return table[expected.index].to_numpy(float), expected.to_numpy()


def variable_genes(slide, folder, value):
    """A prediction in the genes that were chosen from all cells, or without those that are held out."""
    slide, number = slide.copy(), np.arange(slide.n_vars)
    # What `prepare` leaves: see question/test_variable_genes.py for how genes are chosen.
    slide.var["variable_genes"] = number % 2 == 0
    slide.var["variable_genes_without_A"] = number % 2 == 1
    question = ask(folder, slide, switches={"variable_genes": value})
    observed = question.predict("no_change")["no_change", "right", "-"]
    chosen = {"all_cells": number[::2], "without_held_out": number[1::2]}[value]
    return observed, slide.X[cells_of(slide, "A", "left")][:, chosen].toarray()


class Differences:
    """scGen without a network: cells are their own latents."""

    module = SimpleNamespace(eval=lambda: None, generative=lambda latent: {"px": latent})
    device = "cpu"

    def __init__(self, cells):
        self.cells = cells

    @classmethod
    def load(cls, folder, adata, accelerator):
        return cls(adata)

    def predict(self, ctrl_key, stim_key, adata_to_predict):
        means = [
            self.cells.X[(self.cells.obs["domain"] == key).to_numpy()].mean(axis=0) for key in (stim_key, ctrl_key)
        ]
        return None, means[0] - means[1]

    def get_latent_representation(self, cells):
        return cells.X


def scgen_difference(slide, folder, value):
    """The difference of the domains, with the held-out cells or without them, added to the focal cells."""
    task = ask(folder, slide, switches={"scgen_difference": value}).task
    task.settings = {"n_draws": 1}
    with (
        mock.patch.object(scgen, "_package", return_value=SimpleNamespace(SCGEN=Differences)),
        mock.patch.object(scgen, "seed_everything"),
    ):
        observed = scgen.predict(task, folder, "right")["-"].values
    expression, focal = log_normalize(slide.X).toarray(), cells_of(slide, "A", "left")
    counted = {"all_cells": np.full(slide.n_obs, True), "seen_cells": ~split_of(slide).held_out}[value]
    domain = slide.obs["domain"].to_numpy()
    right, left = (expression[counted & (domain == name)].mean(axis=0) for name in ("right", "left"))
    moved = np.expm1(expression[focal] + right - left).clip(min=0)
    library = np.asarray(slide.X[focal].sum(axis=1)).ravel()
    return observed, moved * (library / moved.sum(axis=1))[:, None]


class Draws:
    """MintFlow without a network: a cell expresses how many of its neighbours are of each type, over and over."""

    @staticmethod
    def generate_insilico_ST_data(adata, obskey_celltype, obspkey_neighbourhood_graph, **_):
        types = pd.get_dummies(adata.obs[obskey_celltype]).to_numpy(float)
        values = adata.obsp[obspkey_neighbourhood_graph] @ types[:, np.arange(adata.n_vars) % types.shape[1]]
        draw = {"MintFlow_Generated_Xint": values, "MintFLow_Generated_Xmic": 0 * values}
        return {"list_generated_realisations_ie_expressions": [draw]}


def mintflow_cells(slide, folder, value):
    """Control cells among their donors, or the cells to be predicted among all that stand around them."""
    task = ask(folder, slide, switches={"mintflow_cells": value}).task
    task.settings = {"n_neighbors": 4, "n_draws": 1}
    sections = SimpleNamespace(map_Batchname_to_inflowBatchID=["s0"])
    stored = {"data_mintflow": {"train_list_tissue_section": sections}, "dict_all4_configs": {}, "model": None}
    torch.save(stored, folder / "model.pt")
    with (
        mock.patch.object(mintflow, "_package", return_value=Draws),
        mock.patch.object(mintflow, "seed_everything"),
    ):
        made = mintflow.predict(task, folder, "right")
    rule = {"all_cells": "-", "seen_cells": "published"}[value]
    assert set(made) == {rule, "no_intervention"}
    cells = cells_of(slide, "A", {"all_cells": "right", "seen_cells": "left"}[value])
    assert made[rule].cells.tolist() == cells.tolist()
    if value == "all_cells":
        places = slide.obsm["spatial"]
        distances = np.linalg.norm(places[cells, None] - places[None], axis=2)
        distances[np.arange(len(cells)), cells] = np.inf
        around = np.argsort(distances, axis=1)[:, :4]
    else:
        donors = EdgePerturbation(cells, task.question.donors("right")["published"])
        around = donors.shuffled(stream(SEED, "mintflow_donors"))[:, :4]
    types = pd.get_dummies(slide.obs["cell_type"]).to_numpy(float)[around].sum(axis=1)
    expected = types[:, np.arange(slide.n_vars) % types.shape[1]]
    library = np.asarray(slide.X[cells].sum(axis=1)).ravel()
    return made[rule].values, expected * (library / expected.sum(axis=1))[:, None]


CASES = {
    "donor_features": donor_features,
    "donor_domain": donor_domain,
    "latent": latent,
    "node_renormalization": node_renormalization,
    "node_scaling": node_scaling,
    "brain_unit": brain_unit,
    "hyperparameters": hyperparameters,
    "variable_genes": variable_genes,
    "restore": restore,
    "monitor": monitor,
    "gat_edges": gat_edges,
    "gat_field": gat_field,
    "gat_inputs": gat_inputs,
    "gat_cutoff": gat_cutoff,
    "gat_new_edges": gat_new_edges,
    "gat_altered_inputs": gat_altered_inputs,
    "scgen_difference": scgen_difference,
    "mintflow_cells": mintflow_cells,
    "lfc": lambda slide, folder, value: scores(slide, folder, {"lfc": value}),
    "pca_fit": lambda slide, folder, value: scores(slide, folder, {"pca_fit": value}),
    "rmse_counts": lambda slide, folder, value: scores(slide, folder, {"rmse_counts": value}),
}


@pytest.mark.parametrize("switch", switches_of_cellina.SWITCHES, ids=lambda switch: switch.name)
def test_a_switch_computes_what_its_value_says_and_each_value_something_else(switch, slide, tmp_path):
    assert switch.name in CASES, f"the switch {switch.name} has no case in this file"
    outcomes = {}
    for value in switch.values:
        observed, expected = CASES[switch.name](slide, tmp_path / value, value)
        np.testing.assert_allclose(observed, expected, rtol=1e-4, atol=1e-5)
        outcomes[value] = observed
    for one, other in itertools.combinations(outcomes.values(), 2):
        assert one.shape != other.shape or not np.allclose(one, other, rtol=1e-3, atol=1e-4)
