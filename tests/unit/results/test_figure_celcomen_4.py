"""Figure 4 of Celcomen and the figure of its null: what they say, from tables made by hand."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from drawings import words_outside
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.celcomen_perturbmap import (
    CALIBRATED,
    CONTROLS,
    summarize,
)
from tissue_counterfactuals.results.figures import figure_celcomen_4, figure_celcomen_4_null
from tissue_counterfactuals.results.figures.figure_celcomen_4_null import verdict
from tissue_counterfactuals.results.tables import read_table

RHO = {"as_run": {"A": 0.35, "B": 0.3}, "corrected": {"A": 0.1, "B": 0.6}}


def manifest(protocol):
    return {
        "label": "Lesions",
        "kind": "stand-in",
        "n_cells": 40,
        "protocol": protocol,
        "seeds": [0],
        "commit": "abc",
        "config_hash": "123",
        "settings": {"knockouts": ["A", "B"]},
    }


def correlations(protocol):
    """Controls stand at 0, but minus the mean expression beats what is observed as run, and random genes A
    corrected.
    """
    rng = np.random.default_rng(0)
    rows = []
    predictors = ["generation"] if protocol == "as_run" else ["field", "generation"]
    for knockout, rho in RHO[protocol].items():
        for predictor in predictors:
            for lesion in (1, 2, 3):
                key = {
                    "dataset": "d", "kind": "stand-in", "protocol": protocol, "seed": 0, "knockout": knockout,
                    "section": "KP_1", "lesion": lesion, "label": "KP_1-1", "predictor": predictor,
                }  # fmt: skip
                values = {"observed": [rho + 0.01 * lesion]} | {c: rng.normal(0, 0.02, 20) for c in CONTROLS}
                values["minus_baseline"] = [0.45 if protocol == "as_run" else 0.0]
                if protocol == "corrected" and knockout == "A":
                    values["random_gene"] = np.linspace(-0.3, 0.3, 20)
                for control, numbers in values.items():
                    for draw, value in enumerate(numbers):
                        numbers_of = {"rho": value, "p_value": 0.01, "partial_rho": value, "n_genes": 50}
                        collapsed = int(protocol == "as_run" and lesion == 1)
                        rows.append(
                            key | numbers_of | {"control": control, "draw": draw, "n_knocked_out_collapsed": collapsed}
                        )
    return pd.DataFrame(rows)


def genes(protocol):
    rng = np.random.default_rng(0)
    parts = []
    for knockout in "AB":
        for lesion in (1, 2, 3):
            values = rng.random((50, 2))
            parts.append(pd.DataFrame(values, columns=["predicted_scaled", "observed"]))
            parts[-1][["knockout", "lesion"]] = knockout, lesion
            parts[-1]["predictor"] = "generation" if protocol == "as_run" else "field"
    return pd.concat(parts)


def spots():
    labels = ["KP_1-1", "Tgfbr2_1", "Zap70_1", "periphery", "normal"] * 8
    table = pd.DataFrame({"label": labels, "section": "KP_1", "lesion": [1, 0, 0, 0, 0] * 8})
    table["knocked_out"], table["response"] = table["lesion"] > 0, table["lesion"] * 0.5
    table["x_um"], table["y_um"] = np.arange(40) % 8 * 100.0, np.arange(40) // 8 * 86.6
    return pd.concat([table.assign(knockout=k) for k in "AB"])


def words(figure):
    def of(part):
        found = [t.get_text() for t in part.findobj(lambda a: hasattr(a, "get_text"))]
        return " ".join(found)

    return of(figure)


@pytest.mark.parametrize("protocol", ["as_run", "corrected"])
def test_figure_4_says_what_it_shows(protocol):
    figure = figure_celcomen_4.compose(correlations(protocol), genes(protocol), spots(), manifest(protocol))
    text = words(figure)
    # Of several seeds one is drawn.
    assert f"Lesions [stand-in] · protocol: {protocol} · seed 0" in text
    assert ("exact counterfactual" in text) == (protocol == "corrected")
    assert "lost Zap70" in text
    assert "wild type (KP)" in text
    assert f"ρ {RHO[protocol]['A'] + 0.01:.2f}" in text
    assert "commit abc" in text
    # p values as published only beside the published figure, and marked.
    assert ("p 1e-02 *" in text) == ("Mann-Whitney p = 0.1 *" in text) == (protocol == "as_run")
    assert ("no valid p values" in text) == (protocol == "as_run")
    drawn = {c.get_gid(): c for c in figure.findobj(PathCollection) if c.get_gid()}
    assert len(drawn["kept"].get_offsets()) == 8
    assert drawn["response"].get_array().tolist() == [0.5] * 8
    found = sorted(drawn["observed"].get_offsets()[:, 0])
    assert found == pytest.approx([RHO[protocol]["B"] + 0.01 * lesion for lesion in (1, 2, 3)])
    heights = drawn["permuted"].get_offsets()[:, 1]
    # As published one draw for each lesion, at -log10 p; corrected all draws, at the lesion.
    assert sorted(set(heights)) == ([2.0] if protocol == "as_run" else [0, 1, 2])
    assert len(heights) == (3 if protocol == "as_run" else 60)
    if protocol == "as_run":
        assert "KP_1 · 1 †" in text
        assert "KP_1 · 2 †" not in text
        assert "(2 of 6 predictions)" in text
    else:
        assert "No knocked-out spot lost all its expression." in text


def test_labels_outside_lesions_are_no_lost_genes():
    around = spots().replace({"label": {"normal": "normal_lung", "periphery": "stroma"}})
    figure = figure_celcomen_4.compose(correlations("corrected"), genes("corrected"), around, manifest("corrected"))
    (legend,) = figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert {"normal_lung", "stroma", "lost Zap70", "lost Tgfbr2", "wild type (KP)"} <= names
    assert not {"lost normal", "lost stroma"} & names


def test_panels_of_many_knock_outs_have_letters_of_their_own():
    names = [f"gene {i:02}" for i in range(13)]
    tables = [
        pd.concat([t[t["knockout"] == "A"].assign(knockout=name) for name in names])
        for t in (correlations("as_run"), genes("as_run"), spots())
    ]
    record = manifest("as_run") | {"settings": {"knockouts": names}}
    text = words(figure_celcomen_4.compose(*tables, record))
    for letter, name in (("c", names[0]), ("y", names[11]), ("aa", names[12])):
        assert f"{letter}  {name}: predicted change" in text


def test_no_words_run_out_of_figure_4():
    around = spots()
    around[["x_um", "y_um"]] = around[["y_um", "x_um"]].to_numpy() * [0.5, 1]  # a narrow lesion
    figure = figure_celcomen_4.compose(correlations("corrected"), genes("corrected"), around, manifest("corrected"))
    assert words_outside(figure) == []


def null_tables():
    rows, turns = [], []
    for seed in range(3):
        for protocol in ("as_run", "corrected"):
            own = correlations(protocol)
            own = own[(own["knockout"] == "A") & own["control"].isin(["observed", "minus_baseline"])]
            rows.append(own.assign(dataset="null_8000", seed=seed))
        for path in ("alone", "sequence"):
            for turn, switch in enumerate(["as_run", "experimental_scale", "field"]):
                turns.append(
                    {
                        "depth": 8000,
                        "seed": seed,
                        "path": path,
                        "turn": turn,
                        "switch": switch,
                        "rho": 0.1,
                        "partial_rho": 0.0,
                        "collapsed_share": 0.5,
                    }
                )
    return pd.concat(rows), pd.DataFrame(turns)


def test_the_figure_of_the_null_answers_its_question():
    joined = pd.concat([correlations("as_run"), correlations("corrected")])
    null, turns = null_tables()
    figure = figure_celcomen_4_null.compose(
        joined, summarize(joined), [manifest("as_run"), manifest("corrected")], null, turns
    )
    text = words(figure)
    assert "as_run: A ρ 0.37 does not survive: as good is minus mean expression" in text
    assert "corrected: A ρ 0.12 does not survive: as good is random gene" in text
    # Under the field spots without the gene have nothing to lose: not tested, which is no merit.
    assert "corrected: B ρ 0.62 survives the 6 controls tested; not tested: spots without the gene" in text
    assert "published range over lesions, 0.28 to 0.47" in text
    assert "[simulated]" in text
    assert "3/3 > 0" in text
    assert "+ experimental scale" in text


def test_the_caption_of_the_null_names_the_controls_that_have_a_p_value():
    text = (Path(__file__).parents[3] / "workflow/report/figure_celcomen_4_null.rst").read_text("utf-8")
    (named,) = re.findall(r"A p value is given only for the one control whose .*?: (.*?)\.", text)
    assert CALIBRATED == {"random_gene": ("field",)}
    assert named == "another gene knocked out, under the Gaussian field"


def summary_rows(**changed):
    """A control of 20 draws that the observed median leaves behind, each."""
    rows = {"knockout": "A", "control": list(CONTROLS), "median": 0.5, "status": "tested"}
    rows |= {"null_median": 0.0, "null_high": 0.1, "p_value": np.nan, "smallest_p": np.nan}
    table = pd.DataFrame(rows).set_index("control", drop=False)
    table.loc[list(CALIBRATED), ["p_value", "smallest_p"]] = 0.01, 0.01
    for control, values in changed.items():
        for column, value in values.items():
            table.loc[control, column] = value
    return table


def test_a_verdict_fits_its_line():
    rows = summary_rows(**{c: {"null_high": 0.6} for c in CONTROLS})
    assert verdict(rows, ["A"]) == ["A ρ 0.50 does not survive: as good are 7 of 7 controls"]
    assert verdict(rows.assign(median=-0.2), ["A"]) == ["A ρ -0.20 no agreement that could survive"]
    assert verdict(summary_rows(), ["A"]) == ["A ρ 0.50 survives the 7 controls tested"]
    # A control of one draw has no range: it must lie below.
    one = {"minus_baseline": {"null_high": np.nan, "null_median": 0.6}}
    assert verdict(summary_rows(**one), ["A"]) == ["A ρ 0.50 does not survive: as good is minus mean expression"]


def test_a_control_that_was_not_drawn_is_not_beaten():
    absent = {"status": "not tested: no draw", "null_median": np.nan, "null_high": np.nan}
    (said,) = verdict(summary_rows(shuffled_data=absent, permuted=absent), ["A"])
    assert said == "A ρ 0.50 survives the 5 controls tested; not tested: permuted prediction, shuffled data"
    nothing = {c: absent | {"p_value": np.nan, "smallest_p": np.nan} for c in CONTROLS}
    (said,) = verdict(summary_rows(**nothing), ["A"])
    assert said.startswith("A ρ 0.50 cannot be told: no control with a valid p value was tested")


def test_to_survive_takes_a_p_value_that_could_be_small_and_is():
    few = {"random_gene": {"p_value": 1 / 6, "smallest_p": 1 / 6}}
    (said,) = verdict(summary_rows(**few), ["A"])
    assert said == "A ρ 0.50 cannot be told: random gene has too few draws for p <= 0.05 (the smallest is 0.17)"
    large = {"random_gene": {"p_value": 0.06}}
    assert verdict(summary_rows(**large), ["A"]) == ["A ρ 0.50 does not survive: as good is random gene"]


def test_p_values_stand_at_calibrated_controls_only():
    own = correlations("corrected")
    null, turns = null_tables()
    figure = figure_celcomen_4_null.compose(own, summarize(own), [manifest("corrected")], null, turns)
    assert "· seed 0\n" in figure.get_suptitle()
    axes = next(a for a in figure.findobj(Axes) if a.get_title(loc="left").startswith("B · corr"))
    labels = [t.get_text().replace("\n", " ") for t in axes.get_xticklabels()]
    assert labels[0] == "observed 3 lesions"
    notes = {labels[round(t.xy[0])]: t.get_text() for t in axes.texts}
    assert {n for n, text in notes.items() if text.startswith("p ")} == {"random gene"}


def test_one_protocol_is_enough():
    own = correlations("corrected")
    null, turns = null_tables()
    figure = figure_celcomen_4_null.compose(own, summarize(own), [manifest("corrected")], null, turns)
    assert "survives the 6 controls tested" in words(figure)


def test_a_table_of_another_make_is_refused(tmp_path):
    correlations("as_run").drop(columns="rho").to_csv(tmp_path / "c.tsv", sep="\t")
    with pytest.raises(InputError, match=r"c\.tsv: column 'rho' is missing; run the experiment"):
        read_table(tmp_path / "c.tsv", ("protocol", "rho"))
