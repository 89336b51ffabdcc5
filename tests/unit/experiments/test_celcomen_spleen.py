"""Experiment 2: agreement of forces between samples, its controls, and clusters of forces."""

import json
import lzma
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from drawings import PROVENANCE, panel, png_size, texts, words_outside
from tissue_counterfactuals import gene_sets, protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import (
    celcomen_spleen,
    force_clusters,
    force_statistics,
    preparation,
)
from tissue_counterfactuals.models.celcomen_gaussian import partial_correlations
from tissue_counterfactuals.models.celcomen_interactions import Interactions
from tissue_counterfactuals.results.figures import (
    figure_celcomen_6,
    figure_celcomen_8,
    force_heatmaps,
)
from tissue_counterfactuals.simulate.field import simulate_field
from tissue_counterfactuals.slide import write_slide
from tissue_counterfactuals.streams import stream

SETTINGS = {
    "target_sum": 1e4,
    "n_top_genes": 16,
    "n_neighbors": 6,
    "epochs": 10,
    "learning_rate": 0.05,
    "ridge": 0.0,
    "min_cells_per_gene": 20,
    "n_permutations": 199,
}
CLUSTERS = {"n_clusters": 3, "gene_sets": ["hallmark"], "min_size": 5, "max_size": 500}


@pytest.fixture(scope="module")
def slide():
    return simulate_field(
        n_cells=3600, n_genes=16, n_samples=3, n_partners=10, inter_strength=0.9, depth=20000,
        noise=0.0, depth_noise=0.0, seed=3,
    )  # fmt: skip


def fitted(slide, protocol, **overrides):
    switches = protocols.resolve(protocol) | overrides
    log = celcomen_spleen.prepare(slide, SETTINGS, switches)
    samples = celcomen_spleen.make_samples(log, SETTINGS, switches)
    return samples, switches


@pytest.fixture(scope="module")
def corrected(slide):
    # Sixteen genes on the unit sphere are not free of each other, so the cells keep their size here.
    return celcomen_spleen.compare_samples(*_arguments(slide, "corrected", scale="none"))[0]


@pytest.fixture(scope="module")
def as_run(slide):
    return celcomen_spleen.compare_samples(*_arguments(slide, "as_run"))


def _arguments(slide, protocol, **overrides):
    samples, switches = fitted(slide, protocol, **overrides)
    return samples, SETTINGS, switches, 0


def value(agreement, variant, force, column="spearman"):
    own = agreement[(agreement["variant"] == variant) & (agreement["force"] == force)]
    return own[column].to_numpy()


# --- agreement --------------------------------------------------------------------------------------------------


def test_shared_forces_are_found_in_each_sample(corrected):
    for force in ("inter", "intra"):
        assert value(corrected, "observed", force).min() > 0.35
        assert value(corrected, "observed", force, "p_value").max() == pytest.approx(1 / 200)
        assert value(corrected, "observed", force, "partial_spearman").min() > 0.35


def test_shuffled_space_leaves_nothing_between_cells(corrected):
    """And all within them: the cells are the same."""
    inter, low, high = (
        value(corrected, "shuffled_space", "inter", c) for c in ("spearman", "random_low", "random_high")
    )
    assert np.abs(inter).max() < 2 * max(high.max(), -low.min())
    assert inter.mean() < value(corrected, "observed", "inter").mean() / 3
    np.testing.assert_allclose(
        value(corrected, "shuffled_space", "intra"),
        value(corrected, "observed", "intra"),
        atol=0.15,
    )


def test_as_run_agreement_does_not_need_space(as_run):
    """The control that the published figure lacks: as run, shuffled tissue agrees as well."""
    agreement, _ = as_run
    observed, shuffled = (value(agreement, v, "inter") for v in ("observed", "shuffled_space"))
    assert observed.min() > 0.5
    np.testing.assert_allclose(shuffled, observed, atol=0.05)
    assert value(agreement, "mean_expression_only", "inter").min() > 0.5
    # So many forces end at a bound that the matrices agree by their diagonals of ones alone.
    assert value(agreement, "observed", "inter", "constant").all()


def test_all_controls_are_in_the_table(corrected, as_run):
    shared = {"observed", "random", "mean_expression_only", "co_expression"}
    shared |= {"shuffled_space", "other_centring"}
    assert set(corrected["variant"]) == shared
    assert set(as_run[0]["variant"]) == shared | {"fixed_slides"}
    # Each is explained.
    assert shared | {"fixed_slides"} == {"observed"} | set(celcomen_spleen.CONTROLS)


def test_curves_begin_at_the_start_and_end_at_the_result(as_run):
    agreement, curves = as_run
    own = curves[(curves["variant"] == "observed") & (curves["force"] == "inter")]
    assert sorted(own["epoch"].unique()) == list(range(-1, SETTINGS["epochs"]))
    last = own[own["epoch"] == SETTINGS["epochs"] - 1]["observed"].to_numpy()
    np.testing.assert_array_equal(last, value(agreement, "observed", "inter"))
    # Both models draw matrices of their own, so they agree on nothing but the diagonal of ones.
    first = own[own["epoch"] == -1]["observed"].abs().to_numpy()
    assert (first < 0.35).all()


@pytest.mark.parametrize(("held_out_slide", "leaks"), [("fixed", False), ("shuffled", True)])
def test_held_out_slide(slide, held_out_slide, leaks):
    """`shuffled` lets the model of a sample see the others; `fixed` does not."""
    # Without bounds, so that every step shows.
    samples, switches = fitted(slide, "as_run", held_out_slide=held_out_slide, force_range="free")
    settings = SETTINGS | {"learning_rate": 1e-6}
    other = celcomen_spleen.shuffle_space(samples[1], 0)
    changed = [samples[0], celcomen_spleen.replace(other, moments=other.moments.centred()), samples[2]]
    one, two = (celcomen_spleen.fit_hold_out(s, 0, settings, switches, 0) for s in (samples, changed))
    assert np.array_equal(one.inter[0], two.inter[0]) is not leaks
    assert not np.array_equal(one.inter[1], two.inter[1])


@pytest.mark.parametrize("pooled", ["pooled", "shuffled"])
def test_mean_field_can_stand_in_for_the_gaussian_field(slide, pooled):
    samples, switches = fitted(slide, "corrected", log_partition="vmf", slide_steps=pooled)
    fits = celcomen_spleen.fit_hold_out(samples, 1, SETTINGS, switches, 0)
    assert np.isfinite(fits.inter[0]).all()
    # Zeros start both, so one step down the loss of the same slides would be the same.
    assert not np.array_equal(fits.inter[0], fits.inter[1])


@pytest.mark.parametrize(("which", "n_entries"), [("upper_triangle", 120), ("all", 256)])
def test_compared_entries(slide, which, n_entries):
    samples, switches = fitted(slide, "corrected", compared_entries=which)
    settings = SETTINGS | {"n_permutations": 3}
    agreement, _ = celcomen_spleen.compare_samples(samples[:2], settings, switches, 0)
    assert set(agreement["n_entries"].dropna()) == {n_entries}


@pytest.mark.parametrize("units", ["partial_correlation", "raw"])
def test_force_units(units):
    rng = np.random.default_rng(0)
    inter, intra = (m + m.T for m in rng.normal(0, 0.02, (2, 4, 4)))
    switches = {"log_partition": "gaussian", "force_units": units}
    found = preparation.comparable_forces(inter, intra, switches)
    expected = (inter, intra) if units == "raw" else partial_correlations(Interactions(inter, intra, []))
    np.testing.assert_array_equal(found, expected)
    if units == "partial_correlation":
        precision = np.eye(4) - 2 * intra
        assert found[1][0, 1] == pytest.approx(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_summary_gives_the_published_test_beside_the_published_figure_only(protocol):
    rows = [
        {"dataset": "d", "kind": "real", "protocol": protocol, "seed": 0, "force": "inter"}
        | {"variant": v, "spearman": s, "p_value": 0.01, "constant": v == "observed"}
        for v, values in (("observed", (0.5, 0.6, 0.7, 0.8)), ("random", (0.0, 0.1, -0.1, 0.05)))
        for s in values
    ]
    summary = celcomen_spleen.summarize(pd.DataFrame(rows)).set_index("variant")
    own = summary.loc["observed", ["published_mann_whitney_p", "smallest_possible_p"]]
    if protocol == "as_run":
        # The published p value of four hold-outs against four controls, which cannot be smaller.
        assert own.tolist() == pytest.approx([2 / 70, 2 / 70])
    else:
        assert own.isna().all()
    assert summary.loc["observed", "mean"] == pytest.approx(0.65)
    assert np.isnan(summary.loc["random", "published_mann_whitney_p"])
    assert summary["n_constant"].to_dict() == {"observed": 4, "random": 0}


@pytest.mark.parametrize("kind", ["permuted", "resampled"])
def test_each_hold_out_has_random_draws_of_its_own(slide, kind):
    """Three times the same sample: all that differs between the hold-outs is chance."""
    samples, switches = fitted(slide, "corrected", scale="none", random_forces=kind)
    same = [celcomen_spleen.replace(samples[0], name=f"copy {i}") for i in range(3)]
    settings = SETTINGS | {"n_permutations": 20}
    agreement, curves = celcomen_spleen.compare_samples(same, settings, switches, 0)
    for force in ("inter", "intra"):
        assert len(set(value(agreement, "random", force))) == 3
        # The curve's draws are its own, and so are the permutations behind each p value.
        assert curves[curves["force"] == force]["control"].nunique() == 3
        assert len(set(value(agreement, "observed", force, "random_high"))) == 3
        assert len(set(value(agreement, "observed", force).round(9))) == 1


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_no_two_controls_share_a_draw(slide, protocol, monkeypatch):
    """Nor do forces of one kind with those of the other."""
    seeds, random_agreement = [], force_statistics.random_agreement
    monkeypatch.setattr(
        force_statistics, "random_agreement", lambda *given: seeds.append(given[-1]) or random_agreement(*given)
    )
    samples, switches = fitted(slide, protocol, scale="none")
    celcomen_spleen.compare_samples(samples, SETTINGS | {"n_permutations": 9, "epochs": 1}, switches, 0)
    assert len(seeds) == len(set(seeds)) > 20


def test_no_two_seeds_start_from_one_matrix():
    switches = {"first_forces": "independent", "force_range": "unit_box"}
    starts = [m for seed in range(3) for pair in celcomen_spleen.first_forces(6, switches, seed) for m in pair]
    assert len({m.tobytes() for m in starts}) == 12


def test_the_optimum_of_the_same_cells_is_found_once_for_all_seeds(slide, tmp_path, monkeypatch):
    made, fit_gaussian = [], celcomen_spleen.fit_gaussian
    monkeypatch.setattr(celcomen_spleen, "fit_gaussian", lambda *a, **k: made.append(1) or fit_gaussian(*a, **k))
    write_slide(slide, tmp_path / "slide.h5ad")
    entry, tables = {"name": "toy", "kind": "simulated", "label": "Toy"}, []
    for seeds in ([0, 1], [1]):
        files = {n: tmp_path / f"{n}{len(seeds)}.npz" for n in OUTPUTS}
        settings = SETTINGS | {"n_permutations": 9}
        switches = protocols.resolve("corrected")
        celcomen_spleen.run(tmp_path / "slide.h5ad", entry, "corrected", seeds, settings, switches, files)
        table = pd.read_csv(files["agreement"], sep="\t").query("seed == 1").drop(columns="seed")
        tables.append(table.reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables)
    # Of three hold-outs two models each as they are and centred otherwise, and one of all samples; shuffled by seed.
    assert len(made) == (2 * 6 + 1 + 2 * 6) + (2 * 6 + 1 + 6)


def test_the_largest_p_is_not_known_where_a_hold_out_has_none():
    key = dict.fromkeys(celcomen_spleen.preparation.KEY, 0) | {"protocol": "corrected", "force": "inter"}
    rows = [key | {"variant": "observed", "spearman": r, "p_value": p, "constant": p is None}
            for r, p in ((0.5, 0.01), (np.nan, None))]  # fmt: skip
    summary = celcomen_spleen.summarize(pd.DataFrame(rows)).iloc[0]
    assert np.isnan(summary["largest_empirical_p"])
    figure = figure_celcomen_6.Figure()
    axes = figure.subplots()
    figure_celcomen_6._bars(axes, pd.DataFrame([summary]), ["observed"])
    assert not axes.patches
    assert any("not known" in text.get_text() for text in axes.texts)


def test_the_mean_expression_of_the_rest_is_that_of_its_cells():
    """Of a large and a small sample the large one says more."""
    means, sizes = np.array([[1.0, 2.0], [3.0, 1.0], [5.0, 4.0]]), (10, 300, 100)
    moments = [SimpleNamespace(mean=mean, n_cells=n) for mean, n in zip(means, sizes, strict=True)]
    own, rest = celcomen_spleen._means([SimpleNamespace(moments=m) for m in moments], 0)
    np.testing.assert_allclose(own, -np.outer(means[0], means[0]))
    expected = 0.75 * means[1] + 0.25 * means[2]
    np.testing.assert_allclose(rest, -np.outer(expected, expected))


def test_one_sample_is_refused(slide):
    one = slide[(slide.obs["sample"] == "sample_0").to_numpy()].copy()
    with pytest.raises(InputError, match=r"it has one sample \('sample_0'\).*at least two"):
        fitted(one, "corrected")


def test_genes_that_a_sample_does_not_show_are_left_out(slide):
    dark = slide.copy()
    dark.X[np.flatnonzero(slide.obs["sample"] == "sample_1"), 5] = 0
    assert fitted(dark, "corrected")[0][0].moments.n_genes == 15
    assert fitted(dark, "as_run")[0][0].moments.n_genes == 16
    dark.X = dark.X * 0
    with pytest.raises(InputError, match=r"only 0 of its 16 genes.*min_cells_per_gene"):
        fitted(dark, "corrected")


# --- statistics -------------------------------------------------------------------------------------------------


def test_partial_spearman_is_the_textbook_formula():
    rng = np.random.default_rng(1)
    c = rng.normal(size=300)
    a, b = c + rng.normal(size=300), c + rng.normal(size=300)
    r = {k: stats.spearmanr(*p)[0] for k, p in {"ab": (a, b), "ac": (a, c), "bc": (b, c)}.items()}
    expected = (r["ab"] - r["ac"] * r["bc"]) / np.sqrt((1 - r["ac"] ** 2) * (1 - r["bc"] ** 2))
    assert force_statistics.partial_spearman(a, b, [c]) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(force_statistics.partial_spearman(c, b, [np.exp(c)]))
    assert force_statistics.spearman(a, b) == pytest.approx(r["ab"])
    assert np.isnan(force_statistics.spearman(a, np.ones(300)))


@pytest.mark.parametrize("which", ["upper_triangle", "all"])
def test_permuted_forces_are_the_same_forces_under_other_names(which):
    rng = np.random.default_rng(2)
    a, b = (m + m.T for m in rng.normal(size=(2, 12, 12)))
    null = force_statistics.random_agreement(a, b, "permuted", which, 5, 7)
    orders = stream(7, "random_forces")
    for found in null:
        order = orders.permutation(12)
        moved = b[np.ix_(order, order)]
        x, y = (force_statistics.entries(m, which) for m in (a, moved))
        assert found == pytest.approx(stats.spearmanr(x, y)[0])


def test_resampled_forces_are_drawn_with_replacement():
    """As run even a matrix against itself agrees with nothing; permutation keeps the multiset of values."""
    a = np.arange(36.0).reshape(6, 6)
    a += a.T
    resampled = force_statistics.random_agreement(a, a, "resampled", "all", 200, 0)
    rng = stream(0, "random_forces")
    first = stats.spearmanr(rng.choice(a.ravel(), 36), rng.choice(a.ravel(), 36))[0]
    assert resampled[0] == pytest.approx(first)
    assert abs(resampled.mean()) < 0.05


def test_empirical_p_counts_the_observed_one():
    assert force_statistics.empirical_p(3.0, np.array([0.0, 1.0, 2.0])) == 0.25
    assert force_statistics.empirical_p(1.0, np.array([0.0, 1.0, 2.0])) == 0.75
    assert np.isnan(force_statistics.empirical_p(np.nan, np.zeros(3)))


# --- clusters and gene sets -------------------------------------------------------------------------------------


def blocks():
    matrix = np.full((30, 30), 0.01)
    for start, stop in ((0, 8), (8, 20), (20, 30)):
        matrix[start:stop, start:stop] = 0.5
    order = np.random.default_rng(0).permutation(30)
    return matrix[np.ix_(order, order)], order


def test_planted_blocks_are_the_clusters():
    matrix, names = blocks()
    order, labels = force_clusters.cluster_genes(matrix, 3)
    assert sorted(order) == list(range(30))
    planted = np.digitize(names, [8, 20])
    assert len(set(zip(planted.tolist(), labels.tolist(), strict=True))) == 3
    # Numbers rise along the heatmap.
    assert (np.diff(labels[order]) >= 0).all()
    assert labels[order][0] == 1
    # What a gene does to itself tells nothing about whom it belongs to.
    alone = matrix + np.diag(np.random.default_rng(1).normal(0, 50, 30))
    np.testing.assert_array_equal(force_clusters.cluster_genes(alone, 3)[1], labels)


def test_constant_forces_are_one_cluster():
    _, labels = force_clusters.cluster_genes(np.ones((6, 6)), 3)
    assert set(labels) == {1}


def test_more_clusters_than_genes_are_refused():
    with pytest.raises(InputError, match=r"3 genes cannot make 5 clusters"):
        force_clusters.cluster_genes(np.eye(3), 5)


def test_description_of_clusters():
    matrix, names = blocks()
    genes = pd.Index([f"g{i}" for i in names])
    sets = {"SECOND": [f"g{i}" for i in range(8, 20)], "FEW": ["g1"]}
    settings = {"n_clusters": 3, "min_size": 5, "max_size": 500}
    members, terms = force_clusters.describe_clusters(
        {"intra": matrix, "inter": matrix}, genes, names.astype(float), settings, sets
    )
    assert len(members) == 60
    best = terms[(terms["force"] == "inter") & (terms["status"] == "ok")].iloc[0]
    assert best["term"] == "SECOND"
    assert (best["n_genes"], best["n_overlap"]) == (12, 12)
    assert best["mean_force"] == pytest.approx(0.5)
    assert best["mean_expression"] == pytest.approx(np.arange(8, 20).mean())
    assert best["p_value"] == pytest.approx(stats.hypergeom.sf(11, 30, 12, 12))
    others = terms[(terms["force"] == "inter") & (terms["status"] != "ok")]
    assert set(others["status"]) == {"not applicable: no gene of the cluster is in a gene set"}


def test_a_table_of_clusters_keeps_all_significant_terms_and_few_others():
    matrix, names = blocks()
    genes = pd.Index([f"g{i}" for i in names])
    second = [f"g{i}" for i in range(8, 20)]
    sets = {f"SECOND{i}": second for i in range(25)} | {f"FIRST{i}": ["g1", "g2"] for i in range(25)}
    settings = {"n_clusters": 3, "min_size": 2, "max_size": 500}
    _, terms = force_clusters.describe_clusters({"intra": matrix, "inter": matrix}, genes, np.ones(30), settings, sets)
    kept = terms[terms["force"] == "inter"].groupby("cluster")["term"].agg(set)
    assert {f"SECOND{i}" for i in range(25)} in kept.tolist()
    sets = {f"WEAK{i}": ["g1", "g9", "g21"] for i in range(25)}
    _, terms = force_clusters.describe_clusters({"intra": matrix, "inter": matrix}, genes, np.ones(30), settings, sets)
    assert terms[terms["force"] == "inter"].groupby("cluster").size().tolist() == [20, 20, 20]


def test_over_representation_is_hypergeometric():
    genes = [f"g{i}" for i in range(100)]
    sets = {"A": genes[:20], "B": genes[15:45] + ["not in the model"], "C": genes[90:]}
    found = gene_sets.over_representation(genes[10:30], genes, sets).set_index("term")
    assert found.loc["A", "p_value"] == pytest.approx(stats.hypergeom.sf(9, 100, 20, 20))
    assert found.loc["B", "p_value"] == pytest.approx(stats.hypergeom.sf(14, 100, 30, 20))
    assert found.loc["B", "n_term"] == 30
    p_values = [found.loc["A", "p_value"], found.loc["B", "p_value"], 1.0]
    expected = stats.false_discovery_control(p_values)
    np.testing.assert_allclose(found.loc[["A", "B"], "q_value"], expected[:2])


def test_no_gene_set_is_said_and_not_left_empty():
    found = gene_sets.over_representation(["a"], ["a", "b"], {"X": ["c", "d"]})
    assert found["status"].tolist() == ["not applicable: no gene set holds 5 to 500 of the 2 genes"]


def test_bundled_sets_and_files(tmp_path):
    sets = gene_sets.collect(["hallmark", "go_bp"])
    assert "STAT1" in sets["HALLMARK_INTERFERON_GAMMA_RESPONSE"]
    assert len(sets) == 50 + 5233
    packed = tmp_path / "sets.gmt.xz"
    packed.write_bytes(lzma.compress(b"X\tabout\ta\tb\ta\n"))
    assert gene_sets.collect([str(packed)]) == {"X": ["a", "b"]}
    plain = tmp_path / "sets.gmt"
    plain.write_text("X\tabout\ta\nY\tabout\n")
    with pytest.raises(InputError, match=r"sets.gmt, line 2: it has 2 tab-separated fields"):
        gene_sets.read_gmt(plain)
    with pytest.raises(InputError, match=r"there is no such file; name a GMT file or one of hallm"):
        gene_sets.collect(["hallmarks"])


def test_a_set_whose_name_is_taken_is_refused_and_human_sets_are_not_those_of_mouse(tmp_path):
    own, other = tmp_path / "own.gmt", tmp_path / "other.gmt"
    own.write_text("X\t-\ta\nY\t-\tb\nX\t-\tc\n")
    with pytest.raises(InputError, match="own.gmt, line 3: there is a set 'X' above"):
        gene_sets.collect([str(own)])
    own.write_text("X\t-\ta\n")
    other.write_text("X\t-\tc\n")
    with pytest.raises(InputError, match="other.gmt: another source has a set 'X' too"):
        gene_sets.collect([str(own), str(other)])
    # A source that is named twice is no second one.
    assert gene_sets.collect([str(own), str(own)]) == {"X": ["a"]}
    assert gene_sets.collect(["hallmark", str(own)], ["C3", "Fos", "Vegfa"]) == {"X": ["a"]}


# --- the whole step ---------------------------------------------------------------------------------------------

OUTPUTS = ("agreement", "curves", "summary", "diagnostics", "forces", "manifest")


@pytest.fixture(scope="module")
def results(slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spleen")
    write_slide(slide, folder / "slide.h5ad")
    made = {}
    for protocol in protocols.PROTOCOLS:
        for repeat in ("", "again"):
            files = {n: folder / f"{protocol}{repeat}.{n}" for n in OUTPUTS}
            files["forces"] = folder / f"{protocol}{repeat}.npz"
            celcomen_spleen.run(
                folder / "slide.h5ad",
                {"name": "toy", "kind": "simulated", "label": "Toy"},
                protocol,
                [0],
                SETTINGS | {"n_permutations": 9, "epochs": 2},
                protocols.resolve(protocol),
                files,
            )
            made[protocol, repeat] = files
    return made


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_same_seed_same_bytes(results, protocol):
    for name in OUTPUTS:
        first, second = (results[protocol, repeat][name].read_bytes() for repeat in ("", "again"))
        assert first == second, name


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_tables_and_figures(results, protocol, tmp_path):
    files = results[protocol, ""]
    agreement = pd.read_csv(files["agreement"], sep="\t")
    assert set(agreement["kind"]) == {"simulated"}
    assert set(agreement["protocol"]) == {protocol}
    assert set(agreement["n_cells"]) == {1200}
    record = json.loads(files["manifest"].read_text())
    assert record["samples"] == ["sample_0", "sample_1", "sample_2"]
    figure_celcomen_6.draw_files(files, tmp_path / "6.png")
    agreement.drop(columns="spearman").to_csv(tmp_path / "old.tsv", sep="\t")
    with pytest.raises(InputError, match=r"old\.tsv: column 'spearman' is missing"):
        figure_celcomen_6.draw_files(files | {"agreement": tmp_path / "old.tsv"}, tmp_path / "6.png")
    drawn = {
        "members": tmp_path / "m",
        "enrichment": tmp_path / "e",
        "matrices": tmp_path / "m.npz",
    }
    force_clusters.run(
        files["forces"],
        files["manifest"],
        CLUSTERS,
        protocols.resolve(protocol),
        drawn,
    )
    figure_celcomen_8.draw_files(drawn | {"manifest": files["manifest"]}, tmp_path / "8.png")
    for name in ("6.png", "8.png"):
        assert png_size(tmp_path / name)[0] == 1725
    terms = pd.read_csv(drawn["enrichment"], sep="\t")
    assert terms["status"].str.startswith("not applicable: no gene set holds").all()


def test_of_several_seeds_the_first_of_the_run_is_drawn_and_named(results, tmp_path, monkeypatch):
    files = dict(results["as_run", ""])
    for name in ("agreement", "curves", "summary"):
        table = pd.read_csv(files[name], sep="\t")
        files[name] = tmp_path / name
        other = table.assign(seed=7, **({"mean": 0.25} if name == "summary" else {}))
        pd.concat([table, other]).to_csv(files[name], sep="\t", index=False)
    record = json.loads(files["manifest"].read_text()) | {"seeds": [7, 0]}
    files["manifest"] = tmp_path / "m.json"
    files["manifest"].write_text(json.dumps(record))
    drawn = []
    monkeypatch.setattr(figure_celcomen_6.style, "save", lambda figure, _: drawn.append(figure))
    figure_celcomen_6.draw_files(files, tmp_path / "6.png")
    assert "· seed 7" in drawn[0].get_suptitle()
    assert {patch.get_width() for patch in panel(drawn[0], "between cells (inter): mean").patches} == {0.25}


def test_figure_6_says_what_it_shows(results):
    files = results["as_run", ""]
    tables = [pd.read_csv(files[n], sep="\t") for n in ("agreement", "curves", "summary")]
    figure = figure_celcomen_6.compose(*tables, "Agreement [simulated]", PROVENANCE)
    said = " ".join(texts(figure))
    for text in (
        "[simulated]",
        "hold-out sample_1",
        "cells shuffled in space",
        "smallest possible",
    ):
        assert text in said
    # Bars are the means of the summary, curves the agreement after each epoch.
    for force, label in figure_celcomen_6.FORCES.items():
        summary = tables[2].loc[tables[2]["force"] == force].set_index("variant")["mean"]
        widths = [patch.get_width() for patch in panel(figure, f"{label}: mean").patches]
        assert sorted(widths) == pytest.approx(sorted(np.nan_to_num(summary)))
    first = next(iter(figure_celcomen_6.FORCES))
    curves = tables[1][(tables[1]["force"] == first) & (tables[1]["hold_out"] == "sample_0")]
    (left,) = (a for a in figure.axes if a.get_ylabel().startswith("hold-out sample_0"))
    drawn = [list(line.get_ydata()) for line in left.lines if line.get_color() == "black"]
    (controls,) = [own["control"].tolist() for variant, own in curves.groupby("variant") if variant == "observed"]
    assert drawn == [pytest.approx(controls)]
    assert "no valid p value" in said
    assert words_outside(figure) == []


def test_heatmap_names_clusters_and_terms():
    matrix, names = blocks()
    genes = pd.Index([f"g{i}" for i in names])
    members, terms = force_clusters.describe_clusters(
        {"intra": matrix, "inter": -matrix},
        genes,
        np.ones(30),
        {"n_clusters": 3, "min_size": 5, "max_size": 500},
        {"GOBP_SECOND_SET": [f"g{i}" for i in range(8, 20)], "GOBP_OTHER_SET": [f"g{i}" for i in range(6, 14)]},
    )
    figure = force_heatmaps.compose({"intra": matrix, "inter": -matrix}, members, terms, "Clusters", PROVENANCE)
    said = " ".join(texts(figure))
    assert "GOBP second set" in said
    assert "12 genes, mean force -0.5" in said
    # Rows and columns stand in the order of the clusters, so that these are blocks on the diagonal.
    for force, sign in (("intra", 1), ("inter", -1)):
        own = members[members["force"] == force].sort_values("position")
        order = genes.get_indexer(own["gene"])
        expected = sign * matrix[np.ix_(order, order)]
        np.fill_diagonal(expected, np.nan)
        (image,) = panel(figure, force_heatmaps.FORCES[force]).images
        np.testing.assert_allclose(np.ma.filled(image.get_array(), np.nan), expected)
    # Bars are as long as p is small; the colour is that of q.
    tested = terms[terms["status"] == "ok"].groupby(["force", "cluster"]).head(force_heatmaps.TERMS_PER_CLUSTER)
    assert (tested["q_value"] > tested["p_value"]).any()
    bars = [a for a in figure.axes if a.get_xlabel().startswith("-log10 p")]
    lengths = [patch.get_width() for axes in bars for patch in axes.patches]
    assert sorted(lengths) == pytest.approx(sorted(-np.log10(tested["p_value"])))
