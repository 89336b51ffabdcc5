"""Do intervals hold? Coverage by fold and by expression level, and what is left where a method abstains."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import FOLD, TWIN, choose, read_scores

LEVELS = {"coverage_low": "low", "coverage_middle": "middle", "coverage_high": "high"}
PROMISED, ACCEPTED = 0.9, (0.85, 0.95)
NAME = "Intervals of 90 %"


def draw_files(inputs: dict[str, Path], output: Path, target: str, protocol: str) -> None:
    """Draw from the files `scores` (TSV) and `manifest` (JSON) of a data set; `target` is a path form."""
    record = provenance.read(inputs["manifest"])
    figure = compose(
        read_scores([inputs["scores"]]),
        *(record["dataset"], provenance.target_name(record, target), protocol),
        provenance.footer(record, protocol),
    )
    style.save(figure, output)


def per_fold(scores: pd.DataFrame, dataset: str, target: str, protocol: str) -> pd.DataFrame:
    """A row per method and fold: means over seeds of the metrics of intervals, under the published donor rule or the
    first that was run; no row for methods without intervals."""
    chosen = choose(scores, dataset, target, protocol)
    chosen = chosen[chosen["variant"] != TWIN]
    with_intervals = chosen[chosen["metric"] == "coverage"]
    wanted = {
        method: style.variant_order(own["variant"])[0]
        for method, own in with_intervals.groupby("method")
    }
    chosen = chosen[chosen["variant"] == chosen["method"].map(wanted)]
    return chosen.pivot_table(index=["method", *FOLD], columns="metric", values="value")


def compose(
    scores: pd.DataFrame, dataset: str, target: str, protocol: str, provenance_text: str
) -> Figure:
    """The figure: a dot per fold; where no method gives intervals, a sentence."""
    table = per_fold(scores, dataset, target, protocol)
    kind = choose(scores, dataset, target, protocol)["kind"].iloc[0]
    folds = table.index.droplevel("method").unique() if len(table) else []
    with style.context():
        figure = style.new_figure(10, 2.6 + 0.18 * len(folds))
        style.suptitle(figure, style.experiment_title(NAME, dataset, kind, target, protocol))
        bottom = style.footer(figure, provenance_text)
        if not len(table):
            figure.text(0.5, 0.5, "No method gave intervals here.", ha="center")
            return figure
        methods = style.method_order(table.index.unique("method"))
        handles = {}
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1.2))
        labels = [f"{style.short(cell_type, 28)} · {slide}" for slide, cell_type in folds]
        for method in methods:
            look, own = style.method_style(method, methods), table.loc[method].reindex(folds)
            dots = {"color": look.color, "alpha": 0.85, "linewidths": 0, "s": 22}
            handles[look.label] = left.scatter(own["coverage"], range(len(folds)), **dots)
            for place, level in enumerate(LEVELS):
                spread = np.linspace(-0.18, 0.18, len(folds)) if len(folds) > 1 else np.zeros(1)
                middle.scatter(place + spread, own[level], **dots)
                middle.plot([place - 0.25, place + 0.25], [own[level].mean()] * 2, color=look.color)
            for _, row in own.iterrows():
                ends = [row["rmse_lfc"], row["rmse_lfc_answered"]]
                right.plot([0, row["abstained"]], ends, color=look.color, alpha=0.5, linewidth=0.8)
                right.scatter([0, row["abstained"]], ends, marker="o", **dots)
        left.set(title="By fold", xlabel="genes whose interval holds", xlim=(-0.02, 1.02))
        left.set_yticks(range(len(folds)), labels)
        left.invert_yaxis()
        left.axvspan(*ACCEPTED, color="#EDEDED", zorder=0)
        left.axvline(PROMISED, color=style.MUTED_COLOR, linewidth=0.8, zorder=1)
        middle.set(title="By expression level", ylim=(-0.02, 1.02))
        middle.set_xticks(range(len(LEVELS)), LEVELS.values())
        middle.axhspan(*ACCEPTED, color="#EDEDED", zorder=0)
        middle.axhline(PROMISED, color=style.MUTED_COLOR, linewidth=0.8, zorder=1)
        right.set(title="Error of what is answered")
        right.set(xlabel="abstained share of all genes", ylabel=style.metric_label("rmse_lfc"))
        right.set_xlim(-0.03, 1.03)
        right.set_ylim(0, 1.08 * right.get_ylim()[1])
        title = f"Grey: coverage of {ACCEPTED[0]:g} to {ACCEPTED[1]:g}; a dot is a fold."
        bottom = style.legend_below(
            *(figure, bottom), ncols=6, handles=[*handles.values()], labels=[*handles], title=title
        )
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), w_pad=0.08)
        return figure
