"""Cellina, Fig. A6: seconds and peak memory of training over the number of cells."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import write_tsv

PANELS = {
    "seconds": "Training, seconds",
    "pipeline_seconds": "Whole job, seconds",
    "peak_memory_mb": "Peak memory of the host, MB",
    "peak_gpu_memory_mb": "Peak memory of the GPU, MB",
}
SUBSETS = {"random": "random cells", "contiguous": "a contiguous patch"}
KEYS = ["method", "subset", "n_cells"]
COLUMNS = [*KEYS, *PANELS, "n_fits", "n_failed", "reason", "devices"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Medians over slides and seeds (`tsv`) and the figure (`png`).

    Args:
        inputs: `scores` (TSV) and `manifests` (JSON) of every slide and seed.
    """
    record = provenance.read_joined(inputs["manifests"])
    tables = [pd.read_csv(path, sep="\t", keep_default_na=False) for path in inputs["scores"]]
    costs = pd.concat(tables)
    table = summarize(costs.assign(**{name: pd.to_numeric(costs[name]) for name in PANELS}))
    write_tsv(table, output["tsv"], sort=False)
    title = f"Costs of training · {style.data_name(record)} · protocol: {protocol}"
    style.save(compose(table, title, provenance.footer(record, protocol)), output["png"])


def summarize(costs: pd.DataFrame) -> pd.DataFrame:
    """Medians of the trainings that ended; how many did not, or were not tried, and the first reason why; COLUMNS."""
    rows = []
    for key, own in costs.groupby(KEYS, sort=False):
        ok, failed = own[own["status"] == "ok"], own[own["status"] != "ok"]
        rows.append(
            dict(zip(KEYS, key, strict=True))
            | {name: ok[name].median() for name in PANELS}
            | {"n_fits": len(own), "n_failed": len(failed)}
            | {"reason": failed["reason"].iloc[0] if len(failed) else ""}
            | {"devices": ", ".join(sorted({*own["device"]} - {""}))}
        )
    return pd.DataFrame(rows)[COLUMNS]


def compose(table: pd.DataFrame, title: str, provenance_text: str) -> Figure:
    """A row for each cost, a column for each choice of cells; methods that read no neighbours are dashed.

    What did not end or was not tried is a cross on the upper edge, and its reason stands below.
    """
    methods = style.method_order(table["method"])
    panels = [name for name in PANELS if table[name].gt(0).any()]
    subsets = [name for name in SUBSETS if (table["subset"] == name).any()]
    with style.context():
        figure = style.new_figure(1.5 + 3.6 * len(subsets), 1.8 + 2.3 * len(panels))
        style.suptitle(figure, title)
        bottom = _legend(figure, style.footer(figure, provenance_text), table, methods)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(len(panels), len(subsets), squeeze=False, sharex=True, sharey="row")
        for row, name in zip(grid, panels, strict=True):
            for axes, subset in zip(row, subsets, strict=True):
                _panel(axes, table[table["subset"] == subset], name, methods)
            row[0].set_ylabel(PANELS[name])
        for axes, subset in zip(grid[0], subsets, strict=True):
            axes.set_title(SUBSETS[subset])
        for axes in grid[-1]:
            axes.set_xlabel("cells")
    return figure


def _line(method: str) -> str:
    spatial = method in METHODS and {"graph", "edge"} & {*METHODS[method].needs}
    return "-" if spatial else "--"


def _panel(axes, table: pd.DataFrame, name: str, methods: list[str]) -> None:
    with_crosses = 0
    for method in methods:
        own = table[table["method"] == method].sort_values("n_cells")
        color = style.method_style(method, methods).color
        shown = own[own[name] > 0]
        axes.plot(shown["n_cells"], shown[name], _line(method), color=color, marker="o", markersize=3.5)
        lost = own.loc[own["n_failed"] == own["n_fits"], "n_cells"]
        # Below one another, so that each is seen.
        height = [0.96 - 0.05 * with_crosses] * len(lost)
        axes.plot(lost, height, "x", color=color, markersize=6, transform=axes.get_xaxis_transform())
        with_crosses += len(lost) > 0
    style.log_scale(axes, "x")
    style.log_scale(axes, "y")
    # Also where all lies within one decade.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.margins(y=0.12)
    numbers = sorted(table["n_cells"].unique())
    axes.set_xticks(numbers, [f"{n:,}" for n in numbers], rotation=30)
    axes.minorticks_off()
    axes.grid(color="#EDEDED", linewidth=0.5)


def _legend(figure, bottom: float, table: pd.DataFrame, methods: list[str]) -> float:
    handles = [
        Line2D([], [], color=style.method_style(m, methods).color, linestyle=_line(m), marker="o", markersize=4,
        label=style.method_style(m).label)
        for m in methods
    ]  # fmt: skip
    title = "Median over slides and seeds. Solid: reads neighbours; dashed: does not. x: did not end or was not tried."
    failed = table[table["n_failed"] > 0]
    for (method, reason), own in failed.groupby(["method", "reason"], sort=False):
        sizes = " and ".join(
            f"{', '.join(f'{n:,}' for n in sorted(of['n_cells']))} {SUBSETS[subset]}"
            for subset, of in own.groupby("subset", sort=False)
        )
        title += f"\n{style.method_style(method).label}, {sizes}: {style.short(reason, 90)}"
    return style.legend_below(figure, bottom, ncols=4, handles=handles, title=title)
