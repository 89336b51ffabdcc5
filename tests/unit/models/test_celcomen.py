"""The inference of Celcomen as a whole: from cells and graphs to forces, under both protocols and all their
switches.
"""

import numpy as np
import pytest
from scipy import sparse

from celcomen_cells import random_cells, random_forces, random_graph
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_counterfactual import counterfactual
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import fit_gaussian
from tissue_counterfactuals.models.celcomen_generation import generate
from tissue_counterfactuals.models.celcomen_interactions import diagnose
from tissue_counterfactuals.models.celcomen_interventions import KnockOut
from tissue_counterfactuals.models.celcomen_meanfield import fit_mean_field
from tissue_counterfactuals.models.celcomen_statistics import (
    interaction_weights,
    scale_cells,
    statistics,
)
from tissue_counterfactuals.neighbors import knn_graph, second_neighbors
from tissue_counterfactuals.protocols import celcomen as celcomen_switches
from tissue_counterfactuals.simulate.field import draw_forces

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
    """Cells of norms from 1 to 3."""
    return [
        (
            (1 + np.arange(n) % 3)[:, None] * random_cells(n, N_GENES, seed=n),
            random_graph(n, seed=n),
        )
        for n in (60, 90)
    ]


def assert_same(one, other, **tolerance):
    np.testing.assert_allclose(one.inter, other.inter, **tolerance)
    np.testing.assert_allclose(one.intra, other.intra, **tolerance)


def differ(one, other):
    return max(np.abs(one.inter - other.inter).max(), np.abs(one.intra - other.intra).max()) > 1e-6


def test_the_estimators_behind_the_protocols(slides):
    def prepared(kind, norm):
        return [
            (
                cells / np.linalg.norm(cells, axis=1, keepdims=True) ** norm,
                interaction_weights(graph, kind),
            )
            for cells, graph in slides
        ]

    as_run = protocols.resolve("as_run")
    moments = [statistics(*pair) for pair in prepared("gcn", 2)]
    expected = fit_mean_field(moments, as_run, 30, 0.003, seed=1)
    assert_same(fit_interactions(slides, "as_run", 30, 0.003, seed=1), expected, rtol=1e-9)
    corrected = fit_gaussian(prepared("symmetric", 1), centre="mean")
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


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_cells_are_scaled_as_the_protocol_says(slides, protocol):
    settings = ESTIMATORS["as run" if protocol == "as_run" else "gaussian"]
    kind = protocols.resolve(protocol)["scale"]
    scaled = [(scale_cells(sparse.csr_array(cells), kind), graph) for cells, graph in slides]
    one = fit_interactions(slides, dissociated=[3 * slides[0][0]], **settings)
    as_they_are = {"switches": settings.get("switches", {}) | {"scale": "none"}}
    other = fit_interactions(scaled, dissociated=[scale_cells(3 * slides[0][0], kind)], **settings | as_they_are)
    assert_same(one, other, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-12)
    assert differ(one, fit_interactions(slides, **settings | as_they_are))


# --- every switch is read -----------------------------------------------------------------------------------------

MEAN_FIELD = {"log_partition": "paper", "first_forces": "independent"}


def fitted(**others):
    """Forces under each value of a switch, the other switches as given."""

    def run(slides, name, value):
        switches = others | {name: value}
        fit = fit_interactions(slides, switches=switches, epochs=15, learning_rate=0.03, ridge=0.1)
        return np.concatenate([fit.inter, fit.intra])

    return run


def generated(**others):
    """A tissue of 60 cells, one entry held, after a few steps."""

    def run(slides, name, value):
        clamp = np.zeros((60, N_GENES), dtype=bool)
        clamp[5, 0] = True
        cells = slides[0][0] / np.linalg.norm(slides[0][0], axis=1, keepdims=True)
        cells = np.where(clamp, 0, cells + 0.1 * (others.get("angles") is None))
        switches = others | {name: value}
        return generate(cells, slides[0][1], *random_forces(N_GENES), clamp, 4, switches=switches)

    return run


def knocked_out(slides, name, value):
    cells, graph = slides[0]
    forces = random_forces(N_GENES)
    done = counterfactual(cells, graph, *forces, [KnockOut([5], [0])], 3, switches={name: value})
    return done.effect


IN_ANGLES = {"chart": "angles", "angles": "arctangent"}
# For each switch of inference and generation what is computed through the public call. `centre` and `scale` change the
# default; what only the mean field reads is compared under it; arc cosines show where cells have zeros.
CASES = {
    "log_partition": fitted(),
    "centre": fitted(),
    "ridge": fitted(),
    "scale": fitted(),
    "interaction_weights": fitted(),
    "neighbour_number": fitted(**MEAN_FIELD),
    "pair_sum": fitted(**MEAN_FIELD),
    "temperature": fitted(**MEAN_FIELD),
    # Starts from 0 to 1 and the signed range meet only where steps are long.
    "force_range": fitted(**MEAN_FIELD, loss_unit="slide"),
    "first_forces": fitted(log_partition="paper"),
    "loss_unit": fitted(**MEAN_FIELD),
    "slide_steps": fitted(**MEAN_FIELD),
    "chart": generated(),
    "angles": generated(chart="angles", last_gene="sine"),
    "last_gene": generated(**IN_ANGLES),
    "knocked_out_gene": generated(),
    "generation_log_partition": generated(),
    "knockout_effect": knocked_out,
}


def test_every_switch_of_inference_and_generation_has_a_case():
    steps = ("inference", "generation")
    named = {s.name for s in protocols.SWITCHES.values() if s.step in steps and s in celcomen_switches.SWITCHES}
    assert set(CASES) == named


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_every_switch_is_read_at_each_of_its_values(slides, name):
    found = [CASES[name](slides, name, value) for value in protocols.SWITCHES[name].values]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one - other).max() > 1e-6


def test_generation_reads_the_switches_of_the_forces_it_is_given(slides):
    for name in ("centre", "interaction_weights", "log_partition"):
        found = [generated()(slides, name, value) for value in protocols.SWITCHES[name].values]
        assert np.abs(found[0] - found[1]).max() > 1e-6


# --- what is offered beside one slide and its graph ----------------------------------------------------------------


def test_neighbours_of_neighbours_have_forces_of_their_own():
    """A field whose cells feel the second ring only: its forces are found on that graph, on the first one they are
    not.
    """
    ones = np.ones(599)
    first = sparse.csr_array(sparse.diags_array([ones, ones], offsets=[-1, 1]))
    second = second_neighbors(first)
    inter, intra, _ = draw_forces(4, 1, inter_strength=0.9, intra_strength=0.4)
    weights = interaction_weights(second, "symmetric")
    cells = GaussianField(weights, inter, intra).sample(0)
    as_they_are = {"scale": "none"}
    fit = fit_interactions([(cells, second)], switches=as_they_are)
    upper = np.triu_indices(4)
    assert np.abs((fit.inter - inter) / fit.inter_error)[upper].max() < 4
    assert np.abs(fit.inter / fit.inter_error)[upper].max() > 5
    nearest = fit_interactions([(cells, first)], switches=as_they_are)
    assert np.abs((nearest.inter - inter) / nearest.inter_error)[upper].max() > 5
    assert np.abs(nearest.inter / nearest.inter_error)[upper].max() < 4


def test_dissociated_cells_sharpen_forces_within_cells_alone():
    place = np.random.default_rng(1).random((400, 2))
    graph = knn_graph(place, 6)
    inter, intra, _ = draw_forces(4, 2, inter_strength=0.7, intra_strength=0.6)
    field = GaussianField(interaction_weights(graph, "symmetric"), inter, intra)
    lone = np.random.default_rng(3).multivariate_normal(np.zeros(4), np.linalg.inv(np.eye(4) - 2 * intra), 8000)
    settings = {"switches": {"scale": "none"}}
    slides = [(field.sample(0), graph)]
    alone, both = (
        fit_interactions(slides, **settings),
        fit_interactions(slides, dissociated=[lone], **settings),
    )
    assert (both.intra_error < 0.4 * alone.intra_error).all()
    assert (both.inter_error > 0.7 * alone.inter_error).all()
    for fit in (alone, both):
        assert np.abs((fit.intra - intra) / fit.intra_error).max() < 4
        assert np.abs((fit.inter - inter) / fit.inter_error).max() < 4
    within = fit_interactions([], dissociated=[lone], **settings)
    assert np.abs((within.intra - intra) / within.intra_error).max() < 4
    assert (within.inter == 0).all()


def test_centring_takes_the_mean_out(slides):
    shifted = [(cells + np.arange(N_GENES), graph) for cells, graph in slides]
    as_seen = {"interaction_weights": "row", "centre": "mean", "scale": "none"}
    assert_same(
        fit_interactions(shifted, switches=as_seen),
        fit_interactions(slides, switches=as_seen),
        rtol=1e-5,
        atol=1e-7,
    )
    as_seen["centre"] = "none"
    assert differ(fit_interactions(shifted, switches=as_seen), fit_interactions(slides, switches=as_seen))


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
    mean = np.concatenate([scale_cells(cells, "squared_l2") for cells, _ in slides]).mean(axis=0)
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
