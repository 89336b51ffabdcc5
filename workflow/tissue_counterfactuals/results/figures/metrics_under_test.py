"""Which metric can be trusted for what: predictions of known worth, scored by every metric (see
metrics/calibration.py).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tissue_counterfactuals import protocols
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.metrics import calibration
from tissue_counterfactuals.metrics.calibration import PREDICTIONS
from tissue_counterfactuals.question.predictions import KEY, read_predictions
from tissue_counterfactuals.question.question import read_question
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import TWIN, write_tsv
from tissue_counterfactuals.slide import read_slide

# Whose twin is shown, where it was asked.
TWIN_OF = ("cellina", "cellina_ablated", "hierarchical")
# The columns, in groups by what their predictions know.
GROUPS = {
    "know the answer": ("ceiling", "truth", "target_mean", "truth_of_donors"),
    "know a share": tuple(reversed(calibration.MIXTURES)),
    "in between": ("twin", "types"),
    "know nothing": calibration.NULLS,
}
VERDICTS = {calibration.CALIBRATED: "#1B7837", calibration.SATURATED: "#B35806", calibration.BLIND: style.FAILED_COLOR}
_COLORS = LinearSegmentedColormap.from_list("place", ["#F4A582", "#FFFFFF", "#4393C3"])


def draw_files(inputs: dict, output: dict[str, Path], target: str, protocol: str) -> None:
    """Scores of predictions of known worth and the verdicts (`tsv`), and their picture (`png`).

    Args:
        inputs: `slides`; of every fold of the data set `questions` and `predictions`, of which those of the first seed
            are read; `manifest` (JSON).
        target: path form of the target domain.
    """
    record = provenance.read(inputs["manifest"])
    name, config = provenance.target_name(record, target), record["config"]
    switches = protocols.of_step(protocols.resolve(protocol, config["switches"]), "metrics")
    run = f"{protocol}.seed{record['seeds'][0]}"
    twins = {(*path.parts[-4:-2],): path for path in map(Path, inputs["predictions"]) if path.parts[-2] == run}
    tables, twins_of = [], set()
    for slide, fold, task in tasks(inputs, run, name):
        twin_of, twin = read_twin(twins[slide, fold], task, name)
        twins_of |= {twin_of} - {""}
        table = calibration.score_fold(task, switches, config["metrics"]["n_deg"], name, twin)
        tables.append(table.assign(fold=f"{slide}/{fold}"))
    verdicts = calibration.judge(pd.concat(tables, ignore_index=True))
    write_tsv(verdicts, output["tsv"], sort=False)
    title = style.experiment_title(
        f"Metrics under test, {len(tables)} fold{'s' * (len(tables) > 1)}",
        *(record["label"], record["kind"], name, protocol),
    )
    note = provenance.footer(record, protocol)
    style.save(compose(verdicts, title, note, twins_of), output["png"])


def tasks(inputs: dict, run: str, target: str) -> Iterator[tuple[str, str, Task]]:
    """Slide, fold and task of every fold of a run with that target; a slide is read once for those that follow.

    Args:
        inputs: `slides` and the `questions` of a data set, those of a slide one after the other.
        run: protocol and seed, as in the names of files: "corrected.seed0".
    """
    slides = {Path(path).stem: path for path in inputs["slides"]}
    cells, opened = None, ""
    for path in map(Path, inputs["questions"]):
        if path.stem != run:
            continue
        slide, fold = path.parts[-3:-1]
        if slide != opened:
            cells, opened = read_slide(slides[slide], check=False), slide
        asked = read_question(path)
        if target in asked.fold.targets:
            yield slide, fold, Task(cells if asked.genes is None else cells[:, asked.genes].copy(), asked)


def read_twin(path: Path, task: Task, target: str) -> tuple[str, Prediction | None]:
    """The twin of the first method of TWIN_OF that has one, and that method's name; none where no such method was
    asked.
    """
    with read_predictions(path) as made:
        noise = {tuple(note[k] for k in KEY): note["dispersion"] for note in made.notes["noise"]}
        asked = {m for m, where, variants in made.questions() if where == target and TWIN in variants}
        for method in TWIN_OF:
            if method in asked:
                key = method, target, TWIN
                told = noise.get(key)
                return method, Prediction(
                    made.values(*key),
                    task.focal,
                    keeps_noise=key in noise and told is None,
                    dispersion=told and np.array(told),
                )
    return "", None


def compose(verdicts: pd.DataFrame, title: str, provenance_text: str, twins_of: Iterable[str]) -> Figure:
    """A row per metric, the calibrated ones first; a cell per prediction: its mean score, coloured by its place."""
    order = verdicts["verdict"].map(list(VERDICTS).index)
    table = verdicts.assign(order=order).sort_values(["order", "dynamic_range"], ascending=[True, False], kind="stable")
    shown = {k: [n for n in names if table[n].notna().any()] for k, names in GROUPS.items()}
    columns = [name for names in shown.values() for name in names]
    twins = " / ".join(style.method_style(method).label for method in style.method_order(twins_of))
    labels = PREDICTIONS | {"twin": f"twin of {twins}"}
    with style.context():
        figure = style.new_figure(12.6, 3.1 + 0.24 * len(table))
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance_text)
        axes = figure.add_axes((0.215, bottom + 0.02, 0.78, 0.78 - bottom))
        left, centers = 0.0, {}
        for group, names in shown.items():
            if not names:
                continue
            centers |= {name: left + i + 0.5 for i, name in enumerate(names)}
            axes.text(left, len(table) + 0.25, group, size=7.5, weight="bold", va="bottom")
            left += len(names) + 0.25
        for height, row in enumerate(table.iloc[::-1].to_dict("records")):
            for name in columns:
                place = row[f"place_{name}"]
                color = _COLORS((np.clip(place, -1, 1) + 1) / 2) if np.isfinite(place) else "#F0F0F0"
                axes.add_patch(
                    Rectangle((centers[name] - 0.5, height), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8)
                )
                axes.text(centers[name], height + 0.5, _number(row[name]), size=6.5, ha="center", va="center")
            told = f"{row['verdict']} ({row['dynamic_range']:.2f}; {row['monotony']:.2f})"
            axes.text(
                left + 0.1, height + 0.62, told, size=7, weight="bold", va="center", color=VERDICTS[row["verdict"]]
            )
            axes.text(left + 0.1, height + 0.24, row["reason"], size=5.2, va="center", color=style.MUTED_COLOR)
        axes.text(
            left + 0.1, len(table) + 0.25, "verdict (dynamic range; monotony)", size=7.5, weight="bold", va="bottom"
        )
        axes.set(xlim=(0, left + 5.3), ylim=(0, len(table)))
        names = [style.metric_label(m) for m in table["metric"].iloc[::-1]]
        axes.set_yticks(np.arange(len(table)) + 0.5, names)
        axes.xaxis.tick_top()
        axes.set_xticks([centers[c] for c in columns], [labels[c] for c in columns], rotation=32, ha="left", size=7)
        axes.tick_params(length=0, pad=16, axis="x")
        axes.tick_params(length=0, axis="y")
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "undefined"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
