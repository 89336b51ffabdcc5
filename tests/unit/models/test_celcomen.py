"""The inference of Celcomen as a whole: from cells and graphs to forces, under both protocols and all their switches."""

import numpy as np
import pytest
from scipy import sparse

from celcomen_cells import random_cells, random_forces, random_graph
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_gaussian import fit_gaussian
from tissue_counterfactuals.models.celcomen_generation import generate
from tissue_counterfactuals.models.celcomen_interactions import diagnose
from tissue_counterfactuals.models.celcomen_meanfield import fit_mean_field
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, statistics

N_GENES = 5
ESTIMATORS = {
    "as run": {"protocol": "as_run", "learning_rate": 5e-4, "epochs": 30},
    "mean field": {"switches": {"log_partition": "vmf"}, "epochs": 30},
    "gaussian": {},
}


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return ESTIMATORS[request.param]


@pytest.fixture
def slides():
    return [(random_cells(n, N_GENES, seed=n), random_graph(n, seed=n)) for n in (60, 90)]


def assert_same(one, other, **tolerance):
    np.testing.assert_allclose(one.inter, other.inter, **tolerance)
    np.testing.assert_allclose(one.intra, other.intra, **tolerance)


def differ(one, other):
    return max(np.abs(one.inter - other.inter).max(), np.abs(one.intra - other.intra).max()) > 1e-6


def test_the_estimators_behind_the_protocols(slides):
    def prepared(kind):
        return [(cells, interaction_weights(graph, kind)) for cells, graph in slides]

    as_run = protocols.resolve("as_run")
    moments = [statistics(*pair) for pair in prepared("gcn")]
    expected = fit_mean_field(moments, as_run, 30, 0.003, seed=1)
    assert_same(fit_interactions(slides, "as_run", 30, 0.003, seed=1), expected, rtol=0)
    corrected = fit_gaussian(prepared("symmetric"), centre="mean")
    assert_same(fit_interactions(slides), corrected, rtol=1e-6)
    assert corrected.inter_error.shape == (N_GENES, N_GENES)


def test_a_ridge_makes_the_optimum_of_few_cells_finite():
    slides = [(random_cells(8, 10), random_graph(8))]
    with pytest.raises(InputError):
        fit_interactions(slides)
    fit = fit_interactions(slides, ridge=0.2, errors=False)
    assert np.isfinite(fit.inter).all()
    assert fit.inter_error is None


def test_forces_are_symmetric_matrices_and_repeat_exactly(slides, estimator):
    fit = fit_interactions(slides, **estimator)
    for forces in (fit.inter, fit.intra):
        assert forces.shape == (N_GENES, N_GENES)
        assert forces.dtype == np.float64
        np.testing.assert_allclose(forces, forces.T, atol=1e-12)
    assert {"epoch", "loss"} <= set(fit.history[0])
    assert_same(fit_interactions(slides, **estimator), fit, rtol=0)


def test_storage_and_order_do_not_matter(slides, estimator):
    fit = fit_interactions(slides, **estimator)
    stored = [(sparse.csr_array(cells), graph.astype(np.float32)) for cells, graph in slides]
    assert_same(fit_interactions(stored, **estimator), fit, rtol=1e-6, atol=1e-9)
    moved = []
    for cells, graph in slides:
        order = np.random.default_rng(0).permutation(len(cells))
        moved.append((cells[order], graph[order][:, order]))
    assert_same(fit_interactions(moved, **estimator), fit, rtol=1e-6, atol=1e-9)


def test_dissociated_cells_tell_about_forces_within_cells(slides, estimator):
    fit = fit_interactions(slides, **estimator)
    more = fit_interactions(slides, dissociated=[random_cells(200, N_GENES, 9)], **estimator)
    assert np.abs(more.intra - fit.intra).max() > 1e-4


@pytest.mark.parametrize(
    "name",
    [s.name for s in protocols.SWITCHES.values() if s.step == "inference" and s.name != "scale"],
)
def test_every_switch_is_read_at_each_of_its_values(slides, name):
    gaussian_only = name == "centre"
    others = {} if gaussian_only else {"log_partition": "paper", "first_forces": "independent"}
    if name == "force_range":
        # Starts from 0 to 1 and the signed range meet only where steps are long.
        others["loss_unit"] = "slide"
    fits = [
        fit_interactions(slides, switches=others | {name: value}, epochs=15, learning_rate=0.03)
        for value in protocols.SWITCHES[name].values
    ]
    for i, one in enumerate(fits):
        for other in fits[:i]:
            assert differ(one, other)


def test_centring_takes_the_mean_out(slides):
    shifted = [(cells + np.arange(N_GENES), graph) for cells, graph in slides]
    as_seen = {"interaction_weights": "row", "centre": "mean"}
    assert_same(
        fit_interactions(shifted, switches=as_seen),
        fit_interactions(slides, switches=as_seen),
        rtol=1e-5,
        atol=1e-7,
    )
    as_seen["centre"] = "none"
    assert differ(
        fit_interactions(shifted, switches=as_seen), fit_interactions(slides, switches=as_seen)
    )


def test_bad_input_is_refused(slides):
    cells, graph = slides[1]
    as_run = {"protocol": "as_run", "epochs": 1}
    spoiled = cells.copy()
    spoiled[3, 0] = np.nan
    with pytest.raises(InputError, match="slide 2: expression of cell number 3 .* holds nan"):
        fit_interactions([slides[0], (spoiled, graph)], **as_run)
    with pytest.raises(InputError, match="dissociated cells 1: expression of cell number 3"):
        fit_interactions(slides, dissociated=[spoiled], **as_run)
    with pytest.raises(InputError, match="slide 2: the graph has shape .* for 89 cells"):
        fit_interactions([slides[0], (cells[1:], graph)], **as_run)
    with pytest.raises(InputError, match="slide 2: the graph has no edge"):
        fit_interactions([slides[0], (cells, 0 * graph)], **as_run)
    with pytest.raises(InputError, match="slides have 4 and 5 genes"):
        fit_interactions([slides[0], (cells[:, 1:], graph)], **as_run)
    with pytest.raises(InputError, match="no slide has a graph"):
        fit_interactions([], dissociated=[cells], **as_run)
    with pytest.raises(InputError, match="device is 'cuda': give 'cpu'"):
        fit_interactions(slides, device="cuda")
    with pytest.raises(InputError, match="switches.temprature is no switch"):
        fit_interactions(slides, switches={"temprature": "1"})
    with pytest.raises(InputError, match="switches.temperature is '2'; allowed are 1, 0.1"):
        fit_interactions(slides, switches={"temperature": "2"})
    with pytest.raises(InputError, match="protocols holds 'as run'"):
        fit_interactions(slides, "as run")
    with pytest.raises(InputError, match="infinite after .* give a learning_rate below 1e\\+300"):
        fit_interactions(
            slides, "as_run", 5, 1e300, switches={"force_range": "free"}
        )  # fmt: skip


def test_the_facade_offers_the_generation_too():
    assert celcomen.generate is generate


# --- diagnostics ---


def diagnosed(inter, intra, **change):
    given = {
        "mean": np.arange(1.0, 1 + len(inter)),
        "start": random_forces(len(inter), seed=1),
        "history": [{"loss": 3.0}, {"loss": 1.0}],
        "bounds": (0.0, 1.0),
    }
    return diagnose(inter, intra, **(given | change))


def test_share_of_forces_at_a_bound_leaves_the_diagonal_out():
    inter = np.array([[1, 0, 0.5], [0, 1, 1], [0.5, 1, 1]])
    found = diagnosed(inter, np.full((3, 3), 0.5))
    assert found["inter_at_bound"] == pytest.approx(2 / 3)
    assert found["intra_at_bound"] == 0
    assert diagnosed(inter, inter, bounds=None)["inter_at_bound"] == 0


def test_constant_forces_are_named_and_have_no_correlation():
    found = diagnosed(np.eye(4), random_forces(4)[0])
    assert found["inter_constant"]
    assert not found["intra_constant"]
    assert found["inter_start_correlation"] is None
    assert found["inter_mean_correlation"] is None


def test_forces_that_are_the_start_or_the_mean_are_found_out():
    start = random_forces(6)
    mean = np.random.default_rng(0).random(6)
    by_mean = -np.outer(mean, mean) + np.diag(np.arange(6))
    found = diagnosed(3 * start[0] + 1, 2 * by_mean, start=start, mean=mean)
    assert found["inter_start_correlation"] == pytest.approx(1)
    assert found["intra_mean_correlation"] == pytest.approx(1)
    assert abs(found["intra_start_correlation"]) < 0.9
    assert diagnosed(*start, start=None)["inter_start_correlation"] is None


def test_the_mean_of_a_fit_is_that_of_all_its_cells(slides):
    fit = fit_interactions(slides, "as_run", 10, 5e-4)
    mean = np.concatenate([cells for cells, _ in slides]).mean(axis=0)
    expected = diagnose(fit.inter, fit.intra, mean, None, fit.history, None)
    for name in ("inter_mean_correlation", "intra_mean_correlation"):
        assert fit.diagnostics[name] == pytest.approx(expected[name])


def test_drift_is_the_mean_change_over_the_last_tenth():
    losses = [{"loss": float(100 - i)} for i in range(95)] + [{"loss": 5.0}] * 5
    assert diagnosed(np.eye(3), np.eye(3), history=losses)["loss_drift"] == pytest.approx(-0.6)
    assert diagnosed(np.eye(3), np.eye(3), history=losses[:1])["loss_drift"] is None


def test_a_fit_reports_the_drift_of_a_loss_without_minimum(slides):
    fit = fit_interactions(
        slides,
        epochs=2000,
        learning_rate=0.5,
        switches={"log_partition": "paper", "force_range": "free"},
    )
    late, later = (fit.history[i + 1]["loss"] - fit.history[i]["loss"] for i in (1000, 1990))
    assert fit.diagnostics["loss_drift"] == pytest.approx(later, rel=1e-2)
    assert later < 0
    # The loss falls as fast as before: there is nothing that it falls towards.
    assert later == pytest.approx(late, rel=0.05)
