"""Tests of tables and figures as drawn: what they say, not how they look."""

import math
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from synthetic_scores import CELL_TYPES, FAILURE, SEEDS, SLIDES, synthetic_scores
from tissue_counterfactuals import config as configuration
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.figures import (
    figure_cellina_2,
    figure_cellina_a2,
    learning_curves,
    style,
    table_cellina_1,
)
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics import METRICS

PROVENANCE = "demo: simulated data, 10,000 cells · seeds 0, 1, 2 · commit 1a2b3c4 · config 01234567"
CHOICE = ("demo", "tumour", "corrected")


@pytest.fixture(scope="module")
def scores():
    return synthetic_scores()


@pytest.fixture(scope="module")
def table(scores):
    return table_cellina_1.build(scores, *CHOICE)


@pytest.fixture(scope="module")
def bars(scores):
    return figure_cellina_a2.compose(scores, *CHOICE, PROVENANCE)


def texts(figure):
    """Everything that is written on a figure, legends and titles included."""
    return [t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_text()]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def fold_means(scores, method, variant, metric):
    chosen = scores.query("method == @method and variant == @variant and metric == @metric")
    return chosen.groupby(["slide", "cell_type"])["value"].mean()


def png_size(path):
    height, width = imread(path).shape[:2]
    return width, height


# --- Table 1 ----------------------------------------------------------------------------------------------------


def test_table_holds_the_means_over_folds(scores, table):
    row = table.query("method == 'cellina' and variant == 'matched'").squeeze()
    for metric in table_cellina_1.METRICS:
        means = fold_means(scores, "cellina", "matched", metric)
        assert row[f"{metric}_mean"] == pytest.approx(means.mean())
        assert row[f"{metric}_std"] == pytest.approx(means.std())
    twin = fold_means(scores, "cellina", "no_intervention", "rmse_lfc")
    own = fold_means(scores, "cellina", "matched", "rmse_lfc")
    # Lower is better, so the gain is twin minus counterfactual.
    assert row["rmse_lfc_gain"] == pytest.approx((twin - own).mean())
    assert row["rmse_lfc_gain_improved"] == (own < twin).sum()
    assert row["n_folds"] == len(SLIDES) * len(CELL_TYPES)


def test_table_groups_controls_models_and_bounds(table):
    assert list(dict.fromkeys(table["group"])) == ["control", "model", "bound"]
    assert list(dict.fromkeys(table["method"]))[:3] == [
        "no_change",
        "mean_shift",
        "mean_shift_by_type",
    ]
    assert set(table.query("group == 'bound'")["method"]) == {
        *("target_mean", "truth", "truth_in_place", "ceiling"),
    }
    of_cellina = table.query("method == 'cellina'")["variant"].tolist()
    assert of_cellina == ["published", "any_type", "matched", "no_intervention"]


def test_only_methods_with_a_twin_have_a_gain(table):
    with_gain = table[table["pearson_gain_n"] > 0]
    assert set(with_gain["method"]) == {"cellina", "cellina_ablated"}
    assert "no_intervention" not in set(with_gain["variant"])


def test_markdown_says_everything(table):
    markdown = table_cellina_1.to_markdown(table, PROVENANCE)
    lines = markdown.splitlines()
    assert lines[0] == (
        "### Table 1 of Cellina · demo [simulated] · target domain: tumour · protocol: corrected"
    )
    grid = [line for line in lines if line.startswith("|")]
    assert len(grid) == len(table) + 2 + 3
    assert len({line.count("|") for line in grid}) == 1
    assert len({len(line) for line in grid}) == 1
    assert any(line.count("failed") >= 6 and "scGen" in line for line in grid)
    assert f"scGen: 30 runs (fold × seed) failed: {FAILURE}" in markdown
    assert f"Cellina (ablated): 3 runs (fold × seed) failed: {FAILURE}" in markdown
    assert "undefined" in next(line for line in grid if "No change" in line)
    assert PROVENANCE in markdown
    # The best usable prediction is bold; the ceiling, which is better, is not.
    best = next(line for line in grid if "| Cellina  " in line and "matched" in line)
    assert "**0.86" in best
    assert "**" not in next(line for line in grid if "Ceiling" in line)


def test_best_is_the_lowest_where_lower_is_better(table):
    best = {metric: index for index, metric in table_cellina_1.best_cells(table)}
    fair = table.query("group != 'bound' and variant != 'no_intervention'")
    assert best["rmse_lfc"] == fair["rmse_lfc_mean"].idxmin()
    assert best["pearson"] == fair["pearson_mean"].idxmax()


def test_loss_against_the_twin_is_shown_as_a_loss(table):
    worse = table.assign(pearson_gain=-0.2, pearson_gain_improved=1)
    index = worse.index[worse["method"] == "cellina"][0]
    assert "−0.20 ± 0.01 (1/10)" in table_cellina_1.cells(worse, index)
    nothing = table.assign(pearson_gain=-0.001)
    assert "0.00 ± 0.01 (10/10)" in [t.lstrip("+") for t in table_cellina_1.cells(nothing, index)]


def test_failure_of_one_donor_rule_names_that_rule(scores):
    lost = (scores["method"] == "cellina") & (scores["variant"] == "published")
    failed = scores[lost & (scores["metric"] == "pearson")].assign(
        metric="", value=np.nan, status="failed", reason="too few donors " * 50
    )
    table = table_cellina_1.build(pd.concat([scores[~lost], failed]), *CHOICE)
    row = table.query("method == 'cellina' and variant == 'published'")
    assert set(table_cellina_1.cells(table, row.index[0])[2:-1]) == {"failed"}
    note = next(n for n in table_cellina_1.notes(table) if "too few donors" in n)
    assert note.startswith("† Cellina (donors as published): 30 runs")
    assert len(note) < 400


def test_correlation_defined_in_some_folds_only_says_in_how_many(scores):
    some = scores.copy()
    undefined = (some["method"] == "cellina") & (some["metric"] == "pearson")
    undefined &= (some["variant"] == "published") & (some["cell_type"] == "B cell")
    some.loc[undefined, "value"] = np.nan
    table = table_cellina_1.build(some, *CHOICE)
    index = table.query("method == 'cellina' and variant == 'published'").index[0]
    assert table_cellina_1.cells(table, index)[2].endswith("[8]")


def test_unbiased_columns_appear_only_where_scored(scores, table):
    assert any("against twin" in head for head in table_cellina_1.header(table))
    published = scores[~scores["metric"].isin(table_cellina_1.UNBIASED)]
    without = table_cellina_1.build(published, *CHOICE)
    assert len(table_cellina_1.header(without)) == len(table_cellina_1.header(table)) - 2
    assert "Split control" not in table_cellina_1.to_markdown(without)


def test_table_picture_shows_every_row_and_its_provenance(table, tmp_path):
    written = texts(table_cellina_1.compose(table, PROVENANCE))
    for index in table.index:
        for text in filter(None, table_cellina_1.cells(table, index)):
            assert text in written
    assert any("[simulated]" in text for text in written)
    assert PROVENANCE in written
    table_cellina_1.draw(table, PROVENANCE, tmp_path / "table.png")
    width, height = png_size(tmp_path / "table.png")
    assert width > 1500
    assert height > 20 * len(table)


def test_nothing_in_the_picture_of_the_table_overlaps_or_leaves_it(table):
    figure = table_cellina_1.compose(table, PROVENANCE)
    figure.canvas.draw()
    boxes = {}
    for text in figure.axes[0].texts + figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        boxes[text] = box
    items = list(boxes.items())
    for i, (one, box) in enumerate(items):
        for other, second in items[i + 1 :]:
            assert not box.overlaps(second), (one.get_text(), other.get_text())


def test_absent_experiment_is_refused(scores):
    with pytest.raises(InputError, match="no rows for dataset 'demo', target 'tumor'"):
        table_cellina_1.build(scores, "demo", "tumor", "corrected")
    with pytest.raises(InputError, match="no rows for dataset 'demo'"):
        figure_cellina_a2.compose(scores, "demo", "tumour", "as_run", PROVENANCE)


# --- Figs A2-A4 -------------------------------------------------------------------------------------------------


def bar_patches(axes, gid):
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_gid() == gid]


@pytest.mark.parametrize("metric", figure_cellina_a2.METRICS)
def test_bar_heights_are_the_means_over_slides_and_seeds(scores, bars, metric):
    axes = panel(bars, style.metric_label(metric))
    for method, variant in (("cellina", "published"), ("cellina", "no_intervention"), ("mean_shift", "-")):  # fmt: skip
        drawn = bar_patches(axes, f"{method}:{variant}")
        chosen = scores.query("method == @method and variant == @variant and metric == @metric")
        means = chosen.groupby("cell_type")["value"].mean()
        assert [b.get_height() for b in drawn] == pytest.approx([means[t] for t in CELL_TYPES])


def test_whiskers_are_standard_errors(scores, bars):
    axes = panel(bars, "Pearson")
    n = len(SLIDES) * len(SEEDS)
    chosen = scores.query("method == 'cellina' and variant == 'published' and metric == 'pearson'")
    values = chosen.groupby("cell_type")["value"]
    expected = {round(m, 9): s / math.sqrt(n) for m, s in zip(values.mean(), values.std(), strict=True)}  # fmt: skip
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


def test_twins_are_hatched_beside_their_counterfactual(bars):
    axes = panel(bars, "Pearson")
    own = bar_patches(axes, "cellina:published")
    twins = bar_patches(axes, "cellina:no_intervention")
    assert len(twins) == len(CELL_TYPES)
    for bar, twin in zip(own, twins, strict=True):
        assert twin.get_hatch()
        assert not bar.get_hatch()
        assert to_hex(twin.get_edgecolor()) == to_hex(bar.get_facecolor())
        assert 0 < twin.get_x() - bar.get_x() < 2 * bar.get_width()


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
        assert any(t.startswith(style.metric_label(metric)[:5]) and t.endswith(arrow) for t in written)  # fmt: skip
    for label in ("Cellina", "Cellina, no intervention (twin)", "Mean shift by type", "Ceiling (split half)", "Target mean (sees the answer)"):  # fmt: skip
        assert label in written
    assert any("[simulated]" in t and "corrected" in t for t in written)
    assert PROVENANCE in written
    for axes in bars.axes:
        assert [t.get_text() for t in axes.get_xticklabels()] == list(CELL_TYPES)


def test_real_data_have_no_truth_and_say_so(scores, tmp_path):
    real = scores[~scores["method"].str.startswith("truth")].assign(kind="real")
    figure = figure_cellina_a2.compose(real, *CHOICE, PROVENANCE)
    assert not any("Truth" in t for t in texts(figure))
    assert any("demo [real]" in t for t in texts(figure))


def test_decades_get_a_log_scale_that_is_announced():
    wide = synthetic_scores(protocol="as_run")
    sums = (wide["metric"] == "rmse_counts") & (wide["cell_type"] == "B cell")
    wide.loc[sums, "value"] *= 1e4
    figure = figure_cellina_a2.compose(wide, "demo", "tumour", "as_run", PROVENANCE)
    axes = panel(figure, "RMSE counts")
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "log scale"
    assert panel(figure, "Pearson").get_yscale() == "linear"


def test_first_rule_that_was_run_stands_in_for_the_published_one(scores):
    figure = figure_cellina_a2.compose(
        scores[scores["variant"] != "published"], *CHOICE, PROVENANCE
    )
    assert "Cellina (donors of any type)" in texts(figure)


def test_figure_has_the_same_bytes_twice(scores, tmp_path):
    few = scores[scores["cell_type"].isin(CELL_TYPES[:2])]
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        figure_cellina_a2.draw(few, *CHOICE, PROVENANCE, tmp_path / name)
    for suffix in ("png", "svg"):
        first, second = (tmp_path / f"{n}.{suffix}" for n in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert png_size(tmp_path / "a.png") == (1800, 1440)
    svg = (tmp_path / "a.svg").read_text()
    assert "Endothelial" in svg
    assert "dc:date" not in svg


# --- Slide map --------------------------------------------------------------------------------------------------


def slide_cells(n=1200, n_samples=2, seed=0):
    """Samples of 1000 x 600 micrometres whose coordinates coincide; left half normal, right half tumour."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (n, 2)) * [1000, 600]
    return pd.DataFrame(
        {
            "x_um": xy[:, 0],
            "y_um": xy[:, 1],
            "cell_type": pd.Categorical(rng.choice(["B cell", "Fibroblast", "T cell"], n)),
            "domain": pd.Categorical(np.where(xy[:, 0] < 500, "normal", "tumour")),
            "sample": pd.Categorical([f"sample_{i % n_samples}" for i in range(n)]),
        }
    )


def map_arguments(cells):
    held_out = ((cells["cell_type"] == "T cell") & (cells["domain"] == "tumour")).to_numpy()
    control = ((cells["cell_type"] == "T cell") & (cells["domain"] == "normal")).to_numpy()
    focal = int(np.flatnonzero(control)[0])
    xy = cells[["x_um", "y_um"]].to_numpy()
    near = np.linalg.norm(xy - xy[focal], axis=1) < 100
    near &= (cells["sample"] == cells["sample"].iloc[focal]).to_numpy() & ~held_out
    near[focal] = False
    donors = np.flatnonzero((cells["domain"] == "tumour") & ~held_out)[:50]
    return held_out, focal, np.flatnonzero(near), donors


@pytest.fixture(scope="module")
def slide_map():
    cells = slide_cells()
    arguments = map_arguments(cells)
    return cells, arguments, figure_cellina_2.compose(cells, *arguments, "demo [simulated]", PROVENANCE)  # fmt: skip


@pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 7])
def test_samples_stand_side_by_side_without_overlap(n_samples):
    cells = slide_cells(n_samples=n_samples)
    layout = figure_cellina_2.arrange(cells)
    boxes = list(layout.boxes.values())
    assert len(boxes) == n_samples
    for i, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + width <= layout.width * (1 + 1e-9)
        assert y + height <= layout.height * (1 + 1e-9)
        for u, v, other_width, other_height in boxes[i + 1 :]:
            assert x + width < u or u + other_width < x or y + height < v or v + other_height < y
    # Within a sample nothing moves against anything else.
    xy = cells[["x_um", "y_um"]].to_numpy()
    for _, rows in cells.groupby("sample", observed=True).indices.items():
        shift = layout.xy[rows] - xy[rows]
        assert np.ptp(shift, axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_map_draws_every_cell_in_the_colour_of_its_type(slide_map):
    cells, _, figure = slide_map
    colors = style.category_colors(cells["cell_type"])
    drawn = dict.fromkeys(colors.values(), 0)
    for line in panel(figure, "Cell types").lines:
        if line.get_rasterized():
            drawn[line.get_color()] += len(line.get_xdata())
    sizes = cells["cell_type"].value_counts()
    assert drawn == {colors[name]: sizes[name] for name in colors}


def test_map_marks_held_out_and_control_cells(slide_map):
    cells, (held_out, *_), figure = slide_map
    layout = figure_cellina_2.arrange(cells)
    found = np.concatenate(
        [
            line.get_xydata()
            for line in panel(figure, "Held-out cells").lines
            if line.get_color() == figure_cellina_2.HELD_OUT_COLOR
        ]
    )
    expected = layout.xy[held_out]
    assert np.allclose(np.sort(found, axis=0), np.sort(expected, axis=0))
    n_control = ((cells["cell_type"] == "T cell") & (cells["domain"] == "normal")).sum()
    assert f"held out: T cell in tumour ({held_out.sum():,})" in texts(figure)
    assert f"control: T cell in normal ({n_control:,})" in texts(figure)


def test_map_joins_the_focal_cell_to_old_and_new_neighbours(slide_map):
    cells, (_, focal, old, new), figure = slide_map
    layout = figure_cellina_2.arrange(cells)
    for title, members in (("New neighbours", new), ("Old neighbours", old)):
        (edges,) = [c for c in panel(figure, title).collections if hasattr(c, "get_segments") and len(c.get_segments())]  # fmt: skip
        segments = np.array(edges.get_segments())
        assert np.allclose(segments[:, 0], layout.xy[focal])
        assert np.allclose(segments[:, 1], layout.xy[members])
    assert {f"old neighbours ({len(old)})", f"donors ({len(new)})"} <= set(texts(figure))


def test_map_shows_the_composition_of_both_neighbourhoods(slide_map):
    cells, (_, _, old, new), figure = slide_map
    axes = panel(figure, "Who the neighbours are")
    for y, members in ((0, new), (1, old)):
        shares = cells["cell_type"].iloc[members].value_counts(normalize=True)
        for name, share in shares.items():
            (bar,) = [b for b in axes.patches if b.get_gid() == name and round(b.get_y() + b.get_height() / 2) == y]  # fmt: skip
            assert bar.get_width() == pytest.approx(share)


def test_map_has_scale_bars_samples_and_provenance(slide_map):
    _, _, figure = slide_map
    written = texts(figure)
    assert written.count("sample_1") == 4
    assert "200 µm" in written
    assert {"demo [simulated]", PROVENANCE} <= set(written)
    for axes in figure.axes[:4]:
        assert axes.get_aspect() == 1


@pytest.mark.parametrize(
    ("width", "length"), [(1000, 200), (4000, 1000), (790, 100), (80, 20), (20_000, 5000)]
)
def test_scale_bar_is_round_and_at_most_a_quarter(width, length):
    assert figure_cellina_2.scale_bar_length(width) == pytest.approx(length)


def test_map_of_an_isolated_cell_is_drawn(tmp_path):
    cells = slide_cells(n_samples=1)
    held_out, focal, _, donors = map_arguments(cells)
    nobody = np.array([], dtype=np.int64)
    figure_cellina_2.draw(cells, held_out, focal, nobody, donors, "t [real]", PROVENANCE, tmp_path / "m.png")  # fmt: skip
    width, height = png_size(tmp_path / "m.png")
    assert width == 1950
    assert height > 700


def test_map_of_many_cells_has_the_same_bytes_twice(tmp_path):
    cells = slide_cells(n=60_000, n_samples=3)
    for name in "ab":
        figure_cellina_2.draw(cells, *map_arguments(cells), "t [real]", PROVENANCE, tmp_path / f"{name}.png")  # fmt: skip
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_map_refuses_what_does_not_fit_together():
    cells = slide_cells()
    held_out, focal, old, new = map_arguments(cells)
    with pytest.raises(InputError, match="column 'domain' is missing"):
        figure_cellina_2.compose(cells.drop(columns="domain"), held_out, focal, old, new, "", "")
    with pytest.raises(InputError, match="held_out has 10 values for 1200 cells"):
        figure_cellina_2.compose(cells, held_out[:10], focal, old, new, "", "")
    with pytest.raises(InputError, match="new_neighbors holds the index 1200"):
        figure_cellina_2.compose(cells, held_out, focal, old, np.array([1200]), "", "")


# --- Learning curves --------------------------------------------------------------------------------------------


def history(n_epochs=40):
    frames = []
    epoch = np.arange(n_epochs)
    for method in ("cellina", "cellina_ablated"):
        for slide in SLIDES:
            for cell_type in CELL_TYPES[:3]:
                validation = 200 + 50 * np.exp(-epoch / 5) + 0.01 * (epoch - 30) ** 2
                heads = 1.5 * np.exp(-epoch / 9) if method == "cellina" else np.nan
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


def test_learning_curves_say_which_term_a_model_does_not_have():
    figure = learning_curves.compose(history(), "t [simulated]", PROVENANCE)
    missing = [a for a in figure.axes if any(t.get_text() == "not part of this model" for t in a.texts)]  # fmt: skip
    assert missing == figure.axes[3:5]
    written = texts(figure)
    assert {"Cellina (ablated)\ncorrected", "Cellina\ncorrected", PROVENANCE} <= set(written)
    assert {*CELL_TYPES[:3], "training", "validation", "epoch kept"} <= set(written)


def test_learning_curves_without_any_history_say_that_all_failed(tmp_path):
    empty = pd.DataFrame(columns=["slide", "cell_type", "method", "protocol", "seed", "epoch"])
    figure = learning_curves.compose(empty, "t [simulated]", PROVENANCE)
    assert any("all failed" in text for text in texts(figure))
    learning_curves.draw(history(), "t [simulated]", PROVENANCE, tmp_path / "curves.png")
    assert png_size(tmp_path / "curves.png")[0] == 1875


def test_learning_curves_refuse_a_history_without_a_column():
    with pytest.raises(InputError, match="column 'kl_s' is missing"):
        learning_curves.compose(history().drop(columns="kl_s"), "", "")


# --- Style ------------------------------------------------------------------------------------------------------


def test_every_method_has_a_row_and_models_have_colours_of_their_own():
    assert set(METHODS) <= set(style.METHODS)
    for method in METHODS.values():
        assert (style.METHODS[method.name].group == "model") == method.learned
    colors = [m.color for m in style.METHODS.values() if m.group == "model"]
    assert len(set(colors)) == len(colors)


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


# --- Captions ---------------------------------------------------------------------------------------------------


def rendered(root, name, config, **wildcards):
    """A caption as Snakemake renders it: Jinja, then docutils; any warning of docutils is an error here."""
    template = (root / "workflow/report" / name).read_text()
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    snakemake = SimpleNamespace(config=config, wildcards=SimpleNamespace(**wildcards))
    files = [SimpleNamespace(target="deviations.tsv", path="results/deviations.tsv")]
    targets = "\n\n.. _deviations.tsv: javascript:show('deviations')\n"
    text = environment.from_string(template + targets).render(
        snakemake=snakemake, files=files, categories={}
    )
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    brain = tmp_path_factory.mktemp("data") / "brain.h5ad"
    with h5py.File(brain, "w") as file:
        for column in ("cell_type", "domain"):
            file[f"obs/{column}"] = np.array(["a"], dtype="S")
    raw = {
        "seeds": [3, 7, 11],
        "protocols": ["corrected", "as_run"],
        "counterfactual": {"n_donors": 37},
        "metrics": {"n_deg": 41},
        "datasets": {
            "tissue": {
                "source": "simulated",
                "control_domain": "domain_0",
                "target_domains": ["domain_2"],
                "graph": {"bandwidth_um": 88.0, "max_neighbors": 123},
            },
            "brain": {
                "path": str(brain),
                "kind": "stand-in",
                "label": "Hypothalamus_",
                "control_domain": "niche0_Astrocyte+Endothelial",
                "target_domains": ["niche5_ODMature+Microglia", "other_"],
                "fit": "pooled",
            },
        },
    }
    return configuration.load_config(raw)


FIGURE_CAPTIONS = {
    "table_cellina_1.rst": {"target": "domain_2", "protocol": "as_run"},
    "figure_cellina_a2.rst": {"target": "domain_2", "protocol": "as_run"},
    "figure_cellina_2.rst": {"slide": "slide_0"},
    "learning_curves.rst": {"protocol": "as_run"},
    "tables.rst": {},
}


@pytest.mark.parametrize("name", FIGURE_CAPTIONS)
@pytest.mark.parametrize(
    ("dataset", "kind", "label"),
    [("tissue", "simulated", "tissue"), ("brain", "stand-in", "Hypothalamus_")],
)
def test_captions_say_the_kind_of_data(root, settings, name, dataset, kind, label):
    html = rendered(root, name, settings, dataset=dataset, **FIGURE_CAPTIONS[name])
    assert kind in html
    assert label in html
    assert ("simulated" in html) == (kind == "simulated")
    for value in FIGURE_CAPTIONS[name].values():
        assert value in html


def test_captions_take_their_numbers_from_the_configuration(root, settings):
    table = rendered(root, "table_cellina_1.rst", settings, dataset="tissue", target="x", protocol="corrected")  # fmt: skip
    for number in ("3, 7, 11", "37 donors", "41 genes"):
        assert number in table
    slide = rendered(root, "figure_cellina_2.rst", settings, dataset="tissue", slide="slide_0")
    for number in ("37 donors", "at most 123", "88.0 µm", "0.1 or less"):
        assert number in " ".join(slide.split())
    curves = rendered(root, "learning_curves.rst", settings, dataset="tissue", protocol="corrected")
    assert f"at most {settings['cellina']['epochs']} epochs" in curves


def test_landing_page_describes_the_run(root, settings):
    html = rendered(root, "workflow.rst", settings)
    for text in (
        *(
            "tissue",
            "Hypothalamus_",
            "simulated",
            "stand-in",
            "niche5_ODMature+Microglia",
            "other_",
        ),
        *("3, 7, 11", "as_run", "cellina_ablated", "37 donors", "matched"),
        *("one model over all samples", "a model for each sample"),
    ):
        assert text in html
    assert '<a class="reference external" href="javascript:show(' in html
    assert "Switches set apart" not in html
    # The truth is known on simulated slides only.
    lists = [part for part in html.split("<li>") if "Methods and controls on" in part]
    assert ["truth_in_place" in part for part in lists] == [True, False]


def test_landing_page_names_switches_that_were_set(root, settings):
    html = rendered(root, "workflow.rst", settings | {"switches": {"lfc": "log2_epsilon"}})
    assert "lfc = log2_epsilon" in html
