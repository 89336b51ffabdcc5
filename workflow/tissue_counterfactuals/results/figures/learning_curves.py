"""Learning curves of every fit under a protocol: a row per method, a column per term of the loss, a line per fold."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import write_tsv

COLUMNS = {
    "train_loss": "Loss (train, validation)",
    "kl_s": "KL of s (spatial latent)",
    "kl_z": "KL of z (intrinsic latent)",
    "classifier_loss": "Cell-type classifier",
    "adversary_loss": "Domain adversary",
}
FIT = ["slide", "cell_type", "seed"]
NEEDED = ("method", "protocol", *FIT, "epoch")
# Seconds of an epoch are not among them: two runs with the same seeds make the same tables.
DRAWN = [*NEEDED, "validation_loss", *COLUMNS, "best"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Learning curves of every fit under a protocol (`tsv`, `png`); a fit that failed before its first epoch has none.

    Args:
        inputs: `models` are folders .../{slide}/{fold}/{method}/{protocol}.seed{seed} that `fit` left; `manifest` is
            that of the data set (JSON).
    """
    record, histories = provenance.read(inputs["manifest"]), []
    for folder in map(Path, inputs["models"]):
        history = folder / "history.tsv"
        if not history.exists():
            continue
        slide, _, method, run = folder.parts[-4:]
        cell_type = json.loads((folder / "status.json").read_text())["cell_type"]
        keys = {"slide": slide, "cell_type": cell_type, "method": method, "protocol": protocol}
        keys["seed"] = int(run.rsplit("seed", 1)[1])
        table = pd.read_csv(history, sep="\t")
        # Methods of others count their epochs by their rows, if they count them otherwise.
        table["epoch"] = table.get("epoch", pd.Series(range(len(table))))
        histories.append(table.assign(**keys))
    table = pd.concat(histories) if histories else pd.DataFrame(columns=NEEDED)
    write_tsv(table.reindex(columns=DRAWN), output["tsv"], sort=False)
    title = f"Learning curves, {style.data_name(record)}, protocol {protocol}"
    note = provenance.footer(record, protocol)
    if histories:
        style.save(compose(table, title, note), output["png"])
    else:
        style.save_reason("no fit finished an epoch: all failed", title, note, output["png"])


def compose(history: pd.DataFrame, title: str, provenance_text: str) -> Figure:
    """The figure.

    Args:
        history: one row per epoch of each fit under one protocol, with method, protocol, cell_type, slide, seed, epoch,
            train_loss, validation_loss, kl_z, kl_s, classifier_loss, adversary_loss (NaN or 0 where a method has no
            such term) and best (bool), the epoch of the best validation loss.
        title: what was trained; must say what kind of data it is.
    """
    history = history.reindex(columns=DRAWN)
    methods = style.method_order(history["method"])
    history = style.with_short_labels(history, "cell_type")
    by_method = dict(iter(history.groupby("method")))
    colors = style.category_colors(history["cell_type"])
    with style.context():
        figure = style.new_figure(12.5, 1.2 + 2.1 * len(methods))
        style.suptitle(figure, title)
        bottom = _legend(figure, colors, style.footer(figure, provenance_text))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(len(methods), len(COLUMNS), squeeze=False, sharex="row")
        for row, method in enumerate(methods):
            for axes, column in zip(grid[row], COLUMNS, strict=True):
                _panel(axes, by_method[method], column, colors)
                if row == 0:
                    axes.set_title(COLUMNS[column], size=8.5)
                if row == len(methods) - 1:
                    axes.set_xlabel("epoch")
            protocol = by_method[method]["protocol"].iloc[0]
            grid[row, 0].set_ylabel(f"{style.method_style(method).label}\n{protocol}", weight="bold")
    return figure


def _panel(axes, history, column, colors) -> None:
    curves = {column: "-", "validation_loss": "--"} if column == "train_loss" else {column: "-"}
    own = history[list(curves)]
    # A cross-entropy is never exactly 0: such a column means that the model has no such head.
    if own.fillna(0).eq(0).all(axis=None):
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        reason = "not recorded under this name" if own.isna().all(axis=None) else "not part of this model"
        axes.text(0.5, 0.5, reason, color=style.MUTED_COLOR, size=7.5, **middle)
        axes.set_yticks([])
        return
    for (_, cell_type, _), fit in history.groupby(FIT):
        fit = fit.sort_values("epoch")
        for name, line in curves.items():
            axes.plot(fit["epoch"], fit[name], line, color=colors[cell_type], linewidth=0.9, alpha=0.8)
        best = fit[fit["best"].eq(True)]
        dot = {"markersize": 4, "markeredgecolor": "black", "markeredgewidth": 0.5, "zorder": 4}
        # On the validation curve where there is one: that is what chose the epoch.
        axes.plot(best["epoch"], best[list(curves)[-1]], "o", color=colors[cell_type], **dot)
    if column == "train_loss":
        _cut_outliers(axes, history, list(curves))
    elif column.startswith("kl_"):
        # Whether a latent is used is a matter of its distance from 0.
        axes.set_ylim(bottom=min(0, history[column].min()))
    axes.grid(color="#EDEDED", linewidth=0.5)


def _cut_outliers(axes, history, names) -> None:
    """The first epochs, before anything is learnt, must not squeeze the rest of the curve into a line."""
    later = history.loc[history["epoch"] >= history["epoch"].max() * 0.05, names].to_numpy(float)
    later = later[np.isfinite(later)]
    if len(later) == 0 or np.ptp(later) == 0:
        return
    low, high = later.min(), later.max()
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def _legend(figure, colors, bottom) -> float:
    handles = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    grey = {"color": style.MUTED_COLOR}
    handles += [
        Line2D([], [], linestyle="-", label="training", **grey),
        Line2D([], [], linestyle="--", label="validation", **grey),
        Line2D([], [], linestyle="", marker="o", markeredgecolor="black", label="best validation loss", **grey),
    ]
    title = "One line per fit; colour: the cell type that was held out from it."
    return style.legend_below(figure, bottom, handles=handles, ncols=8, title=title)
