"""Cellina, Fig. A5: what the latents of each method hold of cell type and domain."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.metrics.latents import CONSERVATION
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table, write_tsv

LABELS = {"cell_type": "Cell type", "domain": "Domain"}
# The measure that is a bar -> the one that is a line across it, if there is one, and the title.
PANELS = {
    "bio_conservation": ("", "Bio-conservation (scIB)"),
    "f1": ("permuted_f1", "Linear probe, macro-F1"),
    "information": ("", "Mutual information / entropy"),
    "f1_within_type": ("permuted_f1_within_type", "Probe within types, F1"),
}
PARTS = dict(zip(CONSERVATION, ("v", "o", "s", "D", "^"), strict=True))
PART_NAMES = dict(
    zip(CONSERVATION, ("isolated labels", "NMI, k-means", "ARI, k-means", "silhouette", "cLISI"), strict=True)
)
# Latents in whose training the label takes part (to be kept or to be taken out) -> hatched.
SUPERVISED = {
    "cell_type": {
        ("cellina", "z"),
        ("cellina_gat", "z"),
        ("mintflow", "z"),
        ("scanvi", "latent"),
        ("scviva", "latent"),
    },
    "domain": {("cellina", "z"), ("cellina_gat", "z"), ("cellina_gat", "s")},
}
COLUMNS = ["method", "latent", "label", "metric", "value", "sd", "n_seeds", "n_failed", "status", "reason"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Means over seeds (`tsv`) and the figure (`png`).

    Args:
        inputs: `scores` (TSV) and `manifests` (JSON) of every seed.
    """
    record = provenance.read_joined(inputs["manifests"])
    table = summarize(pd.concat(map(read_table, inputs["scores"])))
    write_tsv(table, output["tsv"], sort=False)
    title = f"What latents hold · {style.data_name(record)} · protocol: {protocol}"
    n_cells = min(record["settings"]["n_cells"], record["n_cells"])
    note = provenance.footer(record, protocol)
    style.save(compose(table, title, note, n_cells), output["png"])


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, mutual information also as a share of the entropy of the label; see COLUMNS.

    A method that failed with every seed has one row with its first reason; where it failed with some, `n_failed` counts
    them and the reason stands beside the means of the others.
    """
    ok = scores[scores["status"] == "ok"]
    keys = ["method", "latent", "label", "seed"]
    wide = ok.pivot_table("value", keys, "metric", sort=False, dropna=False)
    if "mutual_information" in wide:
        share = (wide["mutual_information"] / wide["entropy"]).rename("value").reset_index()
        ok = pd.concat([ok, share.dropna().assign(metric="information")])
    means = ok.groupby(["method", "latent", "label", "metric"], sort=False)["value"]
    table = means.agg(value="mean", sd="std", n_seeds="size").reset_index().assign(status="ok")
    failed = scores[scores["status"] == "failed"].groupby("method", sort=False)
    lost = failed.agg(n_failed=("seed", "nunique"), reason=("reason", "first"))
    every = lost[~lost.index.isin(table["method"])].reset_index().assign(status="failed")
    table = table.join(lost, on="method").fillna({"n_failed": 0})
    return pd.concat([table, every]).reindex(columns=COLUMNS).astype({"n_failed": int})


def compose(table: pd.DataFrame, title: str, provenance_text: str, n_cells: int) -> Figure:
    """A row of panels for each label, a bar for each latent of each method; a method that failed has the word."""
    methods = style.method_order(table["method"])
    bars = [
        (method, latent)
        for method in methods
        for latent in sorted(table.loc[table["method"] == method, "latent"].fillna("").unique())[::-1]
    ][::-1]  # fmt: skip
    with style.context():
        figure = style.new_figure(12.5, 2.4 + 2 * (0.5 + 0.26 * len(bars)))
        style.suptitle(figure, title)
        bottom = _legend(figure, style.footer(figure, provenance_text), n_cells)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(len(LABELS), len(PANELS), sharey=True, sharex="col")
        names = [_name(method, latent, table[table["method"] == method]) for method, latent in bars]
        for row, (label, label_name) in zip(grid, LABELS.items(), strict=True):
            for axes, (metric, (line, heading)) in zip(row, PANELS.items(), strict=True):
                if metric == "f1_within_type" and label != "domain":
                    axes.set_axis_off()
                    continue
                _panel(axes, table, bars, label, metric, line)
                axes.set_title(f"{label_name}: {heading}")
            row[0].set_yticks(range(len(bars)), names)
    return figure


def _name(method: str, latent: str, own: pd.DataFrame) -> str:
    """Of a bar, and how many seeds are not in it."""
    label = style.method_style(method).label
    name = f"{label}, {latent}" if latent in ("z", "s") else label
    n_failed, n_seeds = own["n_failed"].max(), own["n_seeds"].max()
    return f"{name}\n({n_failed} of {n_failed + n_seeds:.0f} seeds failed)" if n_failed and n_seeds > 0 else name


def _panel(axes, table, bars, label, metric, line) -> None:
    own = table[table["label"] == label].set_index(["method", "latent", "metric"])["value"]
    failed = set(table.loc[table["status"] == "failed", "method"])
    for height, (method, latent) in enumerate(bars):
        if method in failed:
            axes.text(0.01, height, "failed", va="center", color=style.FAILED_COLOR, size=7)
            continue
        value = own.get((method, latent, metric), np.nan)
        hatch = "////" if (method, latent) in SUPERVISED[label] else None
        color = style.method_style(method).color
        axes.barh(height, value, height=0.72, color=color, hatch=hatch, edgecolor="white", linewidth=0)
        if line:
            chance = own.get((method, latent, line), np.nan)
            axes.plot([chance] * 2, [height - 0.45, height + 0.45], color="black", linewidth=1)
        if metric == "bio_conservation":
            for part, marker in PARTS.items():
                at = own.get((method, latent, part), np.nan)
                axes.plot(at, height, marker, color="black", markerfacecolor="white", markersize=4, markeredgewidth=0.7)
    axes.set_xlim(right=1.02)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.grid(axis="x", color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)


def _legend(figure, bottom: float, n_cells: int) -> float:
    handles = [
        Line2D([], [], linestyle="", marker=marker, color="black", markerfacecolor="white", markersize=5,
        label=PART_NAMES[part])
        for part, marker in PARTS.items()
    ]  # fmt: skip
    handles.append(
        Patch(facecolor="#BBBBBB", edgecolor="white", hatch="////", label="the label takes part in training")
    )
    handles.append(Line2D([], [], color="black", label="the same probe, labels permuted in training"))
    title = (
        f"The same {n_cells:,} cells for all methods, nothing scaled to the methods at hand. Bio-conservation: a bar "
        "is the mean of the five scores that are marked on it."
    )
    return style.legend_below(figure, bottom, ncols=7, handles=handles, title=title)
