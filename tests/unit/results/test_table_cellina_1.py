"""Tests of Table 1: its numbers, and what its printed forms say."""

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, png_size, texts
from synthetic_scores import CELL_TYPES, FAILURE, SLIDES, synthetic_scores, table_1
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results.figures import style, table_cellina_1
from tissue_counterfactuals.results.tables import FEW_CELLS

CHOICE = ("demo", "tumour", "corrected")


@pytest.fixture(scope="module")
def scores():
    return synthetic_scores()


@pytest.fixture(scope="module")
def table(scores):
    return table_1(scores, *CHOICE)


def fold_means(scores, method, variant, metric):
    chosen = scores.query("method == @method and variant == @variant and metric == @metric")
    return chosen.groupby(["slide", "cell_type"])["value"].mean()


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


def test_a_fold_with_few_target_cells_is_named_below_the_table(scores):
    def few_cells(scores):
        notes = table_cellina_1.notes(table_1(scores, *CHOICE))
        return [note for note in notes if "target cells, so that" in note]

    assert few_cells(scores) == []
    own = (scores["slide"] == "slide_1") & (scores["cell_type"] == "T cell")
    # A ceiling is scored against half of them.
    sizes = np.where(scores["method"] == "ceiling", FEW_CELLS // 2, FEW_CELLS - 1)
    (note,) = few_cells(scores.assign(n_target=scores["n_target"].where(~own, sizes)))
    assert note.startswith(f"Fewer than {FEW_CELLS} target cells")
    assert note.endswith(f": T cell on slide_1 ({FEW_CELLS - 1}).")


def test_as_run_the_table_says_that_scgen_sees_the_answer(scores):
    for protocol, said in {"as_run": 1, "corrected": 0}.items():
        renamed = scores.assign(method=scores["method"].replace("cellina", "scgen"), protocol=protocol)
        notes = table_cellina_1.notes(table_1(renamed, *CHOICE[:2], protocol))
        assert sum(note.startswith("scGen") and "sees the answer" in note for note in notes) == said


def test_table_groups_controls_models_and_bounds(table):
    assert list(dict.fromkeys(table["group"])) == ["control", "model", "truth", "in_domain"]
    assert list(dict.fromkeys(table["method"]))[:3] == [
        "no_change",
        "mean_shift",
        "mean_shift_by_type",
    ]
    assert set(table.query("group == 'truth'")["method"]) == {"truth"}
    assert set(table.query("group == 'in_domain'")["method"]) == {"target_mean", "truth_in_place", "ceiling"}
    of_cellina = table.query("method == 'cellina'")["variant"].tolist()
    assert of_cellina == ["published", "any_type", "matched", "no_intervention"]


def test_the_groups_of_bounds_are_the_flags_of_the_methods():
    for name, method in METHODS.items():
        known = [flag for flag in ("in_domain", "truth") if flag in method.needs]
        group = style.METHODS[name].group
        assert [group] == known[:1] if known else group in ("control", "model"), name


def test_only_methods_with_a_twin_have_a_gain(table):
    with_gain = table[table["pearson_gain_n"] > 0]
    assert set(with_gain["method"]) == {"cellina", "cellina_ablated"}
    assert "no_intervention" not in set(with_gain["variant"])


def test_markdown_says_everything(table):
    markdown = table_cellina_1.to_markdown(table, PROVENANCE)
    lines = markdown.splitlines()
    assert lines[0] == ("### Table 1 of Cellina · demo [simulated] · target domain: tumour · protocol: corrected")
    grid = [line for line in lines if line.startswith("|")]
    assert len(grid) == len(table) + 2 + 4
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
    fair = table.query("group not in ('truth', 'in_domain') and variant != 'no_intervention'")
    assert best["rmse_lfc"] == fair["rmse_lfc_mean"].idxmin()
    assert best["pearson"] == fair["pearson_mean"].idxmax()


@pytest.mark.parametrize(("method", "switch"), [("scgen", "scgen_difference"), ("mintflow", "mintflow_cells")])
def test_what_sees_the_answer_under_a_switch_is_not_the_best_there(method, switch):
    for protocol, best in (("corrected", method), ("as_run", "cellina")):
        scores = synthetic_scores(failed_method=None, protocol=protocol)
        ceiling = scores[scores["method"] == "ceiling"].assign(method=method)
        table = table_1(pd.concat([scores, ceiling]), "demo", "tumour", protocol)
        found = {table.loc[index, "method"] for index, _ in table_cellina_1.best_cells(table)}
        assert found == {best}
        assert any("it sees the answer" in line for line in table_cellina_1.notes(table)) == (protocol == "as_run")
        table.attrs["switches"] |= {switch: "all_cells"}
        assert method not in {table.loc[index, "method"] for index, _ in table_cellina_1.best_cells(table)}


def test_what_lacks_a_fold_is_not_the_best(table):
    index = table.index[(table["method"] == "cellina") & (table["variant"] == "matched")][0]
    assert (index, "pearson") in table_cellina_1.best_cells(table)
    lacking = table.copy()
    lacking.loc[index, "pearson_n"] -= 1
    assert (index, "pearson") not in table_cellina_1.best_cells(lacking)


def test_loss_against_the_twin_is_shown_as_a_loss(table):
    worse = table.assign(pearson_gain=-0.2, pearson_gain_improved=1)
    index = worse.index[worse["method"] == "cellina"][0]
    assert "−0.20 ± 0.01 (1/10)" in table_cellina_1.cells(worse, index)
    nothing = table.assign(pearson_gain=-0.001)
    assert "0.00 ± 0.01 (10/10)" in [t.lstrip("+") for t in table_cellina_1.cells(nothing, index)]


def test_a_gain_of_nothing_is_neither_gain_nor_loss(table):
    for gain, color in ((0.0, style.MUTED_COLOR), (-0.004, style.MUTED_COLOR), (-0.2, "#B2182B"), (0.2, "#00609C")):
        drawn = table_cellina_1.compose(table.assign(pearson_gain=gain), PROVENANCE)
        found = {t.get_color() for t in drawn.axes[0].texts if t.get_text().endswith("± 0.01 (10/10)")}
        assert color in found, gain
        assert len(found & {style.MUTED_COLOR, "#B2182B"}) <= 1


def test_failure_of_one_donor_rule_names_that_rule(scores):
    lost = (scores["method"] == "cellina") & (scores["variant"] == "published")
    failed = scores[lost & (scores["metric"] == "pearson")].assign(
        metric="", value=np.nan, status="failed", reason="too few donors " * 50
    )
    table = table_1(pd.concat([scores[~lost], failed]), *CHOICE)
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
    table = table_1(some, *CHOICE)
    index = table.query("method == 'cellina' and variant == 'published'").index[0]
    assert table_cellina_1.cells(table, index)[2].endswith("[8]")


def test_unbiased_columns_appear_only_where_scored(scores, table):
    assert any("against twin" in head for head in table_cellina_1.header(table))
    published = scores[~scores["metric"].isin(table_cellina_1.UNBIASED)]
    without = table_1(published, *CHOICE)
    assert len(table_cellina_1.header(without)) == len(table_cellina_1.header(table)) - 2
    assert "Split control" not in table_cellina_1.to_markdown(without)


def test_table_picture_shows_every_row_and_its_provenance(table, tmp_path):
    written = texts(table_cellina_1.compose(table, PROVENANCE))
    for index in table.index:
        for text in filter(None, table_cellina_1.cells(table, index)):
            assert text in written
    assert any("[simulated]" in text for text in written)
    assert PROVENANCE in written
    style.save(table_cellina_1.compose(table, PROVENANCE), tmp_path / "table.png")
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
        table_1(scores, "demo", "tumor", "corrected")
