"""Slides whose counts come from the Gaussian field."""

import numpy as np
import pytest

from slides import true_forces
from tissue_counterfactuals import steps
from tissue_counterfactuals.config import load_config, samples_of
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_gaussian import fit_gaussian, partial_correlations
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph, radius_graph, sample_graph
from tissue_counterfactuals.simulate.field import (
    LOCALIZATIONS,
    draw_counts,
    draw_forces,
    simulate_field,
)
from tissue_counterfactuals.slide import check_slide, read_slide


def pairs(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


@pytest.fixture(scope="module")
def slide():
    return simulate_field(n_cells=1200, n_genes=20, n_samples=2)


def test_the_slide_keeps_the_contract(slide):
    check_slide(slide, "field")
    assert slide.shape == (1200, 20)
    assert slide.obs["sample"].value_counts().to_dict() == {"sample_0": 600, "sample_1": 600}
    assert set(slide.var["localization"].cat.categories) == set(LOCALIZATIONS)


def test_the_same_seed_gives_the_same_slide(slide):
    again = simulate_field(n_cells=1200, n_genes=20, n_samples=2)
    assert (slide.X != again.X).nnz == 0
    other = simulate_field(n_cells=1200, n_genes=20, n_samples=2, seed=1)
    assert (slide.X != other.X).nnz > 0
    assert not np.array_equal(true_forces(slide)[0], true_forces(other)[0])


def test_samples_share_forces_and_differ_in_cells(slide):
    one, other = (slide[slide.obs["sample"] == name] for name in ("sample_0", "sample_1"))
    assert (one.X != other.X).nnz > 0
    more = simulate_field(n_cells=600, n_genes=20, n_samples=1)
    np.testing.assert_array_equal(true_forces(more)[0], true_forces(slide)[0])
    assert np.ptp(slide.obsm["spatial"][:, 0]) > 1000


def test_forces_of_both_kinds_are_independent_signed_and_apart_from_criticality():
    inter, intra, _ = draw_forces(100, 0, inter_strength=0.7, intra_strength=0.5)
    for forces in (inter, intra):
        np.testing.assert_array_equal(forces, forces.T)
        assert (pairs(forces) != 0).sum() == 150
        assert 0.3 < (pairs(forces)[pairs(forces) != 0] > 0).mean() < 0.7
    assert abs(np.corrcoef(pairs(inter), pairs(intra))[0, 1]) < 0.1
    np.testing.assert_array_equal(np.diag(intra), 0)
    assert np.linalg.eigvalsh(np.eye(100) - 2 * intra)[0] == pytest.approx(0.5, abs=0.2)
    ends = [np.linalg.eigvalsh(np.eye(100) - 2 * intra - 2 * j * inter)[0] for j in (-1, 1)]
    assert 0 < min(ends) < 0.5


def test_secreted_genes_have_stronger_forces_between_cells_only():
    inter, intra, localization = draw_forces(200, 0, secreted_factor=4.0)
    secreted = localization == "secreted"
    sizes = {}
    for name, forces in (("inter", inter), ("intra", intra)):
        touched = secreted[:, None] | secreted[None, :]
        there = forces != 0
        sizes[name] = np.abs(forces[there & touched]).mean() / np.abs(forces[there & ~touched]).mean()
    assert sizes["inter"] == pytest.approx(4, rel=0.15)
    assert sizes["intra"] == pytest.approx(1, rel=0.15)


def test_depth_noise_and_dropout_do_what_they_say():
    log_rate = np.tile(np.log([1.0, 3.0]), (4000, 1))
    rng = np.random.default_rng(0)
    counts = draw_counts(log_rate, rng, depth=40, depth_noise=0, noise=0, dropout=0).toarray()
    np.testing.assert_allclose(counts.mean(axis=0), [10, 30], rtol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), [10, 30], rtol=0.1)
    noisy = draw_counts(log_rate, rng, depth=40, depth_noise=0, noise=0.5, dropout=0).toarray()
    np.testing.assert_allclose(noisy.var(axis=0), [10 + 50, 30 + 450], rtol=0.15)
    lost = draw_counts(log_rate, rng, depth=40, depth_noise=0, noise=0, dropout=0.25).toarray()
    assert (lost == 0).mean() == pytest.approx(0.25, abs=0.02)
    uneven = draw_counts(log_rate, rng, depth=400, depth_noise=0.5, noise=0, dropout=0)
    assert np.log(uneven.sum(axis=1)).std() == pytest.approx(0.5, abs=0.03)


def test_default_density_gives_the_neighbours_of_a_xenium_slide():
    slide = simulate_field(n_cells=3000, n_genes=4)
    graph = radius_graph(slide.obsm["spatial"], 15)
    assert graph.sum() / 3000 == pytest.approx(4.2, abs=0.3)


def test_truth_follows_the_genes_and_survives_the_disk(tmp_path):
    config = load_config(
        {
            "datasets": {
                "d": {
                    "source": "simulated_field",
                    "experiments": ["celcomen_spleen"],
                    "field": {"n_cells": 300, "n_genes": 40, "n_samples": 3},
                    "preprocess": {"min_counts_per_gene": 2000, "n_top_genes": None},
                }
            }
        }  # fmt: skip
    )
    dataset = config["datasets"]["d"]
    assert dataset["kind"] == "simulated"
    assert samples_of("d", dataset) == {"pooled": None}
    steps.prepare(dataset, {}, None, tmp_path / "d.h5ad", tmp_path / "shapes.tsv")
    slide = read_slide(tmp_path / "d.h5ad")
    assert 10 < slide.n_vars < 40
    inter, _, _ = draw_forces(40, 0, secreted_factor=3.0)
    kept = [int(name.removeprefix("gene_")) for name in slide.var_names]
    np.testing.assert_allclose(true_forces(slide)[0], inter[np.ix_(kept, kept)])
    backwards = slide[:, ::-1]
    np.testing.assert_allclose(true_forces(backwards)[0], inter[np.ix_(kept, kept)][::-1, ::-1])


def test_samples_are_known_to_the_configuration_and_can_be_chosen(tmp_path):
    config = load_config(
        {
            "datasets": {
                "d": {
                    "source": "simulated_field",
                    "control_domain": "a",
                    "target_domains": ["b"],
                    "field": {"n_cells": 60, "n_samples": 2},
                    "graph": {"max_neighbors": 6},
                    "samples": ["sample_1"],
                }
            }
        }  # fmt: skip
    )
    dataset = config["datasets"]["d"]
    assert samples_of("d", dataset) == {"sample_1": ["sample_1"]}
    steps.prepare(dataset, {}, ["sample_1"], tmp_path / "d.h5ad", tmp_path / "shapes.tsv")
    assert read_slide(tmp_path / "d.h5ad").obs["sample"].unique().tolist() == ["sample_1"]


def test_forces_are_found_again_in_the_counts():
    slide = simulate_field(n_cells=6000, n_genes=15, depth=1500, noise=0.05, secreted_factor=1)
    graph = sample_graph(slide, lambda coords: knn_graph(coords, 6))
    fit = fit_gaussian([(slide.X.log1p(), interaction_weights(graph, "symmetric"))])
    found, truth = partial_correlations(fit), true_forces(slide)
    for one, other in zip(found, truth, strict=True):
        assert np.corrcoef(pairs(one), pairs(other))[0, 1] > 0.8


def test_too_few_cells_for_six_neighbours_are_refused():
    with pytest.raises(InputError, match="^field.n_cells is 20; 4 samples .* at least 28: give"):
        simulate_field(n_cells=20, n_samples=4)
