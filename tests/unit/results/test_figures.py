"""Tests of the bar figure, the learning curves and the common style: what figures say, not how they look."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from drawings import PROVENANCE, panel, png_size, texts
from synthetic_scores import CELL_TYPES, SEEDS, SLIDES, bar_figure, synthetic_scores
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics import METRICS
from tissue_counterfactuals.results.figures import figure_cellina_a2, learning_curves, style
from tissue_counterfactuals.results.tables import TWIN

MANIFEST = {"label": "demo", "kind": "real", "n_cells": 10, "seeds": [3], "commit": "a", "config_hash": "b"}


@pytest.fixture(scope="module")
def scores():
    return synthetic_scores()


@pytest.fixture(scope="module")
def bars(scores):
    return bar_figure(scores)


def bar_patches(axes, gid):
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_gid() == gid]


@pytest.mark.parametrize("metric", figure_cellina_a2.METRICS)
def test_bar_heights_are_the_means_over_slides_and_seeds(scores, bars, metric):
    axes = panel(bars, style.metric_label(metric))
    for method, variant in (("cellina", "published"), ("cellina", "no_intervention"), ("mean_shift", "-")):
        drawn = bar_patches(axes, f"{method}:{variant}")
        chosen = scores.query("method == @method and variant == @variant and metric == @metric")
        means = chosen.groupby("cell_type")["value"].mean()
        assert [b.get_height() for b in drawn] == pytest.approx([means[t] for t in CELL_TYPES])


def test_whiskers_are_standard_errors_over_slides_and_not_over_seeds(scores, bars):
    axes = panel(bars, "Pearson")
    assert len(SEEDS) > 1
    chosen = scores.query("method == 'cellina' and variant == 'published' and metric == 'pearson'")
    slides = chosen.groupby(["cell_type", "slide"])["value"].mean().groupby("cell_type")
    n = len(SLIDES)
    expected = {round(m, 9): s / math.sqrt(n) for m, s in zip(slides.mean(), slides.std(), strict=True)}
    found = 0
    for container in axes.containers:
        if not hasattr(container, "has_yerr"):
            continue
        (segments,) = container.lines[2]
        (_, low), (_, high) = segments.get_segments()[0]
        middle = round((low + high) / 2, 9)
        if middle in expected:
            found += 1
            assert (high - low) / 2 == pytest.approx(expected[middle])
    assert found == len(CELL_TYPES)


def test_altered_neighbours_are_hatched_and_twins_outlines_beside_their_counterfactual(scores):
    node = scores.query("method == 'cellina' and variant == 'published'").assign(variant="node")
    alone = node.assign(method="spatialprop")
    # Of two ways to alter neighbours the published one is drawn.
    both = [scores, node, node.assign(variant="node_global"), alone]
    # A method that reads no neighbours has an answer and a twin as well.
    both += [node.assign(method="nearest_neighbor", variant=variant) for variant in ("-", TWIN)]
    table = pd.concat(both, ignore_index=True).assign(n_target=4)
    figure = bar_figure(table, label="Demo tissue")
    assert "· Demo tissue [simulated] ·" in figure.get_suptitle()
    assert any("target cells, so that" in text and f"{CELL_TYPES[0]} on slide_0 (4)" in text for text in texts(figure))
    axes = panel(figure, "Pearson")
    own, altered, twins = (bar_patches(axes, f"cellina:{variant}") for variant in ("published", "node", TWIN))
    assert not bar_patches(axes, "cellina:node_global")
    for bar, hatched, twin in zip(own, altered, twins, strict=True):
        assert [bool(b.get_hatch()) for b in (bar, hatched, twin)] == [False, True, False]
        assert hatched.get_facecolor() == bar.get_facecolor()
        assert to_hex(twin.get_facecolor()) == "#ffffff"
        assert to_hex(twin.get_edgecolor()) == to_hex(bar.get_facecolor())
        assert 0 < hatched.get_x() - bar.get_x() < twin.get_x() - bar.get_x() < 3 * bar.get_width()
    assert len(own) == len(CELL_TYPES)
    assert all(bar.get_hatch() for bar in bar_patches(axes, "spatialprop:node"))
    assert "Cellina (altered neighbours)" in texts(figure)
    for variant in ("-", TWIN):
        assert len(bar_patches(axes, f"nearest_neighbor:{variant}")) == len(CELL_TYPES)


def test_neighbours_altered_alike_are_drawn_where_nothing_else_altered_them(scores):
    alike = scores.query("method == 'cellina' and variant == 'published'").assign(variant="node_global")
    figure = bar_figure(pd.concat([scores, alike], ignore_index=True))
    bars = bar_patches(panel(figure, "Pearson"), "cellina:node_global")
    assert len(bars) == len(CELL_TYPES)
    assert all(bar.get_hatch() for bar in bars)
    assert "Cellina (altered neighbours, all types alike)" in texts(figure)


def test_controls_are_grey_and_models_are_not(bars):
    def is_grey(bar):
        red, green, blue, _ = bar.get_facecolor()
        return red == green == blue

    axes = panel(bars, "E-distance")
    for gid in ("no_change:-", "mean_shift:-", "mean_shift_by_type:-", "target_mean:-"):
        assert is_grey(bar_patches(axes, gid)[0])
    assert not is_grey(bar_patches(axes, "cellina:published")[0])


def test_failed_and_undefined_are_words_where_a_bar_would_stand(bars):
    for title in ("Pearson", "RMSE LFC"):
        words = [t.get_text() for t in panel(bars, title).texts]
        # scGen failed for every type; the ablated model in part of one type, twin included.
        assert words.count("failed") == len(CELL_TYPES)
        assert words.count("†") == 2
        assert words.count("undefined") == (len(CELL_TYPES) if title == "Pearson" else 0)
    assert "scGen (failed)" in texts(bars)


def test_what_failed_in_part_and_has_no_value_elsewhere_is_not_failed(scores):
    lost = (scores["method"] == "no_change") & (scores["seed"] == 0)
    failed = scores[lost & (scores["metric"] == "pearson")].assign(metric="", status="failed", reason="no")
    figure = bar_figure(pd.concat([scores[~lost], failed]))
    words = [t.get_text() for t in panel(figure, "Pearson").texts]
    assert words.count("undefined †") == len(CELL_TYPES)
    assert words.count("failed") == len(CELL_TYPES)  # scGen


def test_the_error_of_counts_is_on_a_log_scale_as_published_and_keeps_its_numbers(bars):
    axes = panel(bars, "RMSE counts")
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "log scale")
    low, high = axes.get_ylim()
    assert high / low < figure_cellina_a2.LOG_SCALE_RATIO
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 4


def test_ceiling_and_truth_are_drawn_for_every_type(scores, bars):
    axes = panel(bars, "Spearman")
    for i, cell_type in enumerate(CELL_TYPES):
        chosen = scores.query("cell_type == @cell_type and metric == 'spearman'")
        (line,) = [c for c in axes.collections if c.get_gid() == f"ceiling:{cell_type}"]
        segment = line.get_segments()[0]
        assert segment[0, 1] == pytest.approx(chosen.query("method == 'ceiling'")["value"].mean())
        assert segment[0, 0] < i < segment[1, 0]
        (mark,) = [c for c in axes.lines if c.get_gid() == f"truth:{cell_type}"]
        truth = chosen.query("method == 'truth' and variant == 'published'")["value"].mean()
        assert mark.get_ydata()[0] == pytest.approx(truth)


def test_figure_names_types_methods_directions_kind_and_provenance(bars):
    written = texts(bars)
    for metric in figure_cellina_a2.METRICS:
        arrow = "↑" if METRICS[metric].direction == "higher" else "↓"
        assert any(t.startswith(style.metric_label(metric)[:5]) and t.endswith(arrow) for t in written)
    for label in (
        "Cellina",
        "Cellina, no intervention (twin)",
        "Mean shift by type",
        "Ceiling (split half)",
        "Target mean (sees the answer)",
    ):
        assert label in written
    assert any("[simulated]" in t and "corrected" in t for t in written)
    assert PROVENANCE in written
    for axes in bars.axes:
        assert [t.get_text() for t in axes.get_xticklabels()] == list(CELL_TYPES)


def test_real_data_have_no_truth_and_say_so(scores, tmp_path):
    real = scores[~scores["method"].str.startswith("truth")].assign(kind="real")
    figure = bar_figure(real)
    assert not any("Truth" in t for t in texts(figure))
    assert any("demo [real]" in t for t in texts(figure))


def test_decades_get_a_log_scale_that_is_announced():
    wide = synthetic_scores(protocol="as_run")
    sums = (wide["metric"] == "rmse_counts") & (wide["cell_type"] == "B cell")
    wide.loc[sums, "value"] *= 1e4
    figure = bar_figure(wide, "as_run")
    axes = panel(figure, "RMSE counts")
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "log scale"
    assert panel(figure, "Pearson").get_yscale() == "linear"
    # The ceiling errs less than half of any bar, and stands in the panel all the same.
    best = (wide["metric"] == "rmse_counts") & (wide["method"] == "ceiling")
    wide.loc[best, "value"] /= 10
    axes = panel(bar_figure(wide, "as_run"), "RMSE counts")
    lines = [c for c in axes.collections if (c.get_gid() or "").startswith("ceiling:")]
    assert len(lines) == len(CELL_TYPES)
    assert axes.get_ylim()[0] < min(line.get_segments()[0][0][1] for line in lines)


def test_first_rule_that_was_run_stands_in_for_the_published_one(scores):
    figure = bar_figure(scores[scores["variant"] != "published"])
    assert "Cellina (donors of any type)" in texts(figure)


def test_figure_has_the_same_bytes_twice(scores, tmp_path):
    few = scores[scores["cell_type"].isin(CELL_TYPES[:2])]
    # Either suffix writes both.
    for name in ("a.png", "b.svg"):
        style.save(bar_figure(few), tmp_path / name)
    for suffix in ("png", "svg"):
        first, second = (tmp_path / f"{n}.{suffix}" for n in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert png_size(tmp_path / "a.png") == (1800, 1440)
    svg = (tmp_path / "a.svg").read_text()
    assert "Endothelial" in svg
    assert "dc:date" not in svg


def test_what_has_many_points_is_a_picture_inside_an_svg(tmp_path):
    places = np.random.default_rng(0).random((2, 20_000))
    with style.context():
        figure = style.new_figure(4, 3)
        left, right = figure.subplots(1, 2)
        left.scatter(*places, s=1)
        left.set_title("cells")
        right.plot(*np.sort(places), color="#123456")
        right.scatter(*places[:, :9], s=9, color="#654321")
        style.save(figure, tmp_path / "a.png")
    svg = (tmp_path / "a.svg").read_text()
    assert len(svg) < 100_000
    assert svg.count("<image") == 2
    # Words, and the nine points, can still be taken hold of.
    assert ">cells<" in svg
    assert svg.count("#654321") >= 9
    assert "#123456" not in svg


def history(n_epochs=40, absent=np.nan):
    frames = []
    epoch = np.arange(n_epochs)
    for method in ("cellina", "cellina_ablated"):
        for slide in SLIDES:
            for cell_type in CELL_TYPES[:3]:
                validation = 200 + 50 * np.exp(-epoch / 5) + 0.01 * (epoch - 30) ** 2
                heads = 1.5 * np.exp(-epoch / 9) if method == "cellina" else absent
                keys = {"method": method, "protocol": "corrected", "slide": slide}
                columns = {
                    "epoch": epoch,
                    "train_loss": validation - 3,
                    "validation_loss": validation,
                    "kl_z": 10 - 4 * np.exp(-epoch / 9),
                    "kl_s": 3 - 3 * np.exp(-epoch / 9),
                    "classifier_loss": heads,
                    "adversary_loss": heads,
                    "best": epoch == validation.argmin(),
                }
                frames.append(pd.DataFrame(keys | {"cell_type": cell_type, "seed": 0} | columns))
    return pd.concat(frames, ignore_index=True)


def test_learning_curves_have_a_line_per_fit_and_mark_the_epoch_kept():
    curves = history()
    figure = learning_curves.compose(curves, "Learning curves, demo [simulated]", PROVENANCE)
    assert len(figure.axes) == 2 * len(learning_curves.COLUMNS)
    # Methods in the order of display: the ablated model first.
    loss, kl_s = figure.axes[5], figure.axes[6]
    n_fits = len(SLIDES) * 3
    lines = [line for line in loss.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 2 * n_fits
    assert {line.get_linestyle() for line in lines} == {"-", "--"}
    dots = [line for line in loss.lines if line.get_marker() == "o"]
    assert len(dots) == n_fits
    best = curves.query("best").iloc[0]
    assert dots[0].get_xydata()[0] == pytest.approx([best["epoch"], best["validation_loss"]])
    assert len([line for line in kl_s.lines if line.get_linestyle() == "-"]) == n_fits


@pytest.mark.parametrize(
    ("absent", "reason"), [(np.nan, "not recorded under this name"), (0.0, "not part of this model")]
)
def test_learning_curves_say_which_term_a_model_does_not_have(absent, reason):
    figure = learning_curves.compose(history(absent=absent), "t [simulated]", PROVENANCE)
    missing = [a for a in figure.axes if any(t.get_text() == reason for t in a.texts)]
    assert missing == figure.axes[3:5]
    written = texts(figure)
    assert {"Cellina (ablated)\ncorrected", "Cellina\ncorrected", PROVENANCE} <= set(written)
    assert {*CELL_TYPES[:3], "training", "validation", "best validation loss"} <= set(written)


def test_learning_curves_are_told_from_the_folders_of_fits(tmp_path):
    models = []
    for slide, fold, method, seed in (("one", "T_cell", "cellina", 3), ("two", "B_cell", "scvi", 0)):
        models.append(tmp_path / slide / fold / method / f"corrected.seed{seed}")
        models[-1].mkdir(parents=True)
        (models[-1] / "status.json").write_text(json.dumps({"cell_type": fold.replace("_", " ")}))
        own = pd.DataFrame({"epoch": [0, 1], "train_loss": [2.0, 1.0], "validation_loss": [3.0, 2.0 + seed]})
        own.assign(best=[False, True]).to_csv(models[-1] / "history.tsv", sep="\t", index=False)
    (tmp_path / "manifest").write_text(json.dumps(MANIFEST))
    output = {kind: tmp_path / f"curves.{kind}" for kind in ("tsv", "png")}
    learning_curves.draw_files({"models": models, "manifest": tmp_path / "manifest"}, output, "corrected")
    table = pd.read_csv(output["tsv"], sep="\t")
    keys = table.groupby(["slide", "cell_type", "method", "seed"])["validation_loss"].last()
    assert keys.to_dict() == {("one", "T cell", "cellina", 3): 5.0, ("two", "B cell", "scvi", 0): 2.0}


def test_learning_curves_without_any_history_say_that_all_failed(tmp_path, monkeypatch):
    (tmp_path / "manifest").write_text(json.dumps(MANIFEST))
    output, written = {kind: tmp_path / f"none.{kind}" for kind in ("tsv", "png")}, []
    monkeypatch.setattr(style, "save_reason", lambda reason, *_: written.append(reason))
    learning_curves.draw_files({"models": [], "manifest": tmp_path / "manifest"}, output, "corrected")
    assert written == ["no fit finished an epoch: all failed"]
    assert pd.read_csv(output["tsv"], sep="\t").empty
    style.save(learning_curves.compose(history(), "t [simulated]", PROVENANCE), tmp_path / "curves.png")
    assert png_size(tmp_path / "curves.png")[0] == 1875


def test_learning_curves_draw_what_another_method_has_and_no_more():
    """The history of a guest: a loss that it calls so, no terms of Cellina's, columns that nobody knows."""
    ours = history()
    other = ours[ours["method"] == "cellina"][["slide", "cell_type", "protocol", "seed", "epoch", "train_loss"]]
    other = other.assign(method="scgen", elbo=1.0)
    for curves in (other, pd.concat([ours, other])):
        figure = learning_curves.compose(curves, "t [simulated]", PROVENANCE)
        titles = [axes.get_ylabel() for axes in figure.axes]
        first = titles.index("scGen\ncorrected")
        lines = [line for line in figure.axes[first].lines if line.get_linestyle() == "-" and len(line.get_xdata())]
        assert len(lines) == len(SLIDES) * 3
        rest = figure.axes[first + 1 : first + 5]
        assert all(any(t.get_text() == "not recorded under this name" for t in a.texts) for a in rest)


def test_every_method_has_a_row_and_models_have_colours_of_their_own():
    assert set(METHODS) == set(style.METHODS)
    for method in METHODS.values():
        assert (style.METHODS[method.name].group == "model") == method.learned
    colors = [m.color for m in style.METHODS.values() if m.group == "model"]
    assert len(set(colors)) == len(colors)


@pytest.mark.parametrize("palette", [style.CATEGORY_COLORS, style.DOMAIN_COLORS])
def test_no_two_categories_have_the_same_colour(palette):
    colors = style.category_colors([f"{i:03}" for i in range(100)], palette)
    assert len({color.lower() for color in colors.values()}) == 100
    assert [*colors.values()][: len(palette)] == [*palette]
    assert style.category_colors("ba") == dict(zip("ab", style.CATEGORY_COLORS, strict=False))


def test_no_line_of_a_title_ends_with_the_dot_between_its_parts():
    assert style.wrap("Costs of training · demo · protocol: corrected", 1.7, 10) == [
        "Costs of training",
        "demo · protocol:",
        "corrected",
    ]


def test_unknown_methods_are_shown_under_their_own_names_in_different_colours():
    styles = [style.method_style(m, ["zeta", "eta", "cellina"]) for m in ("zeta", "eta")]
    assert [s.label for s in styles] == ["zeta", "eta"]
    assert styles[0].color != styles[1].color
    assert style.method_order(["zeta", "ceiling", "cellina", "no_change"]) == [
        *("no_change", "cellina", "zeta", "ceiling"),
    ]


def test_legend_handles_do_not_reach_into_the_footer(bars):
    bars.canvas.draw()
    (footer,) = [t for t in bars.texts if t.get_gid() == "provenance"]
    legend = bars.legends[0].get_window_extent()
    assert footer.get_window_extent().y1 <= legend.y0
    lowest = min(axes.get_tightbbox().y0 for axes in bars.axes)
    assert legend.y1 <= lowest
    assert any(isinstance(handle, Line2D) for handle in bars.legends[0].legend_handles)
