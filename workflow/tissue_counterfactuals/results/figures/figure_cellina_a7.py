"""Cellina, Fig. A7: scores of node perturbation over the number of genes that neighbours are shifted in."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.experiments.cellina_gene_range import EDGE_SWAP, SCORES, SHIFTS, TRUTHS, TWIN
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table, write_tsv

# Label and colour.
STYLES = {
    "by_type": ("shift by cell type", "#0072B2"),
    "global": ("shift of all cells together", "#E69F00"),
    EDGE_SWAP: ("edge swap (neighbours of one target cell)", "#009E73"),
    TWIN: ("twin (nothing shifted)", "#868686"),
}
LINES = dict(zip(TRUTHS, ("-", "--"), strict=True))
# How much is seen of a level line of some of the slides only.
PALE = 0.35
COLUMNS = ["shift", "n_genes", "truth", "metric", "value", "sd", "n_slides", "n_types"]


def draw_files(inputs: dict, output: dict[str, Path], target: str, protocol: str) -> None:
    """Means over slides (`tsv`) and the figure (`png`).

    Args:
        inputs: `scores` (TSV) and `manifests` (JSON) of every slide and seed.
        target: path form of the target domain.
    """
    record = provenance.read_joined(inputs["manifests"])
    name = provenance.target_name(record, target)
    scores = pd.concat(map(read_table, inputs["scores"]))
    table = summarize(scores[scores["target"] == name])
    write_tsv(table, output["tsv"], sort=False)
    title = style.experiment_title("Genes shifted in neighbours", record["label"], record["kind"], name, protocol)
    style.save(compose(table, title, provenance.footer(record, protocol)), output["png"])


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over types of each slide, then over seeds, then over slides; `sd` is over slides. See COLUMNS.

    All genes of each slide are one point, under the number of the slide that has most of them: a mean over the slides
    of one size alone would look like an effect of size. Slides and types count where the score is defined.
    """
    keys = ["shift", "n_genes", "truth", "metric"]
    every = scores.groupby("slide")["n_genes"].transform("max")
    scores = scores.assign(
        n_genes=scores["n_genes"].where(scores["n_genes"] < every, every.max()),
        cell_type=scores["cell_type"].where(scores["value"].notna()),
    )
    types = scores.groupby([*keys, "slide", "seed"])["value"].mean()
    slides = types.groupby([*keys, "slide"]).mean()
    table = slides.groupby(keys).agg(value="mean", sd="std", n_slides="count").reset_index()
    n_types = scores.groupby(keys)["cell_type"].nunique().rename("n_types")
    return table.join(n_types, on=keys)[COLUMNS]


def compose(table: pd.DataFrame, title: str, provenance_text: str) -> Figure:
    """A panel for each score, a line for each shift and truth; what shifts no genes is level.

    Points of some of the slides only stand apart from the line; level lines are pale there.
    """
    with style.context():
        figure = style.new_figure(7.6, 6.4)
        style.suptitle(figure, title)
        partial = table["n_slides"].between(1, table["n_slides"].max() - 1).any()
        bottom = _legend(figure, style.footer(figure, provenance_text), partial)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        for axes, metric in zip(figure.subplots(2, 2).flat, SCORES, strict=True):
            _panel(axes, table[table["metric"] == metric])
            axes.set_title(style.metric_label(metric))
            axes.set_xlabel("genes shifted")
    return figure


def _panel(axes, table: pd.DataFrame) -> None:
    n_slides = table["n_slides"].max()
    for shift, (_, color) in STYLES.items():
        for truth, line in LINES.items():
            own = table[(table["shift"] == shift) & (table["truth"] == truth)]
            own = own.sort_values("n_genes")
            if shift not in SHIFTS:
                for row in own.itertuples():
                    alpha = 1 if row.n_slides == n_slides else PALE
                    axes.axhline(row.value, color=color, linestyle=line, linewidth=1, alpha=alpha)
                continue
            some = own[own["n_slides"] < n_slides]
            own = own[own["n_slides"] == n_slides]
            axes.plot(own["n_genes"], own["value"], line, color=color, marker="o", markersize=3.5)
            axes.plot(some["n_genes"], some["value"], color=color, **style.PARTIAL)
            if own["sd"].notna().any():
                low, high = own["value"] - own["sd"], own["value"] + own["sd"]
                axes.fill_between(own["n_genes"], low, high, color=color, alpha=0.12, linewidth=0)
    numbers = sorted(table.loc[table["shift"].isin(SHIFTS), "n_genes"].unique())
    style.log_scale(axes, "x")
    # A number so near to all of them that its label would lie under theirs has none.
    labels = ["all" if n == numbers[-1] else "" if n > numbers[-1] / 1.6 else f"{n:,}" for n in numbers]
    axes.set_xticks(numbers, labels, rotation=30)
    axes.minorticks_off()
    axes.grid(color="#EDEDED", linewidth=0.5)


def _legend(figure, bottom: float, partial: bool) -> float:
    handles = [Line2D([], [], color=color, label=label) for label, color in STYLES.values()]
    labels = ("compared with observed cells", "compared with reconstructions (as published)")
    handles += [
        Line2D([], [], color="black", linestyle=line, label=label)
        for line, label in zip(LINES.values(), labels, strict=True)
    ]
    if partial:
        handles.append(
            Line2D([], [], color="black", label="some of the slides only (a level line: pale)", **style.PARTIAL)
        )
    title = (
        "Mean over cell types, seeds, then slides; shading: one standard deviation over slides. Against "
        "reconstructions the twin changes nothing, so that it has no correlation."
    )
    return style.legend_below(figure, bottom, ncols=2, handles=handles, title=title, handlelength=4)
