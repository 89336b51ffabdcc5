"""Do intervals hold? Coverage by fold and by expression level, their width, and what is left where a method abstains.

Methods that give no intervals get them from their seeds and from their errors in folds of other types (see
metrics/ensembles.py).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals import protocols
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics import Reference, ensembles
from tissue_counterfactuals.metrics.populations import mean_expression
from tissue_counterfactuals.models.hierarchical import FEWEST_TYPES
from tissue_counterfactuals.question.predictions import PredictionReader, read_predictions
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.metrics_under_test import tasks
from tissue_counterfactuals.results.tables import FOLD, TWIN, choose, read_scores, write_tsv

LEVELS = {"coverage_low": "low", "coverage_middle": "middle", "coverage_high": "high"}
PROMISED, ACCEPTED = 0.9, (0.85, 0.95)
NAME = "Intervals of 90 %"
OWN = "own"
# Interval -> marker and what the legend calls it.
KINDS = {
    OWN: ("o", "the method's own"),
    ensembles.ENSEMBLE: ("^", "from its seeds"),
    ensembles.CONFORMAL: ("s", "from its errors for other types"),
}
COLUMNS = ["method", "interval", *FOLD, "coverage", *LEVELS, "interval_width", "n_seeds", "n_types"]


def draw_files(inputs: dict, output: dict[str, Path], target: str, protocol: str) -> None:
    """The table (`tsv`: a row per method, kind of interval and fold) and its picture (`png`, an SVG by its name).

    Args:
        inputs: `scores` (TSV) and `manifest` (JSON) of a data set, its `slides`, and the `questions` and `predictions`
            of all its folds and seeds.
        target: path form of the target domain.
    """
    record, scores = provenance.read(inputs["manifest"]), read_scores([inputs["scores"]])
    chosen = (record["dataset"], provenance.target_name(record, target), protocol)
    table = per_fold(scores, *chosen)
    further = derived(inputs, record, chosen[1], protocol)
    if further:
        table = pd.concat([*([table] if len(table) else []), *further])
    write_tsv(table[COLUMNS], output["tsv"])
    figure = compose(scores, *chosen, provenance.footer(record, protocol), table, record["label"])
    style.save(figure, output["png"])


def derived(inputs: dict, record: dict, target: str, protocol: str) -> list[pd.DataFrame]:
    """Intervals (see COLUMNS) of each learned method that gives none; nothing is read where there cannot be any."""
    run = f"{protocol}.seed{record['seeds'][0]}"
    types = {path.parts[-2] for path in map(Path, inputs["questions"]) if path.stem == run}
    told: dict[str, list[ensembles.Told]] = {}
    if len(record["seeds"]) >= ensembles.FEWEST_SEEDS or len(types) > FEWEST_TYPES:
        made = {}
        for path in map(Path, inputs["predictions"]):
            if path.parts[-2].split(".seed")[0] == protocol:
                made.setdefault(path.parts[-4:-2], []).append(path)
        switches = protocols.of_step(protocols.resolve(protocol, record["config"]["switches"]), "metrics")
        for slide, fold, task in tasks(inputs, run, target):
            counts, asked = task.slide.X, task.fold
            reference = Reference(counts[task.focal], counts[task.target_cells(target)], **switches)
            for method, profiles in _profiles(made[slide, fold], target).items():
                # A model over all samples is asked about one patient at a time, as in the scores.
                answer = (asked.patient or slide, asked.cell_type, reference, profiles)
                told.setdefault(method, []).append(ensembles.Told.of(*answer))
    tables = [ensembles.coverages(own).assign(method=method) for method, own in told.items()]
    return [table for table in tables if len(table)]


def _profiles(files: list[Path], target: str) -> dict[str, list[np.ndarray]]:
    """Learned method without intervals -> mean CP10K (g,) that each seed predicts."""
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted(files):
        with read_predictions(path) as made:
            for method, variant in _without_intervals(made, target):
                profile = mean_expression(made.values(method, target, variant))
                found.setdefault(method, []).append(profile)
    return found


def _without_intervals(made: PredictionReader, target: str) -> Iterator[tuple[str, str]]:
    """Learned methods that gave no intervals, and the variant that is shown of each."""
    sure = {told["method"] for told in made.notes.get("intervals", [])}
    for method, where, variants in made.questions():
        asked = [variant for variant in variants if variant != TWIN]
        if where == target and asked and METHODS[method].learned and method not in sure:
            yield method, style.variant_order(asked)[0]


def per_fold(scores: pd.DataFrame, dataset: str, target: str, protocol: str) -> pd.DataFrame:
    """A row per method and fold: means over seeds of the metrics of its own intervals, under the published donor rule
    or the first that was run; no row for methods without intervals."""
    chosen = choose(scores, dataset, target, protocol)
    chosen = chosen[chosen["variant"] != TWIN]
    with_intervals = chosen[chosen["metric"] == "coverage"]
    wanted = {method: style.variant_order(own["variant"])[0] for method, own in with_intervals.groupby("method")}
    chosen = chosen[chosen["variant"] == chosen["method"].map(wanted)]
    table = chosen.pivot_table(index=["method", *FOLD], columns="metric", values="value")
    seeds = chosen.groupby(["method", *FOLD])["seed"].nunique()
    table = table.assign(interval=OWN, n_seeds=seeds.reindex(table.index), n_types=0)
    return table.reset_index().reindex(columns=[*COLUMNS, "abstained", "rmse_lfc", "rmse_lfc_answered"])


def compose(
    scores: pd.DataFrame,
    dataset: str,
    target: str,
    protocol: str,
    provenance_text: str,
    table: pd.DataFrame,
    label: str,
) -> Figure:
    """The figure: a mark per fold; where there are no intervals, a sentence.

    Args:
        table: see COLUMNS, with what `per_fold` adds.
        label: what the data set is called.
    """
    kind = choose(scores, dataset, target, protocol)["kind"].iloc[0]
    folds = pd.MultiIndex.from_frame(table[FOLD].drop_duplicates().sort_values(FOLD))
    with style.context():
        figure = style.new_figure(12, 2.8 + 0.18 * len(folds))
        style.suptitle(figure, style.experiment_title(NAME, label, kind, target, protocol))
        bottom = style.footer(figure, provenance_text)
        if not len(table):
            figure.text(0.5, 0.5, "No method gave intervals here.", ha="center")
            return figure
        order = style.method_order(table["method"].unique())
        groups = [
            (method, interval, own.set_index(FOLD).reindex(folds))
            for method in order
            for interval in KINDS
            if len(own := table[(table["method"] == method) & (table["interval"] == interval)])
        ]
        left, middle, width, right = figure.subplots(1, 4, width_ratios=(1.2, 1.1, 0.9, 1))
        labels = [f"{style.short(cell_type, 28)} · {slide}" for slide, cell_type in folds]
        spread = np.linspace(-0.3, 0.3, len(groups)) if len(groups) > 1 else np.zeros(1)
        for offset, (method, interval, own) in zip(spread, groups, strict=True):
            color = style.method_style(method, order).color
            dots = {"color": color, "alpha": 0.85, "linewidths": 0, "s": 22}
            dots["marker"] = KINDS[interval][0]
            left.scatter(own["coverage"], np.arange(len(folds)) + offset, **dots)
            for place, level in enumerate(LEVELS):
                middle.scatter(np.full(len(own), place + offset), own[level], **dots)
                middle.plot([place + offset - 0.06, place + offset + 0.06], [own[level].mean()] * 2, color=color)
            width.scatter(np.full(len(own), offset), own["interval_width"], **dots)
            if interval != OWN:
                continue
            for _, row in own.iterrows():
                ends = [row["rmse_lfc"], row["rmse_lfc_answered"]]
                right.plot([0, row["abstained"]], ends, color=color, alpha=0.5, linewidth=0.8)
                right.scatter([0, row["abstained"]], ends, **dots)
        left.set(title="By fold", xlabel="genes whose interval holds", xlim=(-0.02, 1.02))
        left.set_yticks(range(len(folds)), labels)
        left.invert_yaxis()
        left.axvspan(*ACCEPTED, color="#EDEDED", zorder=0)
        left.axvline(PROMISED, color=style.MUTED_COLOR, linewidth=0.8, zorder=1)
        middle.set(title="By expression level", ylim=(-0.02, 1.02), xlim=(-0.5, 2.5))
        middle.set_xticks(range(len(LEVELS)), LEVELS.values())
        middle.axhspan(*ACCEPTED, color="#EDEDED", zorder=0)
        middle.axhline(PROMISED, color=style.MUTED_COLOR, linewidth=0.8, zorder=1)
        width.set(title="Width", ylabel="median length, log1p of mean CP10K", xlim=(-0.5, 0.5))
        width.set_xticks([])
        width.set_ylim(0, 1.08 * width.get_ylim()[1])
        if OWN in {*table["interval"]}:
            right.set(title="Error of what is answered")
            right.set(xlabel="abstained share of all genes", ylabel=style.metric_label("rmse_lfc"))
            right.set_xlim(-0.03, 1.03)
            right.set_ylim(0, 1.08 * right.get_ylim()[1])
        else:
            right.set_axis_off()
        title = f"Grey: coverage of {ACCEPTED[0]:g} to {ACCEPTED[1]:g}; a mark is a fold."
        drawn = {
            f"{style.method_style(method, order).label}, {KINDS[interval][1]}": Line2D(
                [], [], color=style.method_style(method, order).color, marker=KINDS[interval][0], linestyle=""
            )
            for method, interval, _ in groups
        }
        bottom = style.legend_below(figure, bottom, ncols=3, handles=[*drawn.values()], labels=[*drawn], title=title)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), w_pad=0.08)
        return figure
