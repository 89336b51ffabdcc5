"""The mean-field likelihood against numerical integration, automatic derivatives and its n x n form; that it has no
minimum; and every switch that it reads, at each of its values."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate

from celcomen_cells import (
    AS_RUN,
    loss_over_pairs_of_cells,
    random_cells,
    random_forces,
    random_graph,
)
from celcomen_oracles import mean_field_loss_and_gradient
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_meanfield import (
    MeanFieldLoss,
    first_forces,
    fit_mean_field,
    log_partition,
    log_sphere,
    project,
    shuffled_orders,
    step,
)
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, statistics

N_GENES = 6
POOLED = AS_RUN | {"slide_steps": "pooled", "loss_unit": "cell", "force_range": "free"}


def slide(n_cells=50, seed=0, kind="gcn"):
    weights = interaction_weights(random_graph(n_cells, seed=seed), kind)
    cells = random_cells(n_cells, N_GENES, seed)
    return cells, weights, statistics(cells, weights)


# --- log Z ---


@pytest.mark.parametrize("strength", [0.0, 1e-8, 0.3, 5.0, 40.0])
@pytest.mark.parametrize("dimensions", [3, 4, 7, 50])
def test_log_sphere_is_the_integral_over_the_sphere(strength, dimensions):
    def over_first_coordinate(k):
        # The first coordinate of a uniform direction has density (1 - u^2)^((d - 3) / 2); exp(k) is taken out.
        return integrate.quad(lambda u: np.exp(k * (u - 1)) * (1 - u**2) ** ((dimensions - 3) / 2), -1, 1, epsabs=0)[0]

    mean = over_first_coordinate(strength) / over_first_coordinate(0)
    np.testing.assert_allclose(log_sphere(strength, dimensions)[0], np.log(2 * mean) + strength, rtol=1e-9)


@pytest.mark.parametrize("strength", [1e-6, 0.5, 19.9, 20.1, 300.0, 1e5])
def test_three_dimensions_have_a_closed_form(strength):
    with mpmath.workdps(40):
        k = mpmath.mpf(strength)
        expected = (k + mpmath.log1p(-mpmath.exp(-2 * k)) - mpmath.log(k), mpmath.coth(k) - 1 / k)
    np.testing.assert_allclose(log_sphere(strength, 3), [float(e) for e in expected], rtol=1e-10)


@pytest.mark.parametrize(
    ("strength", "dimensions"),
    [
        (1e-3, 2000),
        (1.0, 5000),
        (70.0, 5000),
        (3000.0, 5000),
        (20000.0, 5000),
        (7.0, 2),
        (9e5, 500),
        (1.1e6, 2),
        (1.1e6, 5000),
        (1e12, 5000),
    ],
)
def test_thousands_of_genes_are_stable(strength, dimensions):
    with mpmath.workdps(60):
        v, k = mpmath.mpf(dimensions) / 2 - 1, mpmath.mpf(strength)
        bessel = mpmath.besseli(v, k)
        expected = mpmath.log(2 * mpmath.gamma(v + 1) * (k / 2) ** -v * bessel)
        slope = mpmath.besseli(v + 1, k) / bessel
    found = log_sphere(strength, dimensions)
    np.testing.assert_allclose(found[0], float(expected), rtol=1e-11)
    np.testing.assert_allclose(found[1], float(slope), rtol=1e-9)


def test_both_normalisers_are_the_integral_at_three_genes_and_differ_beyond():
    for n_genes in (3, 4, 40):
        inter, intra = random_forces(n_genes)
        mean = np.random.default_rng(0).random(n_genes) / n_genes
        paper, vmf = (log_partition(mean, (6 * inter + 2 * intra) @ mean, 100, kind)[0] for kind in ("paper", "vmf"))
        strength = np.linalg.norm((6 * inter + 2 * intra) @ mean)
        integral = integrate.quad(lambda u, k=strength: np.exp(k * u), -1, 1)[0]
        expected = 100 * (np.log(integral) - mean @ (intra + 3 * inter) @ mean)
        np.testing.assert_allclose(paper, expected)
        if n_genes == 3:
            np.testing.assert_allclose(vmf, expected)
        else:
            assert abs(vmf - expected) > 1e-3 * abs(expected)


def test_weak_forces_count_too_much_in_the_paper():
    # Near zero the integral over the sphere curves as 1 / genes, the paper's as 1 / 3.
    curvature = {n: 2 * (log_sphere(1e-2, n)[0] - np.log(2)) / 1e-4 for n in (3, 30, 300)}
    for n, value in curvature.items():
        np.testing.assert_allclose(value, 1 / n, rtol=1e-4)


# --- loss and gradients ---


@pytest.mark.parametrize("kind", ["gcn", "symmetric", "row", "adjacency"])
@pytest.mark.parametrize("pair_sum", ["ordered", "unordered"])
@pytest.mark.parametrize("temperature", ["0.1", "1"])
@pytest.mark.parametrize("neighbour_number", ["6", "graph"])
def test_loss_and_gradient_are_those_of_the_n_by_n_form(kind, pair_sum, temperature, neighbour_number):
    cells, weights, moments = slide(kind=kind)
    inter, intra = (torch.tensor(f, requires_grad=True) for f in random_forces(N_GENES))
    dense = weights.toarray()
    truth = loss_over_pairs_of_cells(
        cells,
        dense,
        inter,
        intra,
        neighbours=6.0 if neighbour_number == "6" else dense.sum() / len(cells),
        temperature=float(temperature),
        pairs=1.0 if pair_sum == "ordered" else 0.5,
    )
    truth.backward()
    switches = AS_RUN | {
        "pair_sum": pair_sum, "temperature": temperature, "neighbour_number": neighbour_number,
    }  # fmt: skip
    loss, by_inter, by_intra = mean_field_loss_and_gradient(MeanFieldLoss([moments], switches), *random_forces(N_GENES))
    np.testing.assert_allclose(loss, truth.item(), rtol=1e-12)
    np.testing.assert_allclose(by_inter, inter.grad.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(by_intra, intra.grad.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("log_z", ["paper", "vmf"])
@pytest.mark.parametrize("unit", ["slide", "cell"])
def test_gradients_against_finite_differences(log_z, unit):
    slides = [slide(40, 1)[2], slide(70, 2)[2], statistics(random_cells(30, N_GENES, 3))]
    forces = random_forces(N_GENES, size=0.3)
    switches = AS_RUN | {"log_partition": log_z, "loss_unit": unit}
    gradients = mean_field_loss_and_gradient(MeanFieldLoss(slides, switches), *forces)[1:]
    for which, (a, b) in itertools.product((0, 1), ((0, 0), (1, 4), (5, 2))):
        ends = []
        for change in (1e-5, -1e-5):
            moved = [f.copy() for f in forces]
            moved[which][a, b] += change
            ends.append(mean_field_loss_and_gradient(MeanFieldLoss(slides, switches), *moved)[0])
        np.testing.assert_allclose(gradients[which][a, b], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_losses_of_slides_add_up_and_a_cell_is_their_unit():
    slides = [slide(40, 1)[2], slide(70, 2)[2]]
    forces = random_forces(N_GENES)
    whole = mean_field_loss_and_gradient(MeanFieldLoss(slides, AS_RUN), *forces)
    parts = [mean_field_loss_and_gradient(MeanFieldLoss([one], AS_RUN), *forces) for one in slides]
    per_cell = mean_field_loss_and_gradient(MeanFieldLoss(slides, AS_RUN | {"loss_unit": "cell"}), *forces)
    for i in range(3):
        np.testing.assert_allclose(whole[i], parts[0][i] + parts[1][i])
        np.testing.assert_allclose(per_cell[i], whole[i] / 110)


@pytest.mark.parametrize("neighbour_number", ["6", "graph"])
def test_dissociated_cells_inform_forces_within_cells_only(neighbour_number):
    switches = AS_RUN | {"neighbour_number": neighbour_number}
    cells = random_cells(30, N_GENES)
    inter, intra = random_forces(N_GENES)
    loss, by_inter, by_intra = mean_field_loss_and_gradient(MeanFieldLoss([statistics(cells)], switches), inter, intra)
    assert not by_inter.any()
    assert np.abs(by_intra).max() > 0.1
    # Their likelihood is that of cells between which no force acts.
    alone = loss_over_pairs_of_cells(
        cells, np.zeros((30, 30)), torch.tensor(0 * inter), torch.tensor(intra), neighbours=0.0
    )
    np.testing.assert_allclose(loss, alone.item())


@pytest.mark.parametrize("log_z", ["paper", "vmf"])
@pytest.mark.parametrize("which", ["inter", "intra"])
def test_the_loss_has_no_minimum(log_z, which):
    """Facts: with P the projector orthogonal to m, log Z stands still along P C P, and the energy falls for ever."""
    moments = slide(kind="symmetric")[2]
    forces = dict(zip(("inter", "intra"), random_forces(N_GENES), strict=True))
    switches = AS_RUN | {"log_partition": log_z}
    direction_of_mean = moments.mean / np.linalg.norm(moments.mean)
    projector = np.eye(N_GENES) - np.outer(direction_of_mean, direction_of_mean)
    product = getattr(moments, which)
    direction = projector @ (product + product.T) / 2 @ projector
    fall = 0.1 * (direction * product).sum()
    assert fall > 0
    np.testing.assert_allclose(direction @ moments.mean, 0, atol=1e-12)

    def at(t):
        moved = forces | {which: forces[which] + t * direction}
        field = (6 * moved["inter"] + 2 * moved["intra"]) @ moments.mean
        partition = log_partition(moments.mean, field, moments.n_cells, log_z)[0]
        return mean_field_loss_and_gradient(MeanFieldLoss([moments], switches), **moved)[0], partition

    start, partition = at(0)
    for t in (1, 1e3, 1e6):
        loss, same = at(t)
        np.testing.assert_allclose(same, partition, rtol=1e-9)
        np.testing.assert_allclose(loss, start - t * fall, rtol=1e-9)


# --- descent ---


@pytest.mark.parametrize("first", ["shared", "independent", "zero"])
def test_fit_is_descent_on_the_n_by_n_loss(first):
    cells, weights, moments = slide()
    switches = AS_RUN | {"first_forces": first}
    fit = fit_mean_field([moments], switches, 30, 2e-3, seed=4)
    np.random.seed(4)  # noqa: NPY002 - the authors' generator
    one = np.random.uniform(0, 1, (N_GENES, N_GENES))  # noqa: NPY002
    two = np.random.uniform(0, 1, (N_GENES, N_GENES))  # noqa: NPY002
    start = {"shared": (one, one), "independent": (one, two), "zero": (0 * one, 0 * one)}[first]

    def boxed(matrix):
        matrix = ((matrix + matrix.T) / 2).clip(0, 1)
        np.fill_diagonal(matrix, 1)
        return torch.tensor(matrix, requires_grad=True)

    inter, intra = map(boxed, start)
    for epoch in range(30):
        loss = loss_over_pairs_of_cells(cells, weights.toarray(), inter, intra)
        np.testing.assert_allclose(fit.history[epoch]["loss"], loss.item(), rtol=1e-9)
        loss.backward()
        inter, intra = (boxed((f - 2e-3 * f.grad).detach().numpy()) for f in (inter, intra))
    assert 0 < fit.diagnostics["intra_at_bound"] < 1 or first == "zero"
    np.testing.assert_allclose(fit.inter, inter.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(fit.intra, intra.detach().numpy(), atol=1e-10)


@pytest.mark.parametrize("switches", [AS_RUN, POOLED, POOLED | {"log_partition": "vmf"}])
def test_order_of_genes_carries_over_to_the_fit(switches):
    genes = np.random.default_rng(5).permutation(N_GENES)
    cells, weights, moments = slide()
    start = random_forces(N_GENES, size=0.2)
    there = np.ix_(genes, genes)
    straight = fit_mean_field([moments], switches, 20, 0.01, start=start)
    turned = fit_mean_field([statistics(cells[:, genes], weights)], switches, 20, 0.01, start=[f[there] for f in start])
    np.testing.assert_allclose(turned.inter, straight.inter[there], atol=1e-10)
    np.testing.assert_allclose(turned.intra, straight.intra[there], atol=1e-10)


def test_ranges():
    forces = np.array([[0.5, -3.0, 0.4], [0.0, 2.0, 3.0], [0.2, 1.0, -4.0]])
    expected = {
        "free": [[0.5, -1.5, 0.3], [-1.5, 2.0, 2.0], [0.3, 2.0, -4.0]],
        "signed": [[0.5, -1.0, 0.3], [-1.0, 1.0, 1.0], [0.3, 1.0, -1.0]],
        "unit_box": [[1.0, 0.0, 0.3], [0.0, 1.0, 1.0], [0.3, 1.0, 1.0]],
    }
    for kind, matrix in expected.items():
        np.testing.assert_allclose(project(forces, kind), matrix)


def test_a_step_moves_down_the_gradient_and_projects():
    moments = slide()[2]
    forces = random_forces(N_GENES)
    loss, by_inter, by_intra = mean_field_loss_and_gradient(MeanFieldLoss([moments], POOLED), *forces)
    found, (inter, intra) = step([moments], *forces, POOLED, 0.3)
    # The last digit depends on where in memory a product finds its numbers.
    assert found == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(inter, forces[0] - 0.3 * (by_inter + by_inter.T) / 2)
    np.testing.assert_allclose(intra, forces[1] - 0.3 * (by_intra + by_intra.T) / 2)


def test_slide_steps_are_one_pooled_or_one_each_in_shuffled_order():
    slides = [slide(40, 1)[2], slide(70, 2)[2], slide(55, 3)[2]]
    start = random_forces(N_GENES, size=0.1)
    pooled = fit_mean_field(slides, POOLED, 1, 0.1, start=start)
    _, expected = step(slides, *start, POOLED, 0.1)
    np.testing.assert_allclose(pooled.inter, expected[0])

    switches = POOLED | {"slide_steps": "shuffled"}
    fit = fit_mean_field(slides, switches, 5, 0.1, seed=2, start=start)
    forces, orders = start, []
    for _, order in zip(range(5), shuffled_orders(3, 2), strict=False):
        orders.append(tuple(order))
        for place in order:
            _, forces = step([slides[place]], *forces, switches, 0.1)
    np.testing.assert_allclose(fit.inter, forces[0])
    np.testing.assert_allclose(fit.intra, forces[1])
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(set(orders)) > 1


def test_shuffling_repeats_by_seed_and_leaves_the_caller_s_generator_alone():
    def first_ten(seed):
        return [order for order, _ in zip(shuffled_orders(4, seed), range(10), strict=False)]

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    assert first_ten(0) == first_ten(0)
    assert first_ten(0) != first_ten(1)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_recorded():
    moments = slide()[2]
    fit, before = (fit_mean_field([moments], POOLED, epochs, 0.1) for epochs in (7, 6))
    assert [h["epoch"] for h in fit.history] == list(range(7))
    change = np.abs(fit.inter - before.inter).max()
    assert fit.history[-1]["largest_step"] >= change > 0
    assert fit.inter_error is None


def test_first_forces_repeat_by_seed():
    np.testing.assert_array_equal(first_forces(5, "shared", 3)[0], first_forces(5, "shared", 3)[1])
    assert (first_forces(5, "shared", 3)[0] != first_forces(5, "shared", 4)[0]).any()


def test_bad_input_is_refused():
    moments = slide()[2]
    with pytest.raises(InputError, match="no slide has a graph"):
        fit_mean_field([statistics(random_cells(9, N_GENES))], AS_RUN, 1, 0.1)
    with pytest.raises(InputError, match="no slide has a graph"):
        fit_mean_field([], AS_RUN, 1, 0.1)
    with pytest.raises(InputError, match="slides have 4 and 6 genes"):
        fit_mean_field([moments, statistics(random_cells(9, 4))], AS_RUN, 1, 0.1)
    with pytest.raises(InputError, match="epochs is 0 and learning_rate 0.1"):
        fit_mean_field([moments], AS_RUN, 0, 0.1)
    with pytest.raises(InputError, match="epochs is 1 and learning_rate nan"):
        fit_mean_field([moments], AS_RUN, 1, np.nan)
    with pytest.raises(InputError, match=r"start has shapes \[\(3, 3\), \(3, 3\)\]: .* 6 x 6"):
        fit_mean_field([moments], AS_RUN, 1, 0.1, start=(np.eye(3), np.eye(3)))
    with pytest.raises(InputError, match="log_partition is 'exact'; the mean field knows paper"):
        log_partition(moments.mean, moments.mean, 50, "exact")
