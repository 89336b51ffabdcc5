"""Figures A2 to A4 of Cellina: six metrics per held-out type, a bar per method, between controls and ceiling."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from tissue_counterfactuals.question.nodes import SHIFTS
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.table_cellina_1 import UNDEFINED
from tissue_counterfactuals.results.tables import (
    TWIN,
    choose,
    few_target_cells,
    read_scores,
    spread_failures,
    write_tsv,
)

METRICS = ("pearson", "spearman", "signed_precision", "e_distance", "rmse_counts", "rmse_lfc")
NAME = "Figs A2–A4 of Cellina"
# Bounds that are points rather than bars: they are what a bar is measured against.
MARKERS = {"truth": "D", "truth_in_place": "*"}
CEILING = "ceiling"
HEIGHTS = ("metric", "cell_type", "method", "variant", "mean", "standard_error", "some_failed", "all_failed")
GROUP_WIDTH = 0.86
# Published is log10 of this error; other metrics get a log scale where they span decades.
PUBLISHED_AS_LOG = "rmse_counts"
LOG_SCALE_RATIO = 100.0


@dataclass(frozen=True)
class Bar:
    """One bar of every group: a method and variant with its look."""

    method: str
    variant: str
    label: str
    color: str

    @property
    def look(self) -> dict:
        return style.patch_style(self.color, self.variant)


def draw_files(inputs: dict[str, Path], output: dict[str, Path], target: str, protocol: str) -> None:
    """The heights of all bars, lines and markers (`tsv`), and their picture (`png`).

    Args:
        inputs: `scores` (TSV) and `manifest` (JSON) of a data set.
        target: path form of the target domain.
    """
    record, scores = provenance.read(inputs["manifest"]), read_scores([inputs["scores"]])
    chosen = spread_failures(choose(scores, record["dataset"], provenance.target_name(record, target), protocol))
    table = heights(chosen)
    write_tsv(table, output["tsv"])
    style.save(compose(chosen, table, provenance.footer(record, protocol), record["label"]), output["png"])


def heights(chosen: pd.DataFrame) -> pd.DataFrame:
    """Of every bar, line and marker the mean over slides and its standard error; see HEIGHTS.

    A slide counts once, with the mean of its seeds: seeds are no evidence about tissue.
    """
    shown = {(bar.method, bar.variant) for bar in [*_bars(chosen), *_markers(chosen)]} | {(CEILING, "-")}
    rows = []
    for key, own in chosen.groupby(["cell_type", "method", "variant"], observed=True):
        if key[1:] in shown:
            lost = own["status"] == "failed"
            slides = own.groupby(["metric", "slide"], observed=True)["value"].mean().groupby("metric")
            means = slides.agg(["mean", "sem"]).reindex(METRICS)
            rows += [(metric, *key, *numbers, lost.any(), lost.all()) for metric, *numbers in means.itertuples()]
    return pd.DataFrame(rows, columns=HEIGHTS)


def compose(chosen: pd.DataFrame, table: pd.DataFrame, provenance_text: str, label: str) -> Figure:
    """The figure of the scores of one target and protocol, whose `heights` the table has: whiskers are standard errors.

    A learned method shows its counterfactual under the published donor rule (or the first rule that was run), hatched
    that of altered neighbours, and as an outline its twin. The ceiling is a line over each type, the truth, where
    known, a marker; a failed method has the word in its place. `label` is what the data set is called.
    """
    table = style.with_short_labels(table, "cell_type")
    with style.context():
        figure = style.new_figure(12, 9.6)
        style.suptitle(figure, style.experiment_title(NAME, label, *chosen.iloc[0][["kind", "target", "protocol"]]))
        bars, markers = _bars(chosen), _markers(chosen)
        bottom = _legend(figure, chosen, bars, markers, style.footer(figure, provenance_text))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), h_pad=0.05, w_pad=0.08, hspace=0.03)
        types = sorted(table["cell_type"].unique())
        for axes, metric in zip(figure.subplots(3, 2).flat, METRICS, strict=True):
            _panel(axes, table[table["metric"] == metric], metric, types, bars, markers)
    return figure


def _bars(chosen: pd.DataFrame) -> list[Bar]:
    bars = []
    for method in style.method_order(chosen["method"]):
        if method in MARKERS or method == CEILING:
            continue
        look = style.method_style(method, chosen["method"])
        variants = style.variant_order(chosen.loc[chosen["method"] == method, "variant"])
        first = variants[0]
        label = look.label
        if first in style.VARIANTS and first not in ("published", TWIN):
            label = f"{label} ({style.VARIANTS[first]})"
        if method == "target_mean":
            label = f"{label} (sees the answer)"
        if (chosen.loc[chosen["method"] == method, "status"] == "failed").all():
            label = f"{label} (failed)"
        bars.append(Bar(method, first, label, look.color))
        # Of two ways to alter neighbours the published one, which comes first.
        altered = next((variant for variant in variants if variant in SHIFTS), first)
        if altered != first:
            bars.append(Bar(method, altered, f"{look.label} ({style.VARIANTS[altered]})", look.color))
        if TWIN in variants and first != TWIN:
            bars.append(Bar(method, TWIN, f"{look.label}, no intervention (twin)", look.color))
    return bars


def _markers(chosen: pd.DataFrame) -> list[Bar]:
    markers = []
    for method in MARKERS:
        variants = style.variant_order(chosen.loc[chosen["method"] == method, "variant"])
        if variants:
            look = style.method_style(method)
            detail = style.VARIANTS.get(variants[0])
            label = f"{look.label} ({detail})" if detail else look.label
            markers.append(Bar(method, variants[0], label, look.color))
    return markers


def _panel(axes, table, metric, types, bars, markers) -> None:
    axes.set_title(style.metric_label(metric))
    n_slots = len(bars) + len(markers)
    slot = GROUP_WIDTH / n_slots
    rows = {(row.method, row.variant, row.cell_type): row for row in table.itertuples()}
    heights, marks, words, in_part = [], [], [], []
    for i, cell_type in enumerate(types):
        for j, bar in enumerate([*bars, *markers]):
            own = rows.get((bar.method, bar.variant, cell_type))
            if own is None:
                continue
            x = i - GROUP_WIDTH / 2 + (j + 0.5) * slot
            mean, error = own.mean, own.standard_error
            if np.isnan(mean):
                words.append((x, "failed" if own.all_failed else "undefined" + " †" * own.some_failed))
                continue
            if j < len(bars):
                _bar(axes, x, mean, error, slot, bar)
                heights.append(mean)
            else:
                look = {"markeredgecolor": "white", "markeredgewidth": 0.4, "zorder": 5, "clip_on": False}
                look["markersize"] = 8 if bar.method == "truth_in_place" else 4.5
                axes.plot(x, mean, MARKERS[bar.method], color=bar.color, gid=f"{bar.method}:{cell_type}", **look)
                marks.append(mean)
            if own.some_failed:
                in_part.append((x, mean + np.nan_to_num(error)))
        ceiling = rows.get((CEILING, "-", cell_type))
        if ceiling is not None:
            ends = (i - GROUP_WIDTH / 2, i + GROUP_WIDTH / 2)
            axes.hlines(ceiling.mean, *ends, color="black", linewidth=1.4, zorder=4, gid=f"{CEILING}:{cell_type}")
            marks.append(ceiling.mean)
    _scale(axes, heights, marks, metric)
    for x, word in words:
        _word(axes, x, word)
    for x, y in in_part:
        axes.annotate("†", (x, y), (0, 1), textcoords="offset points", ha="center", color=style.FAILED_COLOR)
    for i in range(1, len(types), 2):
        axes.axvspan(i - 0.5, i + 0.5, color="#F6F6F6", zorder=-1, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(-0.5, len(types) - 0.5)
    characters = max(10, 80 // len(types))
    axes.set_xticks(range(len(types)), ["\n".join(textwrap.wrap(t, characters)) for t in types])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)


def _bar(axes, x, mean, error, width, bar) -> None:
    line = 0.7 if bar.variant == TWIN else 0.3
    axes.bar(x, mean, width * 0.92, linewidth=line, **bar.look, gid=f"{bar.method}:{bar.variant}")
    if not np.isnan(error):
        axes.errorbar(x, mean, error, color="#222222", elinewidth=0.8, capsize=1.6, capthick=0.8)


def _scale(axes, heights, marks, metric) -> None:
    """A log scale where the paper has one or bars of a positive metric span more than two decades, and the axis says
    so; it reaches down to the `marks`, the ceiling and the truth, too.
    """
    # Less than this is an exact prediction but for rounding, such as the target mean's own error: it sets no scale.
    positive = [h for h in heights if h > 1e-6 * max(heights)]
    ratio = max(positive) / min(positive) if positive and min(heights) >= 0 else 0
    if ratio > LOG_SCALE_RATIO or (ratio and metric == PUBLISHED_AS_LOG):
        style.log_scale(axes, "y")
        if ratio < LOG_SCALE_RATIO:
            # Decades alone would leave such an axis with one number or none.
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("log scale")
        axes.set_ylim(bottom=min(positive + [m for m in marks if m > 1e-6 * max(heights)]) / 2)
    elif heights:
        axes.margins(y=0.08)


def _word(axes, x, word) -> None:
    """A word where a bar would stand."""
    failed = word == "failed"
    on_log = axes.get_yscale() == "log"
    place = {"xycoords": axes.get_xaxis_transform() if on_log else "data", "textcoords": "offset points", "zorder": 6}
    look = {"weight": "bold", "color": style.FAILED_COLOR} if failed else {"color": style.MUTED_COLOR}
    look |= {"rotation": 90, "ha": "center", "va": "bottom", "size": 6.5}
    halo = [withStroke(linewidth=1.5, foreground="white")]
    axes.annotate(word, (x, 0), (0, 3), **place, **look, path_effects=halo)


def _legend(figure, chosen, bars, markers, bottom) -> float:
    handles = [Patch(**bar.look, label=bar.label) for bar in bars]
    handles += [Line2D([], [], linestyle="", marker=MARKERS[m.method], color=m.color, label=m.label) for m in markers]
    if (chosen["method"] == CEILING).any():
        label = style.method_style(CEILING).label
        handles.append(Line2D([], [], color="black", linewidth=1.4, label=label))
    n_slides = chosen["slide"].nunique()
    whiskers = "whiskers: standard error over slides" if n_slides > 1 else "one slide has no whiskers"
    notes = [
        f"Bars: mean over slides (n = {n_slides} at most), each the mean of its {chosen['seed'].nunique()} seed(s); "
        f"{whiskers}; arrows point to the better end."
    ]
    if (chosen["status"] == "failed").any():
        notes.append("†: some runs failed; failed: all did (reasons in the score table).")
    if (chosen["value"].isna() & (chosen["status"] == "ok")).any():
        notes.append(f"{UNDEFINED}.")
    notes += filter(None, [few_target_cells(chosen)])
    return style.legend_below(figure, bottom, handles=handles, ncols=5, title="\n".join(notes))
