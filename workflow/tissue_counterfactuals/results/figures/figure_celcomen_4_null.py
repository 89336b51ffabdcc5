"""Does the correlation of Fig. 4 of the Celcomen paper survive its own null?

Top: for each lost gene and protocol the observed correlations beside those of every control. Middle: what each protocol
reports on simulated lesions in which no gene but the lost one changes. Bottom: the switches between the two protocols,
each alone and one after the other, on the same lesions.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tissue_counterfactuals.experiments.celcomen_perturbmap import CONTROLS, OBSERVED, filled, reach
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.figure_celcomen_4 import PINK, PREDICTORS
from tissue_counterfactuals.results.tables import read_table
from tissue_counterfactuals.streams import stream

# Range over lesions that the paper reports (Celcomen, ICLR 2025, section 4.3).
PUBLISHED = (0.28, 0.47)
_BAND_COLOR = "#F0E442"
_LABELS = {
    "wild_type_lesion": "wild-type\nlesion",
    "minus_baseline": "minus mean\nexpression",
    "permuted": "permuted\nprediction",
    "random_gene": "random\ngene",
    "spots_without_gene": "spots without\nthe gene",
    "shuffled_forces": "shuffled\nforces",
    "shuffled_data": "shuffled\ndata",
}
_PROTOCOL_COLORS = {"as_run": "#D55E00", "corrected": "#0072B2"}
_WIDTH_IN = 11.5
# Controls that fit into a line of the title.
_MOST_NAMES = 3
LEVEL = 0.05
_CORRELATIONS = ("protocol", "seed", "knockout", "predictor", "control", "draw", "lesion", "rho", "partial_rho",
    "n_genes")  # fmt: skip
_SUMMARY = ("protocol", "knockout", "predictor", "control", "median", "null_high", "p_value", "smallest_p", "status")
_SWITCHES = ("depth", "seed", "path", "turn", "switch", "rho", "partial_rho", "collapsed_share")


def draw_files(inputs: dict, path: Path) -> None:
    """Read the tables of all protocols and of the null test, and draw.

    Args:
        inputs: `correlations`, `summary` and `manifest` of `celcomen_perturbmap.run`, a list of files each, one for
            each protocol; `null_correlations` and `null_switches` of `perturbmap_null.null_test`.
    """
    joined = {
        name: pd.concat([read_table(p, columns) for p in inputs[name]], ignore_index=True)
        for name, columns in (("correlations", _CORRELATIONS), ("summary", _SUMMARY))
    }
    manifests = [provenance.read(p) for p in inputs["manifest"]]
    null = read_table(inputs["null_correlations"], ("dataset", *_CORRELATIONS))
    switches = read_table(inputs["null_switches"], _SWITCHES)
    style.save(compose(**joined, manifests=manifests, null=null, switches=switches), path)


def compose(
    correlations: pd.DataFrame, summary: pd.DataFrame, manifests: list[dict], null: pd.DataFrame, switches: pd.DataFrame
) -> Figure:
    """The figure for one data set and all its protocols; the first predictor of each protocol, first seed."""
    manifest = manifests[0]
    seed = manifest["seeds"][0]
    correlations, summary = (t[t["seed"] == seed] for t in (correlations, summary))
    protocols = sorted(correlations["protocol"].unique())
    knockouts = manifest["settings"]["knockouts"]
    verdicts = [
        f"{protocol}: {sentence}"
        for protocol in protocols
        for sentence in verdict(_first(summary[summary["protocol"] == protocol]), knockouts)
    ]
    heights = [*(2.35 for _ in knockouts), 2.1, 2.9]
    with style.context():
        figure = style.new_figure(_WIDTH_IN, sum(heights) + 1.3)
        style.suptitle(
            figure,
            f"Does the correlation of Fig. 4 survive its own null? · {style.data_name(manifest)} · seed {seed}\n"
            + "\n".join(verdicts),
        )
        text = "\n".join(provenance.footer(m, m["protocol"]) for m in manifests)
        bottom = _legend(figure, style.footer(figure, text))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), h_pad=0.05)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        for part, knockout in zip(parts, knockouts, strict=False):
            rows = part.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
            for axis, protocol in zip(rows, protocols, strict=True):
                own = correlations["protocol"] == protocol
                own &= correlations["knockout"] == knockout
                chosen = summary["protocol"] == protocol
                chosen &= summary["knockout"] == knockout
                _observed(axis, _first(correlations[own]), _first(summary[chosen]), knockout, protocol)
            rows[0].set_ylabel("Spearman ρ")
        _nothing_happened(parts[-2], null)
        _turns(parts[-1], switches)
    return figure


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the predictor to read first."""
    predictor = next(p for p in PREDICTORS if (rows["predictor"] == p).any())
    return rows[rows["predictor"] == predictor]


def verdict(summary: pd.DataFrame, knockouts: list[str]) -> list[str]:
    """For each lost gene a sentence: which controls do as well as the prediction.

    A control does as well if the observed median over lesions lies within the 95 % range of the control's medians (or,
    for a single draw, is not above it). A control that was not drawn is not tested, which is no merit. And a prediction
    survives only where a calibrated control gives p <= 0.05, which takes enough draws, or lesions, to be possible.
    """
    sentences = []
    for knockout in knockouts:
        rows = summary[summary["knockout"] == knockout]
        tested = rows[rows["status"] == "tested"]
        reached = tested[tested["median"] <= reach(tested)]
        names = _names(reached)
        median = rows["median"].iloc[0]
        calibrated = tested[tested["smallest_p"].notna()]
        short = calibrated[calibrated["smallest_p"] > LEVEL]
        if median <= 0:
            text = "no agreement that could survive"
        elif len(reached) > _MOST_NAMES:
            text = f"does not survive: as good are {len(reached)} of {len(tested)} controls"
        elif len(reached):
            text = f"does not survive: as good is {names}"
        elif calibrated.empty:
            text = "cannot be told: no control with a valid p value was tested"
        elif len(short):
            text = (
                f"cannot be told: {_names(short)} has too few draws for p <= {LEVEL:g} (the smallest is "
                f"{short['smallest_p'].max():.2g})"
            )
        elif (calibrated["p_value"] > LEVEL).any():
            text = f"does not survive: as good is {_names(calibrated[calibrated['p_value'] > LEVEL])}"
        else:
            text = f"survives the {len(tested)} controls tested"
        untested = rows[rows["status"] != "tested"]
        text += f"; not tested: {_names(untested)}" if len(untested) and median > 0 else ""
        sentences.append(f"{knockout} ρ {median:.2f} {text}")
    return sentences


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(_LABELS[c].replace("\n", " ") for c in CONTROLS if c in set(rows["control"]))


def _band(axis) -> None:
    axis.axhspan(*PUBLISHED, color=_BAND_COLOR, alpha=0.35, linewidth=0, zorder=0)
    axis.axhline(0, color="#555555", linewidth=0.6, zorder=1)


def _observed(axis, rows, summary, knockout, protocol) -> None:
    """Lesions at the left, then one column for each control: medians over the lesions, draw by draw."""
    _band(axis)
    found = filled(rows).loc[rows["control"] == OBSERVED, "rho"].dropna()
    spread = np.linspace(-0.14, 0.14, len(found)) if len(found) > 1 else [0.0]
    axis.scatter(spread, found, s=22, color=PINK, edgecolor="black", linewidth=0.5, zorder=4, gid="observed")
    axis.hlines(found.median(), -0.3, 0.3, color="black", linewidth=1.6, zorder=5)
    axis.axhline(found.median(), color=PINK, linewidth=0.8, linestyle=":", zorder=1)
    by_control = summary.set_index("control")
    for place, control in enumerate(CONTROLS, start=1):
        null = rows[rows["control"] == control]
        medians = filled(null).groupby("draw")["rho"].median()
        if medians.empty:
            _note(axis, place, 0, "not\ntested")
            continue
        if control == "minus_baseline":
            axis.scatter(place, medians.iloc[0], marker="D", s=30, color="#333333", zorder=4)
            _note(axis, place, medians.iloc[0], f"{medians.iloc[0]:.2f}")
            continue
        _distribution(axis, place, medians.to_numpy(), "#9A9A9A")
        undefined = null["rho"].isna().all()
        p_value = by_control.loc[control, "p_value"]
        note = f"{medians.median():.2f}" if np.isnan(p_value) else f"p {p_value:.2g}"
        note = "predicts nothing" if undefined else note
        _note(axis, place, medians.max(), note)
    axis.set_xticks(
        range(len(CONTROLS) + 1), [f"observed\n{len(found)} lesions", *(_LABELS[c] for c in CONTROLS)], size=6.5
    )
    axis.set_xlim(-0.5, len(CONTROLS) + 0.5)
    axis.margins(y=0.14)
    axis.set_title(f"{knockout} · {protocol} · {PREDICTORS[rows['predictor'].iloc[0]]}")


def _distribution(axis, place, values, color) -> None:
    """Dots within a violin; a violin needs values that differ."""
    if len(values) > 2 and np.ptp(values) > 1e-9:
        body = axis.violinplot(values, [place], widths=0.7, showextrema=False)["bodies"][0]
        body.set_facecolor(color)
        body.set_alpha(0.35)
    rng = stream(0, "null_jitter")
    axis.scatter(place + rng.uniform(-0.1, 0.1, len(values)), values, s=5, color=color, linewidths=0, zorder=3)
    axis.hlines(np.median(values), place - 0.25, place + 0.25, color="black", linewidth=1.1, zorder=4)


def _note(axis, x, y, text) -> None:
    axis.annotate(text, (x, y), (0, 4), textcoords="offset points", ha="center", size=6.5, zorder=6)


def _nothing_happened(part, null) -> None:
    """Null simulations: median rho over lesions, a dot each, for protocols, predictors and the trivial prediction."""
    depths = sorted(null["dataset"].unique(), key=lambda name: float(name.split("_")[1]))
    axes = part.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    n = null["seed"].nunique()
    for axis, depth in zip(axes, depths, strict=True):
        _band(axis)
        own, ticks = null[null["dataset"] == depth], []
        for protocol in ("as_run", "corrected"):
            rows = own[own["protocol"] == protocol]
            predictor = next(iter(rows["predictor"].unique()))
            trivial = rows[(rows["control"] == "minus_baseline") & (rows["predictor"] == predictor)]
            columns = {f"{protocol}:\nminus mean expr.": (trivial, "#333333")}
            for name in PREDICTORS:
                found = rows[(rows["control"] == OBSERVED) & (rows["predictor"] == name)]
                if len(found):
                    columns[f"{protocol}:\n{name}"] = (found, _PROTOCOL_COLORS[protocol])
            for label, (table, color) in columns.items():
                medians = filled(table).groupby("seed")["rho"].median().to_numpy()
                _distribution(axis, len(ticks), medians, color)
                _note(axis, len(ticks), medians.max(), f"{(medians > 0).sum()}/{len(medians)} > 0")
                ticks.append(label)
        axis.set_xticks(range(len(ticks)), ticks, size=6.5)
        axis.margins(y=0.16)
        axis.set_title(
            f"No effect at all: {n} simulations at {float(depth.split('_')[1]):,.0f} counts a spot [simulated]"
        )
    axes[0].set_ylabel("median ρ over lesions")


def _turns(part, switches) -> None:
    """Median rho over the null simulations of the first depth, switch by switch; whiskers: all simulations."""
    first = switches[switches["depth"] == switches["depth"].min()]
    axes = part.subplots(1, 2, sharey=True)
    titles = {
        "alone": "As run, each switch turned alone [simulated, no effect]",
        "sequence": "From as run to corrected, one after the other",
    }
    for axis, (path, title) in zip(axes, titles.items(), strict=True):
        _band(axis)
        own = first[first["path"] == path]
        order = own.drop_duplicates("turn").sort_values("turn")
        for place, (turn, name) in enumerate(zip(order["turn"], order["switch"], strict=True)):
            values = own.loc[own["turn"] == turn, "rho"]
            color = _PROTOCOL_COLORS["as_run"] if name == "as_run" else "#868686"
            if path == "sequence" and place == len(order) - 1:
                color = _PROTOCOL_COLORS["corrected"]
            axis.bar(place, values.median(), 0.7, color=color, zorder=2)
            axis.vlines(place, values.min(), values.max(), color="black", linewidth=0.8, zorder=3)
        names = [_turn_name(name, path) for name in order["switch"]]
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", size=6.5)
        axis.set_title(title)
    axes[0].set_ylabel("median ρ over lesions")


def _turn_name(name: str, path: str) -> str:
    if name == "as_run":
        return "as run"
    return ("+ " if path == "sequence" else "") + name.replace("_", " ")


def _legend(figure, bottom) -> float:
    handles = [
        Patch(color=_BAND_COLOR, alpha=0.35,
        label=f"published range over lesions, {PUBLISHED[0]} to {PUBLISHED[1]} (Celcomen, section 4.3)"),
        Line2D([], [], linestyle="", marker="o", markerfacecolor=PINK, markeredgecolor="black",
        label="a lesion, observed"),
        Line2D([], [], linestyle="", marker="o", markersize=3, color="#9A9A9A",
        label="a draw of a control (median over lesions)"),
        Line2D([], [], color="black", linewidth=1.6, label="median"),
    ]  # fmt: skip
    title = (
        "p: share of a control's draws at or above the observed median, the observed one counted in; given for the "
        "controls that keep their level on lesions without effect. Other numbers: medians."
    )
    return style.legend_below(figure, bottom, handles=handles, ncols=4, title=title)
