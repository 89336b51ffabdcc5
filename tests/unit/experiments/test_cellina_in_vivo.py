"""The experiment on a screen, from a slide to figure, on simulated screens whose effects are known."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from scored import score
from tasks import SECTIONS
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import cellina_in_vivo
from tissue_counterfactuals.experiments.screen_question import read_screen
from tissue_counterfactuals.experiments.settings import InVivoSettings
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS as METHODS_TABLE
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.methods.settings import RidgeSettings
from tissue_counterfactuals.metrics import populations
from tissue_counterfactuals.results.figures import figure_cellina_in_vivo
from tissue_counterfactuals.simulate.screen import simulate_screen
from tissue_counterfactuals.slide import log_normalize, write_slide

ENTRY = {
    "name": "screen",
    "kind": "simulated",
    "label": "Screen",
    "source": "simulated_screen",
    "files": None,
}
REAL = ENTRY | {"kind": "real", "source": "perturb_fish", "files": "perturb_fish"}
KNOBS = {"n_cells": 5000, "n_targets": 5, "clones_per_target": 16, "n_genes": 24, "depth": 150}
PROTOCOLS = ("as_run", "corrected")
METHODS = {
    **{name: {} for name in ("no_change", "mean_shift", "spatialprop", "oracle")},
    "ridge": RidgeSettings().model_dump(),
}
SMALL = {"n_cells": 2000, "n_targets": 4, "clones_per_target": 8}


def settings(**more):
    told = {
        "draws": 99,
        "splits": 20,
        "shifts": 3,
        "min_recipients": 10,
        "far_um": 45,
        "min_mean_counts": 0,
        "control_draws": 2,
    }
    return InVivoSettings.read(told | more, "in_vivo").model_dump()


def run(folder, slide, protocol, methods=METHODS, **more):
    write_slide(slide, folder / "slide.h5ad")
    outputs = {name: folder / f"{protocol}.{name}.tsv" for name in ("effects", "scores", "components", "compared")}
    outputs["manifest"] = folder / f"{protocol}.json"
    switches = protocols.resolve(protocol)
    cellina_in_vivo.run(
        folder / "slide.h5ad",
        ENTRY,
        protocol,
        [0],
        methods,
        "cpu",
        settings(**more),
        switches,
        outputs,
    )
    return outputs


def oracle(slide):
    """A method that knows the true change of recipients near each target."""
    screen = read_screen(slide)
    changes = {
        name: slide.obsm["simulation_change"][screen.near(k + 1)].mean(axis=0) for k, name in enumerate(screen.names)
    }

    def predict(task, folder, target):
        seen = task.slide.X[task.focal].toarray() + 0.1
        rules = [*task.question.donors(target), "no_intervention"]
        return {r: Prediction(seen * np.exp(changes.get(r, 0.0)), task.focal) for r in rules}

    return SimpleNamespace(learned=False, adapter=SimpleNamespace(predict=predict))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_vivo")
    slide = simulate_screen(**KNOBS, spillover=2.0, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS_TABLE, "oracle", oracle(slide))
        # Distances between cells are what takes long.
        patch.setattr(cellina_in_vivo, "_MOST_FOCAL", 150)
        patch.setattr(cellina_in_vivo, "_RANDOM_DRAWS", 2)
        # With an axis for each gene it would not matter what cells the axes are of.
        patch.setattr(populations, "N_COMPONENTS", 5)
        made = {p: run(folder, slide, p) for p in PROTOCOLS}
        asked = cellina_in_vivo.ask_as_run(slide, read_screen(slide), [1, 2], 0, {}, settings())
    return made | {"slide": slide, "far": asked.focal, "asked": asked}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_recipient_that_is_scored_is_trained_on_whoever_called_the_carriers(tmp_path, monkeypatch, protocol):
    slide = simulate_screen(**KNOBS | {"clones_per_target": 8}, seed=6)
    # A calling that misses no member of a clone; the domain of the slide is that of the first one.
    slide.obs["target_published"] = slide.obs["target_true"]
    beside = read_screen(slide, radius_um=60, far_um=60).far[0]
    slide.obs.loc[slide.obs_names[beside], "domain"] = "perturbed"
    asked = []

    def predict(task, folder, target):
        asked.append(task)
        return {"-": Prediction(task.slide.X[task.focal].toarray(), task.focal)}

    watched = SimpleNamespace(learned=False, adapter=SimpleNamespace(predict=predict))
    monkeypatch.setitem(METHODS_TABLE, "watched", watched)
    monkeypatch.setattr(cellina_in_vivo, "_MOST_FOCAL", 100)
    run(tmp_path, slide, protocol, {"watched": {}}, draws=39, min_recipients=5, radius_um=60, far_um=60)
    for column, task in zip(cellina_in_vivo.CALLINGS, asked, strict=True):
        screen, held_out = read_screen(slide, column, 60, 60), task.split.held_out
        assert held_out[screen.recipient & (screen.seen >= 0)].all()
        # Nor is one trained on that the reader saw beside a cell which is left out, and it is far from nothing.
        assert held_out[beside]
        assert beside not in task.focal
        if protocol == "as_run":
            assert not held_out[task.focal].any()
    with pytest.raises(InputError, match="in_vivo.radius_um is 61, above far_um 60"):
        settings(radius_um=61, far_um=60)


def test_a_disk_that_is_full_is_no_result_of_a_method(made, monkeypatch):
    def predict(*_):
        raise OSError(28, "No space left on device", "model.pt")

    monkeypatch.setattr(METHODS_TABLE["no_change"].adapter, "predict", predict)
    with pytest.raises(InputError, match="no room is left on the disk model.pt"):
        cellina_in_vivo.answers(made["asked"], made["slide"], {"no_change": {}}, "cpu", None)


def test_as_run_has_a_row_per_truth_donors_and_target_and_a_failed_method_says_why(made, monkeypatch):
    scores = pd.read_csv(made["as_run"]["scores"], sep="\t")
    absent = scores["status"].str.startswith("not asked: ")
    failed = scores[(scores["status"] != "ok") & ~absent]
    assert list(failed["method"]) == ["spatialprop"]
    assert "KeyError" in failed["status"].iloc[0]
    # What is not asked says why, once each.
    assert sorted(scores["method"][absent]) == sorted(set(METHODS_TABLE) - {*METHODS})
    why = dict(zip(scores["method"], scores["status"], strict=True))
    assert why["cpa"].endswith("trained within this experiment, and it is told a domain but no donors")
    assert why["simvi"] == "not asked: it gives latent variables and no expression"
    assert why["cellina"] == "not asked: not named in the settings"
    ok = scores[scores["status"] == "ok"]
    assert len(ok) == 5 * 2 * 2 * 5
    told = dict(zip(ok["method"], ok["told"], strict=True))
    assert told["mean_shift"] == "the domain alone"
    assert told["ridge"] == "the carriers of each target"
    mean = ok.groupby(["method", "truth", "donors"])["pearson"].mean()
    # Other donors, other answers; what knows no donors has one.
    assert mean["ridge", "full", "target"] != mean["ridge", "full", "random"]
    assert mean["mean_shift", "full", "target"] == mean["mean_shift", "full", "random"]
    assert mean["no_change", "full", "target"] == 0
    assert mean["oracle", "full", "target"] > mean["oracle", "full", "random"] + 0.2
    assert mean["oracle", "ko_specific", "target"] > 0.5
    # Near is who has a carrier of the target alone among the 30 nearest cells, as in the authors' graph.
    screen = replace(read_screen(made["slide"]), nearest=30)
    assert dict(zip(ok["target"], ok["n"], strict=True)) == {f"KO{k}": len(screen.near(k)) for k in range(1, 6)}
    # The E-distance is that of the authors' metric, between predicted cells and those near the target, on the axes of
    # the training cells.
    far, near, train = (made["slide"].X[cells] for cells in (made["far"], screen.near(2), made["asked"].split.train))
    monkeypatch.setattr(populations, "N_COMPONENTS", 5)
    expected = score(far, near, far, train, protocol="as_run")
    own = ok[(ok["method"] == "no_change") & (ok["target"] == "KO2")]
    assert own["e_distance"].to_numpy() == pytest.approx(expected["e_distance"], abs=1e-5)
    at = ok.groupby(["method", "donors"])["e_distance"].mean()
    assert at["ridge", "target"] != at["ridge", "random"]
    # Moving observed cells keeps their scatter, which a mean of cells has lost.
    assert at["mean_shift_near", "target"] < at["ridge", "target"]


def test_corrected_gives_each_method_its_controls_and_a_verdict(made):
    scores = pd.read_csv(made["corrected"]["scores"], sep="\t")
    rows = scores[scores["status"] == "ok"].set_index(["genes", "method"])
    right = rows.loc["all", "oracle"]
    assert right["verdict"] == "predicted"
    assert right["p_joint"] <= 0.02
    assert right["pearson"] > 0.4
    assert right["control_donors"] == 0
    assert right["tiles_low"] < right["pearson"] < right["tiles_high"]
    assert rows.loc["not_spilled", "oracle"]["pearson"] > 0.4
    ridge = rows.loc["all", "ridge"]
    assert ridge["pearson"] < right["pearson"]
    assert ridge["control_donors"] != 0
    # What knows its targets alone says the same of any control carriers.
    assert right["control_donors_sd"] == 0
    assert 0 < ridge["control_donors_sd"] < 0.2
    # Nothing changes the oracle's twin; for others the change from it is another one.
    assert right["pearson_from_twin"] == pytest.approx(right["pearson"])
    assert ridge["pearson_from_twin"] != ridge["pearson"]
    # Its twin has the neighbours that the cells have, and so is no answer to any target.
    assert abs(ridge["pearson"] - ridge["over_twin"]) > 1e-3
    # More carriers, more change; cells that cannot be siblings of a carrier are no carriers.
    dose = [ridge[f"change_at_{share}"] for share in ("0.25", "0.5", "1")]
    assert sorted(dose) == dose
    assert abs(ridge["unguided_donors"]) < right["pearson"]
    # Genes chosen in one half and scored in the other: what is right stays so, below what was chosen and scored at
    # once.
    assert right["pearson_top"] > right["pearson_split"] > 0.4
    assert right["split_half_top"] > 0
    for method in ("no_change", "mean_shift"):
        assert rows.loc["all", method]["verdict"] == "no better than the wrong target"
        assert rows.loc["all", method]["p_joint"] == 1
    assert rows.loc["all", "no_change"]["pearson"] == 0
    effects = pd.read_csv(made["corrected"]["effects"], sep="\t")
    assert (effects["verdict"] == "effect").sum() >= 1
    assert (effects["p_own"] <= 0.05).all()
    assert (effects["clonality"] > 1.5).all()
    assert (effects["far_correlation"] > 0).mean() > 0.5
    # Both ways to the smallest change that would be found agree.
    assert np.log(effects["spiked"] / effects["detectable"]).abs().max() < 0.7
    assert (effects["n_dose"] >= 5).any()
    assert json.loads(made["corrected"]["manifest"].read_text())["settings"]["radius_um"] == 30


def test_what_makes_scores_vary_is_told_of_each_method(made):
    both = pd.concat(pd.read_csv(made[p]["components"], sep="\t") for p in ("as_run", "corrected"))
    own = both[both["method"] == "ridge"].set_index(["protocol", "truth", "component"])
    shown = own.loc["corrected", "effect"]
    assert shown["share"].sum() == pytest.approx(1, abs=1e-5)
    assert (shown["sd"][["tiles", "focal cells"]] > 0).all()
    # One seed tells nothing of seeds; as run tiles and focal cells are not drawn again.
    assert shown["sd"][["seed", "gene x seed"]].isna().all()
    assert own.loc["as_run", "ko_specific"]["sd"][["tiles", "focal cells"]].isna().all()
    scores = np.random.default_rng(0).normal(size=(40, 1)) * 0.2 + [[0.1, -0.1]]
    parts = pd.DataFrame([
        {"method": "m", "truth": "t", "target": k, "seed": seed, "pearson": r, "tiles": 0.01, "focal": 0.005}
        for k, row in enumerate(scores) for seed, r in enumerate(row)
    ])  # fmt: skip
    table = cellina_in_vivo.components(parts).set_index("component")
    # Of the variance between genes what tiles and cells made is taken off.
    expected = {
        "lost gene": scores[:, 0].var(ddof=1) - 0.015,
        "seed": 0.02,
        "gene x seed": 0,
        "tiles": 0.01,
        "focal cells": 0.005,
    }
    assert table["variance"].to_dict() == pytest.approx(expected)
    assert (table["sd"] ** 2).to_dict() == pytest.approx(expected)
    assert table["n_seeds"].iloc[0] == 2


def test_where_nothing_spills_over_nothing_is_resolved(tmp_path):
    slide = simulate_screen(**KNOBS | SMALL, spillover=0.0, seed=6)
    methods = {name: METHODS[name] for name in ("no_change", "ridge")}
    files = run(tmp_path, slide, "corrected", methods, draws=39, min_recipients=5)
    effects, scores = (pd.read_csv(files[name], sep="\t") for name in ("effects", "scores"))
    assert set(effects["verdict"]) == {"not resolvable from this section"}
    said = scores[scores["status"] == "ok"].groupby("method")["verdict"].first()
    assert set(said) == {"not resolvable from this section"}


def test_where_no_method_answers_each_says_why_and_what_was_observed_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(cellina_in_vivo, "_MOST_FOCAL", 50)
    slide = simulate_screen(**KNOBS | SMALL, seed=6)
    files = {p: run(tmp_path, slide, p, {"spatialprop": {}}, draws=39, min_recipients=5) for p in PROTOCOLS}
    scores, parts, effects = (
        pd.read_csv(files["corrected"][name], sep="\t") for name in ("scores", "components", "effects")
    )
    assert "KeyError" in scores.set_index("method").loc["spatialprop", "status"]
    assert not len(parts)
    assert {"method", "component", "variance"} <= {*parts}
    assert len(effects) == 4
    both = {name: [files[p][name] for p in PROTOCOLS] for name in ("effects", "scores", "manifest")}
    alone = {name: paths[1:] for name, paths in both.items()}
    for inputs in (both, alone):
        figure_cellina_in_vivo.draw_files(inputs, tmp_path / "in_vivo.png")
    with pytest.raises(InputError, match="in_vivo.methods"):
        settings(methods=[])


@pytest.mark.parametrize("measured", [True, False])
def test_celcomen_is_asked_with_lost_genes_clamped_where_they_are_measured(tmp_path, measured):
    knobs = SMALL | {"n_genes": 16, "n_cells": 1000, "spillover": 1.0, "seed": 3}
    slide = simulate_screen(**KNOBS | knobs, measured=measured)
    methods = {"celcomen": SECTIONS["celcomen_field"]}
    files = run(tmp_path, slide, "corrected", methods, draws=19, min_recipients=5)
    scores = pd.read_csv(files["scores"], sep="\t").drop_duplicates("method").set_index("method")
    clamped = scores.loc["celcomen_knock_out"]
    assert scores.loc["celcomen", "status"] == "ok"
    if not measured:
        assert clamped["status"] == "cannot answer: 0 of 4 lost genes are measured, and 4 are needed"
        return
    assert clamped["n_targets"] == 4
    assert np.isnan(clamped["control_donors"])
    # The clamp changes other things than other donors do.
    assert clamped["pearson"] != 0
    assert clamped["pearson"] != scores.loc["celcomen", "pearson"]


def test_published_numbers_stand_beside_ours_and_are_not_compared_with_a_simulation(made):
    compared = pd.read_csv(made["as_run"]["compared"], sep="\t")
    assert len(compared) == 720
    ours = compared[compared["ours"].notna()]
    assert set(ours["model"]) == {"Mean shift"}
    assert set(ours["metric"]) == {"pearson", "sign_agreement", "rmse_lfc", "e_distance"}
    assert set(ours["verdict"]) == {"not comparable"}
    assert set(ours["reason"]) == {"simulated data"}
    assert set(compared["verdict"]) == {"not comparable", "not run"}
    one = {"pearson": 0.112, "sign_agreement": 0.9, "rmse": 0.4, "e_distance": 4.2}
    one |= {"calling": "target_raw", "method": "cellina", "donors": "random", "seed": 0}
    truths = ("full", "ko_specific")
    scores = pd.DataFrame([one | {"target": name, "truth": t} for name in cellina_in_vivo.CHOSEN for t in truths])

    def verdicts(scores):
        real = cellina_in_vivo.compare(scores, REAL, "as_run")
        return real[real["ours"].notna()].set_index(["truth", "knockout", "metric"]).sort_index()

    own = verdicts(scores)
    assert own.loc[("full", "mean", "pearson"), "published"] == pytest.approx(0.112)
    assert own.loc[("full", "mean", "pearson"), "verdict"] == "met"
    assert own.loc[("full", "mean", "e_distance"), "verdict"] == "met"
    assert own.loc[("full", "mean", "sign_agreement"), "verdict"] == "not met"
    assert own.loc[("ko_specific", "mean", "pearson"), "verdict"] == "met"
    # Five seeds against one: Student's t of their spread.
    assert own.loc[("full", "mean", "pearson"), "tolerance"] == pytest.approx(2.776 * 0.235 * np.sqrt(1.2), rel=1e-3)
    assert ("full", "LBP", "pearson") in own.index
    # A lost gene that the authors did not choose is no part of the mean, but of the effect that is taken off.
    more = verdicts(pd.concat([scores, pd.DataFrame([one | {"target": "RELA", "truth": t} for t in truths])]))
    pd.testing.assert_frame_equal(more.loc["full"], own.loc["full"])
    assert set(more.loc["ko_specific", "verdict"]) == {"not comparable"}
    assert set(more.loc["ko_specific", "reason"]) == {"less the mean of other lost genes than their nine"}
    few = verdicts(scores[scores["target"] != "LBP"])
    assert set(few.loc[("full", "mean"), "reason"]) == {"over 8 of 9 lost genes"}
    assert set(few.loc[("full", "mean"), "verdict"]) == {"not comparable"}
    assert few.loc[("full", "IRF3", "pearson"), "reason"] == ""
    assert set(few.loc["ko_specific", "verdict"]) == {"not comparable"}
    # A screen of one's own is real, and not theirs.
    other = cellina_in_vivo.compare(scores, REAL | {"source": "h5ad", "files": None}, "as_run")
    assert set(other["reason"]) == {"data of another source", "not part of this run"}


def test_the_figure_shows_both_protocols(made, tmp_path):
    inputs = {name: [made[p][name] for p in PROTOCOLS] for name in ("effects", "scores", "manifest")}
    figure_cellina_in_vivo.draw_files(inputs, tmp_path / "in_vivo.png")
    effects = pd.read_csv(inputs["effects"][0], sep="\t")
    scores = pd.concat([pd.read_csv(path, sep="\t") for path in inputs["scores"]])
    drawn = figure_cellina_in_vivo.compose(effects, scores, [json.loads(m.read_text()) for m in inputs["manifest"]])
    low = figure_cellina_in_vivo.compose(
        effects.assign(p_own=1e-7), scores.iloc[:0], [json.loads(inputs["manifest"][0].read_text())]
    )
    assert low.axes[1].get_ylim()[0] < 1e-7
    effects = effects[effects["calling"] == effects["calling"].iloc[0]]
    scores = scores[(scores["calling"] == effects["calling"].iloc[0]) & (scores["status"] == "ok")]
    sizes, p_values, full, specific, corrected = drawn.axes
    np.testing.assert_allclose([bar.get_height() for bar in sizes.patches], effects["median_change"])
    np.testing.assert_allclose(p_values.lines[0].get_ydata(), effects["p_clones"])
    np.testing.assert_allclose(p_values.lines[1].get_ydata(), effects["p_own"])
    for axes, truth in ((full, "full"), (specific, "ko_specific")):
        by_label = {line.get_label(): line for line in axes.lines}
        drawn = []
        for donors in ("target", "random"):
            own = scores[(scores["truth"] == truth) & (scores["donors"] == donors)]
            dots = own.groupby(["method", "target"])["pearson"].mean()
            mean = by_label[f"{donors} donors, mean"]
            np.testing.assert_allclose(sorted(mean.get_xdata()), sorted(dots.unstack().mean(axis=1)))
            # Those of one kind of donors have a height and a colour of their own.
            (single,) = (x for x in axes.lines if x.get_marker() == "." and x.get_color() == mean.get_color())
            np.testing.assert_allclose(sorted(single.get_xdata()), sorted(dots))
            assert set(single.get_ydata()) == set(mean.get_ydata())
            drawn.append(mean)
        assert not set(drawn[0].get_ydata()) & set(drawn[1].get_ydata())
        assert drawn[0].get_color() != drawn[1].get_color()
        assert "one target" in by_label
    own = scores[(scores["protocol"] == "corrected") & (scores["genes"] == "all")].groupby("method")
    np.testing.assert_allclose(sorted(corrected.containers[0].lines[0].get_xdata()), sorted(own["pearson"].mean()))
    (whiskers,) = corrected.containers[0].lines[2]
    ends = np.array([segment[:, 0] for segment in whiskers.get_segments()])
    expected = own[["tiles_low", "tiles_high"]].mean().to_numpy()
    np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(expected, axis=0))
    for label in corrected.get_yticklabels():
        name, said = label.get_text().split(": ", 1)
        (method,) = [m for m in own.groups if figure_cellina_in_vivo.style.method_style(m).label == name]
        assert set(said.split("; ")) == set(own.get_group(method)["verdict"])


def test_every_failure_has_its_line_and_an_unknown_spread_no_bar(made):
    effects = pd.read_csv(made["corrected"]["effects"], sep="\t")
    scores = pd.concat([pd.read_csv(made[p]["scores"], sep="\t") for p in PROTOCOLS])
    scores["control_donors_sd"] = np.where(scores["method"] == "ridge", np.nan, 0.1)
    reasons = {"cellina": "MemoryError: " + "GB " * 60, "cellina_gat": "KeyError: 'x'", "concert": "ValueError: NaN"}
    failed = scores[scores["protocol"] == "corrected"].iloc[: len(reasons)]
    failed = failed.assign(method=[*reasons], status=[*reasons.values()])
    manifests = [json.loads(made[p]["manifest"].read_text()) for p in PROTOCOLS]
    drawn = figure_cellina_in_vivo.compose(effects, pd.concat([scores, failed]), manifests)
    *_, as_run, _, corrected = drawn.axes
    told = next(t.get_text() for t in corrected.texts if "MemoryError" in t.get_text()).splitlines()
    assert [line.split(": ")[0] for line in told] == [
        "SpatialProp (re-impl.)",
        "Cellina",
        "Cellina-GAT",
        "CONCERT (re-impl.)",
    ]
    assert told[2:] == ["Cellina-GAT: KeyError: 'x'", "CONCERT (re-impl.): ValueError: NaN"]
    (spread,) = corrected.containers[1].lines[2]
    ends = {segment[0, 1]: np.ptp(segment[:, 0]) for segment in spread.get_segments() if len(segment)}
    names = [label.get_text().split(": ")[0] for label in corrected.get_yticklabels()]
    bars = {name: ends.get(place, np.nan) for name, place in zip(names, corrected.get_yticks(), strict=True)}
    assert np.isnan(bars.pop("Ridge regression"))
    np.testing.assert_allclose(list(bars.values()), 2 * 1.96 * 0.1)
    # The one method that is shown as run alone has learnt from the answers.
    assert "Mean shift of near cells (sees the answers)" in {label.get_text() for label in as_run.get_yticklabels()}


def test_control_carriers_alone_are_exchanged_for_those_of_the_target():
    slide = simulate_screen(**KNOBS, seed=2)
    screen = read_screen(slide)
    asked = cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 0, {}, settings())
    donors = asked.donors("perturbed")
    first = ["own", "control", "unguided", "KO1", "control_for_KO1 0", "control_for_KO1 1", "KO2"]
    first += ["control_for_KO2 0", "control_for_KO2 1"]
    more = [f"{name} at {share}" for share in ("0.25", "0.5", "1") for name in ("control", "KO1", "KO2")]
    assert list(donors) == first + more
    code = np.where(screen.tumour, screen.code, -1)
    # Their own neighbours are those of the graph.
    around = slide_graph(slide, **settings()["graph"])[asked.focal]
    assert all(np.isin(own, around[[i]].indices).all() for i, own in enumerate(donors["own"]))
    assert (code[donors["own"]][donors["control"] != donors["own"]] == 0).all()
    # None of the cells without a guide has a carrier beside it.
    free = donors["unguided"][donors["unguided"] != donors["own"]]
    assert (code[free] == -1).all()
    assert not screen.near_any[free].any()
    for share in (0.25, 0.5, 1):
        filled = code[donors[f"KO1 at {share:g}"]] == 1
        assert share <= filled.mean() + 0.02
        assert filled.mean() == pytest.approx(share + (1 - share) * changed_share(donors), abs=0.03)
    changed = donors["KO1"] != donors["control"]
    assert (code[donors["control"]][changed] == 0).all()
    assert (code[donors["KO1"]][changed] == 1).all()
    assert (code[donors["KO1"]] != 0).all()
    assert 0.01 < changed.mean() < 0.4
    for draw in (donors[f"control_for_KO1 {again}"] for again in range(2)):
        few = np.unique(draw[code[draw] == 0])
        assert len(few) <= (code == 1).sum()
    assert not np.array_equal(donors["control_for_KO1 0"], donors["control_for_KO1 1"])
    # The focal cells do not change with the seed, and where they are too many come from all of the section.
    some = cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 0, {}, settings(max_focal=10)).focal
    assert len(some) == 10
    assert some[[0, -1]].tolist() == asked.focal[[0, -1]].tolist()
    # Nor do draws with what else is asked.
    alone = cellina_in_vivo.ask_corrected(slide, screen, [2], 0, {}, settings()).donors("perturbed")
    assert all(np.array_equal(drawn, donors[rule]) for rule, drawn in alone.items())
    other = cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 5, {}, settings())
    assert (other.focal == asked.focal).all()
    assert not np.array_equal(other.donors("perturbed")["KO1"], donors["KO1"])


def test_recipients_without_neighbours_are_not_asked_about(capsys):
    slide = simulate_screen(**KNOBS, seed=2)
    screen = read_screen(slide)
    near = screen.near(0)

    def ask(reach_um):
        told = settings(graph={"bandwidth_um": reach_um / 2.146})
        return cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 0, {}, told)

    asked, distance = ask(10), cKDTree(screen.place).query(screen.place[near], 2)[0][:, 1]
    assert asked.focal.tolist() == near[distance < 10].tolist()
    assert (
        f"{(distance > 10).sum()} of {len(near)} recipients near control guides have no neighbour"
        in capsys.readouterr().out
    )
    with pytest.raises(InputError, match=f"none of the {len(near)} recipients .* raise .*in_vivo.graph.bandwidth_um"):
        ask(0.2)


def test_as_run_needs_recipients_far_from_carriers():
    slide = simulate_screen(**KNOBS | SMALL, seed=2)
    with pytest.raises(InputError, match="no recipient .* within 900 um is that far .* lower .*in_vivo.far_um"):
        cellina_in_vivo.ask_as_run(slide, read_screen(slide, far_um=900), [1, 2], 0, {}, settings())


def test_spatialprop_is_asked_as_run_by_altering_tumour_cells_where_they_are():
    slide = simulate_screen(**KNOBS | SMALL, seed=2)
    screen = read_screen(slide)
    asked = cellina_in_vivo.ask_as_run(slide, screen, [1, 2], 0, {}, settings())
    altered = cellina_in_vivo.ask_altered(slide, screen, asked)
    assert not altered.donors("perturbed")
    nodes = altered.nodes("perturbed")
    assert list(nodes) == list(asked.donors("perturbed"))
    types = slide.obs["cell_type"].cat.categories
    log = log_normalize(slide.X).toarray()
    mean = {k: log[screen.tumour & (screen.code == k)].mean(axis=0) for k in (0, 2)}
    own = nodes["KO2"]
    np.testing.assert_allclose(own.shift[types.get_loc("cancer")], mean[2] - mean[0], atol=1e-5)
    assert not own.shift[types.get_loc("T cells")].any()
    assert own.scale == "log"
    assert own.cells is None


def changed_share(donors):
    return (donors["KO1"] != donors["control"]).mean()


def test_as_run_the_authors_nine_are_asked_about_where_the_section_has_them():
    names = (*cellina_in_vivo.CHOSEN, "RELA")
    table = pd.DataFrame({"target": names, "status": "tested"})
    told = settings()
    for protocol, own in (("as_run", names), ("as_run", names[1:]), ("corrected", names)):
        of = table[table["target"].isin(own)].reset_index(drop=True)
        screen = SimpleNamespace(names=own, near=lambda k: range(60))
        codes = cellina_in_vivo.chosen_targets(screen, of, told, protocol)
        nine = protocol == "as_run" and len(own) == 10
        assert [own[k - 1] for k in codes] == list(cellina_in_vivo.CHOSEN if nine else own)


def test_too_few_targets_are_refused(tmp_path):
    slide = simulate_screen(**KNOBS | {"n_targets": 3}, seed=2)
    with pytest.raises(InputError, match="4 are needed to compare predictions"):
        run(tmp_path, slide, "corrected")
