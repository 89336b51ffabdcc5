"""The simulated tissue: the truth is exact, the knobs do what they say, the default can tell methods apart."""

from collections import defaultdict

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse, stats
from scipy.spatial import KDTree
from sklearn.metrics import mutual_info_score

from tissue_counterfactuals import simulate
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import gaussian_graph, slide_graph
from tissue_counterfactuals.simulate.mechanism import signal_weights, stored_mechanism
from tissue_counterfactuals.simulate.tissue import (
    TROUBLES,
    simulate_tissue,
    true_altered,
    true_counterfactual,
    true_expression,
)
from tissue_counterfactuals.slide import check_slide, normalize_counts, read_slide, write_slide

SMALL = {"n_cells": 1500, "n_genes": 60, "seed": 3}


@pytest.fixture(scope="module")
def tissue() -> AnnData:
    return simulate_tissue(**SMALL)


@pytest.fixture(scope="module")
def default_tissue() -> AnnData:
    return simulate_tissue()


def test_the_package_hands_on_its_functions_and_nothing_else():
    functions = (simulate_tissue, true_altered, true_counterfactual, true_expression)
    assert [getattr(simulate, name) for name in simulate.__all__] == list(functions)
    with pytest.raises(AttributeError, match="no attribute 'TROUBLES'"):
        _ = simulate.TROUBLES


def cells_where(slide: AnnData, **labels: str) -> np.ndarray:
    """Indices of the cells that carry all the labels."""
    match = np.ones(slide.n_obs, dtype=bool)
    for column, value in labels.items():
        match &= (slide.obs[column] == value).to_numpy()
    return np.flatnonzero(match)


def direct_truth(slide: AnnData, cell: int, donors: list[int]) -> np.ndarray:
    """The mechanism as its text states it, for one cell, in plain sums over what is stored."""
    stored = slide.uns["simulation"]
    types, domains = list(stored["types"]), list(stored["domains"])
    t = types.index(slide.obs["cell_type"].iloc[cell])
    d = domains.index(slide.obs["domain"].iloc[cell])
    sent = slide.obsm["simulation_secretion"]
    n_signals = sent.shape[1]
    received = [np.mean([sent[v, k] for v in donors]) for k in range(n_signals)]
    log_rate = []
    for g in range(slide.n_vars):
        value = slide.varm["simulation_base"][g, t] + slide.varm["simulation_direct"][g, d]
        for k in range(n_signals):
            occupancy = received[k] / (received[k] + stored["half_saturation"][k])
            drive = stored["receptors"][t, k] * (occupancy - stored["resting"][k])
            value += drive * slide.varm["simulation_programmes"][g, k]
            value += slide.varm["simulation_ligands"][g, k] * np.log(sent[cell, k])
        log_rate.append(value)
    rate = np.exp(log_rate)
    return slide.X[[cell]].sum() * rate / rate.sum()


# Contract


def test_slide_keeps_the_contract_and_survives_the_disk(tissue, tmp_path):
    check_slide(tissue, "simulated")
    write_slide(tissue, tmp_path / "slide.h5ad")
    read = read_slide(tmp_path / "slide.h5ad")
    focal = np.array([0, 7, 900])
    donors = np.array([[1, 2], [3, 4], [901, 902]])
    expected = true_counterfactual(tissue, focal, donors)
    np.testing.assert_array_equal(true_counterfactual(read, focal, donors), expected)
    np.testing.assert_array_equal(true_expression(read), true_expression(tissue))


def test_size_names_and_slides_are_as_asked(tissue):
    assert tissue.shape == (1500, 60)
    assert list(tissue.obs["sample"].value_counts()) == [750, 750]
    assert set(tissue.obs["cell_type"]) == {f"type_{i}" for i in range(5)}
    assert set(tissue.obs["domain"]) == {"domain_0", "domain_1", "domain_2"}
    assert tissue.uns["provenance"]["source"] == "simulated"
    assert tissue.uns["provenance"]["simulation"]["seed"] == 3
    left, right = (tissue.obsm["spatial"][tissue.obs["sample"] == s, 0] for s in ("slide_0", "slide_1"))
    assert right.min() - left.max() > 900


def test_domains_are_contiguous(default_tissue):
    for sample in ("slide_0", "slide_1"):
        for domain in ("domain_0", "domain_1", "domain_2"):
            members = cells_where(default_tissue, sample=sample, domain=domain)
            tree = KDTree(default_tissue.obsm["spatial"][members])
            touching = tree.sparse_distance_matrix(tree, 60.0)
            n_parts, part = sparse.csgraph.connected_components(touching)
            assert np.bincount(part).max() >= len(members) - 2, f"{n_parts} parts"
            assert np.ptp(default_tissue.obsm["spatial"][members, 0]) > 300


# Truth


def test_truth_follows_the_stated_mechanism(tissue):
    rng = np.random.default_rng(0)
    focal = rng.choice(tissue.n_obs, 6, replace=False)
    donors = rng.integers(tissue.n_obs, size=(6, 9))
    truth = true_counterfactual(tissue, focal, donors)
    for row, cell in enumerate(focal):
        np.testing.assert_allclose(truth[row], direct_truth(tissue, cell, donors[row]), rtol=1e-5)


def test_counts_are_unbiased_draws_around_the_truth(default_tissue):
    # Every cell is one draw: over all cells, and over each group of them, the errors must cancel.
    error = default_tissue.X.toarray() - true_expression(default_tissue)
    groups = [np.arange(default_tissue.n_obs)]
    groups += [cells_where(default_tissue, cell_type=f"type_{i}", domain="domain_1") for i in range(5)]
    for cells in groups:
        bias = error[cells].mean(axis=0) / (error[cells].std(axis=0) / np.sqrt(len(cells)))
        assert np.abs(bias).max() < 4.5
        assert bias.std() == pytest.approx(1, abs=0.15)


def test_counts_scatter_as_a_negative_binomial():
    # With equal libraries the mean of every count is known: library x share.
    slide = simulate_tissue(n_cells=3000, n_genes=40, seed=1, library_noise=0.0, library_size=400.0)
    share = true_expression(slide).astype(np.float64)
    mean = 400 * share / share.sum(axis=1, keepdims=True)
    overdispersion = slide.var["simulation_overdispersion"].to_numpy()
    variance = mean + overdispersion * mean**2
    observed = slide.X.toarray()
    squared_error = (observed - mean) ** 2
    assert np.median((squared_error / variance).mean(axis=0)) == pytest.approx(1, abs=0.03)
    # Poisson noise would miss the variance that is there.
    assert np.median((squared_error / mean).mean(axis=0)) > 1.5
    zero = stats.nbinom.pmf(0, 1 / overdispersion, 1 / (1 + overdispersion * mean))
    np.testing.assert_allclose((observed == 0).mean(axis=0), zero.mean(axis=0), atol=0.04)


def test_real_neighbours_as_donors_give_the_truth_in_place(tissue):
    cells = np.arange(0, tissue.n_obs, 50)
    weights = slide_graph(tissue)[cells]
    # Scaling a row changes nothing: rows are normalised.
    scaled = sparse.csr_array(weights.multiply(np.linspace(0.5, 3, len(cells))[:, None]))
    in_place = true_expression(tissue, cells)
    np.testing.assert_allclose(true_counterfactual(tissue, cells, weights), in_place, rtol=1e-5)
    np.testing.assert_allclose(true_counterfactual(tissue, cells, scaled), in_place, rtol=1e-5)


def test_received_signal_is_the_kernel_weighted_mean_of_the_neighbours(tissue):
    place = tissue.obsm["spatial"]
    same_slide = (tissue.obs["sample"] == "slide_0").to_numpy()
    for cell in (0, 100, 700):
        squared = ((place - place[cell]) ** 2).sum(axis=1)
        squared[~same_slide] = np.inf
        squared[cell] = np.inf
        nearest = np.argsort(squared)[:200]
        weight = np.exp(-squared[nearest] / (2 * 100.0**2))
        weight[weight <= 0.1] = 0
        expected = weight @ tissue.obsm["simulation_secretion"][nearest] / weight.sum()
        np.testing.assert_allclose(tissue.obsm["simulation_received"][cell], expected, rtol=1e-5)


def test_truth_stays_exact_when_cells_and_genes_are_dropped(tissue, tmp_path):
    cells = np.flatnonzero(np.arange(tissue.n_obs) % 3 > 0)
    genes = np.flatnonzero(np.arange(tissue.n_vars) % 4 != 1)
    part = tissue[cells][:, genes].copy()
    library = part.X.sum(axis=1)

    def renormalised(full):
        kept = full[:, genes].astype(np.float64)
        return kept / kept.sum(axis=1, keepdims=True)

    expected = np.asarray(library) * renormalised(true_expression(tissue, cells))
    np.testing.assert_allclose(true_expression(part), expected, rtol=1e-5)
    focal, donors = np.array([4, 9]), np.array([[1, 2, 3], [50, 51, 51]])
    full = true_counterfactual(tissue, cells[focal], cells[donors])
    expected = np.asarray(library)[focal] * renormalised(full)
    np.testing.assert_allclose(true_counterfactual(part, focal, donors), expected, rtol=1e-5)


def test_donors_as_indices_equal_donors_as_weights(tissue):
    focal, donors = np.array([3, 4]), np.array([[10, 11, 11], [12, 13, 14]])
    weights = np.zeros((2, tissue.n_obs))
    weights[0, [10, 11]] = 2, 4
    weights[1, [12, 13, 14]] = 5
    np.testing.assert_allclose(
        true_counterfactual(tissue, focal, donors),
        true_counterfactual(tissue, focal, sparse.csr_matrix(weights)),
        rtol=1e-6,
    )


def test_without_donors_a_cell_receives_nothing(tissue):
    alone = true_counterfactual(tissue, np.array([5]), sparse.csr_array((1, tissue.n_obs)))
    no_column = true_counterfactual(tissue, np.array([5]), np.empty((1, 0), dtype=int))
    np.testing.assert_array_equal(alone, no_column)
    assert np.isfinite(alone).all()
    assert not np.allclose(alone, true_expression(tissue, np.array([5])))


# Seeds


def test_same_seed_same_bytes_whatever_the_threads(tissue):
    again = simulate_tissue(**SMALL, n_threads=1)
    threaded = simulate_tissue(**SMALL, n_threads=3)
    for other in (again, threaded):
        assert (tissue.X != other.X).nnz == 0
        assert tissue.X.data.tobytes() == other.X.data.tobytes()
        assert tissue.obs.equals(other.obs)
        for key in tissue.obsm:
            np.testing.assert_array_equal(tissue.obsm[key], other.obsm[key])


def test_other_seed_gives_another_tissue_and_slides_differ(tissue):
    other = simulate_tissue(**(SMALL | {"seed": 4}))
    assert not np.array_equal(tissue.varm["simulation_base"], other.varm["simulation_base"])
    assert not np.array_equal(tissue.obsm["spatial"], other.obsm["spatial"])
    sent = tissue.obsm["simulation_secretion"]
    assert not np.array_equal(sent[:750], sent[750:])


def test_mechanism_does_not_depend_on_the_number_of_cells(tissue):
    larger = simulate_tissue(**(SMALL | {"n_cells": 1800, "n_slides": 3}))
    np.testing.assert_array_equal(tissue.varm["simulation_programmes"], larger.varm["simulation_programmes"])
    np.testing.assert_array_equal(tissue.uns["simulation"]["receptors"], larger.uns["simulation"]["receptors"])


# Knobs


def test_without_effect_donors_do_not_matter():
    slide = simulate_tissue(**SMALL, effect_size=0.0)
    focal = np.arange(20)
    donors = np.random.default_rng(0).integers(slide.n_obs, size=(20, 5))
    np.testing.assert_allclose(true_counterfactual(slide, focal, donors), true_expression(slide, focal), rtol=1e-6)


def test_effect_size_is_the_change_between_mean_neighbourhoods():
    slide = simulate_tissue(**SMALL, effect_size=0.9)
    stored, programmes = slide.uns["simulation"], slide.varm["simulation_programmes"]
    received = np.einsum("dt,tdl->dl", stored["composition"], stored["levels"])
    occupancy = received / (received + stored["half_saturation"])
    responding = np.abs(programmes).sum(axis=1) > 0
    for receptors in stored["receptors"]:
        response = (occupancy * receptors) @ programmes[responding].T
        pairs = [response[a] - response[b] for a, b in ((0, 1), (0, 2), (1, 2))]
        assert np.sqrt(np.mean(np.square(pairs))) == pytest.approx(0.9)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_responding_fraction_is_the_share_of_genes_that_respond(fraction):
    slide = simulate_tissue(**SMALL, responding_fraction=fraction)
    responding = np.abs(slide.varm["simulation_programmes"]).sum(axis=1) > 0
    assert responding.sum() == round(fraction * 60)
    # In relative terms, genes that do not respond all change alike, by the share that the others leave them.
    focal = np.array([0])
    moved = true_counterfactual(slide, focal, cells_where(slide, domain="domain_2")[None, :30])
    ratio = (moved / true_expression(slide, focal))[0, ~responding]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_domain_effect_changes_cells_and_no_neighbour_carries_it():
    plain, confounded = (simulate_tissue(**SMALL, domain_effect=e) for e in (0.0, 0.7))
    np.testing.assert_array_equal(plain.obsm["simulation_received"], confounded.obsm["simulation_received"])
    share = [t / t.sum(axis=1, keepdims=True) for t in (true_expression(plain), true_expression(confounded))]
    change = np.log(share[1] / share[0])
    change -= change.mean(axis=1, keepdims=True)
    # The change is one profile per domain, the same in all cells of it, whatever stands around them ...
    for domain in ("domain_0", "domain_1", "domain_2"):
        here = change[cells_where(plain, domain=domain)]
        assert np.abs(here - here[0]).max() < 1e-3
        assert here[0].std() == pytest.approx(0.7, rel=0.3)
    first = [cells_where(plain, domain=d)[0] for d in ("domain_0", "domain_1", "domain_2")]
    assert np.abs(np.corrcoef(change[first])[np.triu_indices(3, 1)]).max() < 0.5
    # ... so donors from elsewhere do not bring it.
    focal = cells_where(plain, domain="domain_0")[:10]
    donors = np.tile(cells_where(plain, domain="domain_1")[:30], (10, 1))
    moved = [true_counterfactual(s, focal, donors) for s in (plain, confounded)]
    moved_change = np.log(moved[1] / moved[0])
    moved_change -= moved_change.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(moved_change, change[focal], atol=2e-3)


def test_library_and_overdispersion_knobs():
    slide = simulate_tissue(**SMALL, library_size=150.0, library_noise=0.6, overdispersion=0.0)
    library = np.asarray(slide.X.sum(axis=1)).ravel()
    assert np.median(library) == pytest.approx(150, rel=0.1)
    assert np.log(library).std() == pytest.approx(0.6, rel=0.15)
    assert not slide.var["simulation_overdispersion"].any()
    # Given its library a cell's Poisson counts are multinomial: the scatter around the truth has variance ~ mean.
    truth = true_expression(slide)
    ratio = ((slide.X.toarray() - truth) ** 2).sum(axis=0) / truth.sum(axis=0)
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


def test_secretion_shows_in_the_ligand_genes(default_tissue):
    log_sent = np.log(default_tissue.obsm["simulation_secretion"])
    expression = np.log1p(normalize_counts(default_tissue.X).toarray())
    for signal in range(log_sent.shape[1]):
        genes = default_tissue.varm["simulation_ligands"][:, signal] == 1
        assert genes.sum() == 2
        seen = expression[:, genes].mean(axis=1)
        assert stats.spearmanr(seen, log_sent[:, signal]).statistic > 0.5


# What the default is for


def log_fold_change(group: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Natural log, pseudocount 1, of means of counts per 10,000: group against control."""
    cp10k = [x / x.sum(axis=1, keepdims=True) * 1e4 for x in (group, control)]
    return np.log1p(cp10k[0].mean(axis=0)) - np.log1p(cp10k[1].mean(axis=0))


def score(target, predicted, control) -> float:
    observed = log_fold_change(target, control)
    top = np.argsort(-np.abs(observed))[:50]
    return np.corrcoef(observed[top], log_fold_change(predicted, control)[top])[0, 1]


@pytest.fixture(scope="module")
def default_scores() -> dict[str, list[float]]:
    """Pearson over the 50 most changed genes, domain_0 -> domain_1, for each type on each slide of four seeds."""
    names = ("ceiling", "in_place", "truth", "twin", "shift", "shift_by_type")
    scores = {name: [] for name in names}
    for seed in range(4):
        for name, values in scores_of(simulate_tissue(seed=seed)).items():
            scores[name] += values
    return scores


def scores_of(slide: AnnData) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    counts = slide.X.toarray()
    scores = defaultdict(list)
    types = slide.obs["cell_type"].cat.categories
    for sample in ("slide_0", "slide_1"):
        in_target = cells_where(slide, sample=sample, domain="domain_1")
        groups = {
            t: [cells_where(slide, sample=sample, domain=d, cell_type=t) for d in ("domain_0", "domain_1")]
            for t in types
        }
        changes = {t: log_fold_change(counts[two], counts[one]) for t, (one, two) in groups.items()}
        for cell_type, (control, target) in groups.items():
            assert min(len(control), len(target)) >= 100
            seen = (counts[target], counts[control])
            # Several halvings, so that the verdict does not hang on one of them.
            for _ in range(5):
                halves = rng.permutation(target)
                first, second = halves[::2], halves[1::2]
                scores["ceiling"].append(score(counts[first], counts[second], seen[1]))
            donors = rng.choice(in_target, (len(control), 50))
            others_here = np.setdiff1d(in_target, target)
            others_elsewhere = np.setdiff1d(cells_where(slide, sample=sample), in_target)
            factor = (counts[others_here].mean(axis=0) + 1e-8) / (counts[others_elsewhere].mean(axis=0) + 1e-8)
            by_type = np.mean([c for t, c in changes.items() if t != cell_type], axis=0)
            predicted = {
                "in_place": true_expression(slide, target),
                "truth": true_counterfactual(slide, control, donors),
                "twin": true_expression(slide, control),
                "shift": np.clip((seen[1] + 1) * factor - 1, 0, None),
                "shift_by_type": np.clip((seen[1] + 1) * np.exp(by_type) - 1, 0, None),
            }
            for name, values in predicted.items():
                scores[name].append(score(seen[0], values, seen[1]))
    return scores


def test_by_default_one_half_of_the_cells_predicts_the_other(default_scores):
    assert len(default_scores["ceiling"]) == 4 * 2 * 5 * 5
    assert np.mean(default_scores["ceiling"]) > 0.95
    # Some seeds draw two domains that hardly differ for some types.
    assert np.mean(np.array(default_scores["ceiling"]) > 0.9) > 0.85


def test_default_truth_is_near_the_ceiling_and_trivial_methods_are_not(default_scores):
    mean = {name: np.mean(values) for name, values in default_scores.items()}
    assert mean["in_place"] > 0.98
    assert min(default_scores["in_place"]) > 0.95
    assert mean["truth"] > 0.93
    assert mean["shift"] < mean["truth"] - 0.25
    assert mean["shift_by_type"] < mean["truth"] - 0.1
    assert mean["twin"] < 0.4


def test_types_respond_partly_alike(default_tissue):
    stored, programmes = default_tissue.uns["simulation"], default_tissue.varm["simulation_programmes"]
    received = np.einsum("dt,tdl->dl", stored["composition"], stored["levels"])
    occupancy = received / (received + stored["half_saturation"])
    response = (stored["receptors"] * (occupancy[1] - occupancy[0])) @ programmes.T
    alike = np.corrcoef(response)[np.triu_indices(5, 1)]
    assert 0.2 < alike.mean() < 0.8


def test_neighbourhoods_vary_within_a_domain(default_tissue):
    # Without variation among control cells a model could not learn a held-out type's response from them.
    received = default_tissue.obsm["simulation_received"]
    domain = default_tissue.obs["domain"].to_numpy()
    means = np.array([received[domain == d].mean(axis=0) for d in np.unique(domain)])
    within = np.mean([received[domain == d].std(axis=0) for d in np.unique(domain)], axis=0)
    assert (within > 0.2 * np.ptp(means, axis=0)).all()


def test_about_one_count_in_six_is_filled_at_2000_genes():
    slide = simulate_tissue(n_cells=1000, n_genes=2000, n_slides=1)
    assert 0.12 < slide.X.nnz / np.prod(slide.shape) < 0.20


# Troubles


def test_troubles_that_are_off_leave_no_trace(tissue):
    off = simulate_tissue(**SMALL, confounding=0, label_noise=0, spill=0)
    assert off.X.data.tobytes() == tissue.X.data.tobytes()
    assert set(off.obsm) == {"spatial", "simulation_secretion", "simulation_received"}
    assert not set(TROUBLES) & set(off.uns["provenance"]["simulation"])
    on = simulate_tissue(**SMALL, spill=0.1).uns["provenance"]["simulation"]
    assert set(TROUBLES) & set(on) == {"spill"}


def test_wrong_labels_change_nothing_but_labels(tissue, tmp_path):
    noisy = simulate_tissue(**SMALL, label_noise=0.3)
    wrong = (noisy.obs["cell_type"] != tissue.obs["cell_type"]).to_numpy()
    assert wrong.mean() == pytest.approx(0.3, abs=0.04)
    # Every other type alike: no label is a favourite.
    off_by = (noisy.obs["cell_type"].cat.codes - tissue.obs["cell_type"].cat.codes) % 5
    assert stats.chisquare(np.bincount(off_by[wrong], minlength=5)[1:]).pvalue > 1e-3
    assert (noisy.X != tissue.X).nnz == 0
    write_slide(noisy, tmp_path / "s.h5ad")
    cells = np.arange(0, 1500, 7)
    there = read_slide(tmp_path / "s.h5ad")[cells].copy()
    np.testing.assert_array_equal(true_expression(there), true_expression(tissue, cells))


def test_spilled_counts_are_found_in_near_cells(tissue):
    spilt = simulate_tissue(**SMALL, spill=0.4)
    np.testing.assert_array_equal(spilt.X.sum(axis=0), tissue.X.sum(axis=0))
    assert spilt.X.has_sorted_indices
    assert spilt.X.data.min() > 0
    # Expectation: what stays, and a third of what each cell loses to each of its nearest.
    near = KDTree(tissue.obsm["spatial"]).query(tissue.obsm["spatial"], 4)[1][:, 1:]
    to = sparse.csr_array((np.ones(4500) / 3, (near.ravel(), np.repeat(np.arange(1500), 3))), shape=(1500, 1500))
    expected = 0.6 * tissue.X + 0.4 * (to @ tissue.X)
    off = (spilt.X - expected).toarray()
    assert abs(off.mean()) < 1e-3
    # Binomial: of each count, that it stays, and that it goes to each of three.
    scatter = 0.4 * 0.6 + 3 * (0.4 / 3) * (1 - 0.4 / 3)
    assert (off**2).sum() / (scatter * tissue.X.sum()) == pytest.approx(1, abs=0.1)
    # The truth is the cell's own: the same shares, at the library that is read.
    truth = true_expression(spilt) / spilt.X.sum(axis=1)
    np.testing.assert_allclose(truth, true_expression(tissue) / tissue.X.sum(axis=1), rtol=1e-4)


def test_confounding_makes_domain_and_type_one():
    def information(confounding):
        obs = simulate_tissue(**SMALL, confounding=confounding).obs
        return mutual_info_score(obs["cell_type"], obs["domain"])

    apart, closer, nearly_one = map(information, (0, 0.5, 0.8))
    assert apart < closer / 1.5 < nearly_one / 2


# Refusals


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"n_cells": 40}, r"^simulation\.n_cells is 40; 2 slides of 3 domains and 5 types need at least 300"),
        ({"n_genes": 20}, r"^simulation\.n_genes is 20; 6 signals .* at least 24 genes"),
        ({"n_cells": 10**6, "n_genes": 10**5},
        r"^simulation\.n_cells is 1000000 and n_genes 100000; .* fewer cells or genes"),
        ({"celltypes": 3}, "^unknown key simulation.celltypes; did you mean"),
        ({"library_size": float("nan")}, r"^simulation\.library_size is NaN; allowed is a number"),
    ],
)  # fmt: skip
def test_bad_knobs_are_refused(knob, message):
    with pytest.raises(InputError, match=message):
        simulate_tissue(**knob)


def test_bad_questions_are_refused(tissue):
    focal = np.array([0, 1])
    for donors, message in [
        (np.array([[1], [1500]]), "donors: there is no cell 1500, the slide has 1500 cells"),
        (np.array([[1], [-1]]), "donors: there is no cell -1"),
        (np.array([[1.0], [2.0]]), "donors: type float64"),
        (np.array([1, 2]), r"donors: the indices have shape \(2,\), and \(2, d\) is needed"),
        (sparse.csr_array((2, 7)), r"donors: the weights have shape \(2, 7\), and \(2, 1500\)"),
        (-sparse.eye_array(2, 1500, format="csr"), "donors: a weight is -1.0"),
    ]:
        with pytest.raises(InputError, match=message):
            true_counterfactual(tissue, focal, donors)
    with pytest.raises(InputError, match="focal: there is no cell 9999"):
        true_counterfactual(tissue, np.array([9999]), np.array([[1]]))


def test_a_slide_without_mechanism_or_with_other_labels_is_refused(tissue):
    plain = AnnData(tissue.X, obs=tissue.obs.copy())
    with pytest.raises(InputError, match=r"no uns\['simulation'\], so the truth is unknown"):
        true_expression(plain)
    renamed = tissue[:5].copy()
    renamed.obs["cell_type"] = ["type_0", "tumour", "type_0", "type_1", "type_1"]
    with pytest.raises(InputError, match="has cell_type 'tumour', which the simulation does not"):
        true_expression(renamed)


def test_altered_neighbours_send_as_their_ligand_genes_are_expressed():
    slide = simulate_tissue(n_cells=900, n_genes=40, n_slides=1, seed=2)
    focal, graph = np.arange(0, 900, 9), gaussian_graph(slide.obsm["spatial"])[::9]
    ligands = slide.varm["simulation_ligands"].any(axis=1)
    twin = true_expression(slide, focal)
    shift = np.zeros((slide.obs["cell_type"].nunique(), slide.n_vars))
    shift[:, ~ligands] = 3
    np.testing.assert_allclose(true_altered(slide, focal, graph, shift), twin, rtol=1e-5)
    shift[:] = np.where(ligands, np.log(2), 0)
    more = slide.copy()
    more.obsm["simulation_received"] = 2 * more.obsm["simulation_received"]
    np.testing.assert_allclose(true_altered(slide, focal, graph, shift), true_expression(more, focal), rtol=1e-5)
    nobody = true_altered(slide, focal, graph, shift, cells=np.array([], dtype=int))
    np.testing.assert_allclose(nobody, twin, rtol=1e-5)
    # Half of the ligand genes of a signal make half of it.
    first = slide.varm["simulation_ligands"][:, 0] > 0
    shift[:] = 0
    shift[:, np.flatnonzero(first)[0]] = -np.inf
    less = slide.copy()
    less.obsm["simulation_received"][:, 0] *= 1 - 1 / first.sum()
    np.testing.assert_allclose(true_altered(slide, focal, graph, shift), true_expression(less, focal), rtol=1e-5)


def test_the_weights_of_a_signal_are_the_changes_that_it_causes(tissue):
    """What a cell receives changes the genes that answer, what it sends its ligand genes; no third gene changes."""
    mechanism, weights = stored_mechanism(tissue), signal_weights(tissue)
    half, first = mechanism.half_saturation[None], np.zeros(1, dtype=int)
    assert weights["source"].nunique() == half.shape[1] == 6

    def log_change(sent, received):
        shares = mechanism.proportions(first, first, sent, received) / mechanism.proportions(
            first, first, np.ones_like(half), half
        )
        change = np.log(shares[0])
        # Shares add up to 1: only differences between genes are told.
        return change - np.median(change)

    for signal, name in enumerate(sorted(weights["source"].unique())):
        own = weights[weights["source"] == name].set_index("target")["weight"]
        own = own.reindex(tissue.var_names).fillna(0).to_numpy()
        one = np.eye(half.shape[1])[[signal]]
        ligand = mechanism.ligands[:, signal] == 1
        # At three times the half saturation three quarters of the receptors are taken, one quarter more.
        received = log_change(np.ones_like(half), half * (1 + 2 * one))
        np.testing.assert_allclose(received, np.where(ligand, 0, own) * mechanism.receptors[0, signal] / 4, atol=1e-9)
        np.testing.assert_allclose(log_change(np.exp(one), half), np.where(ligand, own, 0), atol=1e-9)
    plain = tissue.copy()
    del plain.uns["simulation"]
    with pytest.raises(InputError, match="no uns\\['simulation'\\]"):
        signal_weights(plain)
