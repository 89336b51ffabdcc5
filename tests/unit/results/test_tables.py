"""Tests of score tables, against numbers computed by hand."""

import numpy as np
import pandas as pd
import pytest

from synthetic_scores import CELL_TYPES, FAILURE, SEEDS, SLIDES, synthetic_scores
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.results.patients import estimate
from tissue_counterfactuals.results.tables import (
    BEST,
    COLUMNS,
    KEY,
    choose,
    few_target_cells,
    gains,
    learned_methods,
    paired_differences,
    read_scores,
    read_table,
    spread_failures,
    summarize,
    write_tsv,
)

COMMON = {"dataset": "d", "kind": "real", "target": "t", "protocol": "corrected", "status": "ok"}


def rows(method, variant, values, metric="pearson", **others):
    """Scores from {(slide, cell type, seed): value}."""
    return [
        COMMON
        | {"slide": slide, "cell_type": cell_type, "seed": seed, "method": method}
        | {"variant": variant, "metric": metric, "value": value, "reason": ""}
        | others
        for (slide, cell_type, seed), value in values.items()
    ]


def failed_rows(method, variant, folds, reason):
    values = dict.fromkeys(folds, np.nan)
    return rows(method, variant, values, metric="", status="failed", reason=reason)


def table(*groups):
    return pd.DataFrame([row for group in groups for row in group]).reindex(columns=COLUMNS)


# Two slides, two types, two seeds: fold means .2, .4, .6, 1.0.
VALUES = {
    ("s1", "A", 0): 0.1,
    ("s1", "A", 1): 0.3,
    ("s1", "B", 0): 0.4,
    ("s1", "B", 1): 0.4,
    ("s2", "A", 0): 0.5,
    ("s2", "A", 1): 0.7,
    ("s2", "B", 0): 1.0,
    ("s2", "B", 1): 1.0,
}


def test_summary_by_hand():
    row = summarize(table(rows("cellina", "published", VALUES))).iloc[0]
    assert row["mean"] == pytest.approx(0.55)
    # Deviations of the fold means from .55: -.35, -.15, .05, .45.
    assert row["std_pooled"] == pytest.approx(np.sqrt((0.1225 + 0.0225 + 0.0025 + 0.2025) / 3))
    # Slide means .3 and .8.
    assert row["std_slides"] == pytest.approx(0.5 / np.sqrt(2))
    # Over seeds: .2 / sqrt 2 in two folds, none in the others.
    assert row["std_seeds"] == pytest.approx(0.1 / np.sqrt(2))
    assert (row["n_folds"], row["n_seeds"], row["n_failed"], row["reason"]) == (4, 2, 0, "")


def test_spread_is_unknown_and_not_zero_where_there_is_one_of_a_kind():
    row = summarize(table(rows("m", "-", {("s1", "A", 0): 0.5}))).iloc[0]
    assert row["mean"] == 0.5
    assert row[["std_pooled", "std_slides", "std_seeds"]].isna().all()


def test_failed_and_undefined_runs_are_counted_apart():
    values = VALUES | {("s2", "B", 1): np.nan}
    missing = [("s1", "A", 0), ("s1", "A", 1)]
    ok = {key: value for key, value in values.items() if key not in missing}
    scores = table(rows("cellina", "published", ok), failed_rows("cellina", "published", missing, "too hot"))
    row = summarize(scores).iloc[0]
    assert row["mean"] == pytest.approx((0.4 + 0.6 + 1.0) / 3)
    assert (row["n_folds"], row["n_undefined"], row["n_failed"]) == (3, 1, 2)
    assert row["reason"] == "too hot"


def test_method_that_failed_everywhere_stays_in_the_summary():
    folds = [("s1", "A", 0), ("s1", "B", 0)]
    scores = table(rows("no_change", "-", VALUES), failed_rows("cellina", "-", folds, "no memory"))
    row = summarize(scores).query("method == 'cellina'").squeeze()
    assert (row["metric"], row["n_folds"], row["n_failed"]) == ("pearson", 0, 2)
    assert np.isnan(row["mean"])
    assert row["reason"] == "no memory"
    only_failures = summarize(table(failed_rows("cellina", "-", folds, "no memory")))
    assert only_failures[["method", "metric", "n_failed"]].values.tolist() == [["cellina", "", 2]]


def test_failed_fit_counts_for_every_variant_of_its_method():
    scores = table(
        rows("cellina", "published", VALUES),
        rows("cellina", "no_intervention", VALUES),
        failed_rows("cellina", "-", [("s3", "A", 0)], "no memory"),
        failed_rows("scgen", "-", [("s3", "A", 0)], "no memory"),
    )
    failed = spread_failures(scores).query("status == 'failed'")
    assert sorted(zip(failed["method"], failed["variant"], strict=True)) == [
        ("cellina", "no_intervention"),
        ("cellina", "published"),
        ("scgen", "-"),
    ]
    assert summarize(scores).query("method == 'cellina'")["n_failed"].tolist() == [1, 1]
    # One run failed, though both sides of the pair miss it.
    twin = gains(scores).query("reference == 'no_intervention'")
    assert twin.query("variant == 'published'")["n_failed"].unique().tolist() == [1]


def test_failures_of_a_variant_are_not_those_of_another():
    folds = list(VALUES)[:5]
    scores = table(
        *(rows(m, variant, VALUES) for m in ("cellina", "scgen") for variant in ("published", "no_intervention")),
        rows("scgen", "any_type", VALUES),
        failed_rows("cellina", "matched", folds, "no donors matched"),
        failed_rows("scgen", "any_type", folds[:2], "too hot"),
        failed_rows("scgen", "-", [("s3", "A", 0)], "no memory"),
    )
    found = gains(scores).query("method == 'cellina'").set_index(["variant", "reference"])
    assert found.loc[("published", "no_intervention"), ["n_failed", "reason"]].tolist() == [0, ""]
    assert found.loc[("matched", "no_intervention"), ["n_failed", "reason"]].tolist() == [5, "no donors matched"]
    assert found.loc[("published", "scgen"), ["n_failed", "reason"]].tolist() == [1, "no memory"]
    # scGen has no donors that are matched, so that any other of its answers stands in.
    reason = "no donors matched; no memory; too hot"
    assert found.loc[("matched", "scgen"), ["n_failed", "reason"]].tolist() == [8, reason]


def test_gain_over_the_twin_is_paired_by_fold_and_seed():
    twin = {key: value - 0.1 for key, value in VALUES.items()} | {("s1", "A", 0): 0.4}
    # A twin without its counterfactual pairs with nothing.
    twin |= {("s9", "A", 0): 0.9}
    scores = table(rows("cellina", "published", VALUES), rows("cellina", "no_intervention", twin))
    pairs = paired_differences(scores)
    assert len(pairs) == len(VALUES)
    assert pairs["gain"].sum() == pytest.approx(7 * 0.1 - 0.3)
    row = gains(scores).squeeze()
    # Fold gains: (-.3 + .1) / 2, then .1 three times.
    assert row["mean"] == pytest.approx((-0.1 + 0.3) / 4)
    assert row["std"] == pytest.approx(0.1)
    assert (row["n"], row["n_improved"], row["direction"]) == (4, 3, "higher")
    assert np.isnan(row["p_value"])


def test_gain_is_positive_where_a_lower_score_is_better():
    lower = {key: value - 0.05 for key, value in VALUES.items()}
    scores = table(
        rows("cellina", "published", lower, metric="rmse_lfc"),
        rows("cellina", "no_intervention", VALUES, metric="rmse_lfc"),
    )
    row = gains(scores).squeeze()
    assert row["direction"] == "lower"
    assert row["mean"] == pytest.approx(0.05)
    assert row["mean_difference"] == pytest.approx(-0.05)
    assert row["n_improved"] == 4


def test_control_pairs_by_seed_or_by_its_mean_over_seeds():
    control = {("s1", "A", 0): 0.0, ("s1", "A", 5): 0.2}
    scores = table(
        rows("cellina", "published", {("s1", "A", 0): 0.5, ("s1", "A", 1): 0.7}),
        rows("cellina", "no_intervention", {("s1", "A", 0): 0.5}),
        rows("mean_shift", "-", control),
    )
    pairs = paired_differences(scores).query("reference == 'mean_shift'").set_index("seed")
    # Seed 0 meets the control's own seed 0, seed 1 the mean of seeds 0 and 5.
    assert pairs["gain"].to_dict() == {0: pytest.approx(0.5), 1: pytest.approx(0.6)}
    references = gains(scores).set_index("reference")["mean"]
    assert references["mean_shift"] == pytest.approx(0.55)
    assert set(references.index) == {"no_intervention", "mean_shift"}


def by_patient(gains_of_patients, types=("A", "B")):
    """Scores of a counterfactual that gains so much over its twin on each patient's one slide."""
    after = {
        (f"p{i}", t, 0): 0.5 + gain + (0.02 if t == "A" else -0.02)
        for i, gain in enumerate(gains_of_patients)
        for t in types
    }
    before = dict.fromkeys(after, 0.5)
    return table(rows("cellina", "published", after), rows("cellina", "no_intervention", before))


def test_intervals_are_over_patients_and_need_four():
    scores = by_patient([0.1, 0.18, 0.3, 0.22])
    row = gains(scores).squeeze()
    expected = estimate(np.array([0.1, 0.18, 0.3, 0.22]))
    assert (row["n"], row["n_patients"], row["patient_mean"]) == (8, 4, pytest.approx(0.2))
    assert row[["low", "high", "p_value"]].tolist() == pytest.approx(expected[:3])
    assert row["p_adjusted"] == pytest.approx(expected.p_value)
    # Two slides of one patient are one piece of evidence.
    row = gains(scores, {"p0": "P", "p1": "P"}).squeeze()
    assert (row["n"], row["n_patients"], row["patient_mean"]) == (8, 3, pytest.approx(0.66 / 3))
    assert row[["low", "high", "p_value", "p_adjusted"]].isna().all()


def test_spread_by_patient_by_hand():
    scores = table(rows("m", "-", {(f"s{i}", "A", 0): v for i, v in enumerate([0.1, 0.3, 0.8])}))
    row = summarize(scores, {"s0": "P", "s1": "P"}).squeeze()
    assert row["std_patients"] == pytest.approx(0.6 / np.sqrt(2))
    assert row["std_slides"] == pytest.approx(np.std([0.1, 0.3, 0.8], ddof=1))


def test_no_difference_at_all_gives_no_p_value():
    values = {(f"s{i}", "A", 0): 0.5 for i in range(8)}
    scores = table(rows("cellina", "published", values), rows("cellina", "no_intervention", values))
    row = gains(scores).squeeze()
    assert (row["mean"], row["n"], row["n_improved"]) == (0, 8, 0)
    assert np.isnan(row["p_value"])


def test_every_other_method_and_the_ceiling_are_references_and_the_best_is_named():
    folds = [(f"p{i}", "A", 0) for i in range(5)]
    wobble = dict(zip(folds, (0.0, 0.01, 0.02, 0.03, 0.05), strict=True))

    def at(level):
        return {fold: level + wobble[fold] for fold in folds}

    flat = dict.fromkeys(folds, 0.0)
    scores = table(
        rows("cellina", "published", at(0.9)),
        rows("cellina", "matched", at(0.95)),
        rows("ridge", "published", flat),
        rows("ridge", "matched", dict.fromkeys(folds, 0.8)),
        rows("scgen", "-", dict.fromkeys(folds, 0.7)),
        rows("ceiling", "-", dict.fromkeys(folds, 0.99)),
    )
    found = gains(scores).query("method == 'cellina'").set_index(["variant", "reference"])
    # A method is compared under the same donors, one without donors with what it has.
    assert found.loc[("published", "ridge"), "mean"] == pytest.approx(0.922)
    assert found.loc[("matched", "ridge"), "mean"] == pytest.approx(0.172)
    assert found.loc[("published", "scgen"), "mean"] == pytest.approx(0.222)
    assert found.loc[("published", "ceiling"), "mean"] == pytest.approx(-0.068)
    assert found.loc["published"].index.tolist() == ["no_intervention", "ceiling", "ridge", "scgen", BEST]
    best = found.loc[("published", BEST)]
    each = [estimate(np.array([*at(level).values()])) for level in (0.2, 0.9)]
    assert (best["competitor"], best["mean"]) == ("scgen", pytest.approx(0.222))
    assert best["p_value"] == pytest.approx(max(e.p_greater for e in each))
    assert best["low"] == pytest.approx(each[0].low)
    assert np.isnan(best["high"])
    assert found.loc[("matched", BEST), "competitor"] == "ridge"
    # Three references with a value (the twin was not run): the smallest p value counts three times.
    three = found.loc["published"].loc[["ceiling", "ridge", "scgen"]]
    assert three["p_adjusted"].min() == pytest.approx(min(3 * three["p_value"].min(), 1))


def test_learned_method_that_failed_everywhere_stays_in_the_gains():
    scores = table(rows("no_change", "-", VALUES), failed_rows("cellina", "-", [("s1", "A", 0)], "no memory"))
    assert learned_methods(scores) == ["cellina"]
    row = gains(scores).query("reference == 'no_intervention'").squeeze()
    assert (row["method"], row["n"], row["n_failed"]) == ("cellina", 0, 1)
    assert row["reason"] == "no memory"


def test_metrics_without_a_better_end_or_against_the_twin_have_no_gain():
    parts = []
    for metric in ("pearson", "pearson_twin", "some_diagnostic"):
        parts += [rows("cellina", v, VALUES, metric) for v in ("published", "no_intervention")]
    scores = table(*parts)
    assert set(paired_differences(scores)["metric"]) == {"pearson"}
    assert set(gains(scores)["metric"]) == {"pearson"}
    assert set(summarize(scores)["metric"]) == {"pearson", "pearson_twin", "some_diagnostic"}


def test_experiments_are_kept_apart():
    other = rows("cellina", "published", dict.fromkeys(VALUES, 0.0), protocol="as_run")
    summary = summarize(table(rows("cellina", "published", VALUES), other))
    assert summary.set_index("protocol")["mean"].to_dict() == {
        "corrected": pytest.approx(0.55),
        "as_run": 0.0,
    }


def test_gains_match_a_plain_loop_on_a_large_table():
    scores = synthetic_scores()
    row = (
        gains(scores)
        .query("method == 'cellina' and variant == 'matched' and metric == 'e_distance'")
        .set_index("reference")
        .loc["mean_shift_by_type"]
    )

    value = {}
    for score in scores[scores["metric"] == "e_distance"].itertuples():
        key = (score.slide, score.cell_type, score.seed, score.method, score.variant)
        value[key] = score.value
    folds = [
        np.mean(
            [
                value[slide, cell_type, seed, "mean_shift_by_type", "-"]
                - value[slide, cell_type, seed, "cellina", "matched"]
                for seed in SEEDS
            ]
        )
        for slide in SLIDES
        for cell_type in CELL_TYPES
    ]
    assert row["mean"] == pytest.approx(np.mean(folds))
    assert row["std"] == pytest.approx(np.std(folds, ddof=1))
    assert row["n"] == len(folds)


def test_choose_names_what_there_is():
    scores = table(rows("cellina", "published", VALUES))
    assert len(choose(scores, "d", "t", "corrected")) == len(VALUES)
    with pytest.raises(InputError, match="no rows for dataset 'd', target 'x'.*there are d / t"):
        choose(scores, "d", "x", "corrected")


def test_methods_that_see_the_answer_are_neither_judged_nor_competitors():
    better = {fold: value + 0.2 for fold, value in VALUES.items()}
    worse = {fold: value - 0.1 for fold, value in VALUES.items()}
    scores = table(
        rows("cellina", "published", VALUES),
        rows("cellina", "no_intervention", worse),
        rows("ridge", "published", worse),
        rows("truth", "published", better),
        rows("truth", "no_intervention", better),
        rows("scgen", "-", better),
    )
    for seen, best, judged in (({"truth", "scgen"}, "ridge", ["cellina", "ridge"]), ({"truth"}, "scgen", None)):
        found = gains(scores, sighted={"corrected": seen, "as_run": set()})
        assert judged is None or sorted(set(found["method"])) == judged
        own = found[found["method"] == "cellina"].set_index("reference")
        assert not seen & {*own.index}
        assert own.loc[BEST, "competitor"] == best


def test_the_best_competitor_is_the_one_over_which_patients_gain_least():
    """Patient p0 has three types and p1 one: over folds scgen is beaten by more, over patients by less."""
    folds = [("p0", "A", 0), ("p0", "B", 0), ("p0", "C", 0), ("p1", "A", 0)]
    own = dict.fromkeys(folds, 0.9)
    ridge = {fold: 0.9 - gain for fold, gain in zip(folds, (0.1, 0.1, 0.1, 0.5), strict=True)}
    scgen = {fold: 0.9 - gain for fold, gain in zip(folds, (0.3, 0.3, 0.3, 0.1), strict=True)}
    scores = table(
        rows("cellina", "published", own),
        rows("cellina", "no_intervention", own),
        rows("ridge", "published", ridge),
        rows("scgen", "-", scgen),
    )
    found = gains(scores).query("method == 'cellina' and variant == 'published'").set_index("reference")
    assert found.loc["ridge", ["mean", "patient_mean"]].tolist() == pytest.approx([0.2, 0.3])
    assert found.loc["scgen", ["mean", "patient_mean"]].tolist() == pytest.approx([0.25, 0.2])
    assert found.loc[BEST, "competitor"] == "scgen"


def test_failures_of_the_best_competitor_stand_beside_it_and_a_fold_without_it_is_no_pair():
    ok = {key: value - 0.1 for key, value in VALUES.items() if key[0] != "s2"}
    scores = table(
        rows("cellina", "published", VALUES),
        rows("cellina", "no_intervention", VALUES),
        rows("ridge", "published", ok),
        failed_rows("ridge", "-", [("s2", "A", 0), ("s2", "B", 0)], "no memory"),
    )
    pairs = paired_differences(scores).query("method == 'cellina' and reference == 'ridge'")
    assert set(pairs["slide"]) == {"s1"}
    found = gains(scores).query("method == 'cellina' and variant == 'published'").set_index("reference")
    assert (found.loc["ridge", "n"], found.loc["ridge", "n_patients"]) == (2, 1)
    for reference in ("ridge", BEST):
        assert found.loc[reference, ["n_failed", "reason"]].tolist() == [2, "no memory"]
    assert found.loc["no_intervention", "n_failed"] == 0


def test_few_target_cells_are_those_of_the_fold_and_not_of_half_of_them():
    scores = table(
        rows("cellina", "published", {("s1", "A", 0): 0.5}, n_target=30),
        rows("ceiling", "-", {("s1", "A", 0): 0.5}, n_target=15),
    )
    assert few_target_cells(scores) == ""
    few = scores.assign(n_target=scores["n_target"] - 10)
    assert "A on s1 (20)" in few_target_cells(few)


# --- files ------------------------------------------------------------------------------------------------------


def test_file_keeps_everything(tmp_path):
    scores = synthetic_scores()
    scores.loc[scores["cell_type"] == "B cell", "cell_type"] = "NA"
    write_tsv(scores, tmp_path / "scores.tsv")
    back = read_scores([tmp_path / "scores.tsv"])
    expected = scores.sort_values(KEY, ignore_index=True)
    pd.testing.assert_frame_equal(back, expected, check_exact=False, rtol=1e-5)
    assert set(back["cell_type"]) >= {"NA"}
    assert back["seed"].dtype == np.int64
    # A count of cells is no fraction to be rounded.
    assert back["n_target"].dropna().unique().tolist() == [1_234_567]
    assert back["n_target"].isna().sum() == (scores["status"] == "failed").sum()


def test_same_content_gives_the_same_bytes(tmp_path):
    scores = synthetic_scores()
    write_tsv(scores, tmp_path / "a.tsv")
    write_tsv(scores.sample(frac=1, random_state=1), tmp_path / "b.tsv")
    write_tsv(read_scores([tmp_path / "a.tsv"]), tmp_path / "c.tsv")
    first = (tmp_path / "a.tsv").read_bytes()
    assert first == (tmp_path / "b.tsv").read_bytes() == (tmp_path / "c.tsv").read_bytes()
    assert b"\r" not in first


def test_counts_with_gaps_are_written_in_full(tmp_path):
    # As the scoring step makes them: failed rows turn counts into floats.
    frame = pd.DataFrame({"name": ["a", "b"], "n": [1_234_567.0, np.nan], "x": [1 / 3, 12345678.5]})
    write_tsv(frame, tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_text() == "name\tn\tx\na\t1234567\t0.333333\nb\t\t1.23457e+07\n"


def test_line_break_in_a_reason_does_not_break_the_table(tmp_path):
    scores = table(
        rows("no_change", "-", VALUES),
        failed_rows("cellina", "-", [("s1", "A", 0)], 'first\nsecond\t"third"'),
    )
    write_tsv(scores, tmp_path / "s.tsv")
    assert len((tmp_path / "s.tsv").read_text().splitlines()) == len(scores) + 1
    back = read_scores([tmp_path / "s.tsv"]).query("status == 'failed'").squeeze()
    assert back["reason"] == 'first second "third"'


def test_order_can_be_kept(tmp_path):
    write_tsv(pd.DataFrame({"name": ["b", "a"]}), tmp_path / "t.tsv", sort=False)
    assert (tmp_path / "t.tsv").read_text() == "name\nb\na\n"


def test_names_are_read_as_they_are(tmp_path):
    names = {"cell_type": ["01", "NA"], "target": ["1", "nan"], "gene": ["None", "NA"], "status": ["ok", "ok"]}
    written = pd.DataFrame(names | {"value": [1.5, np.nan], "n": [1, 2]})
    write_tsv(written, tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.tsv"), written)


def test_several_files_become_one_table(tmp_path):
    scores = synthetic_scores()
    for slide, part in scores.groupby("slide"):
        write_tsv(part, tmp_path / f"{slide}.tsv")
    together = read_scores(sorted(tmp_path.glob("[!.]*"), reverse=True))
    write_tsv(scores, tmp_path / "all.tsv")
    pd.testing.assert_frame_equal(together, read_scores([tmp_path / "all.tsv"]))
    assert set(together.query("status == 'failed'")["reason"]) == {FAILURE}


def broken(change):
    scores = table(rows("cellina", "published", VALUES)).astype(object)
    return change(scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="seed"), r"bad\.tsv: column 'seed' is missing"),
        (lambda t: t.assign(extra=1), r"bad\.tsv: column 'extra' is unknown"),
        (lambda t: t.assign(kind="fake"), "line 2: column 'kind' holds 'fake' instead of one of simulated"),
        (lambda t: t.assign(protocol="mine"), "column 'protocol' holds 'mine' instead of one of corrected"),
        (lambda t: t.assign(status="maybe"), "column 'status' holds 'maybe'"),
        (lambda t: t.assign(value=["x", *t["value"][1:]]), "line 2: column 'value' holds 'x' instead of a number"),
        (lambda t: t.assign(seed=[0.5, *t["seed"][1:]]), "column 'seed' holds '0.5' instead of a whole number"),
        (lambda t: t.assign(seed=["", *t["seed"][1:]]), "column 'seed' holds '' instead of a whole number"),
        (lambda t: t.assign(metric=["", *t["metric"][1:]]), "column 'metric' holds '' instead of a metric"),
        (lambda t: t.assign(status="failed"), "column 'reason' holds '' instead of a reason"),
        (lambda t: pd.concat([t, t.head(1)]), "'cell_type': 'A'.* is there twice"),
    ],
)  # fmt: skip
def test_broken_table_is_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "bad.tsv"
    broken(change).to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=message) as error:
        read_scores([path])
    assert "\n" not in str(error.value)


def test_no_table_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(InputError, match="none was given"):
        read_scores([])
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match=r"empty\.tsv cannot be read"):
        read_scores([tmp_path / "empty.tsv"])
    with pytest.raises(InputError, match=r"absent\.tsv cannot be read"):
        read_scores([tmp_path / "absent.tsv"])
