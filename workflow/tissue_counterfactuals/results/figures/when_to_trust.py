"""When to trust an answer: errors against the true counterfactual, knob by knob (see experiments/trust.py)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from tissue_counterfactuals.experiments.trust import KNOBS
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

NAMES = {
    "effect_size": "effect of signals",
    "confounding": "confounding",
    "label_noise": "wrong labels",
    "spill": "segmentation spill",
    "n_cells": "cells",
}
PAIRS = [(latent, what) for latent in ("s", "z") for what in ("received", "sent", "type")]
EFFECT_COLOR = "#9A9A9A"
# Relative errors above this end at the edge.
MOST_RELATIVE = 3.0


def draw_files(inputs: dict[str, Path], output: Path) -> None:
    """Draw it from `errors`, `latents` (TSV) and `provenance` (JSON)."""
    record = provenance.read(inputs["provenance"])
    errors, latents = (read_table(inputs[k]) for k in ("errors", "latents"))
    style.save(compose(errors, latents, record["settings"], provenance.footer(record)), output)


def at_usual(errors: pd.DataFrame, knob: str, settings: dict) -> pd.DataFrame:
    """The rows of a knob at the usual reach, those of the tissue as usual at its own level."""
    usual = errors["knob"] == "usual"
    own = errors[(usual | (errors["knob"] == knob)) & (errors["reach"] == settings["usual_reach"])]
    level = own["level"].where(
        own["knob"] == knob, float(settings.get(knob, 0) if knob in ("effect_size", "n_cells") else 0)
    )
    return own.assign(level=level, relative=own["error"] / own["effect"])


def ranking(errors: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlation of distance and error over reaches of tissues as usual, by method: `within` a tissue, the
    mean over tissues, and `over` all tissues together, which differ in how large an effect is as well.
    """
    usual = errors[(errors["knob"] == "usual") & (errors["status"] == "ok")]

    def spearman(own: pd.DataFrame) -> float:
        return float(stats.spearmanr(own["distance"], own["error"]).statistic)

    rows = {
        method: {"within": np.mean([spearman(one) for _, one in own.groupby("seed")]), "over": spearman(own)}
        for method, own in usual.groupby("method")
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["within", "over"])


def compose(errors: pd.DataFrame, latents: pd.DataFrame, settings: dict, provenance_text: str) -> Figure:
    """Errors by distance and by each knob, a line per method; on the right, what Cellina's latents carry."""
    methods = style.method_order(errors["method"])
    n_tissues = errors["seed"].nunique()
    title = (
        f"When to trust an answer · simulated tissue, {n_tissues} per scenario · error against the true counterfactual"
    )
    with style.context():
        figure = style.new_figure(14, 6.4)
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance_text)
        handles = style.method_handles(methods, told=lambda method: _failed(errors[errors["method"] == method]))
        handles.append(Line2D([], [], color=EFFECT_COLOR, linestyle="--", label="no answer: the effect itself"))
        bottom = style.legend_below(figure, bottom, ncols=6, handles=handles)
        height = {"bottom": bottom + 0.09, "top": 0.86}
        grid = figure.add_gridspec(2, 4, left=0.045, right=0.7, wspace=0.34, hspace=0.55, **height)
        panels = [figure.add_subplot(grid[i // 4, i % 4]) for i in range(7)]
        _distances(panels[0], panels[1], errors, methods)
        for axes, knob in zip(panels[2:], KNOBS[1:], strict=True):
            _levels(axes, at_usual(errors, knob, settings), methods, knob)
        right = figure.add_gridspec(1, 1, left=0.815, right=0.99, **height)
        _latents(figure.add_subplot(right[0]), latents)
    return figure


def _failed(own: pd.DataFrame) -> str:
    """How many answers of a method are missing, to stand behind its name."""
    n = int((own["status"] != "ok").sum())
    return f" ({n} of {len(own)} answers failed)" if n else ""


def _distances(absolute, relative, errors, methods) -> None:
    usual = errors[(errors["knob"] == "usual") & (errors["status"] == "ok")]
    ranks = ranking(errors)
    for method in methods:
        own = usual[usual["method"] == method]
        color = style.method_style(method, methods).color
        for axes, values in ((absolute, own["error"]), (relative, own["error"] / own["effect"])):
            axes.plot(own["distance"], values, "o", color=color, ms=2.5, alpha=0.45)
            means = values.groupby(own["reach"]).mean()
            axes.plot(own.groupby("reach")["distance"].mean(), means, color=color, linewidth=1.6)
    by_reach = usual.groupby("reach")[["distance", "effect"]].mean()
    absolute.plot(by_reach["distance"], by_reach["effect"], color=EFFECT_COLOR, linestyle="--")
    relative.axhline(1, color=EFFECT_COLOR, linestyle="--")
    absolute.set(title="Distance from what was seen", ylabel="error (log1p CP10K)", ylim=(0, None))
    relative.set(title="The same, over the effect", ylabel="error / effect")
    names = {"within": "within a tissue", "over": "over all"}
    lines = [f"{names[which]}: {r.min():.2f} to {r.max():.2f}" for which, r in ranks.items() if len(r)]
    text = "\n".join(["rank correlation with error", *lines])
    absolute.text(0.03, 0.98, text, size=6.5, va="top", transform=absolute.transAxes)
    _limit(relative)
    for axes in (absolute, relative):
        axes.set_xlabel("distance / usual distance")


def _limit(axes) -> None:
    """From 0 to what is there, or to MOST_RELATIVE."""
    axes.set_ylim(0, min(max(axes.get_ylim()[1], 1.2), MOST_RELATIVE))


def _levels(axes, table, methods, knob) -> None:
    axes.axhline(1, color=EFFECT_COLOR, linestyle="--")
    levels = sorted(table["level"].unique())
    for number, method in enumerate(methods):
        own = table[(table["method"] == method) & (table["status"] == "ok")]
        color = style.method_style(method, methods).color
        grouped = own.groupby("level")["relative"]
        mean, low, high = grouped.mean(), grouped.min(), grouped.max()
        at = [levels.index(level) + 0.06 * (number - (len(methods) - 1) / 2) for level in mean.index]
        axes.plot(at, mean, "o-", color=color, ms=3.5, linewidth=1.4)
        axes.vlines(at, low, high, color=color, linewidth=0.8)
    axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    axes.set(title=NAMES[knob][0].upper() + NAMES[knob][1:], ylabel="error / effect")
    _limit(axes)


def _latents(axes, latents) -> None:
    axes.set_title("What Cellina's latents carry")
    if latents.empty:
        axes.text(0.5, 0.5, "Cellina was not asked", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    first = latents["method"].eq("cellina") | ~latents["method"].eq("cellina").any()
    table = latents[first].pivot_table(
        index=["knob", "level"], columns=["latent", "variables"], values="correlation", sort=False
    )
    table = table.reindex(columns=pd.MultiIndex.from_tuples(PAIRS))
    order = ["usual", *KNOBS]
    table = table.loc[sorted(table.index, key=lambda row: (order.index(row[0]), row[1]))]
    values = table.to_numpy(dtype=float)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column, row, f"{value:.2f}", ha="center", va="center", size=7, color="white" if value > 0.6 else "black"
        )
    axes.set_xticks(range(len(PAIRS)), [f"{latent}:\n{what}" for latent, what in PAIRS], size=7)
    names = ["as usual" if knob == "usual" else f"{NAMES[knob]} {level:g}" for knob, level in table.index]
    axes.set_yticks(range(len(names)), names, size=7)
    axes.axvline(2.5, color="white", linewidth=3)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
