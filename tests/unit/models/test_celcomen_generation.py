"""Celcomen's generation: its chart, its steps on the sphere, and every switch of it at both values."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial import cKDTree

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_chart as chart
from tissue_counterfactuals.models.celcomen import generate
from tissue_counterfactuals.models.celcomen_counterfactual import counterfactual
from tissue_counterfactuals.models.celcomen_generation import (
    Held,
    build_field,
    climb,
    descend_in_angles,
    noise_angles,
)
from tissue_counterfactuals.models.celcomen_interventions import KnockOut
from tissue_counterfactuals.models.celcomen_meanfield import log_partition
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights

N, G = 80, 7
STEPS = {
    "chart": ("sphere", "angles"),
    "generation_log_partition": ("frozen", "sample_mean"),
    "log_partition": ("gaussian", "vmf", "paper"),
}


def symmetric(rng, n_genes=G, size=1.0):
    matrix = rng.normal(size=(n_genes, n_genes)) * size
    return (matrix + matrix.T) / 2


def nearest(points, k=6):
    _, found = cKDTree(points).query(points, k + 1)
    rows = np.repeat(np.arange(len(points)), k)
    shape = (len(points), len(points))
    return sparse.csr_array((np.ones(len(rows)), (rows, found[:, 1:].ravel())), shape=shape)


@pytest.fixture(scope="module")
def tissue():
    """Sparse cells of norm 1, some of which end in zeros; a directed graph; two signed matrices of forces."""
    rng = np.random.default_rng(1)
    cells = rng.random((N, G)) * (rng.random((N, G)) < 0.6)
    cells[:, 0] += 0.1
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    return cells, nearest(rng.random((N, 2))), symmetric(rng), symmetric(rng)


def losses(generation):
    return np.array([epoch["loss"] for epoch in generation.history])


# --- the chart --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arctangent_goes_round_the_sphere_and_back(tissue, dtype):
    cells = tissue[0].astype(dtype)
    signed = cells * np.random.default_rng(0).choice([-1, 1], cells.shape).astype(dtype)
    for given in (cells, signed, np.eye(G, dtype=dtype)):
        back, _ = chart.decode(chart.encode(given, "arctangent"), "sine")
        assert back.dtype == given.dtype
        # Two units in the last place at 1: 2.4e-7 and 4.4e-16.
        assert np.abs(back - given).max() <= 2 * np.finfo(dtype).eps


def test_arctangent_is_as_good_with_many_genes():
    cells = np.random.default_rng(0).random((20, 600)) ** 4
    cells = (cells / np.linalg.norm(cells, axis=1, keepdims=True)).astype(np.float32)
    back, _ = chart.decode(chart.encode(cells, "arctangent"), "sine")
    assert np.abs(back - cells).max() < 2e-7


def test_both_kinds_of_angles_agree_where_all_genes_are_expressed():
    cells = np.random.default_rng(0).random((20, G)) + 0.2
    cells /= np.linalg.norm(cells, axis=1, keepdims=True)
    np.testing.assert_allclose(chart.encode(cells, "arccosine"), chart.encode(cells, "arctangent"), atol=1e-9)


def test_arccosine_has_no_angle_behind_the_last_expressed_gene():
    cells = np.array([[0.6, 0.8, 0, 0], [0.5, 0.5, 0.5, 0.5]], dtype=np.float32)
    angles = chart.encode(cells, "arccosine")
    assert np.isnan(angles[0, 2])
    assert np.isfinite(angles[1]).all()
    assert np.isfinite(chart.encode(cells, "arctangent")).all()
    assert chart.decode(angles, "sine")[0][0, 2:].tolist() == [0, 0]


def test_squared_sine_changes_the_last_gene_alone(tissue):
    angles = chart.encode(tissue[0], "arctangent")
    once, _ = chart.decode(angles, "sine")
    twice, _ = chart.decode(angles, "squared_sine")
    np.testing.assert_array_equal(once[:, :-1], twice[:, :-1])
    np.testing.assert_allclose(twice[:, -1], once[:, -1] * np.sin(angles[:, -1]), atol=1e-15)


def test_generation_reads_which_last_gene_it_decodes(tissue):
    shortened = {}
    for value in ("sine", "squared_sine"):
        found = generate(*tissue, switches={"chart": "angles", "last_gene": value}, epochs=3)
        shortened[value] = (np.linalg.norm(found, axis=1) < 0.999).mean()
    # Where the last gene is expressed, its square is too small for a cell of norm 1.
    assert shortened["sine"] == 0
    assert shortened["squared_sine"] > 0.3


def naive_cells(angles, squared):
    """The nested chart, product by product."""
    columns = []
    for gene in range(angles.shape[1] + 1):
        value = torch.ones(len(angles), dtype=angles.dtype)
        for before in range(gene):
            value = value * torch.sin(angles[:, before])
        if gene < angles.shape[1]:
            value = value * torch.cos(angles[:, gene])
        elif squared:
            value = value * torch.sin(angles[:, -1])
        columns.append(value)
    return torch.nan_to_num(torch.stack(columns, dim=1))


def naive_loss(cells, weights, inter, intra):
    """Loss of the code: log Z at the cells' own mean, six neighbours, minus a tenth of the energy."""
    weights, inter, intra = (torch.from_numpy(np.asarray(a)) for a in (weights.toarray(), inter, intra))
    energy = ((weights @ cells @ inter) * cells).sum() + ((cells @ intra) * cells).sum()
    mean = cells.mean(0)
    kappa = torch.linalg.norm((6 * inter + 2 * intra) @ mean)
    log_z = torch.log((torch.exp(kappa) - torch.exp(-kappa)) / kappa)
    log_z = log_z - mean @ (intra + 3 * inter) @ mean
    return len(cells) * log_z - 0.1 * energy


@pytest.mark.parametrize("last_gene", ["sine", "squared_sine"])
@pytest.mark.parametrize("angles_kind", ["arctangent", "arccosine"])
def test_loss_and_gradient_in_angles_are_those_of_automatic_differentiation(tissue, angles_kind, last_gene):
    cells, graph, inter, intra = tissue
    switches = protocols.resolve("as_run")
    field = build_field(graph, inter, intra, switches)
    angles = chart.encode(cells, angles_kind)
    own, decoded = chart.decode(angles, last_gene)
    loss, gradient = field.loss_and_gradient(own[None])
    gradient = chart.pull_back(gradient[0], decoded, last_gene)

    free = torch.from_numpy(angles).requires_grad_()
    theirs = naive_cells(free, last_gene == "squared_sine")
    expected = naive_loss(theirs, interaction_weights(graph, "gcn"), inter, intra)
    expected.backward()
    np.testing.assert_allclose(own, theirs.detach(), atol=1e-15)
    assert loss[0] == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, free.grad, rtol=1e-9, atol=1e-11)
    assert np.isnan(gradient).any() == (angles_kind == "arccosine")


def test_as_run_takes_plain_steps_of_automatic_differentiation(tissue):
    cells, graph, inter, intra = tissue
    weights = interaction_weights(graph, "gcn")
    free = torch.from_numpy(chart.encode(cells, "arctangent")).requires_grad_()
    optimiser = torch.optim.SGD([free], lr=1e-3)
    for _ in range(12):
        theirs = naive_cells(free, True)
        optimiser.zero_grad()
        naive_loss(theirs, weights, inter, intra).backward()
        optimiser.step()
    ours = descend_in_angles(
        chart.encode(cells, "arctangent")[None],
        build_field(graph, inter, intra, protocols.resolve("as_run")),
        12,
        1e-3,
        {"angles": "arctangent", "last_gene": "squared_sine"},
        Held(),
    )
    np.testing.assert_allclose(ours[0], theirs.detach(), atol=1e-12)


# --- as run -----------------------------------------------------------------------------------------------------


def test_cells_collapse_under_arccosine_after_one_step_and_stay_collapsed(tissue):
    cells, graph, inter, intra = tissue
    angles = chart.encode(cells.astype(np.float32), "arccosine")
    doomed = np.isnan(angles).any(axis=1)
    assert 0.1 < doomed.mean() < 0.9
    found = generate(cells, graph, inter, intra, protocol="as_run", epochs=11, return_history=True)
    gone = [epoch["collapsed_cells"] for epoch in found.history]
    assert gone[0] == 0
    assert gone[1:] == [doomed.sum()] * 10
    assert (found.expression[doomed] == 0).all()
    assert (np.abs(found.expression[~doomed]).sum(axis=1) > 0).all()


def test_no_cell_collapses_under_arctangent_or_on_the_sphere(tissue):
    for switches in ({"chart": "angles"}, {"chart": "angles", "last_gene": "squared_sine"}, {}):
        found = generate(*tissue, switches=switches, return_history=True, epochs=20)
        assert max(epoch["collapsed_cells"] for epoch in found.history) == 0
        assert np.isfinite(found.expression).all()


def test_knocking_the_last_gene_out_takes_whole_cells_down_as_run(tissue):
    cells, graph, inter, intra = tissue
    dense = cells + 0.2
    knockout = [KnockOut(range(N), [G - 1])]
    result = counterfactual(dense, graph, inter, intra, knockout, epochs=4, protocol="as_run")
    assert result.twin.history[-1]["collapsed_cells"] == 0
    gone = ~result.edited.expression.any(axis=1)
    # Half of the quotients of the last angle are a hair above 1.
    assert 0.2 < gone.mean() < 0.8
    # Read against its start, the "effect" in such a cell is minus its own profile.
    start = result.edited.history[0]["expression"]
    np.testing.assert_array_equal(result.effect[gone], -start[gone])


def test_snapshots_are_taken_every_fifth_epoch_and_the_last_forward_pass_is_returned(tissue):
    found = generate(*tissue, protocol="as_run", epochs=20, return_history=True)
    assert [h["epoch"] for h in found.history] == list(range(20))
    assert [h["epoch"] for h in found.history if "expression" in h] == [0, 5, 10, 15]
    shorter = generate(*tissue, protocol="as_run", epochs=16, return_history=True)
    np.testing.assert_array_equal(shorter.expression, found.history[15]["expression"])
    assert found.expression.dtype == np.float32
    few = generate(*tissue, protocol="as_run", epochs=20, return_history=True, columns=np.array([2, 0]))
    for one, other in zip(few.history[::5], found.history[::5], strict=True):
        whole = other["expression"]
        np.testing.assert_array_equal(one["expression"], whole if one["epoch"] == 0 else whole[:, [2, 0]])


def test_steps_in_angles_depend_on_the_order_of_genes_and_those_on_the_sphere_do_not(tissue):
    cells, graph, inter, intra = tissue
    genes = np.random.default_rng(3).permutation(G)
    permuted = cells[:, genes], graph, inter[np.ix_(genes, genes)], intra[np.ix_(genes, genes)]
    on_sphere = generate(*tissue), generate(*permuted)
    np.testing.assert_allclose(on_sphere[1], on_sphere[0][:, genes], atol=1e-12)
    in_angles = [
        generate(*arguments, switches={"chart": "angles"}, dtype="float64") for arguments in (tissue, permuted)
    ]
    assert np.abs(in_angles[1] - in_angles[0][:, genes]).max() > 1e-3


def test_the_order_of_cells_does_not_matter(tissue):
    cells, graph, inter, intra = tissue
    order = np.random.default_rng(4).permutation(N)
    shuffled = sparse.csr_array(graph[order][:, order])
    np.testing.assert_allclose(generate(cells[order], shuffled, inter, intra), generate(*tissue)[order], atol=1e-12)


# --- on the sphere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_partition_kind", STEPS["log_partition"])
@pytest.mark.parametrize("log_z", STEPS["generation_log_partition"])
@pytest.mark.parametrize("rate", [None, 1e9, 0.01])
def test_no_step_on_the_sphere_lowers_the_likelihood(tissue, rate, log_z, log_partition_kind):
    switches = {"generation_log_partition": log_z, "log_partition": log_partition_kind}
    cells, graph, inter, intra = tissue
    clamp = np.random.default_rng(0).random(cells.shape) < 0.1
    for forces in ((inter, intra), (-inter, -intra), (4 * inter, 0 * intra)):
        found = generate(
            cells,
            graph,
            *forces,
            clamp,
            learning_rate=rate,
            switches=switches,
            return_history=True,
        )
        fall = np.diff(losses(found))
        assert fall.max() <= 1e-12 * np.abs(losses(found)).max()
        assert fall.sum() < -1
        np.testing.assert_allclose(np.linalg.norm(found.expression, axis=1), 1, atol=1e-12)


def test_a_large_learning_rate_is_cut_to_the_safe_one_and_a_small_one_is_kept(tissue):
    np.testing.assert_array_equal(generate(*tissue, learning_rate=1e6), generate(*tissue))
    moved = [np.abs(generate(*tissue, epochs=1, learning_rate=r) - tissue[0]).max() for r in (1e-4, 1e-3)]
    assert moved[0] < moved[1] < 1e-2


def test_the_likelihood_is_that_of_the_mean_field(tissue):
    cells, graph, inter, intra = tissue
    mean = cells.mean(axis=0)
    for kind, pairs, temperature in (("paper", "ordered", "0.1"), ("vmf", "unordered", "1")):
        switches = protocols.resolve("as_run") | {
            "log_partition": kind,
            "pair_sum": pairs,
            "temperature": temperature,
        }
        loss, _ = build_field(graph, inter, intra, switches).loss_and_gradient(cells[None])
        weights = interaction_weights(graph, "gcn")
        energy = {"ordered": 1, "unordered": 0.5}[pairs] * ((weights @ cells @ inter) * cells).sum()
        energy += ((cells @ intra) * cells).sum()
        expected = log_partition(mean, (6 * inter + 2 * intra) @ mean, N, kind)[0] - float(temperature) * energy
        assert loss[0] == pytest.approx(expected, rel=1e-12)


def test_neighbours_in_log_z_are_six_or_those_of_the_graph(tissue):
    cells, graph, inter, intra = tissue
    base = protocols.resolve("as_run") | {"interaction_weights": "adjacency"}
    for given, q in (("6", 6), ("graph", interaction_weights(graph, "adjacency").sum() / N)):
        loss, _ = build_field(graph, inter, intra, base | {"neighbour_number": given}).loss_and_gradient(cells[None])
        around = interaction_weights(graph, "adjacency") @ cells
        energy = ((around @ inter) * cells).sum() + ((cells @ intra) * cells).sum()
        mean = cells.mean(axis=0)
        expected = log_partition(mean, (q * inter + 2 * intra) @ mean, N, "paper")[0] - 0.1 * energy
        assert loss[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["paper", "vmf"])
def test_gradient_of_the_likelihood_is_right(tissue, kind):
    cells, graph, inter, intra = tissue
    switches = protocols.resolve("as_run") | {"log_partition": kind}
    field = build_field(graph, inter, intra, switches)
    direction = np.random.default_rng(5).normal(size=cells.shape)
    _, gradient = field.loss_and_gradient(cells[None])
    ends = [field.loss_and_gradient((cells + h * direction)[None])[0][0] for h in (1e-5, -1e-5)]
    assert (gradient[0] * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


def test_one_cell_pair_ends_at_the_leading_eigenvector(tissue):
    """Two cells that interact: the maximum of the energy is known, both cells along the same direction."""
    graph = sparse.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    inter = np.diag([3.0, 1.0, 0.5])
    cells = np.full((2, 3), 3**-0.5)
    found = generate(
        cells,
        graph,
        inter,
        np.zeros((3, 3)),
        epochs=200,
        return_history=True,
        switches={"centre": "none"},
    )
    np.testing.assert_allclose(np.abs(found.expression), [[1, 0, 0]] * 2, atol=1e-6)
    assert losses(found)[-1] == pytest.approx(-2 * 3, rel=1e-9)


def test_the_sample_mean_is_driven_to_zero_only_where_log_z_follows_it(tissue):
    cells, graph, inter, intra = tissue
    positive = np.abs(inter) + np.eye(G), np.abs(intra) + np.eye(G)
    kept = {}
    for value in STEPS["generation_log_partition"]:
        switches = {
            "generation_log_partition": value,
            "log_partition": "paper",
            "temperature": "0.1",
        }
        found = generate(cells, graph, *positive, switches=switches, epochs=300, return_history=True)
        kept[value] = np.linalg.norm(found.expression.mean(axis=0))
        if value == "frozen":
            assert found.history[-1]["negative_fraction"] == 0
    assert kept["frozen"] > 0.9
    assert kept["sample_mean"] < 0.4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_held_entries_and_held_cells_keep_their_values_exactly(tissue, dtype):
    cells, graph, inter, intra = tissue
    given = cells.astype(dtype)
    clamp = np.zeros(cells.shape, dtype=bool)
    clamp[3, 2] = clamp[10, :4] = clamp[20] = True
    given[30, 5], clamp[30, 5] = 0, True
    for switches in ({}, {"chart": "angles"}):
        found = generate(given, graph, inter, intra, clamp, dtype=dtype, switches=switches)
        np.testing.assert_array_equal(found[clamp], given[clamp])
        free = generate(given, graph, inter, intra, dtype=dtype, switches=switches)
        assert np.abs(found - free)[~clamp].max() > 1e-3
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    again = generate(given, graph, inter, intra, sparse.csr_array(clamp), dtype=dtype)
    np.testing.assert_array_equal(again, generate(given, graph, inter, intra, clamp, dtype=dtype))


@pytest.mark.parametrize("kind", STEPS["chart"])
def test_a_knocked_out_gene_grows_again_only_where_it_is_free(tissue, kind):
    cells, graph, inter, intra = tissue
    knockout = [KnockOut([5], [0])]
    grown = {}
    for value in ("clamped", "free"):
        switches = {"knocked_out_gene": value, "chart": kind, "knockout_effect": "against_start"}
        result = counterfactual(cells, graph, inter, intra, knockout, 20, 0.05, switches=switches)
        grown[value] = result.edited.expression[5, 0]
    assert grown["clamped"] == 0
    assert abs(grown["free"]) > 1e-3


def test_cells_without_expression_start_where_their_neighbours_pull_them(tissue):
    cells, graph, inter, intra = tissue
    for dtype in ("float32", "float64"):
        given = cells.copy()
        given[7] = 0
        found = generate(given, graph, inter, intra, dtype=dtype, return_history=True)
        assert np.isfinite(found.expression).all()
        assert np.linalg.norm(found.history[0]["expression"][7]) == pytest.approx(1)
    alone = generate(given, graph, 0 * inter, 0 * intra, switches={"centre": "none"})
    np.testing.assert_array_equal(alone, given)


def test_sparse_cells_and_raw_counts_are_put_on_the_sphere(tissue):
    cells, graph, inter, intra = tissue
    raw = sparse.csr_array(cells * np.random.default_rng(0).integers(1, 50, size=(N, 1)))
    np.testing.assert_allclose(generate(raw, graph, inter, intra), generate(*tissue), atol=1e-12)


def test_noise_is_drawn_from_its_seed(tissue):
    _, graph, inter, intra = tissue
    for protocol in protocols.PROTOCOLS:
        draws = [generate(None, graph, inter, intra, protocol=protocol, seed=s, epochs=1) for s in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert np.abs(draws[0] - draws[2]).max() > 0.1
    # On the sphere noise starts there.
    begun = generate(None, graph, inter, intra, epochs=2, return_history=True)
    start = begun.history[0]["expression"]
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, rtol=1e-12)
    np.random.seed(8)  # noqa: NPY002 - the code draws from NumPy's global generator
    expected = np.random.normal(np.pi, np.pi / 2, size=(5, 3)).astype(np.float32)  # noqa: NPY002
    np.testing.assert_array_equal(noise_angles(5, 4, 8), expected)


def test_many_tissues_at_once_are_each_as_alone(tissue):
    cells, graph, inter, intra = tissue
    forces = np.stack([inter, -inter]), np.stack([intra, 2 * intra])
    for protocol in protocols.PROTOCOLS:
        switches = protocols.resolve(protocol) | {"angles": "arctangent"}
        field = build_field(graph, *forces, switches)
        alone = [build_field(graph, g, h, switches) for g, h in zip(*forces, strict=True)]
        if protocol == "as_run":
            angles = chart.encode(cells, "arctangent")
            own = [descend_in_angles(angles[None], f, 9, 1e-3, switches, Held()) for f in alone]
            both = descend_in_angles(np.stack([angles] * 2), field, 9, 1e-3, switches, Held())
        else:
            own = [climb(cells[None], f, 9, 0.01, Held()) for f in alone]
            both = climb(np.stack([cells] * 2), field, 9, 0.01, Held())
        np.testing.assert_allclose(both, np.concatenate(own), atol=1e-12)


# --- faults -----------------------------------------------------------------------------------------------------


def test_faults_are_told_in_one_sentence(tissue):
    cells, graph, inter, intra = tissue
    lopsided = inter.copy()
    lopsided[0, 1] += 1
    broken = cells.copy()
    broken[4, 2] = np.nan
    clamp = np.ones(cells.shape, dtype=bool)
    clamp[:, 0] = False
    empty = cells.copy()
    empty[6] = 0
    faults = [
        ((cells, graph, lopsided, intra), {}, "inter is not symmetric at genes 0 and 1"),
        ((cells, graph, inter, intra[:3, :3]), {}, "give two matrices of the same genes"),
        ((cells, graph, inter, intra * np.inf), {}, "intra holds values that are not finite"),
        ((broken, graph, inter, intra), {}, r"cell number 4 \(counted from 0\) holds values"),
        ((cells[:5], graph, inter, intra), {}, r"its shape is \(5, 7\), but graph and forces"),
        ((3 * cells, graph, inter, intra, clamp), {}, "held entries of cell number 0 .* have norm"),
        ((cells, graph, inter, intra, clamp[:3]), {}, "give truth values of shape"),
        ((cells, graph, inter, intra, 1.0 * clamp), {}, "clamp: it is float64"),
        ((None, graph, inter, intra, clamp), {}, "noise has no values to hold"),
        ((cells, graph, inter, intra), {"protocol": "paper"}, "protocols holds 'paper'"),
        ((cells, graph, inter, intra), {"switches": {"chart": "map"}}, "switches.chart is 'map'"),
        ((cells, graph, inter, intra), {"epochs": 0}, "epochs is 0"),
        ((cells, graph, inter, intra), {"learning_rate": 0}, "learning_rate is 0;"),
        ((empty, graph, inter, intra), {"protocol": "as_run"}, "cell number 6 .* no expression"),
    ]
    for arguments, settings, message in faults:
        with pytest.raises(InputError, match=message) as caught:
            generate(*arguments, **settings)
        assert "\n" not in str(caught.value)
