"""Ridge regression and nearest neighbours, on cases whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from slides import small_slide
from tasks import FOLD, SECTIONS, Question, make_task
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods import METHODS, hierarchical, nearest_neighbor
from tissue_counterfactuals.models import spatialprop
from tissue_counterfactuals.models.hierarchical import Axes
from tissue_counterfactuals.question.nodes import pseudobulk_shift
from tissue_counterfactuals.slide import log_normalize

EFFECT = 0.8
SOURCE, RESPONSE, FILLER = slice(0, 4), 4, 5


@pytest.fixture(scope="module")
def answering():
    """A task in which one gene's log expression is its type's level plus EFFECT times the first gene around the cell.

    A gene that fills every library up to a million keeps normalisation out of it.
    """
    slide = small_slide(n_cells=1500, n_genes=6)
    rng = np.random.default_rng(0)
    around = make_task(slide).masked_graph
    target = (slide.obs["domain"] == "right").to_numpy()
    log = np.zeros((slide.n_obs, 6))
    log[:, SOURCE] = rng.uniform(0, 2, (slide.n_obs, 4)) + target[:, None]
    counts = np.zeros_like(log)
    counts[:, SOURCE] = np.rint(100 * np.expm1(log[:, SOURCE]))
    features = around @ np.log1p(counts[:, 0] / 100) / np.maximum(around.sum(axis=1), 1e-12)
    level = slide.obs["cell_type"].map({"A": 1.0, "B": 2.0, "C": 1.5}).to_numpy(float)
    counts[:, RESPONSE] = np.rint(100 * np.expm1(level + EFFECT * features))
    counts[:, FILLER] = 1_000_000 - counts.sum(axis=1)
    slide.X = sparse.csr_matrix(counts.astype(np.float32))
    # Nothing is noise here, so nothing need be shrunk.
    settings = {"penalties": [1e-6, 1.0]}
    return make_task(slide, n_donors=20, settings=settings, report=lambda line: None)


def fitted(task, folder):
    METHODS["ridge"].adapter.fit(task, folder)
    with np.load(folder / "ridge.npz") as model:
        return dict(model)


def test_ridge_finds_the_effect_of_a_neighbour_and_no_other(answering, tmp_path):
    weights = fitted(answering, tmp_path)["weights"]
    assert weights[0, RESPONSE] == pytest.approx(EFFECT, abs=0.02)
    # Sources answer nobody, and the response nobody but the first.
    assert np.abs(weights[SOURCE, RESPONSE][1:]).max() < 0.03


def test_ridge_moves_cells_by_what_their_donors_are(answering, tmp_path):
    fitted(answering, tmp_path)
    made = METHODS["ridge"].adapter.predict(answering, tmp_path, "right")
    slide, focal = answering.slide, answering.focal
    log = np.log1p(slide.X.toarray() / 100)
    own = neighborhood_features(answering.masked_graph[focal], log_normalize(slide.X))[:, 0]
    donors = answering.question.donors("right")["published"]
    expected = log[focal, RESPONSE] + EFFECT * (log[donors, 0].mean(axis=1) - own)
    moved = np.log1p(made["published"].values[:, RESPONSE] / 100)
    assert np.corrcoef(moved, expected)[0, 1] > 0.98
    # The response itself changes by a lot, so that a model of nothing would fail here.
    assert np.mean(expected - log[focal, RESPONSE]) > 0.5
    assert np.abs(moved - expected).mean() < 0.1
    twin = made["no_intervention"].values
    assert np.array_equal(twin, slide.X[focal].toarray())


def test_ridge_moves_cells_by_what_altered_neighbours_show(answering, tmp_path):
    weights, slide = fitted(answering, tmp_path)["weights"], answering.slide
    task = make_task(slide, node={"shifts": ["node"], "n_genes": 6}, settings=answering.settings)
    made = METHODS["ridge"].adapter.predict(task, tmp_path, "right")["node"].values
    before = log_normalize(slide.X).toarray()
    shift = pseudobulk_shift(slide, "left", "right", task.split.held_out, "A", 6)
    after = np.maximum(before + shift[slide.obs["cell_type"].cat.codes], 0)
    graph = task.masked_graph[task.focal].toarray()
    change = (graph / graph.sum(axis=1, keepdims=True)) @ (after - before) @ weights
    assert np.abs(change[:, RESPONSE]).mean() > 0.3
    expected = np.maximum(np.exp(before[task.focal] + change) - 1, 0)
    total = np.asarray(slide.X[task.focal].sum(axis=1))
    np.testing.assert_allclose(made, expected / expected.sum(axis=1, keepdims=True) * total, rtol=1e-3)


def test_cells_without_neighbours_say_nothing_of_what_neighbours_do(tmp_path):
    """As if they were not there."""
    slide = small_slide(n_cells=300)
    task = make_task(slide, settings=SECTIONS["ridge"])
    kept = np.arange(300) % 3 > 0
    task.masked_graph = sparse.csr_array(task.masked_graph.multiply(kept[:, None]))
    task.masked_graph.eliminate_zeros()
    expression = log_normalize(slide.X)
    features = neighborhood_features(task.masked_graph, expression)
    METHODS["ridge"].adapter.fit(task, tmp_path)
    own = task.split.train & kept & (slide.obs["cell_type"] == task.fold.cell_type).to_numpy()
    with np.load(tmp_path / "ridge.npz") as stored:
        np.testing.assert_allclose(stored["mean_features"], features[own].mean(axis=0), rtol=1e-5)
    task.settings = {"n_components": 3}
    expected = Axes.of(features[~task.split.held_out & kept], 3)
    np.testing.assert_allclose(hierarchical._axes(task, expression).mean, expected.mean, rtol=1e-5)
    received = hierarchical._mean_received(task.masked_graph, expression)
    np.testing.assert_allclose(received, features[np.diff(task.masked_graph.indptr) > 0].mean(axis=0), rtol=1e-4)


def test_ridge_shrinks_where_there_is_nothing_to_learn(tmp_path):
    """Cells of a type that change places: the largest penalty is the best."""
    slide = small_slide(n_cells=600)
    counts, rng = slide.X.toarray(), np.random.default_rng(0)
    for members in slide.obs.groupby("cell_type", observed=True).indices.values():
        counts[members] = counts[rng.permutation(members)]
    slide.X = sparse.csr_matrix(counts)
    task = make_task(slide, settings=SECTIONS["ridge"], report=lambda line: None)
    assert fitted(task, tmp_path)["penalty"] == max(SECTIONS["ridge"]["penalties"])


def test_ridge_without_validation_cells_chooses_no_penalty(tmp_path):
    task = make_task(small_slide(n_cells=200), settings=SECTIONS["ridge"], report=lambda line: None)
    task.masked_graph = sparse.csr_array(task.masked_graph.multiply(~task.split.validation[:, None]))
    task.masked_graph.eliminate_zeros()
    with pytest.raises(ValueError, match=r"raise holdout\.validation_fraction"):
        fitted(task, tmp_path)


def test_ridge_says_nothing_about_held_out_cells(tmp_path):
    slide = small_slide(n_cells=600)
    weights = []
    for _ in range(2):
        task = make_task(slide, settings=SECTIONS["ridge"], report=lambda line: None)
        weights.append(fitted(task, tmp_path)["weights"])
        counts = slide.X.toarray()
        counts[task.split.held_out] = counts[task.split.held_out][:, ::-1] * 5 + 1
        slide = slide.copy()
        slide.X = sparse.csr_matrix(counts)
    assert np.array_equal(*weights)


@pytest.mark.parametrize("n_neighbors", [1, 5, 40])
def test_nearest_neighbors_are_the_most_similar_training_cells_of_the_domain(n_neighbors, monkeypatch):
    # Focal cells in several blocks.
    monkeypatch.setattr(nearest_neighbor, "_BLOCK", 16)
    task = make_task(small_slide(n_cells=500), settings={"n_neighbors": n_neighbors, "max_candidates": 10_000})
    made = METHODS["nearest_neighbor"].adapter.predict(task, None, "right")
    assert set(made) == {"-", "no_intervention"}
    counts = task.slide.X.toarray().astype(float)
    log = log_normalize(counts)
    unit = log / np.linalg.norm(log, axis=1, keepdims=True)
    share = counts / counts.sum(axis=1, keepdims=True)
    for variant, domain in (("-", "right"), ("no_intervention", "left")):
        pool = np.flatnonzero((task.slide.obs["domain"] == domain).to_numpy() & task.split.train)
        for row, cell in enumerate(task.focal):
            others = pool[pool != cell]
            nearest = others[np.argsort(-(unit[others] @ unit[cell]))[:n_neighbors]]
            expected = share[nearest].mean(axis=0) * counts[cell].sum()
            np.testing.assert_allclose(made[variant].values[row], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", ["matched", "any_type"])
def test_the_few_donors_that_spatialprop_takes_are_of_the_types_of_all(rule, monkeypatch, tmp_path):
    slide = small_slide(n_cells=900, types=("A", "B", "C", "D", "E"))
    task = make_task(slide, donor_rules=(rule,), settings=SECTIONS["spatialprop"])
    METHODS["spatialprop"].adapter.fit(task, tmp_path)
    taken = []

    def predict(network, expression, graph, scene, device):
        taken.append(scene)
        return np.ones((len(scene.centres), slide.n_vars))

    monkeypatch.setattr(spatialprop, "predict", predict)
    METHODS["spatialprop"].adapter.predict(task, tmp_path, "right")
    among, own = taken
    np.testing.assert_array_equal(np.diff(own.indptr), np.diff(among.indptr))
    types, donors = slide.obs["cell_type"].to_numpy(), task.question.donors("right")[rule]
    assert len(among.indices) < donors.size / 5
    for label in "ABCDE":
        assert (types[among.indices] == label).mean() == pytest.approx((types[donors] == label).mean(), abs=0.06)


def test_nearest_neighbors_find_the_one_cell_that_is_alike():
    """Every control cell of the type has a likeness of another type in the target domain."""
    slide = small_slide(n_cells=500)
    task = make_task(slide, settings={"n_neighbors": 1, "max_candidates": 10_000})
    train = (slide.obs["domain"] == "right").to_numpy() & task.split.train
    likeness = np.flatnonzero(train)[: len(task.focal)]
    counts = slide.X.toarray()
    rng = np.random.default_rng(1)
    counts[likeness] = rng.integers(0, 50, (len(likeness), slide.n_vars))
    focal = task.focal[: len(likeness)]
    counts[focal] = 2 * counts[likeness]
    slide.X = sparse.csr_matrix(counts)
    values = METHODS["nearest_neighbor"].adapter.predict(task, None, "right")["-"].values
    np.testing.assert_allclose(values[: len(focal)], counts[focal], rtol=1e-4, atol=1e-3)


def test_too_few_candidates_are_a_reason_and_too_many_are_drawn():
    task = make_task(small_slide(n_cells=300), settings={"n_neighbors": 5, "max_candidates": 20})
    predict = METHODS["nearest_neighbor"].adapter.predict
    first, again = (predict(task, None, "right")["-"].values for _ in range(2))
    assert np.array_equal(first, again)
    task.settings = {"n_neighbors": 1000, "max_candidates": 10_000}
    assert "lower nearest_neighbor.n_neighbors" in predict(task, None, "right")["-"]
    assert FOLD.control == "left"


def test_means_over_many_cells_do_not_stop_growing():
    """In single precision 1 more is nothing where 17 millions are added up already."""
    n, left = 42_000, slice(41_900, None)
    counts = np.tile(np.float32([1, 10_099]), (n, 1))
    counts[:1700] = 10_000, 0
    domain = np.full(n, "right")
    domain[left] = "left"
    obs = pd.DataFrame({"domain": domain, "cell_type": "B"}, index=np.arange(n).astype(str))
    there = domain == "right"
    task = SimpleNamespace(
        slide=AnnData(sparse.csr_matrix(counts), obs=obs),
        fold=FOLD,
        focal=np.arange(n)[left],
        split=SimpleNamespace(train=np.ones(n, dtype=bool)),
        target_cells=lambda _: np.flatnonzero(there),
    )
    raw = counts.astype(np.float64)
    share = raw / raw.sum(axis=1, keepdims=True) * 1e4
    shown, own = share[there].mean(axis=0), share[-1]
    expected = {
        "target_mean": shown,
        "mean_shift": (raw[-1] + 1) * raw[there].mean(axis=0) / raw[-1] - 1,
        "mean_shift_by_type": (own + 1) * (shown + 1) / (own + 1) - 1,
    }
    for name, (gene, filler) in expected.items():
        values = METHODS[name].adapter.predict(task, None, "right")["-"].values[0]
        assert values[0] / values[1] == pytest.approx(gene / filler, rel=1e-4), name


# --- settings of all methods that run here ---------------------------------------------------------------------------

# Another value of each setting than that of tests/unit/tasks.py. Left out is what changes nothing on a small slide: who
# is learnt from, and when a training that still improves is stopped.
OTHER = {
    "hierarchical": {"n_components": 1, "form": "mean"},
    "celcomen": {"ridge": 10.0},
    "ridge": {"penalties": [1e5]},
    "nearest_neighbor": {"n_neighbors": 3, "max_candidates": 30},
    "spatialprop": {
        "n_hidden": 4, "dropout": 0.5, "epochs": 2, "batch_size": 16, "learning_rate": 0.05,
        "cells_per_type": 5, "longest_edge_um": 20,
    },
    "concert": {"n_basal": 4, "epochs": 2, "batch_size": 16, "learning_rate": 0.01},
}  # fmt: skip
NOT_HERE = {"hierarchical": {"min_cells"}, "concert": {"patience"}}


@pytest.mark.parametrize("name", OTHER)
def test_every_setting_of_a_method_changes_its_predictions(name, tmp_path):
    section, slide = METHODS[name].settings, small_slide(n_cells=400)

    def predicted(folder, **changed):
        question = Question(folder, slide)
        question.settings = question.settings | {section: SECTIONS[section] | changed}
        made = question.predict(name)
        return np.concatenate(list(made.values()))

    assert set(OTHER[name]) | NOT_HERE.get(name, set()) == set(SECTIONS[section])
    base = predicted(tmp_path / "base")
    for key, value in OTHER[name].items():
        assert np.abs(predicted(tmp_path / key, **{key: value}) - base).max() > 1e-4, key
