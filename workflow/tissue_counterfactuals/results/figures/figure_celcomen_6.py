"""Figure 6 of Celcomen: forces fitted to one sample against those fitted to the rest, with controls."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

FORCES = {"inter": "between cells (inter)", "intra": "within cells (intra)"}
# Variant -> label and colour, in order of display; the first two are those of the published figure.
VARIANTS = {
    "random": ("random forces", "#BBBBBB"),
    "observed": ("observed", "#E377C2"),
    "fixed_slides": ("observed, slides kept apart", "#9467BD"),
    "mean_expression_only": ("mean expression only, -m m'", "#E69F00"),
    "co_expression": ("plain co-expression", "#F0E442"),
    "other_centring": ("other way of centring", "#56B4E9"),
    "shuffled_space": ("cells shuffled in space", "#009E73"),
}
NEEDED = ("hold_out", "variant", "force", "spearman")
MOST_ROWS = 8


def draw_files(files: dict[str, Path], path: str | Path) -> None:
    """Draw from the tables of the experiment to a PNG or SVG.

    Args:
        files: agreement, curves, summary (TSV) and manifest (JSON).
    """
    record = provenance.read(files["manifest"])
    seed = record["seeds"][0]
    tables = [read_table(files["agreement"], NEEDED), *(read_table(files[n]) for n in ("curves", "summary"))]
    tables = [table[table["seed"] == seed] for table in tables]
    title = (
        f"Agreement of forces between samples (Celcomen Fig. 6) · {style.data_name(record)} · "
        f"protocol: {record['protocol']} · seed {seed}"
    )
    style.save(compose(*tables, title, provenance.footer(record, record["protocol"])), path)


def compose(
    agreement: pd.DataFrame, curves: pd.DataFrame, summary: pd.DataFrame, title: str, provenance_text: str
) -> Figure:
    """The figure: for each hold-out the agreement over epochs, or against its null where there are none; and means.

    Args:
        agreement, curves, summary: tables of `experiments.celcomen_spleen`, of one seed.
        title: must say what kind of data it is.
    """
    agreement, curves = (style.with_short_labels(t, "hold_out") for t in (agreement, curves))
    everyone = sorted(agreement["hold_out"].unique())
    hold_outs = everyone[:MOST_ROWS]
    if len(hold_outs) < len(everyone):
        title += f" · left: the first {MOST_ROWS} of {len(everyone)} hold-outs"
    by_epoch = curves["epoch"].nunique() > 1
    shown = [v for v in VARIANTS if (agreement["variant"] == v).any()]
    height = 1.6 + max(1.55 * len(hold_outs), 4.4)
    with style.context():
        figure = style.new_figure(11.5, height)
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance_text)
        handles = [Patch(color=VARIANTS[v][1], label=VARIANTS[v][0]) for v in shown]
        handles.append(
            Line2D([], [], color="black", label="random forces, each epoch")
            if by_epoch
            else Patch(color="#DDDDDD", label="95 % of forces with permuted genes")
        )
        bottom = style.legend_below(figure, bottom, handles=handles, ncols=4)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
        grid = left.subplots(len(hold_outs), 2, squeeze=False, sharex=True, sharey="row" if by_epoch else False)
        for row, hold_out in enumerate(hold_outs):
            for axes, (force, label) in zip(grid[row], FORCES.items(), strict=True):
                if by_epoch:
                    _curves(axes, _of(curves, hold_out, force))
                else:
                    _dots(axes, _of(agreement, hold_out, force), shown)
                if row == 0:
                    axes.set_title(label)
                if row == len(hold_outs) - 1:
                    axes.set_xlabel("epochs" if by_epoch else "Spearman correlation")
            grid[row, 0].set_ylabel(f"hold-out {hold_out}" + "\nSpearman" * by_epoch)
        bars = right.subplots(2, 1, sharex=True)
        for axes, (force, label) in zip(bars, FORCES.items(), strict=True):
            _bars(axes, summary[summary["force"] == force], shown)
            axes.set_title(f"{label}: mean of {len(everyone)} hold-outs", pad=31)
        # Room for the numbers beside the bars.
        largest = max(summary["mean"].abs().max(), 0.02)
        low = -1.5 * largest if summary["mean"].min() < -0.2 * largest else -0.06 * largest
        bars[0].set_xlim(low, 1.55 * largest)
        bars[-1].set_xlabel("Spearman correlation (bar: 1 standard error)")
    return figure


def _of(table: pd.DataFrame, hold_out: str, force: str) -> pd.DataFrame:
    return table[(table["hold_out"] == hold_out) & (table["force"] == force)]


def _curves(axes: Axes, table: pd.DataFrame) -> None:
    for variant, own in table.groupby("variant"):
        color = VARIANTS[variant][1]
        axes.plot(own["epoch"] + 1, own["observed"], color=color, linewidth=1.3)
        if variant == "observed":
            axes.plot(own["epoch"] + 1, own["control"], color="black", linewidth=0.9)
    axes.axhline(0, color=style.MUTED_COLOR, linewidth=0.4, zorder=0)
    axes.grid(color="#EDEDED", linewidth=0.5)


def _dots(axes: Axes, table: pd.DataFrame, shown: list[str]) -> None:
    table = table.set_index("variant")
    names = [v for v in shown if v in table.index]
    for place, variant in enumerate(reversed(names)):
        row = table.loc[variant]
        if np.isfinite(row["random_low"]):
            axes.barh(
                place, row["random_high"] - row["random_low"], left=row["random_low"], height=0.8, color="#DDDDDD"
            )
        axes.plot(
            row["spearman"],
            place,
            "o",
            color=VARIANTS[variant][1],
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.4,
        )
    axes.axvline(0, color=style.MUTED_COLOR, linewidth=0.4, zorder=0)
    axes.set_yticks([])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.spines["left"].set_visible(False)


def _bars(axes: Axes, summary: pd.DataFrame, shown: list[str]) -> None:
    summary = summary.set_index("variant")
    names = [v for v in shown if v in summary.index]
    for place, variant in enumerate(reversed(names)):
        row = summary.loc[variant]
        mean, error = np.nan_to_num(row["mean"]), row["standard_error"]
        if np.isfinite(row["mean"]):
            axes.barh(place, mean, color=VARIANTS[variant][1], edgecolor="black", linewidth=0.4)
        if np.isfinite(error):
            axes.errorbar(mean, place, xerr=error, color="black", capsize=2.5, linewidth=0.8)
        text = f" {row['mean']:.3f}" if np.isfinite(row["mean"]) else " not known: constant forces in a hold-out"
        if np.isfinite(row["largest_empirical_p"]):
            text += f"  p ≤ {row['largest_empirical_p']:.2g}"
        if row["n_constant"]:
            text += "\n all pairs of genes alike"
        end = max(mean, 0) + (error if np.isfinite(error) else 0)
        axes.text(end, place, text, va="center", size=6.5)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(names)), [VARIANTS[v][0] for v in reversed(names)], size=6.5)
    observed = summary.loc["observed"]
    note = "p ≤: largest of the hold-outs, against permuted genes"
    if np.isfinite(observed["published_mann_whitney_p"]):
        smallest = f"{observed['smallest_possible_p']:.2g}"
        note += (
            f"\nas published: Mann-Whitney, observed vs random, p = {observed['published_mann_whitney_p']:.2g}"
            f"\n(smallest possible with {observed['n_hold_outs']:.0f} hold-outs: {smallest}); hold-outs share samples,"
            "\nso that it is no valid p value"
        )
    axes.text(0, 1.02, note, transform=axes.transAxes, va="bottom", size=6, color=style.MUTED_COLOR)
