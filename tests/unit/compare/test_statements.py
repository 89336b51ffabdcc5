"""Statements: what decides, and that chance alone seldom does."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from runs_to_compare import SLIDES, TYPES, config, failed, noisy, scores, tables

from tissue_counterfactuals.compare import Tables, statements
from tissue_counterfactuals.gene_sets import benjamini_hochberg
from tissue_counterfactuals.results.tables import TWIN, write_tsv

N = 400
# Four standard errors above one in twenty.
SELDOM = 0.05 + 4 * np.sqrt(0.05 * 0.95 / N)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def verdicts(found):
    return found.groupby("statement", sort=False)["verdict"].unique().str.join(", ").to_dict()


def line(found, name):
    return found[(found["line"] == name) & (found["protocol"] == "as_run")]


BASE = {
    ("cellina", "published", "pearson"): noisy(0.8, seed=1),
    ("cellina", "published", "rmse_lfc"): noisy(0.5, seed=2),
    ("cellina", TWIN, "pearson"): noisy(0.6, seed=3),
    ("cellina", TWIN, "rmse_lfc"): noisy(0.7, seed=4),
    ("cellina_ablated", "published", "pearson"): noisy(0.8, seed=5),
    ("cellina_ablated", "published", "rmse_lfc"): noisy(0.5, seed=6),
    ("mean_shift_by_type", "-", "pearson"): noisy(0.9, seed=7),
    ("mean_shift_by_type", "-", "rmse_lfc"): noisy(0.4, seed=8),
    ("cellina", "node", "pearson"): noisy(0.8, seed=9),
    ("cellina", "node", "rmse_lfc"): noisy(0.51, seed=10),
}


def test_what_is_better_holds_what_is_worse_does_not_and_the_rest_is_not_resolvable(tmp_path):
    found = statements.build(tables(tmp_path, scores(BASE), config()))
    controls = line(found, "Cellina beats its twin and every control")["verdict"].tolist()
    assert controls == ["holds", "not run", "not run", "does not hold"]
    assert line(found, "Supervision helps")["verdict"].tolist() == ["not resolvable"]
    assert line(found, "GAT beats Cellina")["verdict"].tolist() == ["not run"]
    assert line(found, "Altered neighbours do as well as new ones")["verdict"].tolist() == ["holds"]
    # Six slides of five patients.
    twin = line(found, "Cellina beats its twin and every control").iloc[0]
    assert (twin["unit"], twin["n"]) == ("patients", 5)


def test_what_was_not_run_says_whose_answer_is_missing_and_its_own_reason(tmp_path):
    own = {key: value for key, value in BASE.items() if key[:2] != ("cellina", "node")}
    rows = [
        scores(own),
        failed("cellina_gat", "fit: it ran out of memory"),
        failed("cellina", "predict: no neighbours", variant="node"),
        # Of another protocol, and of another form of the method: no reason here.
        failed("cellina_gat", "fit: corrected alone", protocol="corrected"),
        failed("cellina_gat", "predict: the node form", variant="node"),
        failed("cellina", "predict: matched donors", variant="matched"),
    ]
    found = statements.build(tables(tmp_path, pd.concat(rows, ignore_index=True), config()))
    gat = line(found, "GAT beats Cellina")
    assert gat["reason"].tolist() == ["Cellina-GAT: failed (fit: it ran out of memory)"]
    node = line(found, "Altered neighbours do as well as new ones")
    assert node[["verdict", "reason"]].to_numpy().tolist() == [
        ["not run", "Cellina (altered neighbours): failed (predict: no neighbours)"]
    ]
    baselines = line(found, "Cellina beats published baselines")["reason"]
    assert baselines.iloc[0] == "CPA: not asked"
    assert baselines.iloc[-1] == (
        "Cellina (altered neighbours): failed (predict: no neighbours); SpatialProp (re-impl.) (altered neighbours): "
        "not asked"
    )


def test_a_comparison_of_two_trainings_says_with_what_budget_each_was_made(tmp_path):
    both = BASE | {("cellina_gat", "published", "rmse_lfc"): noisy(0.4, seed=11)}
    rows = pd.concat([scores(both, protocol=p) for p in ("as_run", "corrected")])
    short = config(cellina={"batch_size": "auto"}, cellina_gat={"epochs": 3})
    found = statements.build(tables(tmp_path, rows, short))
    gat = found[found["line"] == "GAT beats Cellina"].set_index("protocol")["result"]
    end = "; trained: Cellina-GAT at most {} epochs, batches of 256; Cellina at most 100 epochs, {}"
    assert gat["corrected"].endswith(end.format(3, "batch_size auto"))
    # As run is as published, whatever the sections say.
    assert gat["as_run"].endswith(end.format(100, "batches of 2,048"))
    # The same settings for both, or one that takes no steps.
    for same in ("Supervision helps", "Cellina beats its twin and every control"):
        assert not found.loc[found["line"] == same, "result"].str.contains("trained").any()
    equal = statements.build(tables(tmp_path, rows, short | {"budget": "equal"}))
    assert equal["result"].str.endswith("each trained for about 2,000 steps").any()


def test_metrics_that_disagree_settle_nothing(tmp_path):
    mixed = BASE | {("cellina", TWIN, "pearson"): noisy(0.9, seed=3)}
    found = statements.build(tables(tmp_path, scores(mixed), config()))
    own = line(found, "Cellina beats its twin and every control").iloc[:1]
    assert own[["verdict", "reason"]].to_numpy().tolist() == [["not resolvable", "metrics disagree"]]


def test_two_folds_settle_nothing(tmp_path):
    rows = scores(BASE, slides=SLIDES[:1], types=TYPES[:2])
    found = statements.build(tables(tmp_path, rows, config()))
    own = line(found, "Cellina beats its twin and every control").iloc[:1]
    assert own["verdict"].tolist() == ["not resolvable"]
    assert own["reason"].tolist() == ["fewer than 4 independent units"]
    assert "2 of 2 folds better" in own["result"].iloc[0]


def gains_of(pearson, rmse):
    """Gains in both metrics, a patient each."""
    index = pd.MultiIndex.from_product([SLIDES, TYPES[:1]], names=["slide", "cell_type"])
    return {"pearson": pd.Series(pearson, index, dtype=float), "rmse_lfc": pd.Series(rmse, index, dtype=float)}


CLEAR, UNCLEAR = [0.28, 0.29, 0.30, 0.31, 0.32, 0.33], [0.2, -0.2, 0.1, -0.1, 0.05, -0.06]


@pytest.mark.parametrize(
    ("pearson", "rmse", "verdict", "metric"),
    [
        (CLEAR, UNCLEAR, "holds", "pearson"),
        (UNCLEAR, CLEAR, "holds", "rmse_lfc"),
        (CLEAR, CLEAR, "holds", "rmse_lfc"),
        (np.negative(CLEAR), UNCLEAR, "does not hold", "pearson"),
        (UNCLEAR, UNCLEAR, "not resolvable", "rmse_lfc"),
        (CLEAR, np.negative(CLEAR), "not resolvable", "rmse_lfc"),
        (CLEAR, [np.nan] * 6, "holds", "pearson"),
    ],
)
def test_the_numbers_beside_a_verdict_are_those_of_the_metric_that_decided(pearson, rmse, verdict, metric):
    gains = {name: values.dropna() for name, values in gains_of(pearson, rmse).items()}
    found = statements._judged(gains, {}, "")
    assert (found.verdict, found.metric, found.estimate) == (verdict, metric, gains[metric].mean())
    assert (found.p_value <= 0.05) == (found.low > 0 or found.high < 0) == (gains[metric].abs().min() > 0.2)


@pytest.mark.parametrize(
    ("pearson", "rmse", "verdict", "reason"),
    [
        (0.3, 0.2, "not resolvable", "Pearson and RMSE of log-fold change: the same in every unit"),
        (-0.3, CLEAR, "not resolvable", "Pearson: the same in every unit, so that there is no interval"),
        (0.0, CLEAR, "holds", ""),
        (0.0, UNCLEAR, "not resolvable", "the interval holds 0"),
    ],
)
def test_a_gain_that_is_the_same_everywhere_has_no_interval_and_says_so(pearson, rmse, verdict, reason):
    found = statements._judged(gains_of(pearson, rmse), {}, "")
    assert found.verdict == verdict
    assert found.reason.startswith(reason)
    assert f"gain {pearson:+.3g} in each of 6 patients" in found.result
    assert "nan" not in found.result


@pytest.mark.parametrize(
    ("node", "verdict", "reason"),
    [(0.5, "holds", ""), (0.55, "not resolvable", "the same in every unit, so that there is no interval")],
)
def test_answers_that_are_the_same_are_equal_without_an_interval(tmp_path, node, verdict, reason):
    forms = {"published": 0.5, TWIN: 0.7, "node": node}
    rows = scores({("cellina", form, "rmse_lfc"): value for form, value in forms.items()}, seeds=(0,))
    run = tables(tmp_path, rows, config())
    (found,) = statements.equal(run, "crc", "as_run", first=("cellina", "edge"), second=("cellina", "node"))
    assert (found.verdict, found.reason, found.metric) == (verdict, reason, "rmse_lfc")


def test_without_a_gain_over_the_twin_there_is_no_margin(tmp_path):
    forms = {"published": 0.9, TWIN: 0.5, "node": 0.95}
    rows = scores({("cellina", form, "rmse_lfc"): noisy(v, 0.01, i) for i, (form, v) in enumerate(forms.items())})
    run = tables(tmp_path, rows, config())
    (found,) = statements.equal(run, "crc", "as_run", first=("cellina", "edge"), second=("cellina", "node"))
    assert found.verdict == "not resolvable"
    assert found.reason.startswith("new neighbours gain nothing over the twin")


def recovered(gains):
    """Forces of tissues of several sizes, each draw of forces (seed, tissue) with the gain of its own."""
    keys = [
        (g, c, *draw, kind) for g in (10, 20, 40) for c in (1, 2, 3) for draw in gains for kind in ("inter", "intra")
    ]
    table = pd.DataFrame(keys, columns=["n_genes", "n_cells", "seed", "tissue", "forces"])
    own = [gains[draw] for draw in zip(table["seed"], table["tissue"], strict=True)]
    # Sizes differ a little, by the same in each draw.
    return table.assign(method="gaussian", data="field", recovery=own + 0.01 * table["n_cells"], cross_talk=0.0)


@pytest.mark.parametrize(
    ("gains", "n", "verdict", "reason"),
    [
        # One seed: as many draws as tissues, whatever the number of sizes.
        (
            {(0, tissue): 0.5 + 0.1 * tissue for tissue in range(3)},
            3,
            "not resolvable",
            "fewer than 4 independent units",
        ),
        ({(seed, t): 0.5 + 0.1 * t + 0.1 * seed for seed in (0, 1) for t in range(3)}, 6, "holds", ""),
        ({(seed, t): 0.5 for seed in (0, 1) for t in range(3)}, 6, "not resolvable", "the same in every unit"),
    ],
)
def test_forces_are_told_apart_over_draws_of_forces_and_not_over_sizes(gains, n, verdict, reason):
    path = "results/celcomen/recovery/recovery.tsv"
    here = Tables({}, [path])
    here._read[path] = recovered(gains)
    (found,) = statements.told_apart(here, "", "corrected")
    assert (found.n, found.unit, found.verdict) == (n, "draws of forces", verdict)
    assert found.reason.startswith(reason)
    # Cells that were refused count as those in which nothing was found.
    half = here._read[path]["n_cells"] > 1
    here._read[path].loc[half, ["recovery", "cross_talk"]] = np.nan
    (less,) = statements.told_apart(here, "", "corrected")
    assert less.estimate == pytest.approx((found.estimate - 0.02 + 0.01) / 3)


@pytest.mark.parametrize("n_slides", [1, 6])
def test_where_nothing_differs_a_verdict_is_rare(n_slides):
    """Differences of two methods on five types, slides sharing an effect of their own."""
    rng = np.random.default_rng(n_slides)
    index = pd.MultiIndex.from_product([SLIDES[:n_slides], TYPES], names=["slide", "cell_type"])
    found = []
    for _ in range(N):
        shared = np.repeat(rng.normal(0, 0.1 if n_slides > 1 else 0, n_slides), len(TYPES))
        gains = {m: pd.Series(shared + rng.normal(0, 0.1, len(index)), index) for m in statements.JUDGED_BY}
        found.append(statements._judged(gains, {}, "").verdict)
    assert 0 < found.count("holds") / N < SELDOM
    assert 0 < found.count("does not hold") / N < SELDOM


@pytest.mark.parametrize(("gain", "spread", "noise"), [(0.2, 0, 0.03), (0.2, 0.2, 0.01), (0, 0.2, 0.01)])
def test_answers_apart_by_the_margin_are_seldom_called_equal(gain, spread, noise):
    """At the edge of the margin two one-sided tests say `equal` in at most one of twenty, and so if there is no gain
    and no difference: how far the margin itself is known must count.
    """
    rng, settings = np.random.default_rng(0), config()
    equal = 0
    n = 40
    for _ in range(n):
        # Of the twin's errors over those of new neighbours, half the mean is the margin, and the true difference.
        gains = {t: gain + spread * rng.standard_normal() for t in TYPES}
        apart = {t: gain / 2 + noise * rng.standard_normal() for t in TYPES}
        rows = scores(
            {
                ("cellina", "published", "rmse_lfc"): 0.5,
                ("cellina", TWIN, "rmse_lfc"): lambda s, t, seed, gains=gains: 0.5 + gains[t],
                ("cellina", "node", "rmse_lfc"): lambda s, t, seed, apart=apart: 0.5 + apart[t],
            },
            slides=SLIDES[:1],
            seeds=(0,),
        )
        run = SimpleNamespace(config=settings, of=lambda *_, rows=rows, **__: rows)
        (found,) = statements.equal(run, "crc", "as_run", first=("cellina", "edge"), second=("cellina", "node"))
        equal += found.verdict == "holds"
    assert equal / n <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)


def test_only_folds_with_all_three_answers_tell_whether_two_are_equal(tmp_path):
    """A fold without its twin has no margin of its own."""
    forms = {"published": 0.5, TWIN: 0.7, "node": 0.52}
    rows = scores({("cellina", form, "rmse_lfc"): noisy(v, 0.01, i) for i, (form, v) in enumerate(forms.items())})
    rows = rows[(rows["variant"] != TWIN) | rows["slide"].isin(SLIDES[:2])]
    run = tables(tmp_path, rows, config())
    (found,) = statements.equal(run, "crc", "as_run", first=("cellina", "edge"), second=("cellina", "node"))
    assert (found.unit, found.n, found.verdict) == ("folds", 10, "holds")


def test_forces_from_noise_are_seldom_found_again(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "results/celcomen/simulation/correlations.as_run.tsv"
    held, n = 0, 40
    keys = [(q, s, seed) for q in ("inter", "intra") for s in ("estimate", "noise") for seed in range(40)]
    for _ in range(n):
        table = pd.DataFrame(keys, columns=["quantity", "source", "seed"])
        table = table.assign(panel="paper", entries="upper_triangle", spearman=rng.uniform(-1, 1, len(keys)))
        write_tsv(table, path)
        run = Tables(
            {"protocols": ["as_run"], "datasets": {}},
            ["results/celcomen/simulation/correlations.as_run.tsv"],
        )
        (found,) = statements.found_again(run, "", "as_run")
        held += found.verdict == "holds"
    assert held / n <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)


def test_forces_that_are_nowhere_told_from_noise_are_not_found_again(tmp_path):
    """Of intra forces, the same as noise in every simulation, there is no p value."""
    path = "results/celcomen/simulation/correlations.as_run.tsv"
    keys = [(q, s, seed) for q in ("inter", "intra") for s in ("estimate", "noise") for seed in range(20)]
    table = pd.DataFrame(keys, columns=["quantity", "source", "seed"]).assign(panel="paper", entries="upper_triangle")
    rho = 0.01 * table["seed"] + 0.5 * ((table["quantity"] == "inter") & (table["source"] == "estimate"))
    write_tsv(table.assign(spearman=rho), tmp_path / path)
    with np.errstate(invalid="ignore"):
        (found,) = statements.found_again(Tables({}, [path]), "", "as_run")
    assert found.verdict == "not resolvable"


def agreement(observed, partial, shuffled):
    common = {"seed": 0, "constant": False, "p_value": 0.001, "random_high": 0.1}
    rows = [
        common
        | {
            "hold_out": h,
            "force": "inter",
            "variant": v,
            "spearman": rho,
            "partial_spearman": partial,
        }
        for h in "abc"
        for v, rho in (("observed", observed), ("shuffled_space", shuffled))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("observed", "partial", "shuffled", "verdict", "reason"),
    [
        (0.5, 0.4, 0.0, "holds", ""),
        (0.5, 0.05, 0.0, "not resolvable", "mean expression explains the agreement"),
        (0.5, 0.4, 0.6, "not resolvable", "cells shuffled in space agree as well"),
    ],
)
def test_agreement_of_samples_must_leave_its_controls_behind(tmp_path, observed, partial, shuffled, verdict, reason):
    path = "results/tables/s/celcomen_spleen.corrected.agreement.tsv"
    write_tsv(agreement(observed, partial, shuffled), tmp_path / path)
    (found,) = statements.samples_agree(Tables({}, [path]), "s", "corrected")
    assert (found.verdict, found.reason) == (verdict, reason)
    # Three hold-outs, with however many seeds.
    seeds = pd.concat([agreement(observed, partial, shuffled).assign(seed=seed) for seed in (0, 1)])
    write_tsv(seeds, tmp_path / path)
    (found,) = statements.samples_agree(Tables({}, [path]), "s", "corrected")
    assert found.n == 3
    assert "over 3 hold-outs and 2 seeds" in found.result


@pytest.mark.parametrize(
    ("rank", "n_ranked", "effect", "verdict"),
    [
        (1, 30, -0.1, "holds"),
        (9, 30, -0.1, "not resolvable"),
        (1, 11, -0.1, "not resolvable"),
        (30, 30, 0.1, "does not hold"),
    ],
)
def test_a_knock_out_reaches_neighbours_more_than_other_genes_do(tmp_path, rank, n_ranked, effect, verdict):
    path = "results/tables/g/celcomen_glioblastoma.corrected.placebo.tsv"
    row = {"group": "neighbours_0", "role": "gene", "gene": "G", "rank": rank, "n_ranked": n_ranked}
    write_tsv(pd.DataFrame([row | {"effect": effect}]), tmp_path / path)
    (found,) = statements.reaches_neighbours(Tables({}, [path]), "g", "corrected")
    assert found.verdict == verdict
    assert (found.estimate, found.p_value) == (effect, rank / n_ranked)
    assert (found.unit, found.n) == ("genes", n_ranked)


@pytest.mark.parametrize(
    ("difference", "p", "verdict"),
    [(0.4, 0.01, "holds"), (-0.4, 0.01, "does not hold"), (0.4, 0.2, "not resolvable"), (np.nan, np.nan, None)],
)
@pytest.mark.parametrize("statistic", ["genes", "tails"])
def test_forces_know_where_proteins_are_in_the_mean_and_in_the_tails_apart(tmp_path, statistic, difference, p, verdict):
    path = "results/tables/g/celcomen_glioblastoma.corrected.localization_tests.tsv"
    row = {"first": "secreted", "second": "cytoplasmic", "n_first": 9, "n_second": 30}
    own = row | {"statistic": statistic, "difference": difference, "p_value": p}
    # The other statistic, and another pair of classes, say the reverse.
    other = row | {"statistic": {"genes": "tails", "tails": "genes"}[statistic], "difference": -9, "p_value": 0.001}
    pair = own | {"second": "membrane", "difference": -9, "p_value": 0.001}
    write_tsv(pd.DataFrame([own, other, pair]), tmp_path / path)
    found = [*statements.know_proteins(Tables({}, [path]), "g", "corrected", statistic=statistic)]
    assert [one.verdict for one in found] == ([] if verdict is None else [verdict])
    assert all(one.n == 39 for one in found)


@pytest.mark.parametrize(
    ("inter", "intra", "verdict"),
    [
        ((1e-6, 1e-4), (1e-3, 0.02), "holds"),
        ((1e-3, 0.02), (1e-6, 1e-4), "does not hold"),
        # Ten clusters were looked at, so that a q of .02 in one of them is none.
        ((1e-3, 0.02), (0.5, 0.9), "not resolvable"),
        (None, (1e-6, 1e-4), "does not hold"),
        (None, None, "not resolvable"),
    ],
)
def test_clusters_between_cells_hold_more_of_what_cells_say(tmp_path, inter, intra, verdict):
    path = "results/tables/g/celcomen_glioblastoma.corrected.cluster_terms.tsv"
    rows = [
        {"force": force, "cluster": cluster, "term": "Mitotic Cytokinesis", "p_value": 1e-9, "q_value": 1e-7}
        for force in ("inter", "intra")
        for cluster in range(1, 6)
    ]
    for force, found in (("inter", inter), ("intra", intra)):
        if found:
            term = {"force": force, "cluster": 2, "term": "Response To Cytokine (GO:0034097)"}
            rows.append(term | {"p_value": found[0], "q_value": found[1]})
    write_tsv(pd.DataFrame(rows), tmp_path / path)
    (one,) = statements.clusters_between(Tables({}, [path]), "g", "corrected")
    assert one.verdict == verdict


def test_clusters_of_nothing_are_seldom_called_enriched():
    rng = np.random.default_rng(0)
    path = "results/tables/g/celcomen_glioblastoma.corrected.cluster_terms.tsv"
    terms = [f"Response To Cytokine {i}" if i < 8 else f"Term {i}" for i in range(20)]
    keys = [(force, cluster) for force in ("inter", "intra") for cluster in range(1, 6)]
    called, n = 0, 200
    for _ in range(n):
        p = rng.random((len(keys), len(terms)))
        rows = pd.DataFrame(
            {
                "force": np.repeat([force for force, _ in keys], len(terms)),
                "cluster": np.repeat([cluster for _, cluster in keys], len(terms)),
                "term": terms * len(keys),
                "p_value": p.ravel(),
                "q_value": np.concatenate([benjamini_hochberg(own) for own in p]),
            }
        )
        here = Tables({}, [path])
        here._read[path] = rows
        (one,) = statements.clusters_between(here, "g", "corrected")
        called += one.verdict != "not resolvable"
    assert 0 < called / n < 0.05 + 4 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "holds", ""),
        ({"p_value": [0.03, 0.2, np.nan]}, "not resolvable", "a control agrees as well by chance"),
        ({"null_median": [0.1, 0.7, 0.9]}, "does not hold", "a control that knows nothing agrees better"),
        # A control whose 97.5 % reach the prediction, though its median does not.
        ({"null_high": [0.6, 0.2, 0.9]}, "does not hold", "a control that knows nothing agrees better"),
        ({"smallest_p": [0.06, 0.06, 0.06]}, "not resolvable", "too few lesions: no p value can be small"),
        ({"predictor": ["generation"] * 3}, "not resolvable", "no control of this prediction gives a valid p value"),
    ],
)
def test_lesions_agree_where_every_control_that_keeps_its_level_is_beaten(changes, verdict, reason):
    """Of two seeds of the control that keeps its level the worse counts; a control that was not drawn does not."""
    rows = pd.DataFrame(
        {
            "knockout": "Jak2",
            "predictor": "field",
            "control": ["random_gene", "random_gene", "permuted"],
            "seed": [0, 1, 0],
            "n_draws": [99, 99, 0],
            "n_lesions": 6,
            "median": 0.5,
            "null_median": [0.1, 0.2, 0.9],
            "null_high": np.nan,
            "p_value": [0.03, 0.04, np.nan],
            "smallest_p": 0.01,
        }
    ).assign(**changes)
    path = "results/tables/g/celcomen_perturbmap.as_run.summary.tsv"
    settings = config("simulated") | {"protocols": ["as_run"]}
    settings["datasets"] = {"g": settings["datasets"]["crc"] | {"experiments": ["celcomen_perturbmap"]}}
    write_tsv(rows, path, sort=False)
    found = statements.build(Tables(settings, [path]))
    (own,) = found[found["place"] == "Fig. 4"].to_dict("records")
    # Wild-type lesions do not keep their level, and give no p value.
    assert own["test"].startswith("another gene in place of the one that was lost")
    assert (own["verdict"], own["reason"]) == (verdict, reason)
    assert own["result"].startswith("Jak2: median rho 0.50")
    assert "nan" not in own["result"]
    if not changes:
        assert own["result"].endswith("best control up to 0.20, largest p = 0.04")
        assert (own["unit"], own["n"], own["p_value"]) == ("lesions", 6, 0.04)
