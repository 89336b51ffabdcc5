"""How many recipients must a spatial screen have? False positives, power and verdicts on simulated screens."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from tissue_counterfactuals.experiments.screen_power import PER_SCREEN, PER_TARGET
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

_COLUMNS = (
    "scenario",
    "clones_per_target",
    "spillover",
    "recipients",
    "true_change",
    "test",
    "n",
    "rate",
    "low",
    "high",
)
_NAMES = PER_TARGET | {"effect": "verdict: effect"} | PER_SCREEN
_SCENARIOS = {
    "grid": "as usual",
    "clone_size": "large clones",
    "missed": "4 of 5 guides missed",
    "spill": "segmentation spill 10 %",
    "depth": "a quarter of the counts",
    "region": "strong regions",
    "region_and_clone_size": "strong regions, large clones",
}
_CURVES = {
    "p_clones": "a target differs from control\nguides (K5, p ≤ .05)",
    "effect": "verdict: the target has\nan effect",
    "predicted": "verdict: the effects are\npredicted",
    "authors_specific": "the authors' test claims\na prediction (KO-specific)",
}


def draw_files(inputs: dict, path: Path) -> None:
    """Read `rates` and `provenance` of the experiment, and draw."""
    rates = read_table(inputs["rates"], _COLUMNS)
    style.save(compose(rates, provenance.read(inputs["provenance"])), path)


def compose(rates: pd.DataFrame, manifest: dict) -> Figure:
    """The figure: rates without spill-over by test and trap, then by recipients and effect."""
    with style.context():
        figure = style.new_figure(11.0, 7.6)
        style.suptitle(figure, "How many recipients must a spatial screen have? · simulated screens")
        bottom = style.footer(figure, provenance.footer(manifest))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        top, below = figure.subfigures(2, 1, height_ratios=[1.15, 1])
        _false_positives(top, rates[rates["spillover"] == 0], manifest["settings"]["usual_clones"])
        _power(below, rates[rates["scenario"] == "grid"])
    return figure


def _false_positives(part: object, null: pd.DataFrame, usual: int) -> None:
    null = null[null["clones_per_target"] == usual]
    axes = part.subplots()
    tests = [t for t in _NAMES if (null["test"] == t).any()]
    scenarios = [s for s in _SCENARIOS if (null["scenario"] == s).any()]
    colors = style.category_colors(_SCENARIOS)
    axes.axvspan(0.02, 0.08, color="0.92", zorder=0)
    axes.axvline(0.05, color="0.6", lw=0.8)
    for place, scenario in enumerate(scenarios):
        own = null[null["scenario"] == scenario].set_index("test").reindex(tests)
        y = [len(tests) - i - (place + 0.5) / (len(scenarios) + 1) for i in range(len(tests))]
        error = np.array([own["rate"] - own["low"], own["high"] - own["rate"]])
        axes.errorbar(
            own["rate"].to_numpy(),
            y,
            xerr=error,
            fmt="o",
            ms=3,
            lw=0.8,
            color=colors[scenario],
            label=_SCENARIOS[scenario],
        )
    axes.set_yticks([len(tests) - i - 0.5 for i in range(len(tests))], [_NAMES[t] for t in tests])
    axes.set_ylim(0, len(tests) + 0.1)
    for edge in range(1, len(tests)):
        axes.axhline(edge, color="0.9", lw=0.5)
    axes.set_xlim(-0.01, 1)
    axes.set_xlabel("share of decisions for an effect where no loss acts on any other cell (grey: 2 to 8 %)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _power(part: object, grid: pd.DataFrame) -> None:
    shown = [t for t in _CURVES if (grid["test"] == t).any()]
    every = part.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    effects = sorted(grid["spillover"].unique())
    colors = style.category_colors([f"{e:g}" for e in effects])
    for axes, test in zip(every, shown, strict=True):
        for effect in effects:
            own = grid[(grid["test"] == test) & (grid["spillover"] == effect)]
            own = own.sort_values("recipients")
            change = grid.loc[grid["spillover"] == effect, "true_change"].mean()
            error = np.array([own["rate"] - own["low"], own["high"] - own["rate"]])
            axes.errorbar(
                own["recipients"].to_numpy(),
                own["rate"].to_numpy(),
                yerr=error,
                marker="o",
                ms=3,
                lw=1,
                elinewidth=0.6,
                color=colors[f"{effect:g}"],
                label=f"{change:.2f}",
            )
        axes.axhline(0.8, color="0.8", lw=0.8, zorder=0)
        axes.axhline(0.05, color="0.8", lw=0.8, zorder=0)
        axes.set_title(_CURVES[test], size=7.5)
        style.log_scale(axes, "x")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(grid.groupby("clones_per_target")["recipients"].mean().round().unique())
        axes.set_xlabel("recipients per target")
        axes.set_ylim(-0.03, 1.03)
    every[0].set_ylabel("share of targets or screens")
    every[-1].legend(
        title="true change of\nlog rate (r.m.s.)", frameon=False, bbox_to_anchor=(1.02, 0.5), loc="center left"
    )
