"""Who tells forces within cells from forces between cells: recovery, cross-talk and chains, truth known.

A row for each kind of data and of forces. From left to right: recovery over the number of cells, a panel for each
number of genes; cross-talk; and the force 1-3 that a chain 1-2, 2-3 does not have.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.experiments.celcomen_recovery import CHAIN_COLUMNS, DATA, FORCES, METHODS, RECOVERY_COLUMNS
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

# Label, colour, marker.
STYLES = {
    "gaussian": ("Gaussian field (corrected)", "#0072B2", "o"),
    "mean_field": ("Mean field (corrected, vMF)", "#009E73", "s"),
    "as_run": ("Mean field (as run)", "#D55E00", "D"),
    "coexpression": ("Co-expression", "#868686", "^"),
    "spatial_coexpression": ("Spatial co-expression", "#CC79A7", "v"),
}
DATA_LABELS = {"field": "drawn field", "log_counts": "counts, log", "normalized": "counts,\nnormalised, log"}
FORCES_LABELS = {"inter": "between cells", "intra": "within cells"}
# Ratios of a force 1-3 to the real ones beyond this are drawn at the edge.
_WIDEST_RATIO = 1.6


def draw_files(inputs: dict[str, Path], path: Path) -> None:
    """Draw from the files of the experiment, `recovery`, `chains` (TSV) and `provenance` (JSON); see `compose`."""
    found = read_table(inputs["recovery"], RECOVERY_COLUMNS)
    links = read_table(inputs["chains"], CHAIN_COLUMNS)
    manifest = provenance.read(inputs["provenance"])
    style.save(compose(found, links, provenance.footer(manifest, "corrected and as_run")), path)


def compose(recovery: pd.DataFrame, chains: pd.DataFrame, provenance_text: str) -> Figure:
    """The figure; every point is a mean over tissues and seeds, bars span one standard deviation."""
    sizes = sorted(recovery["n_genes"].unique())
    tissues = len(recovery[["seed", "tissue"]].drop_duplicates())
    rows = [(data, forces) for data in DATA for forces in FORCES]
    with style.context():
        figure = style.new_figure(3.4 + 2.3 * (len(sizes) + 1), 2.0 + 1.5 * len(rows))
        style.suptitle(
            figure,
            f"Forces between and within cells, independent and known · [simulated] · n = {tissues} "
            f"tissue{'s' * (tissues > 1)} a point",
        )
        bottom = _legend(figure, style.footer(figure, provenance_text))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(len(rows), len(sizes) + 2, squeeze=False, sharey="col", sharex="col")
        for line, (data, forces) in enumerate(rows):
            part = recovery[(recovery["data"] == data) & (recovery["forces"] == forces)]
            for axes, size in zip(grid[line], sizes, strict=False):
                _curves(axes, part[part["n_genes"] == size])
            _cross_talk(grid[line, -2], part)
            chosen = (chains["data"] == data) & (chains["forces"] == forces)
            _chain(grid[line, -1], chains[chosen])
            grid[line, 0].set_ylabel(f"{DATA_LABELS[data]}\n{FORCES_LABELS[forces]}", weight="bold")
        _titles(grid, sizes, chains)
    return figure


def _titles(grid, sizes, chains) -> None:
    for axes, size in zip(grid[0], sizes, strict=False):
        axes.set_title(f"Recovery, {size} genes")
    grid[0, -2].set_title("Cross-talk")
    cells = " and ".join(f"{n:,}" for n in sorted(chains["n_cells"].unique()))
    grid[0, -1].set_title(f"Chain: 1-3 / real, {cells} cells")
    for axes in grid[-1, : len(sizes)]:
        axes.set_xlabel("cells")
    grid[-1, -2].set_xlabel("correlation with\nthe other truth")
    grid[-1, -1].set_xlabel("force 1-3 over mean\nof 1-2 and 2-3")


def _curves(axes, part) -> None:
    for method, (_, color, marker) in STYLES.items():
        found = part[part["method"] == method].groupby("n_cells")["recovery"].agg(["mean", "std"])
        axes.errorbar(
            found.index, found["mean"], found["std"].fillna(0),
            color=color, marker=marker, markersize=3.5, linewidth=1, elinewidth=0.7,
        )  # fmt: skip
    style.log_scale(axes, "x")
    cells = part["n_cells"]
    axes.set_xlim(cells.min() / 1.6, cells.max() * 1.6)
    axes.set_xticks(sorted(cells.unique()), [f"{n:,}" for n in sorted(cells.unique())], rotation=30, ha="right")
    axes.minorticks_off()
    axes.set_ylim(-0.45, 1.05)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.grid(color="#EDEDED", linewidth=0.5)


def _cross_talk(axes, part) -> None:
    """A point for each tissue; the bar is the mean."""
    for place, (method, (_, color, marker)) in enumerate(STYLES.items()):
        values = part.loc[part["method"] == method, "cross_talk"].dropna().to_numpy()
        if not len(values):
            axes.text(-0.55, place, "refused the cells", va="center", color=style.FAILED_COLOR, size=6.5)
            continue
        axes.plot(values, np.full(len(values), place), marker, color=color, markersize=3, alpha=0.5)
        axes.plot([values.mean()] * 2, [place - 0.35, place + 0.35], color=color, linewidth=2)
    _as_list(axes)
    axes.set_xlim(-0.6, 1.05)


def _chain(axes, part) -> None:
    for place, (method, (_, color, marker)) in enumerate(STYLES.items()):
        own = part[part["method"] == method]
        ratio = own["spurious"]
        if ratio.isna().all():
            text = "refused the cells" if (own["status"] == "failed").all() else "chain not found"
            axes.text(0.04, place, text, va="center", color=style.FAILED_COLOR, size=6.5)
            continue
        found = ratio.dropna()
        shown, bar = (np.clip(value, -_WIDEST_RATIO, _WIDEST_RATIO) for value in (found, found.mean()))
        axes.plot(shown, np.full(len(shown), place), marker, color=color, markersize=3, alpha=0.5)
        axes.plot([bar] * 2, [place - 0.35, place + 0.35], color=color, linewidth=2)
        if len(found) < len(ratio):
            axes.text(-1.55, place, f"{len(found)} of {len(ratio)}", va="center", size=6)
    _as_list(axes)
    axes.set_xlim(-_WIDEST_RATIO * 1.05, _WIDEST_RATIO * 1.05)


def _as_list(axes) -> None:
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_yticks([])
    axes.set_ylim(len(STYLES) - 0.4, -0.6)
    axes.grid(axis="x", color="#EDEDED", linewidth=0.5)


def _legend(figure, bottom) -> float:
    handles = [
        Line2D([], [], color=color, marker=marker, markersize=4, label=label)
        for label, color, marker in (STYLES[method] for method in METHODS)
    ]
    title = (
        "Recovery: Pearson with the true forces of the row over pairs of genes; a constant estimate counts as 0. "
        "Cross-talk: the same with what only the truth of the other kind has, tissues of all sizes together.\n"
        "Chain: where 1-2 and 2-3, of either sign, exceed in size all pairs with a gene outside the chain (n of m "
        f"tissues where not in all); ratios to their mean size beyond {_WIDEST_RATIO:g} stand at the edge, "
        "also the mean of all.\n"
        "In the last two columns a point is a tissue, the bar the mean."
    )
    return style.legend_below(figure, bottom, handles=handles, ncols=5, title=title)
