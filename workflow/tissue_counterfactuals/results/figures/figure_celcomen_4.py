"""Figure 4 of the Celcomen paper: predicted knock-outs beside lesions that have lost the gene.

a: spots by label, lesions numbered. b: how a lesion is used. Then for each lost gene: per lesion, predicted change by
fifths of the observed change (c, e), and the correlations with their p values, beside permuted predictions (d, f).
"""

from itertools import islice
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.experiments.celcomen_perturbmap import OBSERVED
from tissue_counterfactuals.experiments.force_statistics import rank_test
from tissue_counterfactuals.experiments.perturbmap_lesions import WILD_TYPE
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_table

NAME = "Fig. 4 of Celcomen"
# The colours of the paper.
PINK = "#ff47a6"
FIFTHS = LinearSegmentedColormap.from_list("fifths", ["white", PINK])(np.linspace(0, 1, 5))
_OUTSIDE = {"normal": "#E4E4E4", "periphery": "#BDBDBD"}
_WILD_TYPE_COLOR = "#56B4E9"
_LOST_COLORS = {"Tgfbr2": "#D55E00", "Jak2": "#332288", "Ifngr2": "#117733"}
_OTHER_LOST_COLORS = ("#AA4499", "#999933", "#661100")
PREDICTORS = {"field": "exact counterfactual of the Gaussian field", "generation": "generation (SCE)"}
_WIDTH_IN, _MOST_PER_ROW = 11.5, 6
_NEEDED = {
    "correlations": ("protocol", "knockout", "section", "lesion", "predictor", "control", "draw", "rho", "p_value",
    "n_knocked_out_collapsed"),
    "genes": ("knockout", "lesion", "predictor", "predicted_scaled", "observed"),
    "spots": ("knockout", "section", "label", "lesion", "knocked_out", "response", "x_um", "y_um"),
}  # fmt: skip


def draw_files(inputs: dict[str, Path], path: Path) -> None:
    """Read what `celcomen_perturbmap.run` wrote (`correlations`, `genes`, `spots`, `manifest`) and draw it."""
    tables = {name: read_table(inputs[name], columns) for name, columns in _NEEDED.items()}
    manifest = provenance.read(inputs["manifest"])
    style.save(compose(**tables, manifest=manifest), path)


def compose(correlations: pd.DataFrame, genes: pd.DataFrame, spots: pd.DataFrame, manifest: dict) -> Figure:
    """The figure for one data set and protocol; the first predictor and seed where there are several."""
    predictor = next(p for p in PREDICTORS if (correlations["predictor"] == p).any())
    seed = manifest["seeds"][0]
    own = correlations[(correlations["predictor"] == predictor) & (correlations["seed"] == seed)]
    genes = genes[genes["predictor"] == predictor]
    knockouts = list(dict.fromkeys(manifest["settings"]["knockouts"]))
    lesions = {k: sorted(own.loc[own["knockout"] == k, "lesion"].unique()) for k in knockouts}
    per_row = min(_MOST_PER_ROW, max(map(len, lesions.values())))
    rows_of = {k: -(-len(lesions[k]) // per_row) for k in knockouts}
    heights = [2.6, 1.75, *(1.75 * rows_of[k] + 0.25 for k in knockouts)]
    with style.context():
        figure = style.new_figure(_WIDTH_IN, sum(heights) + 1.1)
        title = (
            f"{NAME}: predicted and observed knock-outs · {style.data_name(manifest)} · protocol: "
            f"{manifest['protocol']} · seed {seed}\npredictor: {PREDICTORS[predictor]}; lesion is the unit, spots of "
            "one section share their knock-out lesions"
        )
        style.suptitle(figure, title)
        bottom = _legend(figure, own, spots, style.footer(figure, provenance.footer(manifest, manifest["protocol"])))
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), h_pad=0.04, w_pad=0.04)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        _maps(parts[0], spots, knockouts)
        _workflow(parts[1], spots[spots["knockout"] == knockouts[0]], knockouts[0])
        letters = islice((one + two for one in ("", *ascii_lowercase) for two in ascii_lowercase), 2, None)
        as_run = manifest["protocol"] == "as_run"
        for part, knockout in zip(parts[2:], knockouts, strict=True):
            rows = own[own["knockout"] == knockout]
            values = genes[genes["knockout"] == knockout]
            boxes, scatter = part.subfigures(1, 2, width_ratios=(_MOST_PER_ROW, 1.9))
            _fifths(
                boxes, rows, values, lesions[knockout], (rows_of[knockout], per_row), knockout, next(letters), as_run
            )
            draw = _published_p_values if as_run else _correlations
            draw(scatter.subplots(), rows, knockout, next(letters))
    return figure


def _lost_genes(labels: pd.Series) -> pd.Series:
    return labels.str.extract(r"^(.+?)_[0-9]+(?:-[0-9]+)?$")[0]


def _label_colors(labels: pd.Series) -> dict[str, str]:
    """One colour for each lost gene, one for all wild-type lesions, greys outside lesions."""
    lost = _lost_genes(labels)
    by_gene = _LOST_COLORS | {WILD_TYPE: _WILD_TYPE_COLOR}
    for place, gene in enumerate(sorted(set(lost.dropna()) - set(by_gene))):
        by_gene[gene] = _OTHER_LOST_COLORS[place % len(_OTHER_LOST_COLORS)]
    return {
        label: _OUTSIDE.get(label, "#E4E4E4") if pd.isna(gene) else by_gene[gene]
        for label, gene in zip(labels, lost, strict=True)
    }


def _maps(part, spots, knockouts) -> None:
    """Panel a: each section once; a lesion has the same number for every gene."""
    sections = sorted(spots["section"].unique())
    axes = part.subplots(1, len(sections), squeeze=False)[0]
    colors = _label_colors(spots["label"].drop_duplicates())
    for axis, section in zip(axes, sections, strict=True):
        own = spots[spots["section"] == section]
        first = next(k for k in knockouts if (own["knockout"] == k).any())
        own = own[own["knockout"] == first]
        axis.scatter(
            own["x_um"], own["y_um"], s=8.0 if len(sections) == 1 else 5.0, c=own["label"].map(colors), linewidths=0
        )
        for number, of_lesion in own[own["lesion"] > 0].groupby("lesion"):
            place = of_lesion[["x_um", "y_um"]].mean()
            axis.annotate(
                str(number), place, ha="center", va="center", size=8, weight="bold",
                bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "black", "lw": 0.5},
            )  # fmt: skip
        axis.set_aspect("equal")
        axis.invert_yaxis()
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(style.short(section), loc="left")
        for spine in axis.spines.values():
            spine.set_visible(False)
        left, lower = own["x_um"].min(), own["y_um"].max()
        axis.plot([left, left + 1000], [lower + 250] * 2, color="black", linewidth=1.5)
        axis.annotate("1 mm", (left + 500, lower + 300), ha="center", va="top", size=6.5)
    part.suptitle("a  spots by label; numbered: wild-type lesions as modelled", x=0.012, ha="left", size=9)


def _workflow(part, spots, knockout) -> None:
    """Panel b on the first lesion: its spots and what was trimmed, the spots that lose the gene, and what changes."""
    part.suptitle(
        f"b  how a lesion is used, on the first one: {style.short(knockout)} is taken from it",
        x=0.012,
        ha="left",
        size=9,
    )
    own = spots[spots["lesion"] == spots.loc[spots["lesion"] > 0, "lesion"].min()]
    near = spots[spots["section"] == own["section"].iloc[0]]
    for name in ("x_um", "y_um"):
        low, high = own[name].min() - 350, own[name].max() + 350
        near = near[near[name].between(low, high)]
    colors = _label_colors(near["label"].drop_duplicates())
    is_own = near["lesion"] == own["lesion"].iloc[0]
    base = near["label"].map(colors)
    area = float(np.clip(6000 / len(near), 4, 40))
    axes = part.subplots(1, 3)
    look = {"s": area, "linewidths": 0.5}
    axes[0].scatter(near["x_um"][is_own], near["y_um"][is_own], c=base[is_own], gid="kept", **look)
    axes[0].scatter(near["x_um"][~is_own], near["y_um"][~is_own], facecolors="none", edgecolors=base[~is_own], **look)
    axes[0].set_title("modelled (full), left out (hollow)", weight="normal", size=7.5)
    lost = own["knocked_out"].astype(bool)
    axes[1].scatter(own["x_um"], own["y_um"], c=np.where(lost, PINK, "#DDDDDD"), gid="lost", **look)
    axes[1].set_title(f"{lost.sum()} of {len(own)} spots lose the gene", weight="normal", size=7.5)
    drawn = axes[2].scatter(
        own["x_um"], own["y_um"], c=own["response"].fillna(0), cmap="magma_r", gid="response", **look
    )
    # In two lines, or it runs out of the figure beside the bar of colours.
    axes[2].set_title("predicted change\nof the other genes", weight="normal", size=7.5)
    bar = part.colorbar(drawn, ax=axes[2], pad=0.01)
    bar.set_label("root mean square", size=6.5)
    for axis in axes:
        axis.set_aspect("equal")
        axis.invert_yaxis()
        axis.set_axis_off()


def _fifths(part, rows, genes, lesions, shape, knockout, letter, as_run) -> None:
    """Panels c and e: predicted change, 0 to 1, by fifths of the observed one; genes of one lesion each."""
    part.suptitle(
        f"{letter}  {knockout}: predicted change by fifths of the observed one, lesion by lesion",
        x=0.016,
        ha="left",
        size=9,
    )
    axes = part.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    observed = rows[rows["control"] == OBSERVED].set_index("lesion")
    for axis in axes.flat[len(lesions) :]:
        axis.set_visible(False)
    for axis, lesion in zip(axes.flat, lesions, strict=False):
        own = genes[genes["lesion"] == lesion]
        found = observed.loc[lesion]
        mark = " †" if found["n_knocked_out_collapsed"] > 0 else ""
        axis.set_title(f"{style.short(found['section'], 24)} · {lesion}{mark}", size=7.5, weight="normal")
        if own.empty:
            look = {"ha": "center", "color": style.FAILED_COLOR, "size": 6.5}
            axis.annotate("no spot has the gene", (0.5, 0.5), xycoords="axes fraction", **look)
            continue
        # By rank, so that each fifth has as many genes.
        fifth = (own["observed"].rank(method="first") - 1) * 5 // len(own)
        drawn = axis.boxplot(
            [own.loc[fifth == f, "predicted_scaled"] for f in range(5)],
            widths=0.75, patch_artist=True, showfliers=False,
            medianprops={"color": "black", "linewidth": 0.9},
            boxprops={"linewidth": 0.5}, whiskerprops={"linewidth": 0.5}, capprops={"linewidth": 0.5},
        )  # fmt: skip
        for box, color in zip(drawn["boxes"], FIFTHS, strict=True):
            box.set_facecolor(color)
        axis.set_ylim(-0.02, 1.22)
        axis.set_yticks([0, 0.5, 1])
        axis.annotate(
            # Genes go up and down together: the published p value, which takes them for independent, is not valid.
            f"ρ {found['rho']:.2f}" + f", p {found['p_value']:.0e} *" * as_run, (0.5, 0.985), xycoords="axes fraction",
            ha="center", va="top", size=6.5,
        )  # fmt: skip
        axis.set_xticks(range(1, 6), ["20", "40", "60", "80", "100"])
    for axis in axes[:, 0]:
        axis.set_ylabel("predicted")
    part.supxlabel("fifth of the observed change, %", size=7)


def _published_p_values(axis, rows, knockout, letter) -> None:
    """Panels d and f as published: rho and -log10 p of each lesion and of one permuted prediction each."""
    shown = rows[rows["control"].isin([OBSERVED, "permuted"]) & (rows["draw"] == 0)]
    values = []
    for control, color in (("permuted", "white"), (OBSERVED, PINK)):
        own = shown[shown["control"] == control]
        values.append(own["rho"].to_numpy())
        # A p value of 0 is one below the smallest number.
        height = -np.log10(own["p_value"].clip(lower=1e-300))
        axis.scatter(own["rho"], height, s=26, color=color, edgecolor="black", linewidth=0.6, gid=control)
    axis.axvline(0, color="#999999", linewidth=0.6)
    axis.set_xlabel("Spearman ρ")
    axis.set_ylabel("−log10 p *")
    axis.set_title(f"{letter}  {style.short(knockout)}: lesions", weight="normal")
    p_value = rank_test(*values)
    axis.annotate(f"Mann-Whitney p = {p_value:.2g} *", (0.02, 0.98), xycoords="axes fraction", va="top", size=6.5)


def _correlations(axis, rows, knockout, letter) -> None:
    """Panels d and f without p values: rho of each lesion, and of its permuted predictions."""
    lesions = sorted(rows["lesion"].unique())
    for control, color in (("permuted", "white"), (OBSERVED, PINK)):
        own = rows[rows["control"] == control]
        place = own["lesion"].map(lesions.index)
        size, width = (26, 0.6) if control == OBSERVED else (5, 0.2)
        axis.scatter(own["rho"], place, s=size, color=color, edgecolor="black", linewidth=width, gid=control)
    axis.axvline(0, color="#999999", linewidth=0.6)
    axis.set_xlabel("Spearman ρ")
    axis.set_yticks(range(len(lesions)), lesions, size=6)
    axis.set_ylabel("lesion")
    axis.invert_yaxis()
    axis.set_title(f"{letter}  {style.short(knockout)}: lesions", weight="normal")


def _legend(figure, rows, spots, bottom) -> float:
    observed = rows[rows["control"] == OBSERVED]
    n_collapsed = int((observed["n_knocked_out_collapsed"] > 0).sum())
    note = (
        f"†: a knocked-out spot lost all its expression in the generation ({n_collapsed} of {len(observed)} "
        "predictions); what is read there is minus the spot itself."
        if n_collapsed
        else "No knocked-out spot lost all its expression."
    )
    labels = spots["label"].drop_duplicates()
    colors, names = _label_colors(labels), {}
    for label, gene in zip(labels, _lost_genes(labels), strict=True):
        name = label if pd.isna(gene) else "wild type (KP)" if gene == WILD_TYPE else f"lost {gene}"
        names[style.short(name)] = colors[label]
    handles = [
        Line2D([], [], linestyle="", marker="o", color=color, label=name) for name, color in sorted(names.items())
    ]
    if rows["protocol"].iloc[0] == "as_run":
        note += (
            "\n*: as published. Genes and lesions are taken for independent and are not, so these are no valid p "
            "values; the smallest Mann-Whitney p of five against five is 0.0079."
        )
    dot = {"linestyle": "", "marker": "o", "markeredgecolor": "black", "markeredgewidth": 0.6}
    for label, color in (("observed", PINK), ("permuted prediction", "white")):
        handles.append(Line2D([], [], markerfacecolor=color, label=label, **dot))
    return style.legend_below(figure, bottom, handles=handles, ncols=7, title=note)
