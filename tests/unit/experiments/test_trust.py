"""When to trust an answer: the experiment on tiny tissues, its tables and its figure."""

import json

import numpy as np
import pandas as pd
import pytest

from drawings import panel, texts
from tasks import CELLINA, SECTIONS
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import trust
from tissue_counterfactuals.experiments.settings import TrustSettings
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results.figures import when_to_trust as figure
from tissue_counterfactuals.simulate import true_counterfactual, true_expression
from tissue_counterfactuals.slide import normalize_counts

SETTINGS = {
    "n_simulations": 2, "n_cells": 600, "n_genes": 40, "n_donors": 20, "reaches": [0, 1, 3],
    "effect_sizes": [0.3], "confounding": [], "label_noise": [0.2], "spill": [], "numbers_of_cells": [],
    "methods": ["mean_shift_by_type", "cellina_ablated"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    files = {name: folder / name for name in ("errors", "latents", "provenance")}
    settings = TrustSettings().model_dump() | SETTINGS
    sections = {"mean_shift_by_type": {}, "cellina_ablated": SECTIONS["cellina"] | CELLINA}
    trust.run(settings, sections, files)
    return files, settings


def test_every_scenario_method_and_reach_has_its_error(made):
    files, settings = made
    table = pd.read_csv(files["errors"], sep="\t")
    assert list(table) == trust.COLUMNS
    assert set(table["status"]) == {"ok"}
    assert set(zip(table["knob"], table["level"], strict=True)) == {
        ("usual", 0),
        ("effect_size", 0.3),
        ("label_noise", 0.2),
    }
    assert len(table) == 3 * 2 * 2 * 3
    assert (table["error"] > 0).all()
    assert table["inside"].between(0, 1).all()
    assert (table.groupby(["knob", "seed", "reach"])["effect"].nunique() == 1).all()
    # A method without donors says the same whatever is asked, and not the same is true.
    same = table[table["method"] == "mean_shift_by_type"].groupby(["knob", "seed"])
    assert (same["error"].nunique() == 3).all()
    usual = table[table["knob"] == "usual"]
    weak = table[table["knob"] == "effect_size"]
    assert weak["effect"].mean() < usual["effect"].mean() / 2
    by_reach = usual.groupby("reach")[["distance", "inside"]].mean()
    assert by_reach["distance"].is_monotonic_increasing
    assert by_reach["inside"].is_monotonic_decreasing
    again = trust.ask_far({"n_cells": 600, "n_genes": 40, "effect_size": 1.2, "n_slides": 1}, 1, settings)
    first = usual[(usual["seed"] == 1) & (usual["reach"] == 3)].iloc[0]
    slide, focal = again.slide, again.focal
    donors = again.question.donors(trust.TARGET)["3"]
    for rows in again.question.donors(trust.TARGET).values():
        assert not (rows == focal[:, None]).any()
    new, old = (
        np.log1p(normalize_counts(x).mean(axis=0))
        for x in (true_counterfactual(slide, focal, donors), true_expression(slide, focal))
    )
    top = np.sort(np.abs(new - old))[::-1][:50]
    assert first["effect"] == pytest.approx(np.sqrt(np.mean(top**2)), rel=1e-4)
    assert first["n_focal"] == len(focal)


def test_donors_at_a_reach_do_not_depend_on_the_other_reaches():
    knobs = {"n_cells": 600, "n_genes": 40, "effect_size": 1.2, "n_slides": 1}
    few, more = (trust.ask_far(knobs, 0, SETTINGS | {"reaches": told}) for told in ([0, 1], [0, 0.5, 1]))
    for reach, donors in few.question.donors(trust.TARGET).items():
        assert np.array_equal(donors, more.question.donors(trust.TARGET)[reach])


def test_what_latents_carry_is_asked_of_cellina_alone(made):
    table = pd.read_csv(made[0]["latents"], sep="\t")
    assert list(table) == trust.LATENT_COLUMNS
    assert set(table["method"]) == {"cellina_ablated"}
    assert len(table) == 3 * 2 * 6
    assert table["correlation"].between(0, 1).all()


def test_a_method_that_fails_is_a_failed_row_and_a_machine_that_fails_is_none(monkeypatch):
    knobs = {"n_cells": 600, "n_genes": 40, "effect_size": 1.2, "n_slides": 1}
    task = trust.ask_far(knobs, 0, SETTINGS)
    sections = {"hierarchical": SECTIONS["hierarchical"] | {"min_cells": 10**6}}
    rows, latents = trust.answer(task, sections)
    assert latents == []
    assert {row["status"] for row in rows} == {"failed"}
    assert all("other cell types" in row["reason"] for row in rows)

    def predict(*_):
        raise MemoryError

    monkeypatch.setattr(METHODS["no_change"].adapter, "predict", predict)
    with pytest.raises(InputError, match="no_change: memory ran out"):
        trust.answer(task, {"no_change": {}})


def test_the_figure_shows_every_knob_and_the_rank_of_the_distance(made, tmp_path):
    files, settings = made
    errors = pd.read_csv(files["errors"], sep="\t")
    # An error that the distance ranks the wrong way round, for one method.
    usual = errors["knob"] == "usual"
    ablated = errors["method"] == "cellina_ablated"
    errors.loc[usual & ablated, "error"] = 1 / errors["distance"]
    errors.loc[usual & ~ablated, "error"] = errors["distance"]
    # One tissue, whose errors are ten times as large: the ranks within tissues do not see it.
    errors.loc[usual & (errors["seed"] == 1), "error"] *= 10
    ranks = figure.ranking(errors)
    assert ranks["within"].to_dict() == pytest.approx({"cellina_ablated": -1, "mean_shift_by_type": 1})
    assert (ranks["over"].abs() < 0.95).all()
    latents = pd.read_csv(files["latents"], sep="\t")
    drawn = figure.compose(errors, latents, settings, "source")
    assert any("within a tissue: -1.00 to 1.00" in text for text in texts(drawn))
    axes = panel(drawn, "Effect of signals")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.3", "1.2"]
    assert {"s:\nreceived", "z:\ntype", "as usual", "wrong labels 0.2"} <= set(texts(drawn))
    output = tmp_path / "trust.png"
    figure.draw_files(files, output)
    assert output.stat().st_size > 10_000
    assert json.loads(files["provenance"].read_text())["kind"] == "simulated"
    lost = ablated & (errors["seed"] == 1)
    missing = errors.assign(error=errors["error"].mask(lost), status=errors["status"].mask(lost, "failed"))
    said = texts(figure.compose(missing, latents, settings, "source"))
    assert {"Cellina (ablated) (9 of 18 answers failed)", "Mean shift by type"} <= set(said)
    nothing = figure.compose(errors, latents.iloc[:0], settings, "source")
    assert "Cellina was not asked" in texts(nothing)


def test_the_usual_reach_must_be_asked():
    with pytest.raises(InputError, match=r"usual_reach is 2, which is none of reaches"):
        TrustSettings.read({"usual_reach": 2.0, "reaches": [0, 1]}, "trust")


def test_the_figure_shows_errors_over_effects_and_means_over_tissues():
    methods, seeds, reaches = ("ridge", "no_change"), (0, 1, 2), (0.0, 1.0)
    settings = TrustSettings().model_dump() | {"usual_reach": 1.0, "reaches": [0, 1]}
    rows = [
        {"knob": knob, "level": level, "seed": seed, "reach": reach, "method": method, "status": "ok"}
        | {"error": (1 + seed) ** 2 * (1 + number), "effect": 5.0 + reach, "distance": 1.0 + reach + seed / 10}
        for knob, level in (("usual", 0.0), ("effect_size", 0.3), ("confounding", 0.5))
        for seed in seeds for reach in reaches for number, method in enumerate(methods)
    ]  # fmt: skip
    errors = pd.DataFrame(rows)
    keys = [{"latent": latent, "variables": what} for latent, what in figure.PAIRS]
    latents = pd.DataFrame(
        {"knob": "usual", "level": 0.0, "method": "cellina", "seed": seed, "correlation": value} | pair
        for seed, value in ((0, 0.2), (1, 0.8)) for pair in keys
    )  # fmt: skip
    drawn = figure.compose(errors, latents, settings, "source")
    usual = errors[errors["knob"] == "usual"]
    for title, values in (("Distance", usual["error"]), ("The same", usual["error"] / usual["effect"])):
        dots = [line for line in panel(drawn, title).lines if line.get_marker() == "o"]
        shown = sorted(y for line in dots for y in line.get_ydata())
        assert shown == pytest.approx(sorted(values))
    # The tissue as usual stands at its own level: 0 for confounding.
    means = {line.get_color(): line.get_ydata() for line in panel(drawn, "Confounding").lines if len(line.get_xdata())}
    for number, method in enumerate(methods):
        color = figure.style.method_style(method, figure.style.method_order(methods)).color
        assert list(means[color]) == pytest.approx([(1 + number) * (1 + 4 + 9) / 3 / 6] * 2)
    (image,) = panel(drawn, "What Cellina").images
    np.testing.assert_allclose(image.get_array(), np.full((1, 6), 0.5))
