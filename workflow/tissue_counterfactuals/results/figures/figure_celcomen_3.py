"""Figure 3 of Celcomen: where genes act, and what the knock-out of a gene does to its cell and around it."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tissue_counterfactuals.experiments.celcomen_knockout import OWN_SIGNATURE
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import schematics, style
from tissue_counterfactuals.results.tables import read_table
from tissue_counterfactuals.streams import stream

_SIGNATURE = OWN_SIGNATURE.format(gene="")

CLASSES = {"cytoplasmic": "#029E73", "membrane": "#D55E00", "secreted": "#CC78BC"}
GROUPS = {
    "knocked_out": ("knocked out", "#C2185B"),
    "neighbours_0": ("neighbours, first ring", "#FF47A6"),
    "neighbours_1": ("neighbours, second ring", "#F593C2"),
    "rest": ("rest", "#E3D3DB"),
}
STATISTICS = {
    "entries": "all entries, as run\n(inter - intra)",
    "genes": "gene means,\n|inter| - |intra|",
    "genes_signed": "gene means,\ninter - intra",
    "tails": "gene's pairs in tails of\n|inter| - |intra|",
}
N_TERMS = 14


def draw_files(files: dict[str, Path], path: str | Path) -> None:
    """Draw from the tables of the experiment to a PNG or SVG.

    Args:
        files: classes, tests, cells, trajectories, placebo, enrichment, diagnostics (TSV) and manifest (JSON).
    """
    record = provenance.read(files["manifest"])
    names = ("classes", "tests", "cells", "trajectories", "placebo", "enrichment", "diagnostics")
    seed = record["seeds"][0]
    tables = {name: (table := read_table(files[name]))[table["seed"] == seed] for name in names}
    title = (
        f"Localisation and knock-out (Celcomen Fig. 3) · {style.data_name(record)} · protocol: "
        f"{record['protocol']} · seed {seed}"
    )
    style.save(compose(tables, title, provenance.footer(record, record["protocol"])), path)


def compose(tables: dict[str, pd.DataFrame], title: str, provenance_text: str) -> Figure:
    """The figure; panels are lettered as published.

    Args:
        tables: by name, see `draw_files`, of one seed.
        title: must say what kind of data it is.
    """
    as_run = (tables["classes"].query("chosen")["statistic"] == "entries").all()
    with style.context():
        lowest = 0.65 + 0.7 * min(tables["enrichment"]["term"].nunique(), N_TERMS) / N_TERMS
        heights = (0.5, 1.15, 1.6 if as_run else 0.9, lowest)
        figure = style.new_figure(12, 3.1 * sum(heights))
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance_text)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        first, top, middle, low = figure.subfigures(4, 1, height_ratios=heights)
        drawing = first.subplots(1, 1)
        gene = style.short(str(tables["cells"]["gene"].iloc[0]))
        drawing.set_title("a  the experiment (a drawing, no data)")
        schematics.knock_out(drawing, gene)
        grid = top.subplots(1, 3, width_ratios=(1.95, 1.1, 0.95))
        _localization(grid[0], tables["classes"], tables["tests"])
        _map(grid[1], tables["cells"])
        _placebo(grid[2], tables["placebo"])
        _trajectories(middle, tables["trajectories"], tables["diagnostics"], as_run)
        _enrichment(low.subplots(1, 1), tables["enrichment"], low)
    return figure


def _localization(axes: Axes, classes: pd.DataFrame, tests: pd.DataFrame) -> None:
    statistics = [s for s in STATISTICS if (classes["statistic"] == s).any()]
    for column, statistic in enumerate(statistics):
        own = classes[classes["statistic"] == statistic].set_index("class")
        for offset, (name, color) in enumerate(CLASSES.items()):
            row, x = own.loc[name], column + 0.26 * (offset - 1)
            axes.bar(
                x,
                row["mean"],
                width=0.24,
                color=color,
                alpha=1 if row["chosen"] else 0.45,
                label=f"{name} ({row['n_genes']:.0f})" if column == 0 else None,
            )
            if np.isfinite(row["low"]):
                axes.plot([x, x], [row["low"], row["high"]], color="black", linewidth=0.9)
    axes.axhline(0, color="black", linewidth=0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.62 * (high - low))
    for column, statistic in enumerate(statistics):
        rows = tests[tests["statistic"] == statistic]
        lines = [
            f"{_brief(row['first'])}/{_brief(row['second'])}: p = {row['p_value']:.2g}" for _, row in rows.iterrows()
        ]
        if statistic == "entries":
            # Entries share genes, so that no test of them as independent values keeps its level.
            lines = (
                ["as published, not valid:", *lines] if rows["chosen"].all() else ["no valid p:", "entries share genes"]
            )
        axes.text(column, high + 0.02 * (high - low), "\n".join(lines), ha="center", va="bottom", size=6)
    if (classes["mean"] == 0).all():
        text = "inter - intra is the same for all genes"
        axes.text(0.5, 0.3, text, ha="center", color=style.FAILED_COLOR, transform=axes.transAxes)
    axes.set_xticks(range(len(statistics)), [STATISTICS[s] for s in statistics], size=6.5)
    axes.set_ylabel("inter against intra forces (z score)")
    axes.set_title("b  where genes act (full colour: this protocol's)")
    axes.legend(loc="upper left", fontsize=6.5, ncols=3, columnspacing=0.8, handlelength=1)


def _brief(name: str) -> str:
    return {"secreted": "secr.", "membrane": "memb.", "cytoplasmic": "cyto."}[name]


def _map(axes: Axes, cells: pd.DataFrame) -> None:
    size = float(np.clip(9000 / len(cells), 0.3, 9))
    for name, (label, color) in reversed(GROUPS.items()):
        own = cells[cells["group"] == name]
        larger = 2.2 if name == "knocked_out" else 1
        look = {"color": color, "linewidths": 0, "rasterized": True, "label": f"{label} ({len(own):,})"}
        axes.scatter(own["x_um"], own["y_um"], s=size * larger, **look)
    axes.set_aspect("equal")
    axes.set_title(f"c  knock-out of {cells['gene'].iloc[0]}")
    axes.set_xlabel("x (µm)")
    axes.set_ylabel("y (µm)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=6, markerscale=2)


def _placebo(axes: Axes, placebo: pd.DataFrame) -> None:
    axes.set_title("other knock-outs,\nown signatures")
    if (placebo["status"] != "ok").all():
        text = "\n".join(textwrap.wrap(placebo["status"].iloc[0], 32))
        axes.text(0.5, 0.5, text, ha="center", va="center", color=style.MUTED_COLOR, size=7, transform=axes.transAxes)
        axes.set_axis_off()
        return
    rng = stream(0, "placebo_jitter")
    ticks = []
    for place, (name, (label, color)) in enumerate(GROUPS.items()):
        own = placebo[placebo["group"] == name]
        others = own.loc[own["role"] == "placebo", "effect"]
        axes.plot(place + rng.uniform(-0.12, 0.12, len(others)), others, "o", color="#999999", markersize=3)
        (gene_row,) = own[own["role"] == "gene"].itertuples()
        axes.plot(place, gene_row.effect, "D", color=color, markeredgecolor="black", markeredgewidth=0.5)
        rank = f"rank {gene_row.rank:.0f} of {gene_row.n_ranked}" if gene_row.n_cells else "no cell"
        ticks.append(label.replace("neighbours, ", "").replace(" ", "\n", 1) + f"\n{rank}")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xticks(range(len(GROUPS)), ticks, size=6.5)
    gene = style.short(placebo.loc[placebo["role"] == "gene", "gene"].iloc[0])
    axes.set_ylabel("change of the score (exact counterfactual)")
    n_others = placebo.loc[placebo["role"] == "placebo", "gene"].nunique()
    alike = "another gene" if n_others == 1 else f"{n_others} other genes"
    axes.set_xlabel(f"◆ {gene}   ● {alike} of like expression\nrank 1: largest loss", size=6.5)


def _trajectories(part, trajectories: pd.DataFrame, diagnostics: pd.DataFrame, as_run: bool) -> None:
    generated = trajectories[trajectories["method"] == "generation"]
    exact = trajectories[trajectories["method"] == "exact"].set_index("group")
    values = diagnostics.query("run == 'knocked_out'").set_index("name")["value"]
    n_cells = generated.groupby("epoch")["n_cells"].sum().iloc[0]
    what = (
        "upper row as published, z score over all points of the row; lower row, the score itself, dashed: twin without"
        if as_run
        else "knock-out minus twin, 95 % interval over knocked-out cells; dotted: the exact counterfactual"
    )
    part.suptitle(
        f"d  signature score over generation ({what})\ncells collapsed to zero: {values['collapsed_cells']:.0f} of "
        f"{n_cells:.0f} · negative entries: {100 * values['negative_fraction']:.0f} %",
        x=0.012, ha="left", size=8, weight="bold",
    )  # fmt: skip
    grid = part.subplots(2 if as_run else 1, len(GROUPS), sharey="row" if as_run else False, squeeze=False)
    for column, (name, (label, color)) in enumerate(GROUPS.items()):
        own = generated[generated["group"] == name].sort_values("epoch")
        n = int(own["n_cells"].iloc[0])
        title = f"{label}, {n:,} {'cell' if n == 1 else 'cells'}"
        dark = "#8C6D7C" if name == "rest" else color
        low = grid[-1, column]
        if n == 0:
            low.text(0.5, 0.5, "no cell", ha="center", transform=low.transAxes)
        if as_run:
            shown = own.dropna(subset=["z_as_run"])
            grid[0, column].plot(shown["epoch"], shown["z_as_run"], "o-", color=dark, markersize=4, gid="as_published")
            grid[0, column].set_xlim(*_margins(own["epoch"]))
            low.plot(own["epoch"], own["knocked_out"], "o-", color=dark, markersize=3)
            low.plot(own["epoch"], own["twin"], "--", color="black", linewidth=0.9)
        else:
            low.fill_between(own["epoch"], own["low"], own["high"], color=dark, alpha=0.25, linewidth=0)
            low.plot(own["epoch"], own["effect"], "o-", color=dark, markersize=3)
            low.axhline(0, color="black", linewidth=0.5)
            if name in exact.index:
                value = exact.loc[name, "effect"]
                low.axhline(value, color="black", linewidth=0.9, linestyle=":", gid="exact")
                title += f"\nexact: {value:.2g}"
        grid[0, column].set_title(title, size=7.5)
        low.set_xlim(*_margins(own["epoch"]))
        low.set_xlabel("epoch")
        low.ticklabel_format(axis="y", scilimits=(-3, 3))
    grid[0, 0].set_ylabel("score, z" if as_run else "change of the score")
    if as_run:
        grid[1, 0].set_ylabel("mean scaled expression")


def _margins(epochs: pd.Series) -> tuple[float, float]:
    room = 0.05 * max(np.ptp(epochs), 1)
    return epochs.min() - room, epochs.max() + room


def _named(term: str) -> str:
    """A gene set as the axis calls it; the name of a gene stays as it is."""
    own = term.removeprefix(_SIGNATURE)
    name = term.replace("_", " ") if own == term else f"signature of {own}"
    return textwrap.shorten(name, 62, placeholder=" …")


def _enrichment(axes: Axes, enrichment: pd.DataFrame, part) -> None:
    axes.set_title("e  gene sets along the change against the rest (GSEA, pre-ranked)")
    ok = enrichment[enrichment["status"] == "ok"]
    if ok.empty:
        axes.text(
            0.5, 0.5, enrichment["status"].iloc[0], ha="center", color=style.MUTED_COLOR, transform=axes.transAxes
        )
        axes.set_axis_off()
        return
    columns = list(dict.fromkeys(zip(ok["method"], ok["group"], strict=True)))
    # The signature comes first.
    best = ok.groupby("term")["p_value"].min().fillna(1).to_frame("p")
    best.loc[best.index.str.startswith(_SIGNATURE), "p"] = 0
    best["size"] = ok.groupby("term")["normalized_enrichment"].apply(lambda v: -v.abs().max())
    terms = best.sort_values(["p", "size"], kind="stable").index[:N_TERMS][::-1]
    shown = ok[ok["term"].isin(terms)]
    limit = shown["normalized_enrichment"].abs().max()
    at = {column: place for place, column in enumerate(columns)}
    x = [at[key] for key in zip(shown["method"], shown["group"], strict=True)]
    y = [terms.get_loc(term) for term in shown["term"]]
    size = 12 + 45 * np.minimum(-np.log10(np.maximum(shown["q_value"].fillna(1), 1e-3)), 3)
    edge = np.where(shown["q_value"] < 0.05, "black", "none")
    drawn = axes.scatter(
        x,
        y,
        s=size,
        c=shown["normalized_enrichment"],
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        edgecolors=edge,
        linewidths=0.8,
    )
    labels = [f"{GROUPS[group][0]}\n({method})" for method, group in columns]
    axes.set_xticks(range(len(columns)), labels, size=6.5)
    axes.set_yticks(range(len(terms)), [_named(term) for term in terms], size=6.3)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylim(-0.7, len(terms) - 0.3)
    axes.grid(color="#EDEDED", linewidth=0.5)
    axes.set_axisbelow(True)
    bar = part.colorbar(drawn, ax=axes, pad=0.01)
    smallest = ok["smallest_p"].min()
    q = (
        f"size: -log10 q, ring: q < 0.05; p by\nrank among other knock-outs, at least {smallest:.2g};\nexact only, not "
        "the signature"
        if smallest < 1
        else "no p value: too few exact\nknock-outs of other genes"
    )
    bar.set_label(f"normalised enrichment\n({q})", size=6.5)
