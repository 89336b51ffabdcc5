"""The experiment on simulated screens from settings to figure, and the rates it reports."""

import json

import numpy as np
import pandas as pd
import pytest

from drawings import panel
from tissue_counterfactuals.experiments import screen_power
from tissue_counterfactuals.experiments.settings import ScreenPowerSettings
from tissue_counterfactuals.results.figures import screen_power as figure

NAMES = screen_power.PER_TARGET | {"effect": "verdict: effect"} | screen_power.PER_SCREEN


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    outputs = {name: folder / f"{name}.tsv" for name in ("rates", "screens")}
    outputs["provenance"] = folder / "provenance.json"
    told = {
        "n_simulations": 2,
        "n_targets": 4,
        "n_genes": 16,
        "clones_per_target": [2, 8],
        "usual_clones": 8,
    }
    settings = ScreenPowerSettings.read(told | {"spillovers": [0, 2], "draws": 19, "shifts": 1}, "screen")
    screen_power.run(settings.model_dump(), outputs)
    return outputs


def test_every_scenario_and_test_has_a_rate_and_the_figure_shows_them(made, tmp_path):
    rates = pd.read_csv(made["rates"], sep="\t")
    usual = rates[(rates["clones_per_target"] == 8) & (rates["scenario"] == "grid")]
    expected = {*screen_power.PER_TARGET, "effect", *screen_power.PER_SCREEN}
    assert set(usual[usual["spillover"] == 0]["test"]) == expected
    assert {"clone_size", "missed", "spill", "region"} <= set(rates["scenario"])
    assert rates["rate"].between(rates["low"], rates["high"]).all()
    # Two clones can be placed in too few ways to be tested: no verdict is an effect.
    few = rates[(rates["clones_per_target"] == 2) & (rates["test"] == "effect")]
    assert (few["rate"] == 0).all()
    assert (few["n"] == 8).all()
    # Nor is a prediction of such a screen, which is a screen like the others.
    none = rates[(rates["clones_per_target"] == 2) & (rates["test"] == "predicted")]
    assert (none["n"] == 2).all()
    assert (none["rate"] == 0).all()
    # More of the same: twice the effect on as many recipients.
    changes = rates[rates["scenario"] == "grid"].groupby("spillover")["true_change"].max()
    assert changes[0] == 0
    assert changes[2] > 0.3
    # The authors' test judges each target by donors of its own.
    screens = pd.read_csv(made["screens"], sep="\t")
    grid = screens[screens["scenario"] == "grid"]
    strong = grid[(grid["clones_per_target"] == 8) & (grid["spillover"] == 2)]
    assert len(strong) == 2
    assert (strong["pearson_full"] > strong["pearson_full_random"] + 0.1).all()
    figure.draw_files(made, tmp_path / "power.png")
    drawn = figure.compose(rates, json.loads(made["provenance"].read_text()))
    decided, curves = drawn.axes[0], panel(drawn, "verdict: the target")
    # Without spill-over: every test's rate in the row of its name.
    rows = {y: label.get_text() for y, label in zip(decided.get_yticks(), decided.get_yticklabels(), strict=True)}
    usual = usual[usual["spillover"] == 0].set_index("test")["rate"]
    points = next(c for c in decided.containers if c.get_label() == "as usual").lines[0]
    shown = {rows[np.floor(y) + 0.5]: x for x, y in points.get_xydata()}
    assert shown == {NAMES[t]: rate for t, rate in usual.items()}
    # With it: the rate against the number of recipients, a curve for each effect.
    for container, spillover in zip(curves.containers, (0, 2), strict=True):
        own = rates[(rates["scenario"] == "grid") & (rates["test"] == "effect") & (rates["spillover"] == spillover)]
        own = own.sort_values("recipients")
        np.testing.assert_allclose(container.lines[0].get_xydata(), own[["recipients", "rate"]])
        assert float(container.get_label()) == pytest.approx(own["true_change"].mean(), abs=0.05)


def test_the_authors_test_gives_each_target_its_own_donors(monkeypatch):
    asked = []
    kept = screen_power.score_as_run

    def score(truth, inserted, drawn):
        asked.append((truth, inserted))
        return kept(truth, inserted, drawn)

    monkeypatch.setattr(screen_power, "score_as_run", score)
    knobs = {"n_targets": 4, "n_genes": 16, "clones_per_target": 10, "n_cells": 2000, "spillover": 2.0, "missed": 0.0}
    screen_power.judge(knobs, 0, ScreenPowerSettings.read({"draws": 19}, "screen").model_dump(), slow=False)
    ((truth, inserted),) = asked
    assert len(inserted) == len(truth) == 4
    # What it inserts for a target is most like what is seen near that target, and like no other's.
    centred = [m - m.mean(axis=0) for m in (truth, inserted)]
    agreement = np.corrcoef(*centred)[:4, 4:]
    assert (agreement.argmax(axis=1) == np.arange(4)).all()
    assert (np.diag(agreement) > 0.5).all()


def test_rates_count_what_was_decided():
    scenario = {"scenario": "grid", "clones_per_target": 4, "spillover": 0.0}
    screens = pd.DataFrame(
        [
            scenario | {"recipients": 10.0, "true_change": 0.0, "predicted": p, "p_wrong_target": w}
            for p, w in ((True, 0.04), (False, 0.05), (None, None))
        ]
    )
    targets = pd.DataFrame(
        [scenario | {"p_clones": p, "verdict": v} for p, v in ((0.05, "effect"), (0.06, "x"), (None, "y"))]
    )
    rates = screen_power.rates(targets, screens).set_index("test")
    assert rates.loc["p_clones", "rate"] == 0.5
    assert rates.loc["p_clones", ["per", "n"]].tolist() == ["target", 2]
    assert rates.loc["predicted", "per"] == "screen"
    assert rates.loc["effect", "rate"] == pytest.approx(1 / 3)
    assert rates.loc["predicted", "rate"] == 0.5
    assert rates.loc["p_wrong_target", "rate"] == 1
