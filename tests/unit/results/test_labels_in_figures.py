"""Labels that come from data: whatever is in them, a figure is drawn, says them, and keeps its form."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from test_figure_celcomen_4 import correlations, genes, manifest, spots
from test_figure_cellina_2 import map_arguments, slide_cells
from test_figures import history

from drawings import PROVENANCE, png_size, texts
from synthetic_scores import bar_figure, synthetic_scores, table_1
from tissue_counterfactuals.experiments import celcomen_spleen
from tissue_counterfactuals.metrics import METRICS
from tissue_counterfactuals.results.figures import (
    figure_celcomen_4,
    figure_celcomen_6,
    figure_cellina_2,
    force_heatmaps,
    learning_curves,
    metric_agreement,
    style,
    table_cellina_1,
)

LONG = "x" * 250
# As a formula the first is broken, the second is whole, the third is nothing.
LABELS = (r"CD4$+_{\frac$", r"$\alpha$ cell", "T$ and B$", LONG + "1", LONG + "2")


def renamed(table, column, labels=LABELS):
    values = sorted(table[column].astype(str).unique())
    names = dict(zip(values, labels, strict=False))
    return table.assign(**{column: table[column].astype(str).map(lambda v: names.get(v, v))})


def bars():
    scores = renamed(synthetic_scores(seeds=(0,)), "cell_type")
    return bar_figure(scores)


def slide_map():
    cells = slide_cells(300)
    arguments = map_arguments(cells)
    for column in ("cell_type", "domain", "sample"):
        cells = renamed(cells, column, LABELS[2:])
    title = f"demo (simulated), slide {LONG}: {LABELS[0]} held out"
    return figure_cellina_2.compose(cells, *arguments, title, PROVENANCE)


def curves():
    title = f"Learning curves, {LONG} $x (simulated data)"
    return learning_curves.compose(renamed(history(5), "cell_type"), title, PROVENANCE)


def table():
    scores = synthetic_scores(seeds=(0,)).assign(dataset=LONG, target=LABELS[0])
    built = table_1(scores, LONG, LABELS[0], "corrected")
    return table_cellina_1.compose(built, PROVENANCE)


def rankings():
    values = [(m, t, LABELS[0], LABELS[1], 5, 0.5) for m in METRICS for t in metric_agreement.TRUTHS]
    rows = pd.DataFrame(values, columns=metric_agreement.COLUMNS)
    return metric_agreement.compose(rows, f"Rankings {LONG} $", PROVENANCE)


def agreement():
    rng = np.random.default_rng(0)
    key = {"dataset": "d", "kind": "simulated", "protocol": "corrected", "seed": 0}
    rows = [
        key | {"hold_out": name, "variant": variant, "force": force, "spearman": rng.random()}
        | {"p_value": 0.1, "constant": False, "random_low": -0.1, "random_high": 0.1}
        for name in LABELS for variant in ("observed", "random") for force in ("inter", "intra")
    ]  # fmt: skip
    rows = pd.DataFrame(rows)
    empty = pd.DataFrame(columns=[*key, *celcomen_spleen.CURVES])
    return figure_celcomen_6.compose(
        rows, empty, celcomen_spleen.summarize(rows), f"Agreement · {LONG} [simulated]", PROVENANCE
    )


def lesions():
    record = manifest("corrected") | {"label": f"{LONG} $"}
    tables = correlations("corrected"), genes("corrected"), spots()
    named = [renamed(t, "section", [r"KP$_{\frac$1"]) if "section" in t else t for t in tables]
    named[2] = renamed(named[2], "label", [f"{LONG}_1", "CD$4_1", "periphery", r"$\frac$_1"])
    return figure_celcomen_4.compose(*named, record)


def clusters():
    matrix = np.eye(6)
    members = pd.DataFrame({"force": "intra", "gene": [f"g{i}" for i in range(6)]})
    members = members.assign(position=range(6), cluster=1)
    terms = pd.DataFrame(
        [
            {
                "force": "intra",
                "cluster": 1,
                "n_genes": 6,
                "mean_force": 0.0,
                "mean_expression": 1.0,
                "term": f"GO${LONG}",
                "p_value": 0.1,
                "q_value": 0.2,
                "status": "ok",
            }
        ]
    )
    both = [pd.concat([t, t.assign(force="inter")]) for t in (members, terms)]
    return force_heatmaps.compose({"intra": matrix, "inter": matrix}, *both, f"{LONG} $ [simulated]", PROVENANCE)


@pytest.mark.parametrize("make", [bars, slide_map, curves, table, rankings, agreement, lesions, clusters])
def test_no_label_breaks_a_figure(make, tmp_path):
    with warnings.catch_warnings():
        # Such as a layout whose axes have no room left.
        warnings.simplefilter("error")
        figure = make()
        style.save(figure, tmp_path / "a.png")
    height = figure.bbox.height
    for axes in (a for a in figure.axes if a.get_label() != "<colorbar>"):
        box = axes.get_window_extent()
        assert box.width > 30
        assert box.height > 30
    # Dollars stand as they are, and nothing runs out of the picture.
    assert any("$" in text for text in texts(figure))
    keys = [text for legend in figure.legends for text in legend.get_texts()]
    for text in [*figure.get_children(), *keys]:
        if isinstance(text, Text):
            assert text.get_window_extent().x1 <= figure.bbox.width + 2, text.get_text()
    assert png_size(tmp_path / "a.png")[1] == pytest.approx(height, abs=1)


def test_labels_that_are_cut_stay_apart():
    table = pd.DataFrame({"a": [LONG + "1", LONG + "2", "y" * 100 + LONG, "short", LONG + "1"]})
    same = pd.DataFrame({"a": ["z" * 300, "z" * 301, "z" * 300]})
    cut = style.with_short_labels(table, "a")["a"].tolist()
    assert cut[3] == "short"
    assert cut[0] == cut[4]
    assert len(set(cut)) == 4
    assert max(map(len, cut)) <= style.MOST_LETTERS
    # Cut from the middle: what tells them apart at the end is still there.
    assert [c[-1] for c in cut[:2]] == ["1", "2"]
    numbered = style.with_short_labels(same, "a")["a"].tolist()
    assert numbered[0] == numbered[2] != numbered[1]
    assert max(map(len, numbered)) <= style.MOST_LETTERS
    untouched = pd.DataFrame({"a": pd.Categorical(["x", "y"])})
    assert style.with_short_labels(untouched, "a")["a"].dtype == "category"


def test_characters_that_no_font_has_are_told(tmp_path, capsys):
    # A private character, which is in no font, whatever the machine has.
    for label, told in (("T cell", False), ("\U000f1234 cell", True)):
        with style.context():
            figure = style.new_figure(3, 2)
            style.suptitle(figure, label)
        style.save(figure, tmp_path / "a.png")
        assert ("no installed font has" in capsys.readouterr().out) == told
        assert any("character(s) that no font" in t for t in texts(figure)) == told


def test_fonts_beyond_the_first_are_installed():
    assert style.FONTS[0] == "DejaVu Sans"
    installed = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
    assert set(style.FONTS) <= installed


def test_a_log_axis_has_plain_numbers():
    with style.context():
        figure = style.new_figure(3, 2)
        axes = figure.subplots()
        style.log_scale(axes, "y")
        axes.set_ylim(0.5, 2000)
        figure.canvas.draw()
        labels = {label.get_text() for label in axes.get_yticklabels()}
    assert {"1", "10", "100", "1000"} <= labels
