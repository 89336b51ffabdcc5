"""Clustered heatmaps of forces with what their clusters are enriched for (Figs. 7 and 8 of Celcomen)."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tissue_counterfactuals.experiments.force_clusters import SIGNIFICANT
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

FORCES = {"intra": "a  within cells (intra)", "inter": "b  between cells (inter)"}
TERMS_PER_CLUSTER = 2


def draw_files(files: dict[str, Path], name: str, path: str | Path) -> None:
    """Draw from the tables of the clusters to a PNG or SVG.

    Args:
        files: members, enrichment (TSV), matrices (npz) and manifest (JSON).
        name: of the published figure.
    """
    record = provenance.read(files["manifest"])
    members, terms = (read_table(files[n]) for n in ("members", "enrichment"))
    with np.load(files["matrices"]) as file:
        matrices = {force: file[force].astype(np.float64) for force in FORCES}
    title = (
        f"Clusters of forces (Celcomen {name}) · {style.data_name(record)} · protocol: "
        f"{record['protocol']} · seed {record['seeds'][0]}"
    )
    footer = provenance.footer(record, record["protocol"])
    style.save(compose(matrices, members, terms, title, footer), path)


def compose(
    matrices: dict[str, np.ndarray], members: pd.DataFrame, terms: pd.DataFrame, title: str, provenance_text: str
) -> Figure:
    """The figure: a row per kind of force, the matrix on the left and the best terms of each cluster on the right.

    Args:
        matrices: intra and inter, (g, g) each; diagonals are not shown.
        members, terms: tables of `experiments.force_clusters`.
        title: must say what kind of data it is.
    """
    with style.context():
        figure = style.new_figure(11.5, 9.6)
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance_text)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(2, 2, width_ratios=(1, 1.15))
        for (left, right), (force, label) in zip(grid, FORCES.items(), strict=True):
            own = members[members["force"] == force].sort_values("position", kind="stable")
            _heatmap(figure, left, matrices[force], own, members)
            left.set_title(label)
            _terms(right, terms[terms["force"] == force])
    return figure


def _heatmap(figure: Figure, axes: Axes, matrix: np.ndarray, own: pd.DataFrame, members) -> None:
    genes = members.loc[members["force"] == own["force"].iloc[0], "gene"].tolist()
    order = pd.Index(genes).get_indexer(own["gene"])
    shown = matrix[np.ix_(order, order)].copy()
    np.fill_diagonal(shown, np.nan)
    # A few extreme pairs must not make the others pale.
    limit = np.nanquantile(np.abs(shown), 0.99) or 1.0
    signed = np.nanmin(shown) < 0
    image = axes.imshow(
        shown, cmap="RdBu_r" if signed else "Reds", vmin=-limit if signed else 0, vmax=limit, interpolation="nearest"
    )
    # The diagonal, which is left out, shows the ground.
    axes.set_facecolor("#CCCCCC")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("force (ends: 99 % of pairs)", size=6.5)
    bar.outline.set_linewidth(0.4)
    clusters = own["cluster"].to_numpy()
    edges = np.flatnonzero(np.diff(clusters)) + 1
    for edge in edges:
        axes.axhline(edge - 0.5, color="black", linewidth=0.6)
        axes.axvline(edge - 0.5, color="black", linewidth=0.6)
    starts, ends = [0, *edges], [*edges, len(clusters)]
    # Names of clusters of a few genes would stand on each other: each is moved below the one before.
    room, last = len(clusters) / 28, -np.inf
    for start, end in zip(starts, ends, strict=True):
        place = max((start + end - 1) / 2, last + room)
        last = place
        axes.text(-0.01 * len(clusters) - 0.6, place, str(clusters[start]), ha="right", va="center", weight="bold")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{len(clusters)} genes")
    axes.set_ylabel("cluster", labelpad=14)
    for spine in axes.spines.values():
        spine.set_visible(True)


def _terms(axes: Axes, terms: pd.DataFrame) -> None:
    rows = []
    for cluster, own in terms.groupby("cluster", sort=True):
        first = own.iloc[0]
        mean = "" if np.isnan(first["mean_force"]) else f", mean force {first['mean_force']:.2g}"
        noun = "gene" if first["n_genes"] == 1 else "genes"
        mean += f", mean expression {first['mean_expression']:.2g}"
        rows.append((f"cluster {cluster}: {first['n_genes']:.0f} {noun}{mean}", None, None))
        if first["status"] != "ok":
            rows.append((first["status"], None, None))
            continue
        for _, row in own.head(TERMS_PER_CLUSTER).iterrows():
            rows.append((row["term"], row["p_value"], row["q_value"]))
    height = len(rows)
    largest = max([-np.log10(max(p, 1e-300)) for _, p, _ in rows if p is not None], default=1.0)
    for place, (text, p_value, q_value) in enumerate(rows):
        y = height - 1 - place
        if p_value is None:
            heading = text.startswith("cluster ")
            axes.text(
                0,
                y,
                _short(text, 100),
                va="center",
                size=7 if heading else 6.5,
                weight="bold" if heading else "normal",
                color="black" if heading else style.MUTED_COLOR,
            )
            continue
        strength = -np.log10(max(p_value, 1e-300))
        significant = q_value <= SIGNIFICANT
        axes.barh(y, strength, height=0.75, color="#7FB3D5" if significant else "#DDDDDD")
        axes.text(0.015 * largest, y, f"{_short(_words(text), 62)}  (q = {q_value:.2g})", va="center", size=6.3)
    axes.set_ylim(-0.8, height - 0.2)
    axes.set_xlim(0, largest * 1.02)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    if all(p is None for _, p, _ in rows):
        # An axis without a bar would count nothing.
        axes.set_axis_off()
        return
    axes.set_xlabel(f"-log10 p, hypergeometric, background: the model's genes (blue: q ≤ {SIGNIFICANT:g})")


def _words(term: str) -> str:
    """GOBP_RESPONSE_TO_X -> GOBP response to x."""
    head, _, rest = term.partition("_")
    return f"{head} {rest.replace('_', ' ').lower()}" if rest else term


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")
