"""What a latent says of labels, on latents of which it is known."""

import numpy as np
import pytest
from scipy import integrate, stats

from tissue_counterfactuals.metrics.latents import (
    CONSERVATION,
    PROBED,
    _clisi,
    _of_perplexity,
    conservation,
    mutual_information,
    probe_f1,
)


def information_of_two_normals(distance):
    """Exact mutual information, in nats, of a fair label and a unit normal whose mean it moves by `distance`."""

    def gain(x):
        one, other = stats.norm.pdf(x), stats.norm.pdf(x, distance)
        return one * np.log(2 * one / (one + other))

    return integrate.quad(gain, -12, 12 + distance)[0]


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0, 20.0])
def test_mutual_information_of_two_normals_is_known(distance):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4):
        labels = rng.integers(2, size=1500)
        latent = rng.normal(size=(1500, 1)) + distance * labels[:, None]
        found.append(mutual_information(latent, labels))
    assert np.mean(found) == pytest.approx(information_of_two_normals(distance), abs=0.025)


def test_mutual_information_takes_all_dimensions_together():
    """Of which quadrant pair a cell lies in, each coordinate alone says nothing, and both say all."""
    rng = np.random.default_rng(0)
    latent = rng.uniform(-1, 1, size=(1500, 2))
    labels = (latent.prod(axis=1) > 0).astype(str)
    assert mutual_information(latent, labels) == pytest.approx(np.log(2), abs=0.06)
    assert abs(mutual_information(latent[:, :1], labels)) < 0.05


def test_mutual_information_is_the_same_as_scikit_learns_in_one_dimension():
    from sklearn.feature_selection._mutual_info import _compute_mi_cd

    rng = np.random.default_rng(2)
    labels = rng.choice(4, 800, p=[0.6, 0.3, 0.08, 0.02])
    latent = rng.normal(size=800) + 0.8 * labels
    # Theirs does not let it fall below 0, which it does not here.
    assert mutual_information(latent[:, None], labels) == pytest.approx(_compute_mi_cd(latent, labels, 3))


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_cells_that_share_a_latent_tell_nothing_of_their_labels(share):
    """As cells without neighbours do, all of which have one spatial latent."""
    rng = np.random.default_rng(3)
    labels, latent = rng.integers(4, size=1500), rng.normal(size=(1500, 5))
    latent[rng.random(1500) < share] = latent[0]
    assert abs(mutual_information(latent, labels)) < 0.03


def test_mutual_information_of_a_latent_with_few_values_is_that_of_the_values():
    rng = np.random.default_rng(4)
    labels, other = rng.integers(4, size=(2, 1500))
    values = np.eye(4)
    assert mutual_information(values[labels], labels) == pytest.approx(np.log(4), abs=0.01)
    assert abs(mutual_information(values[other], labels)) < 0.01
    # Half of the cells have the value of their label.
    mixed = np.where(rng.random(1500) < 0.5, labels, other)
    known = 0.625 * np.log(0.625 * 4) + 0.375 * np.log(0.125 * 4)
    assert mutual_information(values[mixed], labels) == pytest.approx(known, abs=0.06)


def test_mutual_information_with_one_label_or_labels_of_one_cell_is_none():
    latent = np.random.default_rng(0).normal(size=(50, 2))
    assert mutual_information(latent, np.repeat("a", 50)) == pytest.approx(0)
    alone = np.array(["b"] + ["a"] * 49)
    assert mutual_information(latent, alone) == pytest.approx(0)
    assert mutual_information(latent, np.arange(50)) == 0


def parts(n):
    return np.arange(n // 2), np.arange(n // 2, n)


def test_a_probe_reads_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(600, 3))
    linear = np.where(latent[:, 1] > 0, "up", "down")
    assert probe_f1(latent, linear, *parts(600), 0)["f1"] > 0.97
    # Tiny values say as much.
    assert probe_f1(1e-6 * latent, linear, *parts(600), 0)["f1"] > 0.97
    product = np.where(latent[:, 0] * latent[:, 1] > 0, "up", "down")
    assert probe_f1(latent, product, *parts(600), 0)["f1"] < 0.6


def test_a_probe_of_normals_reaches_the_best_rule():
    """Two unit normals at distance 2: the best rule is right with probability Phi(1), which is its macro-F1 too."""
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=8000)
    latent = rng.normal(size=(8000, 1)) + 2 * labels[:, None]
    assert probe_f1(latent, labels, *parts(8000), 0)["f1"] == pytest.approx(stats.norm.cdf(1), abs=0.012)


def test_rare_labels_count_as_much_as_others_and_guessing_gets_one_of_them():
    rng = np.random.default_rng(0)
    labels = np.array(["rare"] * 20 + ["usual"] * 580)[rng.permutation(600)]
    found = probe_f1(rng.normal(size=(600, 2)), labels, *parts(600), 0)
    # F1 of the frequent label alone, near 1, halved by the other's 0.
    assert found["guess_f1"] == pytest.approx(0.5, abs=0.02)
    assert [found["f1"], found["permuted_f1"]] == pytest.approx([found["guess_f1"]] * 2)


def test_chance_is_what_a_probe_gets_on_a_latent_that_holds_nothing():
    """Of even labels far more than guessing, and the same from a latent that holds them."""
    rng = np.random.default_rng(1)
    for n, at_most in ((2, 0.35), (4, 0.11)):
        labels = rng.permutation(np.resize(np.arange(n), 4000)).astype(str)
        noise = rng.normal(size=(4000, 8))
        known = noise + 4 * np.eye(8)[labels.astype(int)]
        nothing, all_of_it = (probe_f1(x, labels, *parts(4000), 0) for x in (noise, known))
        assert nothing["guess_f1"] < at_most
        for found in (nothing, all_of_it):
            assert found["permuted_f1"] == pytest.approx(nothing["f1"], abs=0.05)
            assert found["permuted_f1"] > nothing["guess_f1"] + 0.08
        assert all_of_it["f1"] > 0.9
    assert probe_f1(noise, labels, *parts(4000), 0) == nothing
    assert probe_f1(noise, labels, *parts(4000), 1)["permuted_f1"] != nothing["permuted_f1"]


def test_one_label_needs_no_probe():
    latent = np.random.default_rng(0).normal(size=(40, 2))
    assert probe_f1(latent, np.repeat("a", 40), *parts(40), 0) == dict.fromkeys(PROBED, 1.0)


def test_conservation_of_labels_that_are_far_apart_is_nearly_one_and_of_noise_is_low():
    rng = np.random.default_rng(0)
    labels, batch = rng.choice(["a", "b", "c"], 400), rng.choice(["1", "2"], 400)
    latent = rng.normal(size=(400, 2))
    apart = latent + 60 * np.unique(labels, return_inverse=True)[1][:, None]
    together, mixed = (conservation(x, labels, batch, 0) for x in (apart, latent))
    assert set(together) == {*CONSERVATION, "bio_conservation"}
    assert min(together.values()) > 0.97
    assert max(mixed["nmi_kmeans"], mixed["ari_kmeans"]) < 0.05
    assert mixed["silhouette"] == pytest.approx(0.5, abs=0.03)
    assert mixed["clisi"] < 0.15
    assert mixed["bio_conservation"] == pytest.approx(np.mean([mixed[m] for m in CONSERVATION]))


def test_isolated_labels_are_those_of_the_fewest_batches():
    rng = np.random.default_rng(0)
    labels = np.repeat(["here", "both", "too"], 100)
    batch = np.where((labels == "here") | (np.arange(300) % 2 == 0), "1", "2")
    latent = rng.normal(size=(300, 2))
    latent[:100] += 50
    # Only "here" is apart from the others.
    assert conservation(latent, labels, batch, 0)["isolated_labels"] > 0.95


def test_label_diversity_is_that_of_neighbourhoods_of_the_given_perplexity():
    """On a line of alternating labels each is half of any neighbourhood; in two heaps there is one label each."""
    line = np.arange(400.0)[:, None]
    alternating = np.arange(400) % 2
    assert _clisi(line, alternating) == pytest.approx(0, abs=0.02)
    assert _clisi(line + 1e4 * alternating[:, None], alternating) == pytest.approx(1)
    weight = _of_perplexity(np.sort(np.random.default_rng(0).random((5, 89)), axis=1), 30)
    np.testing.assert_allclose(np.exp(-(weight * np.log(weight)).sum(axis=1)), 30, rtol=1e-6)


def test_a_latent_that_cannot_be_scored_says_so():
    latent = np.zeros((20, 2))
    assert np.isnan(list(conservation(latent, np.repeat("a", 20), np.repeat("1", 20), 0).values())).all()


def test_a_probe_is_scaled_by_the_cells_that_train():
    """One tested cell far away leaves a probe of a rare label what it was."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(600, 3))
    labels = np.where(latent[:, 1] > 1.2, "up", "down")
    far = latent.copy()
    far[-1] = 1e4 * np.sign(far[-1])
    labels[-1] = "up" if far[-1, 1] > 0 else "down"
    found = probe_f1(far, labels, *parts(600), 0)["f1"]
    assert found == pytest.approx(probe_f1(latent, labels, *parts(600), 0)["f1"], abs=0.05)
    assert found > 0.9
