"""What each method took to train: seconds and peak memory of every fit, as rows and a picture."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tissue_counterfactuals.protocols import resolve
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import write_tsv

PANELS = {"seconds": "Seconds of a training", "peak_memory_mb": "Peak memory, MiB"}
COLUMNS = ["method", "slide", "cell_type", "seed", "status", *PANELS, "device", "python"]


def draw_files(inputs: dict, output: dict[str, Path], protocol: str) -> None:
    """Costs of every fit under a protocol (`tsv`), and their spread by method (`png`).

    Args:
        inputs: `models` are folders .../{slide}/{fold}/{method}/{protocol}.seed{seed} that `fit` left; `manifest` is
            that of the data set (JSON).
    """
    record = provenance.read(inputs["manifest"])
    table = read_costs(map(Path, inputs["models"]))
    write_tsv(table, output["tsv"])
    title = f"Costs of training, {style.data_name(record)}, protocol {protocol}"
    note = f"{training_note(record['config'], protocol)} {provenance.footer(record, protocol)}"
    style.save(compose(table, title, note), output["png"])


def read_costs(folders) -> pd.DataFrame:
    """A row per fit, from what it left beside its model: see COLUMNS."""
    rows = []
    for folder in folders:
        slide, _, method, run = folder.parts[-4:]
        keys = {"method": method, "slide": slide, "seed": int(run.rsplit("seed", 1)[1])}
        rows.append(json.loads((folder / "status.json").read_text()) | keys)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def training_note(config: dict, protocol: str) -> str:
    """How long methods trained, in a sentence."""
    if config.get("budget") == "equal":
        return (
            f"Training: {config['equal_steps']:,} optimiser steps, to the nearest epoch, for every method that takes "
            "them, with its own batches and without early stopping."
        )
    if resolve(protocol, config["switches"])["hyperparameters"] == "published":
        return (
            "Training: Cellina in all its forms as published, whatever its section says; every other method as long as "
            "its own settings say, by default as published."
        )
    return "Training: every method as long as its own settings say, by default as published."


def compose(table: pd.DataFrame, title: str, provenance_text: str) -> Figure:
    """A dot for each fit, a line at their median; a fit that failed is a cross, where it left what it cost."""
    methods = style.method_order(table["method"])[::-1]
    with style.context():
        figure = style.new_figure(7.2, 1.9 + 0.2 * len(methods))
        bottom = style.footer(figure, provenance_text)
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
            for height, method in enumerate(methods):
                own = table[table["method"] == method]
                color = style.method_style(method, methods).color
                failed = own["status"] == "failed"
                axes.plot(own.loc[~failed, column], [height] * (~failed).sum(), "o", color=color, ms=4)
                axes.plot(own.loc[failed, column], [height] * failed.sum(), "x", color=style.FAILED_COLOR, ms=5)
                axes.plot([own.loc[~failed, column].median()] * 2, [height - 0.35, height + 0.35], color=color)
            if table[column].max() > 10 * table[column].min() > 0:
                style.log_scale(axes, "x")
                axes.xaxis.set_minor_formatter(NullFormatter())
                if table[column].max() < 1000 * table[column].min():
                    # Decades alone would leave it with one number or two.
                    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            else:
                axes.set_xlim(0, 1.08 * max(table[column].max(), 1))
            axes.set_xlabel(label)
            axes.grid(axis="x", color="#EEEEEE", linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(methods)), [style.method_style(m, methods).label for m in methods])
        style.suptitle(figure, title)
        figure.tight_layout(rect=(0, bottom, 1, 0.97))
    return figure
