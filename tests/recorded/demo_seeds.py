"""The demo with other seeds: `make recorded`.

One run says little about another, so what the README says of the demo are ranges over seeds. Each seed draws another
tissue, other donors and other first weights. Scores go to demo_seeds.tsv seed by seed, so that a run that was cut off
goes on; those of another configuration of the demo (its fingerprint is a column) are dropped. Then the table in the
README is written anew.

    python tests/recorded/demo_seeds.py [--seeds 20] [--jobs 2]     measure what is missing
    python tests/recorded/demo_seeds.py --seeds 0                   only write the README's table
"""

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".tsv")
README = ROOT / "README.md"
BEGIN, END = "<!-- recorded: begin -->\n", "<!-- recorded: end -->\n"
METRICS = {"pearson": "Pearson", "rmse_lfc": "RMSE"}
# Error of a prediction against the true effect of the donors that it was given, on the same genes as rmse_lfc.
TO_TRUTH = "rmse_to_truth"
COLUMNS = [
    *("demo", "seed", "protocol", "slide", "cell_type", "method", "variant", "metric", "value"),
    "status",
]
FOLD = ["seed", "slide", "cell_type"]
# Rows of the README's table.
ROWS = {
    ("no_change", "-"): "No change",
    ("mean_shift_by_type", "-"): "Mean shift by type",
    ("cellina_ablated", "no_intervention"): "Cellina (ablated), twin",
    ("cellina_ablated", "published"): "Cellina (ablated)",
    ("cellina", "no_intervention"): "Cellina, twin",
    ("cellina", "published"): "Cellina",
    ("hierarchical", "published"): "Random effects (ours)",
    ("truth", "published"): "Truth, same donors",
    ("ceiling", "-"): "Ceiling",
    ("truth_in_place", "-"): "Truth, in place",
}


def demo() -> dict:
    """What the demo's configuration says of its benchmark."""
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    asked = {key: raw[key] for key in ("protocols", "cellina", "methods") if key in raw}
    simulated = {k: v for k, v in raw["datasets"]["simulated"].items() if k != "questions"}
    return asked | {"datasets": {"simulated": simulated}}


def fingerprint() -> str:
    """Ten digits that say what was asked; the code has none."""
    return hashlib.sha256(json.dumps(demo(), sort_keys=True).encode()).hexdigest()[:10]


def measure(seed: int) -> pd.DataFrame:
    """Scores of all folds, protocols and methods of the demo with one seed, by the steps of the workflow."""
    import torch

    from tissue_counterfactuals import protocols, steps
    from tissue_counterfactuals.config import load_config, samples_of
    from tissue_counterfactuals.methods import applicable, run
    from tissue_counterfactuals.question.folds import read_folds

    torch.set_num_threads(1)
    raw = demo()
    raw["datasets"]["simulated"].setdefault("simulation", {})["seed"] = seed
    config = load_config(raw)
    dataset = config["datasets"]["simulated"]
    methods = applicable(dataset["methods"], True)
    settings = {m.name: dict(config[m.settings]) for m in methods if m.settings}
    for section in settings.values():
        section.pop("time_limit_minutes", None)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for slide, samples in samples_of("simulated", dataset).items():
            own = Path(folder) / slide
            own.mkdir()
            files = own / "slide.h5ad", own / "graph.npz", own / "folds.tsv"
            steps.prepare(dataset, {}, samples, files[0], own / "shapes.tsv")
            steps.build_graph(files[0], dataset["graph"], files[1])
            steps.write_folds(files[0], "simulated", dataset, files[2])
            folds = read_folds(files[2]).query("fold != ''")["fold"].unique()
            for fold, protocol in itertools.product(folds, config["protocols"]):
                switches = protocols.resolve(protocol)
                question, predictions, scores = (own / f"{fold}.{protocol}.{kind}" for kind in ("npz", "h5ad", "tsv"))
                drawn = config["counterfactual"] | {
                    "protocol": protocol,
                    "graph": dataset["graph"],
                    "validation_fraction": dataset["holdout"]["validation_fraction"],
                    "switches": switches,
                }
                steps.write_question(*files, fold, seed, drawn, question)
                task = run.load_task(files[0], question, "cpu")
                models = {}
                for method in methods:
                    models[method.name] = None
                    if method.learned:
                        models[method.name] = own / f"{fold}.{protocol}.{method.name}"
                        task.settings = settings[method.name]
                        run.fit(method.name, task, models[method.name], own / "checkpoint.pt")
                run.predict(models, task, predictions, settings)
                steps.score(
                    [predictions],
                    task,
                    protocols.of_step(switches, "metrics"),
                    {"dataset": "simulated", "kind": "simulated", "slide": slide, "protocol": protocol, "seed": seed},
                    config["metrics"]["n_deg"],
                    scores,
                    own / "notes.tsv",
                )  # fmt: skip
                own_scores = pd.read_csv(scores, sep="\t", keep_default_na=False, na_values=[""])
                tables += [own_scores, *_errors_to_truth(task, predictions, own_scores)]
    table = pd.concat(tables).assign(demo=fingerprint())
    wanted = table["metric"].isin([*METRICS, TO_TRUTH]) & table["variant"].isin({variant for _, variant in ROWS})
    return table.loc[wanted | (table["status"] == "failed"), COLUMNS].round({"value": 4})


def _errors_to_truth(task, predictions: Path, scores: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows with the distance of each model's prediction from the truth under the same donors (natural log, + 1)."""
    import numpy as np
    from scipy import sparse

    from tissue_counterfactuals.metrics.populations import mean_expression
    from tissue_counterfactuals.question.predictions import read_predictions

    rows = []
    for target in task.fold.targets:
        counts = sparse.csr_array(task.slide.X)
        control, there = (np.log1p(mean_expression(counts[c])) for c in (task.focal, task.target_cells(target)))
        top = np.argsort(-np.abs(there - control), kind="stable")[:50]
        with read_predictions(predictions) as made:
            means = {
                method: np.log1p(mean_expression(made.values(method, target, "published")))
                for method in ("truth", "cellina", "cellina_ablated")
            }
        for method in ("cellina", "cellina_ablated"):
            error = np.sqrt(np.mean((means[method] - means["truth"])[top] ** 2))
            like = scores.query("method == @method and variant == 'published'").iloc[:1]
            rows.append(like.assign(metric=TO_TRUTH, value=error))
    return rows


def recorded() -> pd.DataFrame:
    """What was measured of the demo as it is configured now."""
    if not TABLE.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(TABLE, sep="\t", keep_default_na=False, na_values=[""])
    return table[table["demo"] == fingerprint()]


def value_of(table: pd.DataFrame, protocol: str, method: str, variant: str, metric: str):
    """One value per fold (seed, slide, cell_type)."""
    own = table.query("protocol == @protocol and method == @method and variant == @variant and metric == @metric")
    return own.set_index(FOLD)["value"].sort_index()


def spread(values: pd.Series) -> str:
    """Median and range."""
    numbers = [f"{x:.2f}".replace("-0.00", "0.00") for x in (values.median(), values.min(), values.max())]
    return "{} ({} to {})".format(*numbers)


def readme_table(table: pd.DataFrame) -> str:
    """What the README says of the demo, as Markdown: medians and ranges over folds, and what was compared in pairs."""
    protocols = [p for p in ("corrected", "as_run") if (table["protocol"] == p).any()]
    heads = [f"{label}, `{p}`" for p in protocols for label in METRICS.values()]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for (method, variant), name in ROWS.items():
        cells = []
        for protocol, metric in itertools.product(protocols, METRICS):
            own = value_of(table, protocol, method, variant, metric).dropna()
            cells.append(spread(own) if len(own) else "undefined")
        lines.append([name, *cells])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    n_seeds, n_folds = table["seed"].nunique(), len(table[FOLD].drop_duplicates())
    paragraphs = [
        f"Median (smallest to largest) of {n_folds} folds: {n_seeds} seeds, each with a tissue, donors and first "
        "weights of its own.",
        text,
    ]
    for protocol in protocols:
        model = value_of(table, protocol, "cellina", "published", "rmse_lfc")
        better = []
        for method, variant in (
            ("cellina", "no_intervention"),
            ("mean_shift_by_type", "-"),
            ("cellina_ablated", "published"),
        ):
            other = value_of(table, protocol, method, variant, "rmse_lfc")
            better.append(f"{(model < other).sum()} (against {ROWS[method, variant]})")
        sentence = f"Under `{protocol}` Cellina has the smaller error in {', '.join(better)} of {n_folds} folds."
        if protocol == "corrected":
            # As run, changes are binary logarithms without a pseudocount to speak of: not on one scale with this error.
            truth = value_of(table, protocol, "cellina", "published", TO_TRUTH)
            sentence += (
                f" Its error against the true effect of the donors it was given is {spread(truth)}, against the "
                f"observed target cells {spread(model)}."
            )
        paragraphs.append(sentence)
    return "\n\n".join(paragraphs) + "\n"


def write_readme(table: pd.DataFrame) -> None:
    """Put the table between its marks."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + readme_table(table) + END + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    table = recorded()
    missing = sorted(set(range(options.seeds)) - set(table["seed"]))
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for scores in pool.imap_unordered(measure, missing):
            table = pd.concat([table, scores] if len(table) else [scores]).sort_values(COLUMNS[:-2], ignore_index=True)
            table.to_csv(TABLE, sep="\t", index=False, lineterminator="\n")
            print(
                f"seed {scores['seed'].iloc[0]} measured, {table['seed'].nunique()} in all",
                flush=True,
            )
    write_readme(table)


sys.path.insert(0, str(ROOT / "workflow"))
if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    main()
