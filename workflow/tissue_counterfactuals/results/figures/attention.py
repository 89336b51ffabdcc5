"""Whom a focal cell listens to: the attention of Cellina-GAT before and after the move, on the tissue and by cell
type.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.question.folds import read_folds
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.question.question import read_question
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.figure_cellina_2 import arrange, central
from tissue_counterfactuals.results.tables import TWIN, write_tsv
from tissue_counterfactuals.slide import read_slide

METHOD = "cellina_gat"
BACKGROUND = "#DCDCDC"
PANELS = ("Before: its own neighbours", "After the move: its donors", "Share of attention by type")
# Area of a neighbour's dot, in square points, that gets its even share of the attention.
EVEN_AREA = 22.0
SHARES = ["time", "cell_type", "cells", "attention"]
HEARD = ["time", "x_um", "y_um", "cell_type", "sample", "attention"]


def draw_files(inputs: dict, output: dict[str, Path]) -> None:
    """Attention of one focal cell in its own place and among its donors (`cell`), of all by type (`tsv`), and `png`.

    Args:
        inputs: `slide`, the table of its `folds`, the `manifest` of the data set (JSON), and as lists of one file the
            `question` and the `predictions`; they are empty where nothing is asked about this slide.
    """
    record = provenance.read(inputs["manifest"])
    title = f"{style.data_name(record)}, slide {Path(inputs['slide']).stem}: whom cells listen to"
    write_tsv(pd.DataFrame(columns=SHARES), output["tsv"])
    write_tsv(pd.DataFrame(columns=HEARD), output["cell"])
    if not inputs["question"]:
        reason = "\n".join(read_folds(inputs["folds"])["left_out"])
        style.save_reason(reason, title, provenance.footer(record), output["png"])
        return
    cells, asked = read_slide(inputs["slide"], check=False), read_question(inputs["question"][0])
    note = provenance.footer(record, asked.protocol)
    target = asked.fold.targets[0]
    with read_predictions(inputs["predictions"][0]) as made:
        found = made.attention(METHOD, target)
        failed = [f["reason"] for f in made.notes["failures"] if f["method"] == METHOD]
    moved = next((rule for rule in asked.donors(target) if rule in found), None)
    if moved is None:
        reason = failed[0] if failed else f"no donor rule found donors in {target}"
        style.save_reason(reason, title, note, output["png"])
        return
    title += f". {asked.fold.cell_type}, from {asked.fold.control} to {target}"
    table = cells.obs[["cell_type", "sample"]].astype(str).reset_index(drop=True)
    table[["x_um", "y_um"]] = np.asarray(cells.obsm["spatial"])
    times = {"before": found[TWIN], "after": found[moved]}
    one = central(table, found[TWIN][0])
    by_type = [shares(table["cell_type"], *heard[1:]).assign(time=time) for time, heard in times.items()]
    of_one = [_neighbors(table, heard, one).assign(time=time) for time, heard in times.items()]
    write_tsv(pd.concat(by_type).rename_axis("cell_type").reset_index()[SHARES], output["tsv"], sort=False)
    write_tsv(pd.concat(of_one)[HEARD], output["cell"], sort=False)
    style.save(compose(table, *times.values(), title, note), output["png"])


def compose(cells: pd.DataFrame, before: tuple, after: tuple, title: str, provenance_text: str) -> Figure:
    """The figure.

    Args:
        cells: one row per cell: cell_type, sample, x_um, y_um.
        before, after: focal cells (m,), neighbours (m, k), weights (m, k, layers); the last layer is shown.
    """
    cells = style.with_short_labels(cells, "cell_type")
    colors = style.category_colors(cells["cell_type"])
    # Donors can stand in other sections, whose places are their own.
    xy = arrange(cells).xy if cells["sample"].nunique() > 1 else cells[["x_um", "y_um"]].to_numpy()
    focal, one = before[0], central(cells, before[0])
    with style.context():
        figure = style.new_figure(11.5, max(4.6, 2.2 + 0.17 * len(colors)))
        bottom = style.footer(figure, provenance_text)
        panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
        for axes, name, (_, neighbors, weights) in zip(panels, PANELS, (before, after), strict=False):
            there = neighbors[one] >= 0
            _tissue(axes, cells, xy, colors, focal[one], neighbors[one][there], weights[one, there, -1])
            axes.set_title(name)
        _by_type(panels[2], cells["cell_type"], colors, {"before": before, "after": after})
        panels[2].set_title(PANELS[2])
        style.suptitle(figure, title)
        figure.tight_layout(rect=(0, bottom, 1, 0.95))
    return figure


def _neighbors(cells: pd.DataFrame, heard: tuple, one: int) -> pd.DataFrame:
    """Whom one focal cell hears, and the last layer's weights."""
    _, neighbors, weights = heard
    there = neighbors[one] >= 0
    return cells.loc[neighbors[one, there]].assign(attention=weights[one, there, -1])


def _tissue(axes, cells, xy, colors, focal, neighbors, weights) -> None:
    """The neighbours, as large as they are listened to, and the other cells around them."""
    shown = xy[np.append(neighbors, focal)]
    low, high = shown.min(axis=0), shown.max(axis=0)
    pad = max(0.06 * (high - low).max(), 10.0)
    near = ((xy >= low - pad) & (xy <= high + pad)).all(axis=1)
    axes.plot(*xy[near].T, "o", color=BACKGROUND, ms=2, mew=0, rasterized=True)
    area = EVEN_AREA * weights * len(weights)
    for start in xy[neighbors]:
        axes.plot(*np.stack([start, xy[focal]], axis=1), color="#999999", lw=0.3, zorder=1.5)
    shades = [colors[name] for name in cells["cell_type"].iloc[neighbors]]
    axes.scatter(*xy[neighbors].T, s=area, c=shades, lw=0.3, edgecolors="white", zorder=3)
    axes.plot(*xy[focal], "*", color="#F0E442", ms=13, mec="black", mew=0.7, zorder=4)
    axes.set(xlim=(low[0] - pad, high[0] + pad), ylim=(low[1] - pad, high[1] + pad))
    axes.set_aspect("equal")
    axes.set(xlabel="µm (area of a dot: how much it is heard)", ylabel="µm")


def shares(cell_type: pd.Series, neighbors: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """Of each type (rows), the share of cells among neighbours and of the last layer's attention; means over focal
    cells.
    """
    focal, place = np.nonzero(neighbors >= 0)
    types = cell_type.to_numpy()[neighbors[focal, place]]
    counts = np.bincount(focal, minlength=len(neighbors))
    n_heard = max(1, (counts > 0).sum())
    table = pd.DataFrame({"cells": 1 / counts[focal], "attention": weights[focal, place, -1]})
    return table.groupby(types).sum() / n_heard


def _by_type(axes, cell_type, colors, times: dict[str, tuple]) -> None:
    """For each type a bar of attention, before and after, and a line where it would be if all were heard alike."""
    names = list(colors)
    for offset, (time, (_, neighbors, weights)) in zip((0.2, -0.2), times.items(), strict=True):
        own = shares(cell_type, neighbors, weights).reindex(names, fill_value=0.0)
        height = np.arange(len(names))[::-1] + offset
        hatch = "" if time == "before" else "////"
        axes.barh(height, own["attention"], 0.36, color=list(colors.values()), hatch=hatch, ec="white", lw=0.5)
        axes.vlines(own["cells"], height - 0.19, height + 0.19, color="black", lw=1.4)
    axes.set_yticks(np.arange(len(names))[::-1], names)
    grey = {"facecolor": "#888888", "edgecolor": "white"}
    handles = [
        Patch(**grey, label="before: own neighbours"),
        Patch(**grey, hatch="////", label="after: donors"),
        Line2D([], [], ls="", marker="|", color="black", ms=9, mew=1.4, label="share of cells: all heard alike"),
    ]  # fmt: skip
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -0.16))
    axes.set(xlabel="share of attention, last layer (mean over focal cells)", xlim=(0, None))
