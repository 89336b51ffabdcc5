"""Where the mechanism is known, a counterfactual is nearer to the truth than its own twin and than the controls.

A tissue made by hand: six genes of every type but the sender follow the share of senders among a cell's neighbours, by
one slope, and nothing else tells the two domains apart. In the left one senders are rare, in the right one common. Type
A is held out there, so what senders do to it is to be learnt from its own cells among few senders and from other types.
The truth of a focal cell is its expected expression at the share of senders among its donors.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tasks import Question
from tissue_counterfactuals.graph import gaussian_graph
from tissue_counterfactuals.question.folds import cells_of
from tissue_counterfactuals.slide import make_slide

TYPES = ("A", "B", "C", "sender")
SENDER = TYPES.index("sender")
N_CELLS, N_GENES = 1500, 20
ANSWER = np.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])  # change of log rate from no sender to senders alone
ANSWERING = np.arange(len(ANSWER))
MARKERS = np.arange(6, 10)  # of the sender
MEAN_SHIFTS = ("mean_shift", "mean_shift_by_type")
GRAPH = {"bandwidth_um": 20.0, "max_neighbors": 20}
# Long enough for the spatial latent to be used; cells have few counts, or their own would say all.
CELLINA = {
    "epochs": 50, "patience": 50, "kl_warmup_epochs": 40, "learning_rate": 5e-3,
    "n_hidden": 32, "n_latent": 4, "dropout": 0.0,
}  # fmt: skip


def shares(log_rates, types, senders):
    """Expected share of each gene (n, g) in cells with a share of senders (n,) around them."""
    rates = log_rates[types]
    answers = np.where(types == SENDER, 0.0, senders - 0.3)
    rates[:, ANSWERING] += answers[:, None] * ANSWER
    rates = np.exp(rates)
    return rates / rates.sum(axis=1, keepdims=True)


def tissue(seed):
    """The slide, the log rates of its types, and the code of each cell's type."""
    rng = np.random.default_rng(seed)
    spatial = rng.uniform(0, 600, (N_CELLS, 2))
    right = spatial[:, 0] > 300
    patches = (1 + np.sin(spatial / 60 + rng.uniform(0, 6, 2)).prod(axis=1)) / 2
    chance = np.where(right, 0.35 + 0.4 * patches, 0.05 + 0.45 * patches)
    types = np.where(rng.random(N_CELLS) < chance, SENDER, rng.integers(0, SENDER, N_CELLS))
    graph = gaussian_graph(spatial, **GRAPH)
    degree = np.maximum(graph.sum(axis=1), 1e-9)
    log_rates = rng.normal(0, 0.5, (len(TYPES), N_GENES))
    log_rates[:, ANSWERING] = 0.5
    log_rates[:, MARKERS] = -2.0
    log_rates[SENDER, MARKERS] = 2.0
    expected = shares(log_rates, types, graph @ (types == SENDER) / degree)
    counts = rng.poisson(rng.lognormal(np.log(60), 0.2, (N_CELLS, 1)) * expected)
    domain = np.where(right, "right", "left")
    labels = {"cell_type": np.array(TYPES)[types], "domain": domain, "sample": "one"}
    labels = pd.DataFrame(labels, index=[f"cell_{i}" for i in range(N_CELLS)])
    genes = pd.Index([f"gene_{i}" for i in range(N_GENES)])
    counts = sparse.csr_matrix(counts)
    return make_slide(counts, labels, genes, spatial, {"source": "test"}), log_rates, types


def profile(counts):
    """log(1 + mean counts per 10,000) of the genes that answer."""
    share = counts / counts.sum(axis=1, keepdims=True)
    return np.log1p(1e4 * share.mean(axis=0))[ANSWERING]


def errors(folder, seed):
    """Distance to the true counterfactual by method and variant."""
    slide, log_rates, types = tissue(seed)
    question = Question(folder, slide, seed=seed, cellina=CELLINA, graph=GRAPH, n_donors=20)
    made = question.predict("cellina", "hierarchical", "no_change", *MEAN_SHIFTS)
    donors = question.task.question.donors("right")["published"]
    senders = (types[donors] == SENDER).mean(axis=1)
    truth = profile(shares(log_rates, types[cells_of(slide, "A", "left")], senders))
    return {
        (method, variant): np.sqrt(np.mean((profile(values) - truth) ** 2))
        for (method, _, variant), values in made.items()
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counterfactuals_are_nearer_to_the_truth_than_their_twins_and_controls(seed, tmp_path):
    found = errors(tmp_path, seed)
    # Of the smaller of both errors, over seeds 0 to 7: cellina .44 to .63, hierarchical .16 to .28.
    for method, most in (("cellina", 0.8), ("hierarchical", 0.5)):
        own = found[method, "published"]
        assert own < most * found[method, "no_intervention"], method
        assert own < most * found["no_change", "-"], method
    # In a tissue where one slope does it all, the mean shifts are as near as Cellina is; the demo's has more to learn.
    for control in MEAN_SHIFTS:
        assert found["hierarchical", "published"] < 0.7 * found[control, "-"], control
    # Who was learnt from stands beside the model: of the held-out type nothing that was held out.
    learnt = pd.read_csv(tmp_path / "hierarchical/types.tsv", sep="\t", index_col="cell_type")
    assert list(learnt.columns) == ["n_cells", "dispersion"]
    assert list(learnt.index) == ["B", "C", "sender"]
