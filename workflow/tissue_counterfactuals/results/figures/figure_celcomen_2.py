"""Figure 2 of the Celcomen paper: the method, and whether known forces are found again in a simulated tissue.

a, b: drawings of the method. c, top: correlations with the truth and their p values, as the paper draws them, over the
entries that the protocol compares.
Below, as run: the same correlations over each pair of genes once, simulations whose forces are all the same shown as
failures. Below, corrected: how recovery changes with the number of genes and cells, noise and dropout.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.celcomen_simulation import COLUMNS, KNOBS, QUANTITIES, SMALLEST_P
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import schematics, style
from tissue_counterfactuals.results.tables import read_table

# The colours of the paper.
NOISE_COLOR, MODEL_COLOR = "#cc78bc", "#fbafe4"
TITLES = {
    "inter": "Forces between cells",
    "intra": "Forces within cells",
    "expression": "Correlation of genes in the tissue",
}
KNOB_LABELS = {
    "n_genes": "genes",
    "n_cells": "cells",
    "noise": "noise, in standard deviations of a gene",
    "dropout": "share of entries lost",
}
# Label, colour, marker, line style.
CURVES = {
    ("inter", "estimate"): ("forces between cells", "#0072B2", "o", "-"),
    ("intra", "estimate"): ("forces within cells", "#D55E00", "s", "-"),
    ("expression", "estimate"): ("correlation of genes, for forces within", "#868686", "^", "--"),
    ("inter", "cross"): ("between, against the truth within", "#0072B2", "o", ":"),
    ("intra", "cross"): ("within, against the truth between", "#D55E00", "s", ":"),
}
_TEST_COLUMNS = ("quantity", "entries", "headline", "statistic", "wilcoxon_p", "t_p", "mann_whitney_p")
_WIDTH_IN = 9.0


def draw_files(inputs: dict[str, Path], path: Path, protocol: str) -> None:
    """Read what `celcomen_simulation.run` wrote (`correlations`, `tests`, `provenance`) and draw it."""
    correlations = read_table(inputs["correlations"], COLUMNS)
    tests = read_table(inputs["tests"], _TEST_COLUMNS)
    manifest = provenance.read(inputs["provenance"])
    style.save(compose(correlations, tests, provenance.footer(manifest, protocol)), path)


def compose(correlations: pd.DataFrame, tests: pd.DataFrame, provenance_text: str) -> Figure:
    """The figure, for one protocol.

    Args:
        correlations: from `celcomen_simulation.simulate`.
        tests: from `celcomen_simulation.compare_with_noise`.

    Raises:
        InputError: there is more than one protocol.
    """
    if correlations["protocol"].nunique() != 1:
        raise InputError("table correlations: it holds several protocols; give one.")
    protocol = correlations["protocol"].iloc[0]
    paper = correlations[correlations["panel"] == "paper"]
    grid = correlations[correlations["panel"] != "paper"]
    n = paper["seed"].nunique()
    sizes = paper[["n_genes", "n_cells"]].iloc[0]
    with style.context():
        figure = style.new_figure(_WIDTH_IN, 11.2)
        style.suptitle(
            figure,
            f"Figure 2 of Celcomen: known forces found again? · [simulated] · protocol: {protocol}\n"
            f"{n} simulations of {sizes['n_genes']} genes in {sizes['n_cells']} cells",
        )
        bottom = _legend(figure, style.footer(figure, provenance_text), not grid.empty)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), h_pad=0.06)
        first, top, middle, low = figure.subfigures(4, 1, height_ratios=(0.5, 1, 1, 1))
        for axes, draw, title in zip(
            first.subplots(1, 2),
            (schematics.inference, schematics.generation),
            ("a  inference (a drawing)", "b  generation (a drawing)"),
            strict=True,
        ):
            draw(axes)
            axes.set_title(title)
        top.suptitle("c", x=0.012, ha="left", size=9, weight="bold")
        for part, statistic in ((top, "rho"), (middle, "minus_log10_p")):
            for axes, quantity in zip(part.subplots(1, 3), QUANTITIES, strict=True):
                _boxes(axes, paper[paper["headline"]], tests[tests["headline"]], quantity, statistic)
        if grid.empty:
            honest = paper[paper["entries"] == "upper_triangle"]
            own_tests = tests[tests["entries"] == "upper_triangle"]
            for axes, quantity in zip(low.subplots(1, 3, sharey=True), QUANTITIES, strict=True):
                _boxes(axes, honest, own_tests, quantity, "rho", failures=True)
        else:
            for axes, knob in zip(low.subplots(1, len(KNOBS), sharey=True), KNOBS, strict=True):
                _curves(axes, grid[grid["panel"] == knob], knob)
    return figure


def _boxes(axes, rows, tests, quantity, statistic, failures=False) -> None:
    """Noise and estimate side by side, one thin line for each simulation."""
    own = rows[rows["quantity"] == quantity].set_index(["source", "seed"])
    values = own["spearman"]
    if statistic == "minus_log10_p":
        values = -np.log10(own["p_value"] + SMALLEST_P)
    status = own.loc["estimate", "status"]
    pairs = pd.DataFrame({source: values[source] for source in ("noise", "estimate")})
    shown = pairs.dropna()
    for _, (noise, estimate) in shown.iterrows():
        axes.plot([0, 1], [noise, estimate], color="black", linewidth=0.3, alpha=0.5, zorder=1)
    # Points stand apart by their order, not by chance.
    spread = np.linspace(-0.12, 0.12, max(len(shown), 2))[: len(shown)]
    for x, (source, color) in enumerate((("noise", NOISE_COLOR), ("estimate", MODEL_COLOR))):
        axes.boxplot(
            shown[source], positions=[x], widths=0.5, patch_artist=True, showfliers=False, zorder=2,
            boxprops={"facecolor": color, "alpha": 0.75}, medianprops={"color": "black"},
        )  # fmt: skip
        axes.scatter(x + spread, shown[source], s=5, color=color, edgecolor="black", linewidth=0.25, zorder=3)
    n_useless = int((status != "ok").sum())
    if failures and n_useless:
        axes.scatter(
            1.36 + np.linspace(-0.06, 0.06, n_useless), np.zeros(n_useless),
            marker="x", s=12, linewidth=0.7, color=style.FAILED_COLOR, zorder=3,
        )  # fmt: skip
    axes.set_xlim(-0.5, 1.55)
    axes.set_xticks([0, 1], ["noise", "tissue" if quantity == "expression" else "inferred"])
    n_genes = int(rows["n_genes"].iloc[0])
    compared = f"all {n_genes**2} entries"
    if (rows["entries"] == "upper_triangle").all():
        compared = f"{n_genes * (n_genes - 1) // 2} pairs of genes"
    if statistic == "minus_log10_p":
        axes.set_ylabel(f"-log10(p + 0.0001), {compared}")
        axes.set_ylim(-0.2, 4.2)
    else:
        axes.set_ylabel(f"Spearman rho, {compared}")
        axes.set_ylim(min(-0.35, rows["spearman"].min() - 0.06), 1.06)
        axes.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
    test = tests[(tests["quantity"] == quantity) & (tests["statistic"] == statistic)].squeeze()
    used = "" if n_useless == 0 else f", {n_useless} constant or failed"
    medians = shown.median()
    axes.set_title(TITLES[quantity], fontsize=8.5, pad=21)
    axes.text(
        0, 1.02,
        f"medians {medians['noise']:.2f} and {medians['estimate']:.2f}; {len(shown)} of {len(pairs)}{used}\n"
        f"p: Wilcoxon {_p(test['wilcoxon_p'])}, t {_p(test['t_p'])}, Mann-Whitney {_p(test['mann_whitney_p'])}",
        transform=axes.transAxes, fontsize=6, color=style.MUTED_COLOR, va="bottom",
    )  # fmt: skip


def _p(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.1e}"


def _curves(axes, rows, knob) -> None:
    """Means over simulations, bars of one standard deviation; positions are even, not to scale."""
    places = sorted(rows[knob].unique())
    for (quantity, source), (_, color, marker, line) in CURVES.items():
        own = rows[(rows["quantity"] == quantity) & (rows["source"] == source) & rows["headline"]]
        found = own.groupby(knob)["pearson"].agg(["mean", "std"]).reindex(places)
        if found["mean"].isna().all():
            continue
        axes.errorbar(
            np.arange(len(places)), found["mean"], found["std"] if source == "estimate" else None,
            color=color, marker=marker, markersize=3.5, linestyle=line, linewidth=1, elinewidth=0.6,
            alpha=1 if source == "estimate" else 0.6,
        )  # fmt: skip
    axes.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.set_xticks(np.arange(len(places)), [f"{value:,g}" for value in places])
    axes.set_xlim(-0.3, len(places) - 0.7)
    axes.set_ylim(-0.35, 1.05)
    axes.set_xlabel(KNOB_LABELS[knob])
    fixed = [f"{rows[k].iloc[0]:,g} {KNOB_LABELS[k]}" for k in ("n_genes", "n_cells") if k != knob]
    axes.set_title(f"Recovery\nn = {rows['seed'].nunique()}; {', '.join(fixed)}", fontsize=8)
    if knob == KNOBS[0]:
        axes.set_ylabel("Pearson r over pairs of genes")


def _legend(figure: Figure, bottom: float, has_grid: bool) -> float:
    handles = [
        Patch(facecolor=NOISE_COLOR, label="correlation of genes in noise, against the truth"),
        Patch(facecolor=MODEL_COLOR, label="inferred forces, or correlation of genes in the tissue"),
    ]
    if has_grid:
        handles += [
            Line2D([], [], color=color, marker=marker, linestyle=line, markersize=3.5, label=label)
            for label, color, marker, line in CURVES.values()
        ]
    else:
        handles.append(
            Line2D([], [], color=style.FAILED_COLOR, marker="x", linestyle="", markersize=4,
                   label="all forces the same: no correlation to speak of (left out above)")
        )  # fmt: skip
    return style.legend_below(figure, bottom, handles=handles, ncols=3 if has_grid else 2)
