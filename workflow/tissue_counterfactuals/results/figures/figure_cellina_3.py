"""Cellina, Fig. 3: subdomains of the target domain, cells moved into them, pathways, and whether other seeds agree."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.experiments.cellina_application import DONORS, FORMS
from tissue_counterfactuals.experiments.shuffled_subdomains import rank_p
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table, write_tsv

METRIC = "spearman"
DONOR_STYLES = {
    "twin": ("own neighbours (twin)", "#868686"),
    "global": ("whole domain (global)", "#E69F00"),
    "other": ("other subdomains", "#CC79A7"),
    "matched": ("this subdomain (matched)", "#0072B2"),
    "pathway": ("own neighbours, pathway shifted", "#009E73"),
}
COLUMNS = ["form", "cell_type", "donors", "metric", "value", "sd_slides", "n_slides", "n_modules", "n_seeds"]
STABILITY = ["slide", "seed", "other_seed", "what", "n_modules", "n_modules_other", "adjusted_rand"]
NULL = ["cell_type", "gain", "null_low", "null_high", "p_value", "n_shuffles", "n_slides", "n_seeds"]
_NAMED = 6


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Means (`tsv`), the null of matched donors (`null`), agreement of seeds (`stability`), and the figure (`png`).

    Args:
        inputs: of every slide and seed, the files of `cellina_application.run` by name, `manifests` the JSON.
    """
    record = provenance.read_joined(inputs["manifests"])
    tables = {
        name: pd.concat(map(read_table, paths), ignore_index=True)
        for name, paths in inputs.items()
        if name != "manifests"
    }
    summary, stability = summarize(tables["scores"]), agreement(tables)
    null = against_shuffles(tables["shuffles"])
    write_tsv(null, output["null"], sort=False)
    write_tsv(summary, output["tsv"], sort=False)
    write_tsv(stability, output["stability"], sort=False)
    target = record["settings"]["domains"]["target_domains"][0]
    title = style.experiment_title("Fig. 3 of Cellina: subdomains", record["label"], record["kind"], target, protocol)
    figure = compose(tables, summary, null, stability, title, provenance.footer(record, protocol))
    style.save(figure, output["png"])


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over modules of a slide, then over seeds, then over slides; `sd_slides` is over slides.

    `n_modules` counts modules of all slides and seeds, whose numbers are of a slide and seed alone.
    """
    keys = ["form", "cell_type", "donors", "metric"]
    runs = scores.groupby([*keys, "slide", "seed"])["value"].mean()
    slides = runs.groupby([*keys, "slide"]).mean()
    table = slides.groupby(keys).agg(value="mean", sd_slides="std", n_slides="size").reset_index()
    modules = scores[[*keys, "slide", "seed", "module"]].drop_duplicates()
    numbers = modules.groupby(keys).agg(n_modules=("module", "size"), n_seeds=("seed", "nunique"))
    return table.join(numbers, on=keys).reindex(columns=COLUMNS)


def against_shuffles(shuffles: pd.DataFrame) -> pd.DataFrame:
    """What matched donors gain over global ones, by type and for all types (`cell_type` empty), beside shifted
    subdomains.

    Shuffle by shuffle gains are averaged over types, over seeds, then over slides: seeds of a slide share their
    shuffles. A type of a slide and seed counts where all its gains are known, so that every mean is over the same ones.

    Returns:
        cell_type, gain, null_low and null_high (95 % of the shifted), p_value (one-sided), n_shuffles, n_slides,
        n_seeds.
    """
    known = shuffles["gain"].notna().groupby([shuffles[key] for key in ("slide", "seed", "cell_type")])
    every = shuffles[known.transform("all").astype(bool)]
    parts = [("", every), *every.groupby("cell_type")]
    rows = []
    for cell_type, own in parts:
        if own.empty:
            continue
        runs = own.groupby(["slide", "seed", "shuffle"])["gain"].mean()
        found = runs.groupby(["slide", "shuffle"]).mean().groupby("shuffle").mean()
        low, high = found.iloc[1:].quantile([0.025, 0.975])
        row = (cell_type, found.iloc[0], low, high, rank_p(found.to_numpy()), len(found) - 1)
        rows.append((*row, own["slide"].nunique(), own["seed"].nunique()))
    return pd.DataFrame(rows, columns=NULL)


def agreement(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Adjusted Rand index of the modules of genes, and of the subdomains of cells, of two seeds of a slide.

    What is in no module stands alone: a module of one seed is not found again in genes that the other leaves out. Only
    genes in a module of either seed count.
    """
    from sklearn.metrics import adjusted_rand_score

    rows = []
    for what, name, key in (("genes", "modules", "gene"), ("cells", "subdomains", "cell")):
        for slide, own in tables[name].groupby("slide"):
            wide = own.pivot_table(index=key, columns="seed", values="module")
            for one, other in combinations(wide.columns, 2):
                pair = wide[[one, other]].dropna()
                if what == "genes":
                    pair = pair[(pair > 0).any(axis=1)]
                n = [int(pair[s][pair[s] > 0].nunique()) for s in (one, other)]
                alone = pd.Series(-1 - np.arange(len(pair)), pair.index)
                pair = pair.mask(pair == 0, alone, axis=0)
                found = adjusted_rand_score(pair[one], pair[other]) if max(n) else np.nan
                rows.append((slide, one, other, what, *n, found))
    return pd.DataFrame(rows, columns=STABILITY)


def compose(
    tables: dict[str, pd.DataFrame],
    summary: pd.DataFrame,
    null: pd.DataFrame,
    stability: pd.DataFrame,
    title: str,
    provenance_text: str,
) -> Figure:
    """Panels a to e; what cannot be drawn says why."""
    first = tables["modules"][["slide", "seed"]].sort_values(["slide", "seed"]).iloc[0]

    def of_first(name: str) -> pd.DataFrame:
        table = tables[name]
        return table[(table["slide"] == first["slide"]) & (table["seed"] == first["seed"])]

    where = f"slide {first['slide']}, seed\N{NO-BREAK SPACE}{first['seed']}"
    with style.context():
        figure = style.new_figure(11.5, 7.6)
        style.suptitle(figure, title)
        bottom = _legend(figure, style.footer(figure, provenance_text))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 0.97 - bottom), h_pad=0.08, w_pad=0.08)
        # Rows with columns of their own: in common ones, room beside one panel is taken from those above or below.
        rows = figure.add_gridspec(2, 1)
        top, below = rows[0].subgridspec(1, 2), rows[1].subgridspec(1, 3)
        _embedding(figure.add_subplot(top[0]), of_first("embedding"), where)
        _donors(figure.add_subplot(top[1]), summary, null)
        _activities(figure.add_subplot(below[0]), of_first("activities"), where)
        _genes(figure.add_subplot(below[1]), of_first("genes"))
        _stability(figure.add_subplot(below[2]), stability)
    return figure


def _embedding(axes, table: pd.DataFrame, where: str) -> None:
    axes.set_title(_wrapped(f"a  {table['cell_type'].iloc[0]} in two dimensions", 4.0, 9))
    colors = style.category_colors(sorted({f"module {m}" for m in table["module"] if m}))
    looks = {
        "observed": ("o", "#868686", "control, observed"),
        "reconstructed": ("o", "#000000", "control, reconstructed"),
        "in module": ("o", None, "observed in"),
        "moved to module": ("x", None, "moved to"),
    }
    for (what, module), own in table.groupby(["what", "module"], sort=False):
        marker, color, label = looks[what]
        name = f"module {module}"
        axes.scatter(
            own["x"],
            own["y"],
            s=7,
            marker=marker,
            linewidths=0.6 if marker == "x" else 0,
            color=color or colors[name],
            alpha=0.7,
            label=f"{label} {name}" if module else label,
            rasterized=True,
        )
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(_wrapped(where, 4.0))
    axes.legend(fontsize=6, markerscale=1.6, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _donors(axes, summary: pd.DataFrame, null: pd.DataFrame) -> None:
    axes.set_title("b  changes predicted for other neighbourhoods")
    own = summary[summary["metric"] == METRIC]
    types = sorted(own["cell_type"].unique())
    if not len(own):
        _say(axes, "no module was found, so there is no subdomain")
        return
    for form, offset in zip(FORMS, (-0.2, 0.2), strict=True):
        for place, cell_type in enumerate(types):
            values = own[(own["form"] == form) & (own["cell_type"] == cell_type)].set_index("donors")["value"]
            y = place + offset
            shifted = null[null["cell_type"] == cell_type]
            if form == "type_matched" and len(shifted) and "global" in values.index:
                ends = values["global"] + shifted[["null_low", "null_high"]].iloc[0]
                axes.barh(y, ends.iloc[1] - ends.iloc[0], 0.34, ends.iloc[0], color="#E3E3E3", zorder=0)
            if {"global", "matched"} <= {*values.index}:
                axes.plot(values[["global", "matched"]], [y, y], color="#BBBBBB", linewidth=1, zorder=1)
            for rank, donors in enumerate(DONORS):
                if donors in values.index:
                    color = DONOR_STYLES[donors][1]
                    face = color if form == "type_matched" else "white"
                    axes.plot(
                        values[donors],
                        y + 0.06 * (rank - 2),
                        "o",
                        markersize=5,
                        markerfacecolor=face,
                        markeredgecolor=color,
                    )
    axes.set_yticks(range(len(types)), [_wrapped(name, 1.2) for name in types])
    axes.set_ylim(len(types) - 0.5, -0.5)
    said = "Spearman correlation of log-fold changes"
    for row in null[null["cell_type"] == ""].itertuples():
        said += (
            f"\ngain of matched over global {row.gain:+.3f} (95 % of shifts: {row.null_low:+.3f} to "
            f"{row.null_high:+.3f})"
        )
        said += f"\np = {row.p_value:.2g}; {row.n_shuffles} shifts, donors in the subdomain among draws from all"
    axes.set_xlabel(_wrapped(said, 4.6, 7))
    axes.grid(axis="x", color="#EEEEEE")


def _activities(axes, table: pd.DataFrame, where: str) -> None:
    axes.set_title("c  pathways of modules")
    told = table[table["status"] == "ok"]
    if not len(told):
        _say(axes, "; ".join(sorted(set(table["status"]))))
        return
    wide = told.pivot(index="pathway", columns="module", values="activity")
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False).index[:8]]
    x, y = np.meshgrid(range(wide.shape[1]), range(wide.shape[0]))
    # Flat: a table of four columns, four modules, would be taken for colours.
    values = wide.to_numpy().ravel()
    drawn = axes.scatter(
        x.ravel(), y.ravel(), s=6 + 22 * np.clip(np.abs(values), 0, 8), c=values, cmap="RdBu_r", vmin=-5, vmax=5
    )
    axes.set_xticks(range(wide.shape[1]), [f"module {int(m)}" for m in wide], rotation=30)
    axes.set_yticks(range(wide.shape[0]), wide.index)
    axes.set(xlim=(-0.6, wide.shape[1] - 0.4), ylim=(wide.shape[0] - 0.4, -0.6))
    axes.set_xlabel(_wrapped(where, 2.2))
    axes.figure.colorbar(drawn, ax=axes, label="t value", shrink=0.6, extend="both")


def _genes(axes, table: pd.DataFrame) -> None:
    axes.set_title("d  a pathway in the neighbours")
    if table.empty:
        _say(axes, "no pathway with enough of the genes is active in a subdomain")
        return
    # The type and module with most to be seen: the largest observed changes.
    sizes = table.groupby(["cell_type", "module"])["observed"].apply(lambda own: own.abs().nlargest(100).mean())
    cell_type, module = sizes.idxmax()
    own = table[(table["cell_type"] == cell_type) & (table["module"] == module)]
    own = own.loc[own["observed"].abs().nlargest(100).index]
    shifted = own["weight"].notna()
    axes.scatter(own["predicted"], own["observed"], s=8, c=np.where(shifted, "#009E73", "#BBBBBB"))
    for gene in own.reindex((own["predicted"].abs() * own["observed"].abs()).nlargest(_NAMED).index).itertuples():
        axes.annotate(gene.gene, (gene.predicted, gene.observed), (2, 2), textcoords="offset points", size=6)
    axes.axhline(0, color="#DDDDDD", zorder=0)
    axes.axvline(0, color="#DDDDDD", zorder=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(_wrapped(f"log change, {own['pathway'].iloc[0]} in neighbours (green: its genes)", 2.6))
    axes.set_ylabel(_wrapped(f"observed, {cell_type} in module\N{NO-BREAK SPACE}{module}", 2.2))


def _stability(axes, table: pd.DataFrame) -> None:
    axes.set_title("e  do other seeds find the same?")
    if table.empty:
        _say(axes, "one seed: not known")
        return
    seeds = sorted({*table["seed"], *table["other_seed"]})
    matrix = np.full((len(seeds), len(seeds)), np.nan)
    for (what, one, other), value in table.groupby(["what", "seed", "other_seed"])["adjusted_rand"]:
        i, j = seeds.index(one), seeds.index(other)
        matrix[(i, j) if what == "genes" else (j, i)] = value.mean()
    axes.imshow(matrix, cmap="viridis", vmin=0, vmax=1)
    for (i, j), value in np.ndenumerate(matrix):
        if i != j:
            color = "white" if not value > 0.6 else "black"
            text = "–" if np.isnan(value) else f"{value:.2f}"
            axes.text(j, i, text, ha="center", va="center", size=7, color="black" if np.isnan(value) else color)
    axes.set_xticks(range(len(seeds)), [f"seed {s}" for s in seeds])
    axes.set_yticks(range(len(seeds)), [f"seed {s}" for s in seeds])
    axes.set_xlabel(_wrapped("above: modules of genes; below: subdomains (adjusted Rand index, mean of slides)", 2.6))


def _wrapped(text: str, width_in: float, size: float = 8) -> str:
    """Text no wider than its panel: wider, and there is no layout in which panels do not overlap."""
    return "\n".join(style.wrap(text, width_in, size))


def _say(axes, text: str) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, _wrapped(text, 2.2, 7), ha="center", va="center", size=7, color=style.MUTED_COLOR)


def _legend(figure, bottom: float) -> float:
    handles = [
        Line2D([], [], marker="o", linestyle="", color=color, label=label) for label, color in DONOR_STYLES.values()
    ]
    for face, label in (("black", "type matched"), ("white", "as run: all types, all other domains")):
        handles.append(Line2D([], [], marker="o", linestyle="", color="black", markerfacecolor=face, label=label))
    band = Patch(facecolor="#E3E3E3", label="matched, if subdomains lay elsewhere (95 %)")
    return style.legend_below(figure, bottom, handles=[*handles, band], ncols=7)
