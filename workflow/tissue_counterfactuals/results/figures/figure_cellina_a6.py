"""Cellina, Fig. A6: seconds and peak memory of training over the number of cells."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from tissue_counterfactuals.experiments.cellina_scalability import NOT_TRIED
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table, write_tsv

PANELS = {
    "seconds": "Training, seconds",
    "pipeline_seconds": "Whole job, seconds",
    "peak_memory_mb": "Peak memory of the host, MiB",
    "peak_gpu_memory_mb": "Peak memory of the GPU, MiB",
}
SUBSETS = {"random": "random cells", "contiguous": "a contiguous patch"}
KEYS = ["method", "subset", "n_cells"]
COLUMNS = [*KEYS, *PANELS, "n_slides", "n_fits", "n_failed", "complete", "reason", "devices"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Medians over slides and seeds (`tsv`) and the figure (`png`).

    Args:
        inputs: `scores` (TSV) and `manifests` (JSON) of every slide and seed.
    """
    record = provenance.read_joined(inputs["manifests"])
    table = summarize(pd.concat(map(read_table, inputs["scores"])).fillna({"device": ""}))
    write_tsv(table, output["tsv"], sort=False)
    title = f"Costs of training · {style.data_name(record)} · protocol: {protocol}"
    style.save(compose(table, title, provenance.footer(record, protocol)), output["png"])


def summarize(costs: pd.DataFrame) -> pd.DataFrame:
    """Medians of the trainings that ended; how many did not, or were not tried, and the first reason why; COLUMNS.

    `complete` medians are over all slides of the table and no training is missing: others are over other tissue, or
    over those trainings that cost least, and cannot be told from an effect of size.
    """
    rows, n_slides = [], costs["slide"].nunique()
    for key, own in costs.groupby(KEYS, sort=False):
        ok, failed = own[own["status"] == "ok"], own[own["status"] != "ok"]
        rows.append(
            dict(zip(KEYS, key, strict=True))
            | {name: ok[name].median() for name in PANELS}
            | {"n_slides": own["slide"].nunique(), "n_fits": len(own), "n_failed": len(failed)}
            | {"complete": own["slide"].nunique() == n_slides and not len(failed)}
            | {"reason": failed["reason"].iloc[0] if len(failed) else ""}
            | {"devices": ", ".join(sorted({*own["device"]} - {""}))}
        )
    return pd.DataFrame(rows)[COLUMNS]


def compose(table: pd.DataFrame, title: str, provenance_text: str) -> Figure:
    """A row for each cost, a column for each choice of cells; methods that read no neighbours are dashed.

    Medians that are not complete stand apart from the lines. The last row has the sizes of which nothing ended
    (crosses) or that were not tried (dashes); the reasons stand below.
    """
    methods = style.method_order(table["method"])
    panels = [name for name in PANELS if table[name].gt(0).any()]
    subsets = [name for name in SUBSETS if (table["subset"] == name).any()]
    lost = table[table["n_failed"] == table["n_fits"]]
    missing = [method for method in methods if (lost["method"] == method).any()]
    reasons = _reasons(table)
    rows_in = [2.0] * len(panels) + [0.3 + 0.17 * len(missing)] * bool(missing)
    with style.context():
        figure = style.new_figure(2.2 + 4 * len(subsets), sum(rows_in) + 2.4 + 0.17 * len(reasons))
        style.suptitle(figure, title)
        partial = (~table["complete"] & (table["n_failed"] < table["n_fits"])).any()
        bottom = _legend(figure, style.footer(figure, provenance_text), reasons, methods, partial, missing)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(
            len(rows_in), len(subsets), squeeze=False, sharex=True, sharey="row", height_ratios=rows_in
        )
        for row, name in zip(grid, panels, strict=False):
            for axes, subset in zip(row, subsets, strict=True):
                _panel(axes, table[table["subset"] == subset], name, methods)
            row[0].set_ylabel(PANELS[name])
        for axes, subset in zip(grid[-1], subsets, strict=True):
            if missing:
                _absent(axes, lost[lost["subset"] == subset], missing, methods)
            style.log_scale(axes, "x")
            # Whole slides have sizes of their own, too many for labels.
            common = table[table["complete"]] if table["complete"].any() else table
            numbers = sorted({*common["n_cells"], *lost["n_cells"]})
            axes.set_xticks(numbers, [f"{n:,}" for n in numbers], rotation=30)
            axes.minorticks_off()
            axes.set_xlabel("cells")
        for axes, subset in zip(grid[0], subsets, strict=True):
            axes.set_title(SUBSETS[subset])
    return figure


def _line(method: str) -> str:
    spatial = method in METHODS and {"graph", "edge"} & {*METHODS[method].needs}
    return "-" if spatial else "--"


def _panel(axes, table: pd.DataFrame, name: str, methods: list[str]) -> None:
    for method in methods:
        own = table[table["method"] == method].sort_values("n_cells")
        shown = own[own[name] > 0]
        color = style.method_style(method, methods).color
        joined, apart = shown[shown["complete"]], shown[~shown["complete"]]
        axes.plot(joined["n_cells"], joined[name], _line(method), color=color, marker="o", markersize=3.5)
        axes.plot(apart["n_cells"], apart[name], color=color, **style.PARTIAL)
    style.log_scale(axes, "y")
    # Also where all lies within one decade.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.margins(y=0.12)
    axes.minorticks_off()
    axes.grid(color="#EDEDED", linewidth=0.5)


def _absent(axes, lost: pd.DataFrame, missing: list[str], methods: list[str]) -> None:
    """A line for each method, with the sizes from which nothing is shown above."""
    for height, method in enumerate(missing):
        own = lost[lost["method"] == method]
        tried = ~own["reason"].str.startswith(NOT_TRIED)
        color = style.method_style(method, methods).color
        for sizes, marker in ((own.loc[tried, "n_cells"], "x"), (own.loc[~tried, "n_cells"], "_")):
            axes.plot(sizes, [height] * len(sizes), marker, color=color, markersize=6)
    axes.set_yticks(range(len(missing)), [style.method_style(method).label for method in missing])
    axes.set_ylim(len(missing) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _reasons(table: pd.DataFrame) -> list[str]:
    """Why costs are missing, a line for each reason: methods, sizes, reason."""
    methods_of = {}
    for (method, reason), own in table[table["n_failed"] > 0].groupby(["method", "reason"], sort=False):
        sizes = " and ".join(
            f"{', '.join(f'{n:,}' for n in sorted(of['n_cells']))} {SUBSETS[subset]}"
            for subset, of in own.groupby("subset", sort=False)
        )
        methods_of.setdefault((sizes, reason), []).append(style.method_style(method).label)
    return [f"{', '.join(of)}, {sizes}: {style.short(reason, 110)}" for (sizes, reason), of in methods_of.items()]


def _legend(figure, bottom: float, reasons: list[str], methods: list[str], partial: bool, missing: list[str]) -> float:
    handles = style.method_handles(methods, line=_line)
    if partial:
        handles.append(Line2D([], [], color="black", label="some slides or trainings only", **style.PARTIAL))
    title = "Median over slides and seeds. Solid: reads neighbours; dashed: does not."
    if missing:
        title += " Last row: x did not end, _ not tried."
    title = "\n".join([title, *reasons])
    return style.legend_below(figure, bottom, ncols=4, handles=handles, title=title, handlelength=3)
