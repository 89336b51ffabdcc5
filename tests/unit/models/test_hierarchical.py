"""The plain model: its regressions against statsmodels, its prior against brute force, its intervals against truth."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import sparse
from scipy.stats import norm

from tissue_counterfactuals.models import hierarchical
from tissue_counterfactuals.models.hierarchical import (
    Answer,
    Evidence,
    Known,
    Prior,
    Spread,
)


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(800, 3)) + [0.5, 0, -1]
    library = rng.uniform(50, 200, 800)
    slopes = rng.normal(0, 0.4, (3, 5))
    # A gene whose fit needs many steps.
    slopes = np.column_stack([slopes, [-3.0, 0.0, 0.0]])
    rate = library[:, None] * np.exp(-3 + (design - design.mean(axis=0)) @ slopes)
    counts = rng.negative_binomial(4, 4 / (4 + rate))
    return counts, library, design


def test_regressions_are_those_of_statsmodels(cells):
    counts, library, design = cells
    evidence = hierarchical.regress(sparse.csr_array(counts), library, design)
    centred = sm.add_constant(design - design.mean(axis=0))
    for gene in range(counts.shape[1]):
        fit = sm.GLM(counts[:, gene], centred, family=sm.families.Poisson(), offset=np.log(library)).fit(scale="X2")
        slopes = np.linalg.solve(evidence.information[gene], evidence.linear[gene])
        np.testing.assert_allclose(slopes, fit.params[1:], rtol=2e-2, atol=2e-3)
        np.testing.assert_allclose(
            np.sqrt(np.linalg.inv(evidence.information[gene]).diagonal()), fit.bse[1:], rtol=2e-2
        )
        assert evidence.dispersion[gene] == pytest.approx(fit.scale, rel=1e-2)
    assert evidence.n_cells == 800
    np.testing.assert_allclose(evidence.centre, design.mean(axis=0))


def test_blocks_of_cells_change_nothing(cells, monkeypatch):
    counts, library, design = cells
    whole = hierarchical.regress(sparse.csr_array(counts), library, design)
    monkeypatch.setattr(hierarchical, "_VALUES_PER_BLOCK", 100)
    parts = hierarchical.regress(sparse.csr_array(counts), library, design)
    np.testing.assert_allclose(parts.linear, whole.linear, rtol=1e-9)
    np.testing.assert_allclose(parts.information, whole.information, rtol=1e-9)


def drawn_types(rng, n_types, n_genes, common, between, noise):
    """Slopes of types around a common slope, and evidence with that noise about each."""
    p = len(common)
    m = rng.normal(0, np.sqrt(common), (n_genes, p))
    types = m + rng.normal(0, np.sqrt(between), (n_types, n_genes, p))
    seen = types + rng.normal(0, np.sqrt(noise), types.shape)
    information = np.tile(np.eye(p) / noise, (n_genes, 1, 1))
    evidence = [
        Evidence(own / noise, information, np.zeros(n_genes), np.zeros(p), np.ones(n_genes), 100) for own in seen
    ]
    return types, evidence


def test_both_variances_are_learnt(monkeypatch):
    monkeypatch.setattr(hierarchical, "_STEPS_OF_SPREAD", 200)
    common, between = np.array([0.3, 0.02]), np.array([0.05, 0.2])
    _, evidence = drawn_types(np.random.default_rng(1), 8, 1500, common, between, 0.03)
    spread = hierarchical.learn_spread(evidence)
    np.testing.assert_allclose(spread.between, between, rtol=0.15)
    np.testing.assert_allclose(spread.common, common, rtol=0.4)


def test_the_prior_of_a_further_type_is_the_conditional_normal():
    rng = np.random.default_rng(2)
    _, evidence = drawn_types(rng, 3, 1, np.ones(2), np.ones(2), 0.5)
    evidence[1].information[0] += np.array([[3.0, 1.0], [1.0, 2.0]])
    spread = Spread(np.array([0.7, 0.4]), np.array([0.2, 0.9]))
    # Joint normal of the three estimates and the slopes of a fourth type.
    s, t = np.diag(spread.common), np.diag(spread.between)
    noise = [np.linalg.inv(e.information[0]) for e in evidence]
    joint = np.kron(np.ones((4, 4)), s) + np.kron(np.eye(4), t)
    for i, own in enumerate(noise):
        joint[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] += own
    seen = np.concatenate([np.linalg.solve(e.information[0], e.linear[0]) for e in evidence])
    gain = joint[6:, :6] @ np.linalg.inv(joint[:6, :6])
    prior = hierarchical.predictive_prior(evidence, spread)
    np.testing.assert_allclose(prior.mean[0], gain @ seen)
    np.testing.assert_allclose(prior.covariance[0], joint[6:, 6:] - gain @ joint[:6, 6:])


def test_own_cells_update_the_prior():
    prior = Prior(np.array([[1.0, 0.0]]), np.diag([0.5, 2.0])[None])
    information = np.array([[[4.0, 1.0], [1.0, 3.0]]])
    own = Evidence(np.array([[2.0, 5.0]]), information, *np.zeros((3, 1)), 10)
    posterior = prior.update(own)
    precision = np.diag([2.0, 0.5]) + information[0]
    np.testing.assert_allclose(posterior.covariance[0], np.linalg.inv(precision))
    np.testing.assert_allclose(posterior.mean[0], np.linalg.solve(precision, [4.0, 5.0]))
    assert prior.update(None) is prior


def test_intervals_of_an_unseen_type_hold():
    """90 % intervals for the change of a type of which nothing is known, 40 tissues of 60 genes."""
    rng, inside = np.random.default_rng(3), []
    move = np.array([[0.8, -0.5]])
    for _ in range(40):
        types, evidence = drawn_types(rng, 9, 60, np.array([0.2, 0.05]), np.array([0.05, 0.1]), 0.04)
        prior = hierarchical.predictive_prior(evidence[:-1], hierarchical.learn_spread(evidence[:-1]))
        mean = hierarchical.change(prior, move)
        variance = hierarchical.variance_of_change(prior, move[0])
        truth = move @ types[-1].T
        inside.append(np.abs(truth - mean) <= norm.ppf(0.95) * np.sqrt(variance))
    assert 0.86 < np.mean(inside) < 0.94


@pytest.fixture(scope="module")
def few_cells():
    """Counts of 15 cells, of which two genes in three show less than 2; the shares behind them, and two other
    groups.
    """
    rng, n_genes = np.random.default_rng(10), 600
    profiles = rng.dirichlet(np.full(n_genes, 0.5), 2)
    truth = (0.7 * profiles[0] + 0.3 * profiles[1]) * rng.gamma(4, 0.25, n_genes)
    truth /= truth.sum()
    counts = rng.poisson(rng.uniform(50, 150, (15, 1)) * truth)
    return sparse.csr_array(counts), truth, rng.poisson(profiles * 1e5)


def test_shares_of_few_cells_are_posterior_means(few_cells):
    counts, truth, others = few_cells
    raw = np.asarray(counts.sum(axis=0)) / counts.sum()
    likely = hierarchical.likely_share(counts, others, np.zeros(len(truth)))

    def slope(estimate):
        """Of the truth on the estimate, genes weighing by what is expected: 1 for a posterior mean."""
        weights = 1 / (0.7 * others[0] + 0.3 * others[1] + 1)
        return (weights * truth * estimate).sum() / (weights * estimate**2).sum()

    assert slope(raw) < 0.85
    assert slope(likely) == pytest.approx(1, abs=0.06)
    error, of_raw, of_prior = (
        np.sqrt(np.mean((np.log1p(1e4 * x) - np.log1p(1e4 * truth)) ** 2))
        for x in (likely, raw, others[0] / others[0].sum())
    )
    assert error < 0.5 * min(of_raw, of_prior)
    # Counts that come in bursts say less.
    bursts = hierarchical.likely_share(counts, others, np.full(len(truth), 5.0))
    assert np.abs(bursts - raw).sum() > 1.3 * np.abs(likely - raw).sum()


def test_many_counts_speak_for_themselves_and_none_for_nothing(few_cells):
    counts, truth, others = few_cells
    dispersion = np.zeros(len(truth))
    many = sparse.csr_array(counts.toarray() * 10_000)
    raw = (many / many.sum(axis=1)[:, None]).mean(axis=0)
    likely = hierarchical.likely_share(many, others, dispersion)
    np.testing.assert_allclose(likely, raw, rtol=0.02, atol=1e-7)
    np.testing.assert_allclose(
        hierarchical.likely_share(counts, others[:0], dispersion),
        (counts / counts.sum(axis=1)[:, None]).mean(axis=0),
    )
    assert not hierarchical.likely_share(0 * counts, others, dispersion).any()


def test_cells_are_told_the_share_of_their_population_and_keep_their_scatter(few_cells):
    counts, truth, _ = few_cells
    counts = counts.toarray().astype(float)
    told = hierarchical.told(counts, truth)
    np.testing.assert_allclose(told.sum(axis=1), counts.sum(axis=1))
    share = (told / told.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.abs(share - truth).sum() < 0.1
    shown = counts.any(axis=0)
    assert (told[:, shown] > 0).tolist() == (counts[:, shown] > 0).tolist()
    assert (told[:, ~shown] > 0).all()
    assert 0.2 < np.mean(~shown) < 0.8
    np.testing.assert_allclose(
        hierarchical.told(counts, (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)),
        counts,
    )


def test_axes_whiten_what_cells_receive():
    rng = np.random.default_rng(4)
    received = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 12)) + 2
    axes = hierarchical.Axes.of(received.astype(np.float32), 8)
    assert axes.loadings.shape == (12, 3)
    graph = sparse.csr_array(2.0 * sparse.eye_array(500))
    h = axes.project(graph, sparse.csr_array(received))
    np.testing.assert_allclose(np.cov(h.T), np.eye(3), atol=1e-4)
    np.testing.assert_allclose(h.mean(axis=0), 0, atol=1e-4)
    alone = axes.project(sparse.csr_array((1, 500)), sparse.csr_array(received))
    np.testing.assert_array_equal(alone, np.zeros((1, 3)))


def known_types(rng, n_types, level, wide):
    """Types whose errors have `wide` (g,) times the variance that the model says, and counting noise."""
    g, types = len(level), []
    for _ in range(n_types):
        variance, noise = rng.gamma(4, 0.01, g), rng.gamma(4, 0.002, g)
        answer = Answer(np.ones(g), rng.normal(0, 0.5, g), variance)
        error = rng.normal(0, np.sqrt(variance * wide + noise))
        types.append(Known(answer, answer.change + error, noise, np.ones(g, bool)))
    return types


def test_calibrated_intervals_hold_for_a_further_type():
    """Errors three times, and a fifth, as wide as the model says, at two levels of expression; 60 slides."""
    rng, inside = np.random.default_rng(5), []
    level = np.repeat([0, 1], 60)
    for _ in range(60):
        wide = np.where(level == 0, 9.0, 0.04) * rng.gamma(2, 0.5, 120)
        *types, last = known_types(rng, 7, level, wide)
        found = hierarchical.calibrate(types, level)
        half = np.sqrt(found.half_width(last.answer) ** 2 + norm.ppf(0.95) ** 2 * last.noise)
        inside.append(np.abs(last.observed - last.answer.change) <= half)
    inside = np.array(inside)
    for own in (0, 1):
        assert 0.88 < inside[:, level == own].mean() < 0.935


def test_a_gene_that_no_type_can_be_told_about_gets_wide_intervals():
    rng = np.random.default_rng(6)
    level, wide = np.zeros(200, int), np.ones(200)
    wide[:20] = 100
    found = hierarchical.calibrate(known_types(rng, 12, level, wide), level)
    assert found.inflation[:20].mean() > 10 * found.inflation[20:].mean()
    np.testing.assert_allclose(found.effect, found.effect[0])


def test_it_abstains_where_intervals_say_no_more_than_that_types_change():
    rng = np.random.default_rng(7)
    level = np.zeros(300, int)
    types = known_types(rng, 6, level, np.ones(300))
    found = hierarchical.calibrate(types, level)
    assert found.effect[0] == pytest.approx(np.sqrt(0.25 + 0.04), rel=0.1)
    told = Answer(np.ones(300), np.zeros(300), np.linspace(0, 1, 300))
    abstains = found.abstains(found.half_width(told))
    assert not abstains[0]
    assert abstains[-1]
    np.testing.assert_array_equal(abstains, (told.variance + found.floor) * found.inflation >= found.effect**2)


def test_genes_that_a_type_does_not_show_do_not_count():
    rng = np.random.default_rng(8)
    level = np.zeros(100, int)
    types = known_types(rng, 6, level, np.ones(100))
    without = hierarchical.calibrate(types, level)
    for own in types:
        own.shown[50:] = False
        # Of what they do not show, all are told something.
        own.answer.base[50:], own.observed[50:] = 3.0, -3.0
    halved = hierarchical.calibrate(types, level)
    assert halved.inflation[:50].mean() == pytest.approx(without.inflation.mean(), rel=0.25)
    assert np.isfinite(halved.inflation).all()


def test_two_types_calibrate_nothing():
    rng = np.random.default_rng(9)
    level = np.zeros(10, int)
    assert hierarchical.calibrate(known_types(rng, 2, level, np.ones(10)), level) is None
    assert hierarchical.calibrate(known_types(rng, 3, level, np.ones(10)), level) is not None


def test_levels_are_thirds_by_expression():
    np.testing.assert_array_equal(hierarchical.levels(np.array([5, 0, 3, 9, 0, 1.0])), [2, 0, 1, 2, 0, 1])


def test_how_much_of_a_change_lies_off_the_axes():
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 3)))[0]
    # Axes have lengths of their own, which say nothing of directions.
    axes = hierarchical.Axes(np.ones(6), directions[:, :2] * [3.0, 0.1])
    assert axes.off(directions[:, 0]) == pytest.approx(0, abs=1e-12)
    assert axes.off(directions[:, 2]) == pytest.approx(1)
    assert axes.off(2 * directions[:, 1] + directions[:, 2]) == pytest.approx(0.2)
    assert axes.off(np.zeros(6)) == 0


def test_slopes_that_were_not_seen_have_the_variance_of_those_that_were():
    """Each gene answers all that is received, with slopes of one size; two axes are seen, and moves lead off them."""
    rng, n_genes, n_received = np.random.default_rng(11), 4000, 30
    directions = np.linalg.qr(rng.normal(size=(n_received, n_received)))[0]
    sds = np.array([2.0, 0.5])
    axes = hierarchical.Axes(np.zeros(n_received), directions[:, :2] / sds)
    strong = rng.choice([0.1, 0.4], (n_genes, 1))
    slopes = strong * rng.normal(size=(n_genes, n_received))
    seen = Prior(np.c_[slopes @ directions[:, :2] * sds, np.ones(n_genes)], np.zeros((n_genes, 3, 3)))
    received = directions @ np.r_[1.0, -2.0, rng.normal(size=n_received - 2)]
    variance = hierarchical.variance_beyond(seen, axes, received)
    error = (slopes @ received - seen.mean[:, :2] @ (received @ axes.loadings)) ** 2
    assert error.mean() == pytest.approx(variance.mean(), rel=0.1)
    # Genes that answer what was seen are the likelier to answer what was not.
    large = strong[:, 0] > 0.2
    assert variance[large].mean() > 2 * variance[~large].mean()
    np.testing.assert_allclose(hierarchical.variance_beyond(seen, axes, directions[:, 0]), 0, atol=1e-12)


def test_how_far_types_bend_is_learnt_and_grows_with_the_square():
    """The last column is the square; its coefficients have variance 0.03 + 0.02, and nobody knows them elsewhere."""
    _, evidence = drawn_types(np.random.default_rng(12), 8, 1500, np.array([0.2, 0.03]), np.array([0.1, 0.02]), 0.03)
    bend = hierarchical.Bend.of(np.array([0.6, 0.8]), evidence)
    assert bend.variance == pytest.approx(0.05, rel=0.2)
    old = np.array([[0.0, 0.0], [1.0, 0.5]])
    centre = np.array([0.5, 0.25])
    steps = [bend.variance_of_change(old, old + d * bend.direction, centre) for d in (1.0, 3.0)]
    # (d - 0.5)^2 and (d + 0.5)^2, less 0.25, are d^2 on average.
    np.testing.assert_allclose(steps, bend.variance * np.array([1.0, 3.0]) ** 4)
    assert bend.variance_of_change(old, old + [0.8, -0.6], centre) == pytest.approx(0, abs=1e-12)


def test_errors_that_grow_with_what_is_told_make_its_intervals_wide():
    """The model is wrong by half of what it says, and nothing else; the next type is told twice as much."""
    rng, inside = np.random.default_rng(13), {True: [], False: []}
    level = np.zeros(150, int)
    for _ in range(20):
        types = known_types(rng, 7, level, np.ones(150))
        for own in types:
            own.observed[:] += 0.5 * own.answer.change * rng.normal(size=150)
        *types, last = types
        change = 2 * last.answer.change
        error = 0.5 * change * rng.normal(size=150) + rng.normal(0, np.sqrt(last.answer.variance))
        told = Answer(last.answer.base, change, last.answer.variance)
        for grows, found in inside.items():
            found.append(np.abs(error) <= hierarchical.calibrate(types, level, grows).half_width(told))
    assert np.mean(inside[False]) < 0.85
    assert 0.86 < np.mean(inside[True]) < 0.95


def test_what_near_cells_miss_alike_is_told_from_what_each_scatters_by():
    """Pairs share an effect on the log rate of known variance; cells have noise of their own and of counting beside
    it.
    """
    rng, n, g = np.random.default_rng(0), 600, 40
    expected = rng.uniform(1, 20, g) * np.ones((n, 1))
    pair = np.repeat(np.arange(n // 2), 2)
    one, two = np.arange(0, n, 2), np.arange(1, n, 2)
    near = sparse.csr_array((np.ones(n), (np.r_[one, two], np.r_[two, one])), shape=(n, n))
    for sd in (0.0, 0.4):
        shared = np.exp(sd * rng.normal(size=(n // 2, g)) - sd**2 / 2)[pair]
        own = np.exp(0.5 * rng.normal(size=(n, g)) - 0.125)
        counts = rng.poisson(expected * shared * own)
        sums = hierarchical.products_of_near_cells(counts, expected, near)[None]
        assert hierarchical.error_per_cell(sums) == pytest.approx(np.expm1(sd**2), abs=0.015)
    # A second place adds its own; without near cells nothing is known.
    assert hierarchical.error_per_cell(np.concatenate([sums, sums])) == pytest.approx(
        2 * hierarchical.error_per_cell(sums)
    )
    assert np.isnan(hierarchical.error_per_cell(0 * sums))


def test_a_cell_without_counts_has_no_change_of_its_own():
    prior = Prior(np.ones((2, 1)) * [[0.5], [-0.5]], np.ones((2, 1, 1)))
    told = hierarchical.change_per_cell(np.array([[3.0, 1.0], [0.0, 0.0]]), prior, np.ones((2, 1)))
    gain = np.log((3 * np.exp(0.5) + np.exp(-0.5)) / 4)
    np.testing.assert_allclose(told, [[0.5 - gain, -0.5 - gain], [np.nan, np.nan]])


def test_one_cell_of_many_counts_does_not_make_a_population_sure(few_cells):
    """A mean over cells scatters as the small ones do, whatever the large one holds."""
    _, truth, others = few_cells
    rng = np.random.default_rng(1)
    library = np.append(np.full(40, 20.0), 1e5)
    counts = sparse.csr_array(rng.poisson(library[:, None] * truth))
    raw = (counts / counts.sum(axis=1)[:, None]).mean(axis=0)
    likely = hierarchical.likely_share(counts, others, np.zeros(len(truth)))
    error, of_raw = (np.sqrt(np.mean((np.log1p(1e4 * x) - np.log1p(1e4 * truth)) ** 2)) for x in (likely, raw))
    assert error < 0.6 * of_raw
