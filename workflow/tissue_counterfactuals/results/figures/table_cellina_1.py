"""Table 1 of Cellina: every method on four metrics, with the gain over its own twin, as rows, Markdown and a
picture.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.methods import seeing_answers
from tissue_counterfactuals.protocols import resolve
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.costs import training_note
from tissue_counterfactuals.results.harmless import markdown_line
from tissue_counterfactuals.results.patients import patients_of_slides
from tissue_counterfactuals.results.tables import (
    EXPERIMENT,
    TWIN,
    choose,
    few_target_cells,
    gains,
    read_scores,
    spread_failures,
    summarize,
    write_tsv,
)

METRICS = ("pearson", "signed_precision", "e_distance", "rmse_lfc")
GAIN_METRICS = ("pearson", "rmse_lfc")
# Forms of Pearson without the published definition's bias (see `metrics`), shown where they were scored.
UNBIASED = ("pearson_split", "pearson_twin")
# Under the corrected protocol changes of expression are small numbers.
DIGITS = {"rmse_lfc": 3}
MAX_REASON = 300
RUNS = "fold × seed"
UNDEFINED = (
    "Undefined: a correlation with a prediction that changes no gene, or a precision where it is a tie which genes "
    "change most"
)
NAME = "Table 1 of Cellina"
# What a method can be asked, where its name does not say.
ANSWERS = {
    "celcomen": "Celcomen: its field knows neither cell types nor domains, so that what neighbours are and what they "
    "do cannot be told apart; donors do not answer in turn.",
    "mintflow": "MintFlow: a draw for the cell's type among its donors' types; it never reads the cell's expression.",
}
# What a method sees under a switch that lets it see the answer.
SEES = {
    "scgen": "scGen: the held-out cells take part in the difference that moves cells: it sees the answer.",
    "mintflow": "MintFlow: trained on the held-out cells too, and drawn in their own place: it sees the answer.",
}
GAIN_COLORS = {1: "#00609C", 0: style.MUTED_COLOR, -1: "#B2182B"}


def draw_files(inputs: dict[str, Path], output: dict[str, Path], target: str, protocol: str) -> None:
    """Table 1 of the Cellina paper, as numbers (`tsv`), as text (`md`) and as a picture (`png`).

    Args:
        inputs: `scores` (TSV) and `manifest` (JSON) of the data set.
        target: path form of the target domain.
    """
    draw_table(
        *(inputs, output, protocol),
        lambda inputs, record, patients, protocol: build(
            read_scores([inputs["scores"]]),
            *(record["dataset"], provenance.target_name(record, target), protocol, patients),
        ),
    )


def draw_table(inputs: dict[str, Path], output: dict[str, Path], protocol: str, build) -> None:
    """Write a table that `build` makes of the inputs, the manifest and the patients of the slides."""
    record = provenance.read(inputs["manifest"])
    patients = patients_of_slides(record["config"]["datasets"][record["dataset"]])
    table = build(inputs, record, patients, protocol)
    config = record["config"]
    table.attrs |= {"label": record["label"], "training": training_note(config, protocol)}
    table.attrs["switches"] = resolve(protocol, config["switches"])
    footer = provenance.footer(record, protocol)
    write_tsv(table, output["tsv"], sort=False)
    with atomic_path(output["md"]) as temporary:
        temporary.write_text(to_markdown(table, footer))
    style.save(compose(table, footer), output["png"])


def build(
    scores: pd.DataFrame, dataset: str, target: str, protocol: str, patients: dict[str, str] | None = None
) -> pd.DataFrame:
    """The table as numbers: one row per method and variant, in the order of display.

    Returns:
        dataset, kind, target, protocol, group, method, variant; for each metric `<metric>_mean`, `<metric>_std`
        (pooled over slides and held-out types after averaging over seeds), `<metric>_std_patients` (of the means of
        patients), `<metric>_n` folds and `<metric>_undefined` scores without value; for Pearson and RMSE
        `<metric>_gain`, `_gain_std`, `_gain_n`, `_gain_improved` over the own twin (positive = better; empty for
        methods without twin); n_folds (most of any metric), n_seeds, n_failed, reason.

    Raises:
        InputError: the score table holds nothing for this data set, target and protocol.
    """
    chosen = spread_failures(choose(scores, dataset, target, protocol))
    summary = summarize(chosen, patients).set_index(["method", "variant", "metric"])
    gain = gains(chosen[chosen["metric"].isin((*GAIN_METRICS, ""))])
    gain = gain[gain["reference"] == TWIN].set_index(["method", "variant", "metric"])
    present = chosen[["method", "variant"]].drop_duplicates()
    rows = []
    for method in style.method_order(present["method"]):
        for variant in style.variant_order(present.loc[present["method"] == method, "variant"]):
            own = summary.loc[(method, variant)]
            row = {
                **chosen.iloc[0][EXPERIMENT],
                "group": style.method_style(method).group,
                "method": method,
                "variant": variant,
            }
            for metric in (*METRICS, *UNBIASED):
                of_metric = own.loc[metric] if metric in own.index else {}
                row[f"{metric}_mean"] = of_metric.get("mean", np.nan)
                row[f"{metric}_std"] = of_metric.get("std_pooled", np.nan)
                row[f"{metric}_std_patients"] = of_metric.get("std_patients", np.nan)
                row[f"{metric}_n"] = of_metric.get("n_folds", 0)
                row[f"{metric}_undefined"] = of_metric.get("n_undefined", 0)
            for metric in GAIN_METRICS:
                key = (method, variant, metric)
                of_gain = gain.loc[key] if key in gain.index else {}
                row[f"{metric}_gain"] = of_gain.get("mean", np.nan)
                row[f"{metric}_gain_std"] = of_gain.get("std", np.nan)
                row[f"{metric}_gain_n"] = of_gain.get("n", 0)
                row[f"{metric}_gain_improved"] = of_gain.get("n_improved", 0)
            row["n_folds"] = own["n_folds"].max()
            row["n_seeds"] = own["n_seeds"].max()
            row["n_failed"] = own["n_failed"].max()
            row["reason"] = own["reason"].iloc[0]
            rows.append(row)
    table = pd.DataFrame(rows)
    table.attrs["few_cells"] = few_target_cells(chosen)
    return table


def title(table: pd.DataFrame) -> str:
    """Title of the table, with the kind of its data."""
    dataset, kind, target, protocol = table.iloc[0][EXPERIMENT]
    label = table.attrs.get("label", dataset)
    return style.experiment_title(table.attrs.get("name", NAME), label, kind, target, protocol)


def unbiased(table: pd.DataFrame) -> list[str]:
    """The unbiased metrics that were scored."""
    return [m for m in UNBIASED if table[[f"{m}_n", f"{m}_undefined"]].to_numpy().any()]


def header(table: pd.DataFrame) -> list[str]:
    """Column heads of the printed table."""
    gain_heads = [f"Gain over twin: {style.metric_label(m)[:-2]}" for m in GAIN_METRICS]
    metric_heads = [style.metric_label(m) for m in METRICS]
    unbiased_heads = [style.metric_label(m) for m in unbiased(table)]
    return ["Method", "Variant", *metric_heads, *gain_heads, *unbiased_heads, "Folds"]


def cells(table: pd.DataFrame, index: int) -> list[str]:
    """The printed cells of one row, in the order of `header`.

    A method that failed everywhere says so in each cell; one that failed in places bears a dagger.
    """
    row = table.loc[index]
    name, variant = style.method_style(row["method"]).label, _variant_label(row["variant"])
    if row["n_failed"] and not row["n_folds"]:
        return [f"{name} †", variant, *["failed"] * (len(header(table)) - 3), "0"]
    texts = [name + (" †" if row["n_failed"] else ""), variant]
    texts += [_metric_cell(row, metric) for metric in METRICS]
    for metric in GAIN_METRICS:
        n = row[f"{metric}_gain_n"]
        gain, std = row[f"{metric}_gain"], row[f"{metric}_gain_std"]
        text = _mean_and_std(gain, std, metric, sign="+")
        texts.append(f"{text} ({row[f'{metric}_gain_improved']}/{n})" if n else "")
    texts += [_metric_cell(row, metric) for metric in unbiased(table)]
    return [*texts, str(row["n_folds"])]


def _metric_cell(row: pd.Series, metric: str) -> str:
    n = row[f"{metric}_n"]
    if n == 0:
        # Of several targets, one that failed leaves no mean over them.
        return "undefined" if row[f"{metric}_undefined"] else "failed" if row["n_failed"] else ""
    text = _mean_and_std(row[f"{metric}_mean"], row[f"{metric}_std"], metric)
    return text if n == row["n_folds"] else f"{text} [{n}]"


def _mean_and_std(mean: float, std: float, metric: str, sign: str = "") -> str:
    digits = _digits(metric)
    # Adding zero turns what would print as -0.00 into 0.00.
    text = f"{round(mean, digits) + 0.0:{sign}.{digits}f}"
    spread = "" if np.isnan(std) else f" ± {std:.{digits}f}"
    return f"{text}{spread}".replace("-", "−")


def _digits(metric: str) -> int:
    return DIGITS.get(metric, 2)


def notes(table: pd.DataFrame) -> list[str]:
    """What a reader must know, and every failure with its reason."""
    lines = [
        f"Mean ± standard deviation over folds (slide × held-out type; {table['n_folds'].max()} at most), after "
        f"averaging over {table['n_seeds'].max()} seed(s). Bold: best of controls and counterfactuals "
        "that have a value in as many folds as any.",
        "Gain: paired difference to the twin, the same fitted model with the cells' own neighbours; positive = better; "
        "in brackets the folds that improve. A score means little, a gain over the twin does.",
    ]
    if table.attrs.get("note"):
        lines.insert(0, table.attrs["note"])
    if table.attrs.get("few_cells"):
        lines.append(table.attrs["few_cells"])
    if table.attrs.get("training"):
        lines.append(f"{table.attrs['training']} Seconds and memory of each: costs.*.tsv beside this table.")
    bounds = set(table["method"])
    asked = ANSWERS | {method: note for method, note in SEES.items() if method in _seeing(table)}
    lines += [note for method, note in asked.items() if method in bounds]
    if "ceiling" in bounds:
        lines.append("Ceiling: one random half of the target cells against the other half.")
    if bounds & {"truth", "truth_in_place"}:
        lines.append(
            "Truth: the mechanism that made the data, given the same donors; in place: given the target cells' real "
            "neighbourhoods."
        )
    if unbiased(table):
        lines.append(
            "Split control: observed and predicted change against different halves of the control cells. Against twin: "
            "predicted change against the model's own prediction without intervention."
        )
    if table[[f"{m}_undefined" for m in (*METRICS, *unbiased(table))]].to_numpy().any():
        lines.append(f"{UNDEFINED}; [n]: defined in n folds only.")
    failed = table[table["n_failed"] > 0]
    for (method, n_failed, reason), rows in failed.groupby(["method", "n_failed", "reason"], sort=False):
        variants = ", ".join(filter(None, (_variant_label(v) for v in rows["variant"])))
        # A fit that failed takes all variants with it; then they need no naming.
        whole = len(rows) == (table["method"] == method).sum()
        name = style.method_style(method).label + ("" if whole else f" ({variants})")
        runs = "1 run" if n_failed == 1 else f"{n_failed} runs"
        lines.append(f"† {name}: {runs} ({table.attrs.get('runs', RUNS)}) failed: {shortened(reason)}")
    return lines


def shortened(reason: str) -> str:
    """A reason as long as a line under a table may be."""
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} … (all: score table)"


def _variant_label(variant: str) -> str:
    return style.VARIANTS.get(variant, "" if variant == "-" else variant)


def _seeing(table: pd.DataFrame) -> set[str]:
    """The methods that see the answer under the protocol of the table."""
    return seeing_answers(table.attrs["switches"])


def best_cells(table: pd.DataFrame) -> set[tuple[int, str]]:
    """(row, metric) of the best mean among what could be used in earnest: controls and counterfactuals.

    Of those with a value in as many folds as any: a mean that lacks the hard ones is no better for it.
    """
    fair = table[~table["method"].isin(_seeing(table)) & (table["variant"] != TWIN)]
    best = set()
    for metric in METRICS:
        n = fair[f"{metric}_n"]
        means = fair.loc[n == n.max(), f"{metric}_mean"].dropna()
        if len(means):
            higher = style.METRICS[metric].direction == "higher"
            best.add((means.idxmax() if higher else means.idxmin(), metric))
    return best


def to_markdown(table: pd.DataFrame, provenance_text: str = "") -> str:
    """The table as Markdown that is legible as plain text too: aligned columns, groups, notes, provenance."""
    best = best_cells(table)
    lines = [header(table)]
    for group, rows in table.groupby("group", sort=False):
        lines.append([f"*{style.GROUPS[group]}*", *[""] * (len(lines[0]) - 1)])
        for index in rows.index:
            texts = cells(table, index)
            for column, metric in enumerate(METRICS, start=2):
                if (index, metric) in best:
                    texts[column] = f"**{texts[column]}**"
            lines.append(texts)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text_columns = 2
    printed = ["| " + " | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = ["-" * w if column < text_columns else "-" * (w - 1) + ":" for column, w in enumerate(widths)]
    printed.insert(1, "| " + " | ".join(rule) + " |")
    body = [f"### {markdown_line(title(table))}", "", *printed, "", *(f"- {markdown_line(n)}" for n in notes(table))]
    if provenance_text:
        body += ["", f"<sub>{markdown_line(provenance_text)}</sub>"]
    return "\n".join(body) + "\n"


def compose(table: pd.DataFrame, provenance_text: str) -> Figure:
    """The table as a figure."""
    with style.context():
        return _compose(table, provenance_text)


def _compose(table: pd.DataFrame, provenance_text: str) -> Figure:
    heads = header(table)
    # Columns in inches: method and variant, numbers about their middle, number of folds to the right.
    columns = [0.36, 1.95]
    edge = 3.65
    for width in [1.15] * len(METRICS) + [1.5] * len(GAIN_METRICS) + [1.2] * len(unbiased(table)):
        columns.append(edge + width / 2)
        edge += width
    right = edge + 0.3
    columns.append(right)
    aligned = ["left", "left", *["center"] * (len(columns) - 3), "right"]
    row_in, left, width_in = 0.2, 0.2, right + 0.2
    groups = list(table.groupby("group", sort=False))
    note_lines = [line for note in notes(table) for line in style.wrap(note, right - left, 6.5)]
    n_lines = len(table) + len(groups) + 3
    footer_in = 0.25 + 0.12 * len(style.wrap(provenance_text, width_in, 5.5))
    height_in = row_in * n_lines + 0.143 * len(note_lines) + 0.25 + footer_in
    figure = style.new_figure(width_in, height_in)
    style.footer(figure, provenance_text)
    # Axes in inches, y downwards, so that rows keep their height however many there are.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width_in), ylim=(height_in, 0))
    axes.axis("off")

    def rule(y: float, width: float) -> None:
        axes.plot([left, right], [y, y], color="black", linewidth=width)

    y = 0.22
    axes.text(left, y, style.short(title(table), 160), weight="bold", size=9.5, va="center")
    y += 0.22
    rule(y, 1.0)
    y += 0.22
    for x, text, ha in zip(columns, heads, aligned, strict=True):
        text = text.replace(": ", "\n").replace(", ", "\n")
        axes.text(x, y, text, ha=ha, va="center", weight="bold", size=7.5, linespacing=1.2)
    y += 0.22
    rule(y, 0.6)
    best = best_cells(table)
    for group, rows in groups:
        y += row_in / 2 + 0.02
        axes.text(left, y, style.GROUPS[group], style="italic", va="center", size=7.5)
        y += row_in / 2
        for index in rows.index:
            _draw_row(axes, table, index, y + row_in / 2, columns, aligned, best)
            y += row_in
        y += 0.03
        rule(y, 0.3 if group != groups[-1][0] else 1.0)
    y += 0.1
    axes.text(left, y, "\n".join(note_lines), va="top", size=6.5, linespacing=1.3)
    return figure


def _draw_row(axes, table, index, y, columns, aligned, best) -> None:
    row = table.loc[index]
    is_twin = row["variant"] == TWIN
    color = style.method_style(row["method"], table["method"]).color
    axes.add_patch(
        Rectangle((columns[0] - 0.15, y - 0.05), 0.1, 0.1, linewidth=0.6, **style.patch_style(color, row["variant"]))
    )
    kinds = ["", "", *METRICS, *(f"{m}_gain" for m in GAIN_METRICS), *unbiased(table), ""]
    for x, text, ha, kind in zip(columns, cells(table, index), aligned, kinds, strict=True):
        text_color = style.MUTED_COLOR if is_twin or text == "undefined" else "black"
        if text == "failed":
            text_color = style.FAILED_COLOR
        elif kind.endswith("_gain") and text:
            text_color = GAIN_COLORS[np.sign(round(row[kind], _digits(kind.removesuffix("_gain"))))]
        weight = "bold" if (index, kind) in best else "normal"
        axes.text(x, y, text, ha=ha, va="center", size=7.5, color=text_color, weight=weight)
