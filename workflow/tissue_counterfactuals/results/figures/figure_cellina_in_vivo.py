"""A real intervention: what lost genes did to the cells around them, and which method said so, under both protocols."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

_EFFECTS = (
    "calling",
    "target",
    "n",
    "p_clones",
    "q_clones",
    "ceiling",
    "detectable",
    "median_change",
    "p_own",
    "verdict",
)
_VERDICTS = {"effect": "#0072B2", "no effect": "#009E73", "not resolvable": "#999999", "not testable": "#DDDDDD"}
_LABELS = {
    "mean_shift_near": "Mean shift of near cells (sees the answers)",
    "celcomen_knock_out": "Celcomen, lost gene clamped",
}


def draw_files(inputs: dict, path: Path) -> None:
    """Read `effects`, `scores` and `manifest` of the experiment, one of each protocol that ran, and draw."""
    scores = pd.concat(map(read_table, inputs["scores"]), ignore_index=True)
    effects = read_table(inputs["effects"][0], _EFFECTS)
    manifests = [provenance.read(p) for p in inputs["manifest"]]
    style.save(compose(effects, scores, manifests), path)


def compose(effects: pd.DataFrame, scores: pd.DataFrame, manifests: list[dict]) -> Figure:
    """The figure of the first calling of guides."""
    calling = effects["calling"].iloc[0]
    effects, scores = (t[t["calling"] == calling] for t in (effects, scores))
    own = [t for _, t in scores.groupby("protocol", sort=True)]
    manifest = manifests[0]
    with style.context():
        figure = style.new_figure(11.0, 3.4 + 2.6 * len(own))
        counted = effects["verdict"].map(_kind).value_counts()
        style.suptitle(
            figure,
            f"What lost genes did to the cells around them · {style.data_name(manifest)}\n"
            + ", ".join(f"{n} of {len(effects)} targets: {name}" for name, n in counted.items()),
        )
        bottom = style.footer(figure, "\n".join(provenance.footer(m, m["protocol"]) for m in manifests))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        parts = figure.subfigures(1 + len(own), 1, height_ratios=[3.0, *(2.6 for _ in own)])
        parts = np.atleast_1d(parts)
        _observed(parts[0], effects)
        for part, table in zip(parts[1:], own, strict=True):
            _scores(part, table)
    return figure


def _kind(verdict: str) -> str:
    return next(k for k in _VERDICTS if str(verdict).startswith(k))


def _observed(part: object, effects: pd.DataFrame) -> None:
    left, right = part.subplots(1, 2)
    colors = effects["verdict"].map(_kind).map(_VERDICTS)
    x = np.arange(len(effects))
    left.bar(x, effects["median_change"], color=colors)
    left.plot(
        x, effects["detectable"], "_", color="black", ms=10, label="smallest of one gene that would be found (K7)"
    )
    left.set_xticks(
        x, [f"{t} ({n})" for t, n in zip(effects["target"], effects["n"], strict=True)], rotation=90, size=6
    )
    left.set_ylabel("|change| of log expression,\nmedian over genes")
    floor = 0.5 * effects[["p_clones", "p_own"]].min(axis=None)
    for place, (column, marker, label) in enumerate(
        (("p_clones", "o", "recipients, permuted clones (K5)"), ("p_own", "^", "carriers themselves (K10)"))
    ):
        right.plot(x + 0.15 * place, effects[column], marker, ms=4, color=style.CATEGORY_COLORS[place], label=label)
    right.axhline(0.05, color="0.6", lw=0.8)
    style.log_scale(right, "y")
    right.yaxis.set_minor_formatter(NullFormatter())
    right.set_ylim(floor if np.isfinite(floor) else 1e-3, 1.5)
    right.set_xticks(x, effects["target"], rotation=90, size=6)
    right.set_ylabel("p")
    right.legend(frameon=False)
    for name, color in _VERDICTS.items():
        left.plot([], [], "s", color=color, label=name)
    left.set_ylim(0, 1.5 * np.nanmax(effects[["median_change", "detectable"]].to_numpy(float), initial=0.1))
    left.legend(frameon=False, fontsize=6, ncols=2, loc="upper left")


def _label(method: str) -> str:
    return _LABELS.get(method) or style.method_style(method).label


def _scores(part: object, table: pd.DataFrame) -> None:
    protocol = table["protocol"].iloc[0]
    absent = table["status"].str.startswith("not asked")
    failed = table[(table["status"] != "ok") & ~absent].drop_duplicates("method")
    table = table[table["status"] == "ok"]
    methods = list(dict.fromkeys(table["method"]))
    y = np.arange(len(methods))[::-1]
    if protocol == "as_run":
        for axes, truth in zip(part.subplots(1, 2, sharey=True), ("full", "ko_specific"), strict=True):
            for donors, marker, color, shift in (("target", "o", "#D55E00", 0.12), ("random", "x", "black", -0.12)):
                own = table[(table["truth"] == truth) & (table["donors"] == donors)]
                dots = own.groupby(["method", "target"])["pearson"].mean()
                means, places = dots.groupby("method").mean().reindex(methods), y + shift
                axes.plot(means, places, marker, ms=6, color=color, label=f"{donors} donors, mean")
                at, label = dict(zip(methods, places, strict=True)), "one target" if donors == "target" else None
                axes.plot(dots, [at[m] for m, _ in dots.index], ".", ms=3, color=color, alpha=0.35, label=label)
            axes.axvline(0, color="0.7", lw=0.8)
            axes.set_yticks(y, [_label(m) for m in methods])
            axes.set_xlabel(f"as run: Pearson on the ten most changed genes, {truth.replace('_', '-')}")
        axes.legend(frameon=False)
    else:
        axes = part.subplots()
        columns = ["pearson", "tiles_low", "tiles_high", "control_donors", "control_donors_sd", "ceiling"]
        # Scores that no method has are no columns of the table.
        table = table.reindex(columns=["method", "genes", "verdict", *columns])
        own = table[table["genes"] == "all"].groupby("method", sort=False)
        means = own[columns].mean().reindex(methods)
        axes.errorbar(
            means["pearson"],
            y,
            xerr=[means["pearson"] - means["tiles_low"], means["tiles_high"] - means["pearson"]],
            fmt="o",
            color="#0072B2",
            label="donors of the target (95 % over tiles)",
        )
        axes.errorbar(
            means["control_donors"],
            y,
            xerr=1.96 * means["control_donors_sd"],
            fmt="x",
            lw=0.8,
            color="black",
            label="as few control carriers (K3b;\n± 1.96 sd of a draw)",
        )
        axes.axvline(means["ceiling"].mean(), color="#D55E00", lw=1, ls="--", label="ceiling (K6)")
        axes.axvline(0, color="0.7", lw=0.8)
        said = own["verdict"].agg(lambda v: "; ".join(dict.fromkeys(v)))
        axes.set_yticks(y, [f"{_label(m)}: {said[m]}" for m in methods])
        axes.set_xlim(min(-0.5, means["tiles_low"].min() - 0.05), max(1, means["tiles_high"].max() + 0.05))
        axes.set_xlabel("corrected: Pearson over all genes, mean over targets")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    if len(failed):
        text = "\n".join(style.short(f"{_label(r.method)}: {r.status}", 110) for r in failed.itertuples())
        axes.text(0, -0.3, text, transform=axes.transAxes, color="firebrick", size=6, va="top")
