"""Celcomen as a method: its counterfactual against dense conditional normals, and forces that are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celcomen_oracles import dense_precision
from slides import small_slide
from tasks import SECTIONS, make_task
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, neighbor_response, precision_of
from tissue_counterfactuals.models.celcomen_spectrum import bounds, symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.question.nodes import pseudobulk_shift
from tissue_counterfactuals.simulate.field import draw_forces
from tissue_counterfactuals.slide import log_normalize

ADAPTER = METHODS["celcomen"].adapter


def conditional_mean(field, cell, values):
    """(g,) of one cell about the mean, all others held at values (n, g), by dense linear algebra."""
    n_cells, n_genes = field.shape
    covariance = np.linalg.inv(dense_precision(field))
    own = np.arange(n_cells * n_genes) // n_genes == cell
    others = covariance[np.ix_(~own, ~own)]
    return covariance[np.ix_(own, ~own)] @ np.linalg.solve(others, values.ravel()[~own])


def test_cells_move_by_the_difference_of_two_dense_conditional_means(tmp_path):
    slide = small_slide(n_cells=80, n_genes=5, types=("A", "B"))
    task = make_task(slide, n_donors=6)
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.6, intra_strength=0.5)
    genes, mean = np.array([0, 1, 3, 4]), np.full(4, 5.0)
    np.savez(tmp_path / "forces.npz", inter=inter, intra=intra, genes=genes, mean=mean)
    made = ADAPTER.predict(task, tmp_path, "right")

    weights = interaction_weights(task.masked_graph, "row").toarray()
    weights = (weights + weights.T) / 2
    log = log_normalize(slide.X).toarray().astype(float)
    about = log[:, genes] - mean
    donors = task.question.donors("right")["published"]
    for row in range(0, len(task.focal), 7):
        cell = task.focal[row]
        moved = weights.copy()
        moved[cell] = moved[:, cell] = 0
        moved[cell, donors[row]] = moved[donors[row], cell] = weights[cell].sum() / donors.shape[1]
        old, new = (
            conditional_mean(GaussianField(sparse.csr_array(w), inter, intra), cell, about) for w in (weights, moved)
        )
        expected = log[cell].copy()
        expected[genes] += new - old
        assert np.abs(new - old).max() > 0.05
        profile = np.clip(np.expm1(expected), 0, None)
        profile *= slide.X[[cell]].sum() / profile.sum()
        np.testing.assert_allclose(made["published"].values[row], profile, rtol=1e-4, atol=1e-4)
    # The twin is the observed cell, to the last digit.
    assert np.array_equal(made["no_intervention"].values, slide.X[task.focal].toarray())


def test_cells_move_by_what_their_altered_neighbours_do_to_the_dense_conditional_mean(tmp_path):
    slide = small_slide(n_cells=80, n_genes=5, types=("A", "B"))
    task = make_task(slide, node={"shifts": ["node"], "n_genes": 3})
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.6, intra_strength=0.5)
    genes, mean = np.array([0, 1, 3, 4]), np.full(4, 5.0)
    np.savez(tmp_path / "forces.npz", inter=inter, intra=intra, genes=genes, mean=mean)
    made = ADAPTER.predict(task, tmp_path, "right")["node"].values

    weights = interaction_weights(task.masked_graph, "row")
    field = GaussianField((weights + weights.T) / 2, inter, intra)
    log = log_normalize(slide.X).toarray().astype(float)
    shift = pseudobulk_shift(slide, "left", "right", task.split.held_out, "A", 3)
    after = np.maximum(log + shift[slide.obs["cell_type"].cat.codes], 0)
    for row in range(0, len(task.focal), 7):
        cell = task.focal[row]
        old, new = (conditional_mean(field, cell, values[:, genes] - mean) for values in (log, after))
        assert np.abs(new - old).max() > 0.01
        expected = log[cell].copy()
        expected[genes] += new - old
        profile = np.clip(np.expm1(expected), 0, None)
        profile *= slide.X[[cell]].sum() / profile.sum()
        np.testing.assert_allclose(made[row], profile, rtol=1e-4, atol=1e-4)


def test_a_knock_out_is_answered_by_the_whole_field(tmp_path):
    """Against a solution of the dense field: knocked-out entries held at 0, all others free."""
    slide = small_slide(n_cells=80, n_genes=5, types=("A", "B"))
    task = make_task(slide, n_donors=6)
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.6, intra_strength=0.5)
    genes = np.array([0, 1, 3, 4])
    np.savez(tmp_path / "forces.npz", inter=inter, intra=intra, genes=genes, mean=np.full(4, 5.0))
    asked = {("own", "right", "knock_out"): np.array([1, 4])}
    task.question = replace(task.question, perturbations=asked)
    made = ADAPTER.predict(task, tmp_path, "right")

    log = log_normalize(slide.X).toarray().astype(float)

    def by_dense_algebra(graph, cells, columns):
        field = GaussianField(interaction_weights(graph, "row"), inter, intra)
        held = np.zeros((80, 4), dtype=bool)
        held[np.ix_(cells, columns)] = True
        change, precision, held = np.zeros(320), dense_precision(field), held.ravel()
        change[held] = -log[:, genes].ravel()[held]
        free = ~held
        change[free] = np.linalg.solve(precision[np.ix_(free, free)], -precision[np.ix_(free, held)] @ change[held])
        change = change.reshape(80, 4)[task.focal]
        assert np.abs(change[:, [0, 2]]).max() > 0.05
        expected = np.exp(log[task.focal])
        expected[:, genes] *= np.exp(change)
        expected = np.clip(expected - 1, 0, None)
        total = expected.sum(axis=1, keepdims=True)
        return expected * np.asarray(slide.X[task.focal].sum(axis=1) / total)

    expected = by_dense_algebra(task.masked_graph, task.focal, [1, 3])
    np.testing.assert_allclose(made["knock_out"].values, expected, rtol=1e-3, atol=1e-3)
    assert (made["knock_out"].values[:, [1, 4]] < 1e-5).all()
    asked = {("own", "right", "knock_out"): np.array([2])}
    task.question = replace(task.question, perturbations=asked)
    assert "no force reaches it" in ADAPTER.predict(task, tmp_path, "right")["knock_out"]
    # The same gene taken out of other cells: the focal ones answer through the field between them.
    graph = slide_graph(slide, max_neighbors=30)
    others = np.setdiff1d(np.arange(80), task.focal)[::2]
    made = ADAPTER.knock_out_around(task, tmp_path, graph, others, {"lost": 1, "silent": 2})
    expected = by_dense_algebra(graph, others, [1])
    np.testing.assert_allclose(made["lost"].values, expected, rtol=1e-3, atol=1e-3)
    assert "no force reaches it" in made["silent"]


def test_beyond_the_border_of_the_model_neighbours_count_for_as_much_less_as_it_takes(tmp_path):
    slide = small_slide(n_cells=80, n_genes=5, types=("A", "B"))
    task = make_task(slide)
    inter, intra, _ = draw_forces(5, 0, inter_strength=0.6, intra_strength=0.5)
    graph = slide_graph(slide, max_neighbors=30)
    weights = symmetric_part(interaction_weights(graph, "row"))
    strength = diagonalise(precision_of(inter, intra)[0], inter)[1]
    border = 1 / (2 * np.outer(bounds(weights), strength).max())
    others, said = np.setdiff1d(np.arange(80), task.focal)[::2], []
    for factor in (1.05, 0.99, 0.9):
        forces = {"inter": factor * border * inter, "intra": intra, "mean": np.zeros(5), "genes": np.arange(5)}
        np.savez(tmp_path / "forces.npz", **forces)
        said.append(ADAPTER.knock_out_around(task, tmp_path, graph, others, {"lost": 1})["lost"].values)
    with pytest.raises(InputError, match="no finite variance"):
        GaussianField(weights, 1.05 * border * inter, intra)
    # As if the forces were a hundredth within it, and these themselves from there on.
    np.testing.assert_allclose(said[0], said[1], rtol=1e-3)
    assert np.abs(said[1] - said[2]).max() > 0.1


def few_neighbors(task):
    """The task in a graph of six neighbours, whose mean varies enough to be answered."""
    task.question.graph["max_neighbors"] = 6
    return task


def test_planted_forces_are_found_and_answered(tmp_path):
    """Tissue drawn from a field: what the fit says of neighbours is what the forces say."""
    slide = small_slide(n_cells=3000, n_genes=6)
    weights = interaction_weights(few_neighbors(make_task(slide)).masked_graph, "row")
    inter, intra, _ = draw_forces(5, 1, inter_strength=0.9, intra_strength=0.5)
    drawn = 0.3 * GaussianField(weights, inter, intra).sample(0)
    # The last gene fills every library, and takes no part.
    counts = np.zeros((slide.n_obs, 6))
    counts[:, :5] = np.rint(1e4 * np.expm1(3 + drawn))
    counts[:, 5] = 1e8 - counts.sum(axis=1)
    slide.X = sparse.csr_matrix(counts.astype(np.float32))
    task = few_neighbors(make_task(slide, settings={"ridge": 1e-3}, report=lambda line: None))
    ADAPTER.fit(task, tmp_path)
    with np.load(tmp_path / "forces.npz") as found:
        fitted = neighbor_response(found["inter"], found["intra"])[:5, :5]
    planted = neighbor_response(inter, intra)
    assert np.corrcoef(fitted.ravel(), planted.ravel())[0, 1] > 0.95
    assert np.vdot(fitted, planted) / np.vdot(planted, planted) == pytest.approx(1, abs=0.15)
    assert np.abs(planted).max() > 0.3


def test_genes_without_variance_and_cells_without_neighbours_do_not_stop_it(tmp_path):
    slide = small_slide(n_cells=300, n_genes=8)
    counts = slide.X.toarray()
    counts[:, 3] = 0
    slide.X = sparse.csr_matrix(counts)
    # A hundred cells stand far from all others.
    slide.obsm["spatial"][:100] += 1e4 * np.arange(1, 101)[:, None]
    task = make_task(slide, settings=SECTIONS["celcomen_field"], report=lambda line: None)
    ADAPTER.fit(task, tmp_path)
    made = ADAPTER.predict(task, tmp_path, "right")
    values = made["published"].values
    assert np.isfinite(values).all()
    assert (values[:, 3] == 0).all()
    # They answer their donors too.
    alone = task.focal < 100
    assert np.diff(task.masked_graph[task.focal[alone]].indptr).sum() == 0
    assert np.abs(values - made["no_intervention"].values)[alone].max() > 1e-3


def test_a_sample_without_edges_informs_forces_within_cells_and_one_of_a_single_cell_nothing(tmp_path):
    slide = small_slide(n_cells=300, n_genes=6, samples=("one", "two"))
    task = make_task(slide, settings={"ridge": 0.1}, report=lambda line: None)
    seen, sample = np.flatnonzero(~task.split.held_out), slide.obs["sample"].astype(str).to_numpy()
    linked = np.ones(300, dtype=bool)
    linked[seen[-60:]] = False
    keep = sparse.diags_array(linked.astype(np.float32))
    task.masked_graph = sparse.csr_array(keep @ task.masked_graph @ keep)
    task.masked_graph.eliminate_zeros()

    def fitted(labels):
        slide.obs["sample"] = pd.Categorical(labels)
        ADAPTER.fit(task, tmp_path)
        with np.load(tmp_path / "forces.npz") as stored:
            return dict(stored)

    sample[~linked] = "apart"
    before = fitted(sample)
    alone = sample.copy()
    alone[seen[0]] = "alone"
    assert np.isfinite(fitted(alone)["inter"]).all()
    # They count: their moments are among those of all.
    counts = slide.X.toarray()
    counts[~linked] = counts[~linked, ::-1]
    slide.X = sparse.csr_matrix(counts)
    assert np.abs(fitted(sample)["intra"] - before["intra"]).max() > 1e-3
    with pytest.raises(ValueError, match="at least 2 cells are not held out"):
        fitted(slide.obs_names)
    task.masked_graph = sparse.csr_array(task.masked_graph.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="needs cells that are neighbours"):
        fitted(sample)


def test_what_cannot_be_fitted_is_the_methods_failure_and_not_the_users(tmp_path):
    slide = small_slide(n_cells=60, n_genes=100)
    task = make_task(slide, settings={"ridge": 0.0}, n_donors=5, report=lambda line: None)
    with pytest.raises(ValueError, match="inference: "):
        ADAPTER.fit(task, tmp_path)
