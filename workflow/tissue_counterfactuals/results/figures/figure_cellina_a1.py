"""Cellina, Fig. A1: what each weight of the loss does to what z and s say, and to the likelihood."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.experiments.cellina_weights import LABELS, LATENTS, SWEEPS
from tissue_counterfactuals.methods import cellina_gat
from tissue_counterfactuals.models.settings import under_switches
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table, write_tsv

TITLES = {
    "classifier": "Cell-type classifier on z",
    "adversary": "Domain adversary on z",
    "domain_classifier": "Domain classifier on s",
    "contrastive": "Contrastive loss of s (GAT)",
}
COLORS = dict(zip(LABELS, ("#0072B2", "#D55E00"), strict=True))
LINES = dict(zip(LATENTS, ("-", "--"), strict=True))
MARKERS = dict(zip(LATENTS, ("o", "D"), strict=True))
LABEL_NAMES = {"cell_type": "cell type", "domain": "domain"}
KEYS = ["swept", "weight", "others", "measure", "latent", "label"]
COLUMNS = [*KEYS, "median", "standard_error", "sd_seeds", "n_slides", "n_fits"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Medians over slides (`tsv`) and the figure (`png`).

    Args:
        inputs: `scores` (TSV) and `manifests` (JSON) of every weight, slide and seed.
    """
    record = provenance.read_joined(inputs["manifests"])
    table = summarize(pd.concat(map(read_table, inputs["scores"])))
    write_tsv(table, output["tsv"], sort=False)
    title = f"Weights of the loss · {style.data_name(record)} · protocol: {protocol}"
    note = provenance.footer(record, protocol)
    settings = record["settings"]
    style.save(compose(table, title, note, settings["n_samples"], weights_in_use(settings)), output["png"])


def weights_in_use(settings: dict) -> dict[str, float]:
    """Loss -> its weight in the models of the run, of those that they have; as run, the published ones."""
    of_cellina = under_switches(settings["cellina"], settings["switches"])
    of_gat = cellina_gat.arguments(settings["cellina_gat"], settings["switches"])
    read = {"classifier": of_cellina, "adversary": of_cellina, "contrastive": of_gat}
    return {name: own[SWEEPS[name]] for name, own in read.items()}


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Median over slides, each the median of its seeds, and its standard error over slides; see COLUMNS.

    Seeds are no evidence about tissue: `sd_seeds`, the mean over slides of their standard deviation, stands apart.
    """
    slides = scores.fillna({"latent": "", "label": ""}).groupby([*KEYS, "slide"])["value"]
    slides = slides.agg(["median", "std", "size"]).groupby(KEYS)
    table = slides.agg(
        median=("median", "median"),
        standard_error=("median", "sem"),
        sd_seeds=("std", "mean"),
        n_slides=("size", "size"),
        n_fits=("size", "sum"),
    )
    return table.reset_index()[COLUMNS]


def compose(table: pd.DataFrame, title: str, provenance_text: str, n_samples: int, in_use: dict[str, float]) -> Figure:
    """A column for each loss that is varied; for each weight of the others, a row of probes and one of likelihoods.

    Args:
        in_use: see `weights_in_use`; a loss that is not there has no line.
    """
    sweeps = [name for name in SWEEPS if (table["swept"] == name).any()]
    others = sorted(table["others"].unique())
    with style.context():
        # Wide enough for the text below, which would else take the room of the panels.
        figure = style.new_figure(max(7.4, 1.2 + 3.1 * len(sweeps)), 1.6 + 3.9 * len(others))
        style.suptitle(figure, title)
        effective = table.loc[table["measure"] == "effective_samples", "median"]
        # One slide says nothing of others, but its seeds of one another.
        if table["n_slides"].max() > 1:
            table, bars = table.assign(bar=table["standard_error"]), "bars: standard error of the mean over slides"
        else:
            table, bars = table.assign(bar=table["sd_seeds"]), "bars: standard deviation over seeds of the one slide"
        if not table["bar"].notna().any():
            bars = "one slide and seed, no bars"
        bottom = _legend(figure, style.footer(figure, provenance_text), n_samples, effective, bars)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(2 * len(others), len(sweeps), squeeze=False, sharey="row")
        for row, value in enumerate(others):
            for column, name in enumerate(sweeps):
                part = table[(table["others"] == value) & (table["swept"] == name)]
                _probes(grid[2 * row, column], part)
                _curve(grid[2 * row + 1, column], part[part["measure"] == "log_likelihood"], "#333333", "-")
                for axes in grid[2 * row : 2 * row + 2, column]:
                    _mark(axes, part["weight"], in_use.get(name))
                grid[2 * row, column].set_title(TITLES[name])
                grid[2 * row + 1, column].set_xlabel("weight")
            where = f"other weights at {value:g}"
            grid[2 * row, 0].set_ylabel(f"{where}\nmacro-F1 of a linear probe")
            grid[2 * row + 1, 0].set_ylabel(f"{where}\nlog likelihood, nats per cell")
    return figure


def _probes(axes, table: pd.DataFrame) -> None:
    for label, color in COLORS.items():
        own = table[table["label"] == label]
        chance = own.loc[own["measure"] == "permuted_f1", "median"].median()
        axes.axhline(chance, color=color, linewidth=0.7, linestyle=":")
        for latent, line in LINES.items():
            chosen = (own["measure"] == "f1") & (own["latent"] == latent)
            _curve(axes, own[chosen], color, line, MARKERS[latent])
    axes.set_ylim(0, 1.02)


def _mark(axes, weights: pd.Series, in_use: float | None) -> None:
    """A dashed line at the weight that the model of the run has, where it is one of those compared."""
    for place, weight in enumerate(sorted(weights.unique())):
        if weight == in_use:
            axes.axvline(place, color="#BBBBBB", linestyle="--", linewidth=0.7, zorder=0, gid="in use")


def _curve(axes, table: pd.DataFrame, color: str, line: str, marker: str = "o") -> None:
    """Weights stand side by side, because 0 has no logarithm."""
    table = table.sort_values("weight")
    place = np.arange(len(table))
    error = table["bar"].fillna(0)
    style_of_line = {"color": color, "linestyle": line, "linewidth": 1.2}
    axes.errorbar(place, table["median"], error, marker=marker, markersize=3.5, elinewidth=0.7, **style_of_line)
    axes.set_xticks(place, [f"{weight:g}" for weight in table["weight"]], rotation=30)
    axes.set_xlim(-0.5, len(place) - 0.5)
    axes.grid(axis="y", color="#EDEDED", linewidth=0.5)


def _legend(figure, bottom: float, n_samples: int, effective: pd.Series, bars: str) -> float:
    handles = [
        Line2D([], [], color=COLORS[label], linestyle=LINES[latent], marker=MARKERS[latent], markersize=4,
        label=f"{LABEL_NAMES[label]} from {latent}")
        for label in LABELS
        for latent in LATENTS
    ]  # fmt: skip
    handles.append(Line2D([], [], color="black", linestyle=":", label="the same probe, labels permuted in training"))
    fewest, most = f"{effective.min():.1f}", f"{effective.max():.1f}"
    counted = fewest if fewest == most else f"{fewest} to {most}"
    title = (
        f"Median over slides, each that of its seeds; {bars}. Likelihood: importance sampling from the posterior, "
        f"{n_samples} draws, a lower bound on average; so uneven are their weights that they count as {counted} draws. "
        "Published: the probe of z, other weights at 1e-07."
    )
    # Long enough to tell a dashed line from a solid one.
    return style.legend_below(figure, bottom, ncols=3, handles=handles, title=title, handlelength=4)
