"""Every metric against a brute-force computation of its own, under both protocols and every switch."""

import numpy as np
import pytest
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

from scored import score
from tissue_counterfactuals import metrics, protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.metrics import (
    METRICS,
    Comparison,
    Interval,
    Noise,
    Reference,
    populations,
)
from tissue_counterfactuals.streams import stream, stream_seed

N_GENES = 70
TWIN_METRICS = {name for name, metric in METRICS.items() if "twin" in metric.needs}
INTERVAL_METRICS = {name for name, metric in METRICS.items() if "interval" in metric.needs}
TRUTH_METRICS = {"rmse_lfc_truth", "rmse_lfc_truth_in_place"}
# What the scoring step knows of a fold, and no single comparison.
GIVEN_METRICS = {name for name, metric in METRICS.items() if metric.needs & metrics.GIVEN}
PUBLISHED = {
    "pearson", "spearman", "precision", "signed_precision", "signed_precision_intersection", "sign_agreement",
    "rmse_lfc", "rmse_counts", "e_distance", "e_distance_std", "e_distance_global", "mixing_index",
}  # fmt: skip


def tissue(n_control=60, n_target=75, n_train=320, seed=0):
    """Control, target, predicted (fractional), train and twin counts; a third of the genes respond, some are absent."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 1.2, N_GENES)
    base[:4] = 0.02
    effect = np.where(np.arange(N_GENES) % 3 == 0, rng.normal(0, 1, N_GENES), 0)

    def draw(n, share):
        rate = base * np.exp(share * effect) * rng.gamma(4, 0.25, (n, 1))
        return rng.negative_binomial(5, 5 / (5 + rate)).astype(np.float32)

    control, target = draw(n_control, 0), draw(n_target, 1)
    train = np.concatenate([draw(n_train // 2, 0), draw(n_train // 2, 0.5)])
    library = control.sum(axis=1, keepdims=True)
    smooth = rng.gamma(20, 0.05, (n_control, N_GENES)) * base

    def predict(share):
        rate = smooth * np.exp(share * effect)
        return (rate / rate.sum(axis=1, keepdims=True) * library).astype(np.float32)

    return control, target, predict(0.8), train, predict(0.05)


def cp10k(x):
    x = np.asarray(x, dtype=np.float64)
    return np.array([row / (row.sum() + 1e-8) * 1e4 for row in x])


def fold_change(a, b, how):
    a, b = cp10k(a).mean(axis=0), cp10k(b).mean(axis=0)
    if how == "log2_epsilon":
        return np.log2(a + 1e-6) - np.log2(b + 1e-6)
    return np.log(a + 1) - np.log(b + 1)


def largest(change, n):
    return sorted(range(len(change)), key=lambda g: (-abs(change[g]), g))[:n]


def local_energy(x, y, k=10):
    k = min(k, len(x) - 1, len(y) - 1)

    def nearest(a, b, same):
        means = []
        for i, row in enumerate(a):
            away = [np.linalg.norm(row - other) for j, other in enumerate(b) if not (same and i == j)]
            means.append(np.mean(sorted(away)[:k]))
        return np.mean(means)

    return nearest(x, y, False) + nearest(y, x, False) - nearest(x, x, True) - nearest(y, y, True)


def global_energy(x, y):
    def mean(a, b):
        return np.mean([[np.linalg.norm(row - other) for other in b] for row in a])

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def brute_force(control, target, predicted, train, n_deg, lfc, pca_fit, rmse_counts):
    """All published metrics for groups of at most 200 cells, where nothing is subsampled."""
    truth, guess = fold_change(target, control, lfc), fold_change(predicted, control, lfc)
    top, guessed = largest(truth, n_deg), largest(guess, n_deg)
    both = set(top) & set(guessed)
    agree = [g for g in both if np.sign(truth[g]) == np.sign(guess[g])]
    out = {
        "pearson": stats.pearsonr(truth[top], guess[top])[0],
        "spearman": stats.spearmanr(truth[top], guess[top])[0],
        "precision": len(both) / n_deg,
        "signed_precision": len(agree) / n_deg,
        "signed_precision_intersection": len(agree) / len(both) if both else 0,
        "sign_agreement": np.mean(np.sign(truth[top]) == np.sign(guess[top])),
        "rmse_lfc": np.sqrt(((truth[top] - guess[top]) ** 2).mean()),
    }
    reduce = np.sum if rmse_counts == "sum" else np.mean
    profiles = [reduce(np.log1p(cp10k(x[:, top])), axis=0) for x in (predicted, target)]
    out["rmse_counts"] = np.sqrt(((profiles[0] - profiles[1]) ** 2).mean())
    fitted = cp10k(train) if pca_fit == "counts" else np.log1p(cp10k(train))
    center = fitted.mean(axis=0)
    axes = np.linalg.svd(fitted - center, full_matrices=False)[2][:50]
    x, y = np.log1p(cp10k(predicted)), np.log1p(cp10k(target))
    out["e_distance"] = local_energy((x - center) @ axes.T, (y - center) @ axes.T)
    out["e_distance_std"] = 0
    out["e_distance_global"] = global_energy(x, y)
    pooled = np.concatenate([cp10k(predicted), cp10k(target)])
    pooled = PCA(50, svd_solver="full").fit_transform(pooled)
    label = KMeans(2, random_state=stream_seed(0, "mixing_index")).fit_predict(pooled)
    own, other = label[: len(predicted)], label[len(predicted) :]
    scale = len(predicted) / len(target)
    out["mixing_index"] = sum(min((own == c).sum(), (other == c).sum() * scale) / len(predicted) for c in (0, 1))
    return out


def assert_scores(scores, expected):
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(scores[name], float)
        assert scores[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.csc_matrix])
def test_all_metrics_equal_brute_force(protocol, form):
    control, target, predicted, train, _ = tissue()
    scores = score(form(control), form(target), predicted, train=form(train), n_deg=20, protocol=protocol)
    switches = protocols.of_step(protocols.resolve(protocol), "metrics")
    assert_scores(scores, brute_force(control, target, predicted, train, 20, **switches))


@pytest.mark.parametrize("name", ["lfc", "pca_fit", "rmse_counts"])
def test_one_switch_alone(name):
    control, target, predicted, train, _ = tissue(seed=5)
    switches = protocols.of_step(protocols.resolve("corrected"), "metrics")
    before = score(control, target, predicted, train=train, n_deg=15)
    switches[name] = protocols.SWITCHES[name].as_run
    after = score(control, target, predicted, train=train, n_deg=15, **{name: switches[name]})
    assert_scores(after, brute_force(control, target, predicted, train, 15, **switches))
    changed = {metric for metric in after if after[metric] != pytest.approx(before[metric])}
    assert changed
    if name == "pca_fit":
        assert changed == {"e_distance"}
    if name == "rmse_counts":
        assert changed == {"rmse_counts"}


def test_protocols_are_complete_sets_of_switches():
    as_run = {"lfc": "log2_epsilon", "pca_fit": "counts", "rmse_counts": "sum"}
    corrected = {"lfc": "natural_pseudocount_1", "pca_fit": "log", "rmse_counts": "mean"}
    assert protocols.of_step(protocols.resolve("as_run"), "metrics") == as_run
    assert protocols.of_step(protocols.resolve("corrected"), "metrics") == corrected
    groups = tissue()[:2]
    assert as_run.items() <= Reference(*groups, protocol="as_run").switches.items()
    assert (as_run | {"lfc": "natural_pseudocount_1"}).items() <= Reference(
        *groups, protocol="as_run", lfc="natural_pseudocount_1"
    ).switches.items()


def test_subsampled_energy_distance():
    """Above 200 cells: mean and spread over ten seeded subsamples."""
    control, target, predicted, train, _ = tissue(n_control=230, n_target=260, n_train=400)
    scores = score(control, target, predicted, train=train, seed=3)
    fitted = np.log1p(cp10k(train))
    axes = np.linalg.svd(fitted - fitted.mean(axis=0), full_matrices=False)[2][:50]
    local, everywhere = [], []
    for repeat in range(10):
        own = populations.subsample(predicted, stream(3, "predicted_subsample", repeat))
        other = populations.subsample(target, stream(3, "target_subsample", repeat))
        assert len(np.unique(own)) == len(np.unique(other)) == 200
        x, y = np.log1p(cp10k(predicted[own])), np.log1p(cp10k(target[other]))
        local.append(local_energy(x @ axes.T, y @ axes.T) if repeat < 3 else np.nan)
        everywhere.append(global_energy(x, y) if repeat < 3 else np.nan)
    reference = Reference(control, target, train, seed=3)
    ours = Comparison(reference, predicted).energy_distances
    np.testing.assert_allclose(ours[0][:3], local[:3], rtol=1e-6)
    np.testing.assert_allclose(ours[1][:3], everywhere[:3], rtol=1e-6)
    assert scores["e_distance"] == ours[0].mean()
    assert scores["e_distance_std"] == np.std(ours[0], ddof=1) > 0
    assert scores["e_distance_global"] == ours[1].mean()


def test_same_seed_same_bytes_other_seed_other_draws():
    groups = tissue(n_control=230, n_target=260)[:4]
    first, again, other = (score(*groups, seed=seed) for seed in (0, 0, 1))
    assert first == again
    changed = {name for name in first if first[name] != other[name]}
    assert {"e_distance", "e_distance_std", "e_distance_global"} <= changed
    assert changed <= {"e_distance", "e_distance_std", "e_distance_global", "mixing_index"}


def test_unbiased_forms_equal_brute_force():
    control, target, predicted, _, twin = tissue()
    for lfc in ("natural_pseudocount_1", "log2_epsilon"):
        scores = Reference(control, target, n_deg=20, seed=4, lfc=lfc).unbiased_scores(predicted, twin)
        halves = np.array_split(stream(4, "control_halves").permutation(len(control)), 2)
        split = []
        for a, b in (halves, halves[::-1]):
            truth = fold_change(target, control[a], lfc)
            guess = fold_change(predicted[b], control[b], lfc)
            top = largest(truth, 20)
            split.append(stats.pearsonr(truth[top], guess[top])[0])
        truth = fold_change(target, control, lfc)
        guess, own = fold_change(predicted, control, lfc), fold_change(predicted, twin, lfc)
        present = [g for g in range(N_GENES) if min((control[:, g] > 0).mean(), (target[:, g] > 0).mean()) >= 0.05]
        assert 20 < len(present) < N_GENES
        expressed = [present[i] for i in largest(truth[present], 20)]
        top, chosen = largest(truth, 20), largest(own, 20)
        right = [g for g in set(top) & set(chosen) if np.sign(truth[g]) == np.sign(own[g])]
        expected = {
            "pearson_split": np.mean(split),
            "pearson_expressed": stats.pearsonr(truth[expressed], guess[expressed])[0],
            "rmse_lfc_expressed": np.sqrt(((truth - guess)[expressed] ** 2).mean()),
            "pearson_twin": stats.pearsonr(truth[top], own[top])[0],
            "rmse_lfc_twin": np.sqrt(((truth - own)[top] ** 2).mean()),
            "signed_precision_twin": len(right) / 20,
        }
        here, there = np.log1p(cp10k(control)), np.log1p(cp10k(target))
        size = np.abs(stats.ttest_ind(there, here, equal_var=False).statistic)
        weights = ((size - size.min()) / (size.max() - size.min())) ** 2
        weights /= weights.sum()
        shown = [g for g in range(N_GENES) if control[:, g].any()]
        shown = [shown[i] for i in largest(truth[shown], 20)]
        expected |= {
            "pearson_in_control": stats.pearsonr(truth[shown], guess[shown])[0],
            "wmse": np.average((truth - guess) ** 2, weights=weights),
            "weighted_r2": r2_score(truth, guess, sample_weight=weights),
        }
        assert_scores(scores, expected)
    without_twin = Reference(control, target, n_deg=20, seed=4).unbiased_scores(predicted)
    assert without_twin.keys() == expected.keys() - TWIN_METRICS


def test_genes_that_no_control_cell_shows_are_left_out():
    control, target, predicted, *_ = tissue()
    control[:, :6] = 0
    target[:, :6] += 5
    found = Reference(control, target, n_deg=20, lfc="log2_epsilon").unbiased_scores(predicted)
    truth, guess = (fold_change(x, control, "log2_epsilon") for x in (target, predicted))
    top = [g + 6 for g in largest(truth[6:], 20)]
    assert found["pearson_in_control"] == pytest.approx(stats.pearsonr(truth[top], guess[top])[0])
    assert found["pearson_in_control"] != pytest.approx(
        score(control, target, predicted, n_deg=20, lfc="log2_epsilon")["pearson"]
    )


def test_what_all_types_do_is_no_merit_beyond_the_mean_over_types():
    control, target, predicted, *_ = tissue()
    reference = Reference(control, target, n_deg=20)
    truth, guess = (fold_change(x, control, "natural_pseudocount_1") for x in (target, predicted))
    shared = 0.7 * truth + np.random.default_rng(0).normal(0, 0.3, N_GENES)
    found = reference.unbiased_scores(predicted, shared=shared)["pearson_beyond_types"]
    top = largest(truth - shared, 20)
    assert found == pytest.approx(stats.pearsonr((truth - shared)[top], (guess - shared)[top])[0])
    # The mean over types itself knows nothing beyond it.
    same = reference.unbiased_scores(predicted, shared=guess)["pearson_beyond_types"]
    assert np.isnan(same)


def test_counting_noise_takes_expected_counts_to_where_cells_are():
    """The exact expectation of the target's own distribution: far from cells as published, among them with noise."""
    rng = np.random.default_rng(2)
    share, dispersion = rng.dirichlet(np.full(N_GENES, 2)), rng.uniform(0.1, 0.6, N_GENES)

    def draw(expected):
        return populations.counting_noise(expected, dispersion, rng)

    expected = 300 * share * rng.lognormal(0, 0.2, (3, 180, 1))
    control, target = draw(expected[0] * np.linspace(0.7, 1.3, N_GENES)), draw(expected[1])
    reference = Reference(control, target, n_deg=20)
    own = reference.score(expected[2])["e_distance"]

    def noisy(dispersion):
        return reference.unbiased_scores(expected[2], noise=Noise(dispersion))["e_distance_noisy"]

    untouched = reference.score(control)["e_distance"]
    assert own > untouched > noisy(dispersion) + 0.2
    assert noisy(np.zeros(N_GENES)) > noisy(dispersion) + 0.2
    # What scatters as cells do already gets no more.
    assert noisy(None) == own
    assert "e_distance_noisy" not in reference.unbiased_scores(expected[2])


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csr_matrix])
def test_the_log_mean_of_cells_is_of_shares_of_their_counts(kind, monkeypatch):
    monkeypatch.setattr(populations, "_VALUES_PER_BLOCK", 4)
    counts = np.array([[1.0, 3], [2, 2], [0, 0], [30, 10]])
    np.testing.assert_allclose(populations.log_mean(kind(counts)), np.log1p([3750, 3750]))
    weights = np.array([[1.0, 0, 0, 0], [0, 0.5, 0, 0.5]])
    found = populations.log_mean(kind(counts), weights)
    np.testing.assert_allclose(found, np.log1p([[2500, 7500], [6250, 3750]]))


def test_overdispersion_is_that_of_each_group_about_its_own_mean():
    rng = np.random.default_rng(3)
    true = np.linspace(0, 1, N_GENES)
    groups = []
    for _ in range(2):
        share = rng.dirichlet(np.full(N_GENES, 5))
        expected = 2000 * share * rng.lognormal(0, 0.3, (3000, 1))
        groups.append(sparse.csr_array(populations.counting_noise(expected, true, rng)))
    found = populations.overdispersion(groups)
    assert np.abs(found - true).max() < 0.12
    # As one group, what tells the two apart counts as scatter.
    together = populations.overdispersion([sparse.vstack(groups)])
    assert np.mean(together - true) > 0.03


def test_overdispersion_is_the_same_from_counts_in_single_precision():
    rng = np.random.default_rng(0)
    counts = sparse.csr_array(rng.negative_binomial(50, 50 / 851, (40_000, 3)))
    exact = populations.overdispersion([counts.astype(np.float64)])
    assert (exact > 0.01).all()
    assert populations.overdispersion([counts.astype(np.float32)]) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
def test_intervals_are_scored_by_brute_force(protocol):
    control, target, predicted, *_ = tissue(n_control=400, n_target=500)
    control[:, :5] = target[:, :5] = predicted[:, :5] = 0
    rng = np.random.default_rng(1)
    point = cp10k(predicted).mean(axis=0)
    lower, upper = (point * (1 + x * rng.uniform(0, 0.1, N_GENES)) for x in (-1, 1))
    # Genes that nobody shows, of which a method may say that it is sure, or that it knows nothing.
    upper[:5] = 100
    abstained = rng.random(N_GENES) < 0.4
    inside = {}
    for g in range(5, N_GENES):
        columns = cp10k(control)[:, g], cp10k(target)[:, g]
        noise = sum(x.var(ddof=1) / len(x) / (1 + x.mean()) ** 2 for x in columns)
        observed = np.log(1 + columns[1].mean())
        error = observed - np.log(1 + point[g])
        limit = lower[g] if error < 0 else upper[g]
        length = np.log(1 + limit) - np.log(1 + point[g])
        inside[g] = abs(error) <= np.sqrt(length**2 + 1.6448536**2 * noise)
    expressed = sorted(inside, key=lambda g: sum(cp10k(x)[:, g].mean() for x in (control, target)))
    low, middle, high = (np.mean([inside[g] for g in part]) for part in np.array_split(expressed, 3))
    lfc = "natural_pseudocount_1" if protocol == "corrected" else "log2_epsilon"
    truth, guess = (fold_change(x, control, lfc) for x in (target, predicted))
    answered = [g for g in largest(truth, 20) if not abstained[g]]
    reference = Reference(control, target, n_deg=20, protocol=protocol)
    scores = reference.unbiased_scores(predicted, interval=Interval(lower, upper, abstained))
    expected = {
        "coverage": np.mean(list(inside.values())),
        "coverage_low": low,
        "coverage_middle": middle,
        "coverage_high": high,
        "interval_width": np.median(np.log1p(upper[5:]) - np.log1p(lower[5:])),
        "abstained": abstained.mean(),
        "rmse_lfc_answered": np.sqrt(((truth - guess)[answered] ** 2).mean()),
    }
    assert 0.3 < expected["coverage"] < 0.9
    assert expected.keys() == INTERVAL_METRICS
    assert_scores({name: scores[name] for name in expected}, expected)


@pytest.mark.parametrize("lfc", ["natural_pseudocount_1", "log2_epsilon"])
def test_the_error_to_the_truth_is_taken_on_the_genes_that_change(lfc):
    control, target, predicted, _, twin = tissue()
    truths = {"truth": cp10k(twin).mean(axis=0), "truth_in_place": cp10k(target).mean(axis=0)}
    reference = Reference(control, target, n_deg=20, lfc=lfc)
    scores = reference.unbiased_scores(predicted, truths=truths)
    top = largest(fold_change(target, control, lfc), 20)
    guess = fold_change(predicted, control, lfc)
    for name, cells in (("rmse_lfc_truth", twin), ("rmse_lfc_truth_in_place", target)):
        error = (guess - fold_change(cells, control, lfc))[top]
        assert scores[name] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    # Where the observed cells are the truth, it is the published error.
    assert scores["rmse_lfc_truth_in_place"] == pytest.approx(reference.score(predicted)["rmse_lfc"])
    alone = reference.unbiased_scores(predicted, truths={"truth": truths["truth"]})
    assert alone.keys() & TRUTH_METRICS == {"rmse_lfc_truth"}


def test_split_control_is_free_of_the_shared_control():
    """No true change, a prediction that is the type's mean: published Pearson praises it, the split form does not."""
    rng = np.random.default_rng(0)
    published, split = [], []
    for _ in range(30):
        control, target = (rng.poisson(3.0, (30, N_GENES)) for _ in range(2))
        predicted = np.full((30, N_GENES), 3.0)
        published.append(score(control, target, predicted)["pearson"])
        split.append(Reference(control, target).unbiased_scores(predicted)["pearson_split"])
    assert np.mean(published) > 0.4
    assert abs(np.mean(split)) < 0.1


def test_split_control_of_a_prediction_that_changes_nothing():
    control, target, *_ = tissue()
    assert np.isnan(Reference(control, target).unbiased_scores(control)["pearson_split"])


def test_registry_names_every_score():
    control, target, predicted, train, twin = tissue()
    published = score(control, target, predicted, train=train)
    unbiased = Reference(control, target).unbiased_scores(predicted, twin)
    assert published.keys() == PUBLISHED
    never = INTERVAL_METRICS | TRUTH_METRICS | GIVEN_METRICS
    assert published.keys() | unbiased.keys() == METRICS.keys() - never
    assert {"pearson_twin", "rmse_lfc_twin", "signed_precision_twin"} == TWIN_METRICS
    for metric in METRICS.values():
        best = {"higher": 1, "lower": 0, "none": np.nan}[metric.direction]
        np.testing.assert_equal(metric.best, best)
        assert metric.label
        assert metric.description


@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
def test_a_perfect_prediction_is_best(protocol):
    control, target, _, train, _ = tissue()
    reference = Reference(control, target, train, n_deg=20, protocol=protocol)
    perfect = reference.score(target)
    for name in PUBLISHED - {"e_distance", "e_distance_global", "e_distance_std"}:
        assert perfect[name] == pytest.approx(METRICS[name].best, abs=1e-9), name
    assert perfect["e_distance"] < 0
    assert perfect["e_distance_global"] == pytest.approx(0, abs=1e-9)
    unbiased = reference.unbiased_scores(target, twin=control)
    for name in unbiased.keys() - {"pearson_split"}:
        assert unbiased[name] == pytest.approx(METRICS[name].best, abs=1e-9), name
    assert unbiased["pearson_split"] > 0.75


def test_a_better_prediction_scores_better():
    control, target, predicted, train, twin = tissue(n_control=150, n_target=150)
    reference = Reference(control, target, train, n_deg=20)
    good, none = reference.score(predicted), reference.score(twin)
    for name in PUBLISHED - {"e_distance_std", "signed_precision_intersection", "mixing_index"}:
        sign = 1 if METRICS[name].direction == "higher" else -1
        assert sign * good[name] > sign * none[name], name


def test_no_change_has_no_correlation_and_no_sign():
    control, target, _, train, _ = tissue()
    # Dense and sparse sums differ in their last bits; an unchanged gene must stay unchanged.
    scores = score(sparse.csr_array(control), target, control, train=train, protocol="as_run")
    assert np.isnan(scores["pearson"])
    assert np.isnan(scores["spearman"])
    assert scores["sign_agreement"] == 0
    # Any 50 genes are the ones that change most: whichever came first would decide.
    for name in ("precision", "signed_precision", "signed_precision_intersection"):
        assert np.isnan(scores[name])


def test_precision_is_undefined_only_where_the_order_of_genes_would_decide():
    """Twelve genes change: a list of 12 is theirs, one of 13 takes any of the others, and one of all genes has no
    choice.
    """
    control = np.full((4, N_GENES), 10.0)
    target, predicted = control.copy(), control.copy()
    target[:, :20] += np.arange(1, 21)
    predicted[:, :12] += np.arange(1, 13)[::-1]
    # Equal totals, so that no other gene moves.
    for group in (target, predicted):
        group[:, -1] += 300 - group.sum(axis=1) + 10 * N_GENES
        assert (group.sum(axis=1) == control.sum(axis=1) + 300).all()
    base = control.copy()
    base[:, -1] += 300
    defined = {n: score(base, target, predicted, n_deg=n)["precision"] for n in (12, 13, 14, N_GENES)}
    assert 0 < defined[12] < 1
    assert 0 < defined[13] < 1
    assert np.isnan(defined[14])
    assert defined[N_GENES] == 1


def test_planted_faults_lower_the_right_scores():
    control, target, _, train, _ = tissue(n_control=75, n_target=75)
    reference = Reference(control, target, train, n_deg=20)
    perfect = reference.score(target)
    change = np.log1p(cp10k(target).mean(axis=0)) - np.log1p(cp10k(control).mean(axis=0))
    strongest = int(np.abs(change).argmax())

    swapped = target.copy()
    swapped[:, [strongest, 1]] = swapped[:, [1, strongest]]
    scores = reference.score(swapped)
    assert scores["pearson"] < perfect["pearson"]
    assert scores["precision"] < 1
    assert scores["rmse_lfc"] > 0

    shuffled = np.random.default_rng(0).permuted(target, axis=0)
    scores = reference.score(shuffled)
    assert scores["e_distance"] > perfect["e_distance"] + 0.1

    same = np.broadcast_to(target.mean(axis=0), target.shape)
    scores = reference.score(same)
    assert scores["pearson"] > 0.9
    assert scores["e_distance"] > perfect["e_distance"] + 1
    assert scores["e_distance_global"] > 1

    doubled = reference.score(np.concatenate([target, target]))
    assert doubled["rmse_counts"] == pytest.approx(0, abs=1e-9)
    as_run = score(control, target, np.concatenate([target, target]), train=train, protocol="as_run")
    assert as_run["rmse_counts"] > 100


def test_library_size_does_not_matter():
    control, target, predicted, train, _ = tissue()
    deeper = predicted * np.linspace(0.5, 8, len(predicted))[:, None]
    scores = [score(control, target, x, train=train, n_deg=20) for x in (predicted, deeper)]
    for name, value in scores[0].items():
        assert scores[1][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_without_training_cells_control_and_target_span_the_components():
    control, target, predicted, _, _ = tissue()
    pooled = np.concatenate([control, target])
    alone, together = score(control, target, predicted), score(control, target, predicted, pooled)
    assert alone == pytest.approx(together, rel=1e-9)


@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
def test_smallest_groups_give_numbers(protocol):
    control, target, predicted, train, twin = (x[:2] for x in tissue())
    reference = Reference(control, target, train, protocol=protocol)
    interval = Interval(np.zeros(N_GENES), np.full(N_GENES, 1e3), np.arange(N_GENES) < 60)
    scores = reference.score(predicted)
    given = {"noise": Noise(np.ones(N_GENES)), "shared": np.zeros(N_GENES)}
    scores |= reference.unbiased_scores(predicted, twin, interval=interval, **given)
    assert scores.keys() == METRICS.keys() - TRUTH_METRICS
    assert np.isfinite(list(scores.values())).all()


def test_small_groups_take_fewer_neighbours():
    control, target, predicted, train, _ = tissue(n_control=7, n_target=5)
    scores = score(control, target, predicted, train=train, n_deg=20)
    x, y = np.log1p(cp10k(predicted)), np.log1p(cp10k(target))
    fitted = np.log1p(cp10k(train))
    axes = np.linalg.svd(fitted - fitted.mean(axis=0), full_matrices=False)[2][:50]
    assert scores["e_distance"] == pytest.approx(local_energy(x @ axes.T, y @ axes.T), rel=1e-6)


def test_degenerate_cells_give_no_exception():
    same = np.ones((20, 12))
    scores = score(same, same, same) | Reference(same, same).unbiased_scores(same, same)
    assert np.isnan([scores["pearson"], scores["spearman"], scores["pearson_split"]]).all()
    assert scores["e_distance"] == scores["e_distance_global"] == 0
    assert scores["mixing_index"] == 1
    # Its one cell is less than the share that makes a gene expressed.
    rare = np.zeros((25, 12))
    rare[0, 0] = 1
    scores = score(same, rare, rare)
    assert scores["precision"] == 1
    assert np.isnan(Reference(same, rare).unbiased_scores(rare)["pearson_expressed"])


def test_fewer_genes_than_differential_genes_asked_for():
    control, target, predicted, train, _ = (x[:, :8] for x in tissue())
    scores = score(control, target, predicted, train=train, n_deg=50)
    assert scores["precision"] == 1
    assert np.isfinite(list(scores.values())).all()


def spoiled(counts, value):
    counts = counts.copy()
    counts[3, 2] = value
    return counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": lambda x: x[:1]}, "group 'control': 1 cell and a comparison needs at least 2"),
        ({"target": lambda x: x[:0]}, "group 'target': 0 cells"),
        ({"predicted": lambda x: x[:1]}, "group 'predicted': 1 cell"),
        ({"train": lambda x: x[:1]}, "group 'train': 1 cell"),
        ({"predicted": lambda x: x[:, :9]}, r"group 'predicted': shape is \(60, 9\) and \(cells, 70\)"),
        ({"train": lambda x: x[:, :9]}, r"group 'train': shape is .* and \(cells, 70\)"),
        ({"target": lambda x: spoiled(x, np.nan)}, "group 'target': counts are negative or not finite"),
        ({"control": lambda x: sparse.csr_array(spoiled(x, -1))}, "group 'control': counts are negative"),
        ({"train": lambda x: spoiled(x, np.inf)}, "group 'train': counts are negative or not finite"),
        ({"protocol": lambda _: "as-run"}, "protocols holds 'as-run'; allowed are corrected, as_run"),
        ({"n_deg": lambda _: 0}, "n_deg is 0"),
        ({"lfc": lambda _: "log10"}, r"switches\.lfc is 'log10'; allowed are natural_pseudocount_1, log2"),
        ({"lcf": lambda _: "log2_epsilon"}, r"switches\.lcf is no switch; the switches are "),
    ],
)  # fmt: skip
def test_bad_input(change, message):
    control, target, predicted, train, _ = tissue()
    given = {"control": control, "target": target, "predicted": predicted, "train": train}
    given |= {name: function(given.get(name)) for name, function in change.items()}
    with pytest.raises(InputError, match=message):
        score(**given)


def test_a_prediction_without_numbers_is_the_methods_fault():
    control, target, predicted, train, _ = tissue()
    reference = Reference(control, target, train)
    with pytest.raises(ValueError, match="group 'predicted': counts are negative") as caught:
        reference.score(spoiled(predicted, np.nan))
    assert not isinstance(caught.value, InputError)
    with pytest.raises(ValueError, match="group 'twin'"):
        reference.unbiased_scores(predicted, twin=spoiled(predicted, -1))


def test_one_reference_scores_many_predictions_alike():
    control, target, predicted, train, twin = tissue()
    reference = Reference(control, target, train)
    for x in (predicted, twin, predicted):
        assert reference.score(x) == score(control, target, x, train=train)


def test_principal_axes_are_exact_and_signed():
    train = tissue(n_train=600)[3]
    for log in (True, False):
        data = cp10k(train)
        data = np.log1p(data) if log else data
        axes = populations.principal_axes(populations.Moments.of(sparse.csr_array(train), log))
        expected = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)[2][:50].T
        np.testing.assert_allclose(np.abs((axes * expected).sum(axis=0)), 1, rtol=1e-6)
        assert (axes[np.abs(axes).argmax(axis=0), np.arange(50)] > 0).all()


def test_blocks_do_not_change_the_result(monkeypatch):
    control, target, predicted, train, _ = tissue()
    whole = score(control, target, predicted, train=train)
    monkeypatch.setattr(populations, "_VALUES_PER_BLOCK", 13 * N_GENES)
    assert score(sparse.csr_array(control), target, predicted, train=train) == pytest.approx(whole)
