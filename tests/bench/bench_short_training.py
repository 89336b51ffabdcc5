"""Why does a short training of Cellina collapse? The demo's tissues, with fewer and more steps.

    python tests/bench/bench_short_training.py [--seeds 4]

Batch norm predicts with running means and variances, which every step moves by a hundredth from where they began (0
and 1): after 75 steps they are still 47 % what they began with. Each model is scored as trained, and once more with
these statistics taken anew from its training cells and nothing else changed. Printed by training, over folds: steps,
and Pearson and error of the log-fold changes (median, smallest and largest).
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/recorded"), str(ROOT / "workflow")]
import demo_seeds  # noqa: E402

from tissue_counterfactuals import protocols, steps  # noqa: E402
from tissue_counterfactuals.config import load_config, samples_of  # noqa: E402
from tissue_counterfactuals.graph import neighborhood_features  # noqa: E402
from tissue_counterfactuals.methods import run  # noqa: E402
from tissue_counterfactuals.models.cellina import Cellina  # noqa: E402
from tissue_counterfactuals.models.training import CellData, batches_of, resolve_batch_size  # noqa: E402
from tissue_counterfactuals.question.folds import read_folds  # noqa: E402
from tissue_counterfactuals.slide import log_normalize  # noqa: E402

PROTOCOL = "corrected"
# Epochs and batch size.
TRAININGS = [(25, 1024), (25, 512), (100, 2048), (100, 512), (100, "enough_steps")]


def questions(seed: int, folder: Path):
    """The demo's folds with one seed, each as the task that methods get, and the configuration."""
    raw = demo_seeds.demo()
    raw["datasets"]["simulated"].setdefault("simulation", {})["seed"] = seed
    config = load_config(raw)
    dataset = config["datasets"]["simulated"]
    files = [folder / name for name in ("slide.h5ad", "graph.npz", "folds.tsv")]
    ((_, samples),) = samples_of("simulated", dataset).items()
    steps.prepare(dataset, {}, samples, files[0], folder / "shapes.tsv")
    steps.build_graph(files[0], dataset["graph"], files[1])
    steps.write_folds(files[0], "simulated", dataset, files[2])
    drawn = config["counterfactual"] | {
        "protocol": PROTOCOL,
        "graph": dataset["graph"],
        "validation_fraction": dataset["holdout"]["validation_fraction"],
        "switches": protocols.resolve(PROTOCOL),
    }
    for fold in read_folds(files[2]).query("fold != ''")["fold"].unique():
        question = folder / f"{fold}.npz"
        steps.write_question(*files, fold, seed, drawn, question)
        yield run.load_task(files[0], question, "cpu"), config


def take_statistics_anew(model: Path, task, saved: Path) -> None:
    """Running means and variances of batch norm from one pass over the training cells, without dropout."""
    cellina, cells = Cellina.load(model, device="cpu"), np.flatnonzero(task.split.train)
    around = neighborhood_features(task.masked_graph[cells], log_normalize(task.slide.X))
    codes = [cellina._codes(task.slide, key)[cells] for key in ("cell_type", "domain", "sample")]
    batch = CellData(task.slide.X[cells], around, *codes, cellina.device).batch(np.arange(len(cells)))
    for part in cellina.network.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.momentum = 1.0
            part.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        encoded = cellina.network.encode_sampled(batch)
        cellina.network.decode(encoded.z, encoded.s, batch.sample)
    shutil.copytree(model.parent, saved)
    cellina.save(saved / "model.pt")
    for checksum in saved.glob(".*sha256"):
        checksum.unlink()


def score(model: Path, task, config: dict, folder: Path) -> dict[str, float]:
    predictions, scores = folder / "predictions.h5ad", folder / "scores.tsv"
    run.predict({"cellina": model}, task, predictions, {"cellina": {}})
    labels = {"dataset": "simulated", "kind": "simulated", "slide": "-", "protocol": PROTOCOL, "seed": task.seed}
    rules = protocols.of_step(task.switches, "metrics")
    steps.score([predictions], task, rules, labels, config["metrics"]["n_deg"], scores, folder / "notes.tsv")
    table = pd.read_csv(scores, sep="\t").query("variant == 'published'").set_index("metric")["value"]
    return {"pearson": float(table["pearson"]), "rmse_lfc": float(table["rmse_lfc"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name, redirect_stdout(sys.stderr):
            folder = Path(name)
            for fold, (task, config) in enumerate(questions(seed, folder)):
                for epochs, batch_size in TRAININGS:
                    settings = {k: v for k, v in config["cellina"].items() if k != "time_limit_minutes"}
                    task.settings = settings | {"epochs": epochs, "batch_size": batch_size, "patience": epochs}
                    trained = folder / f"{fold}.{epochs}.{batch_size}"
                    run.fit("cellina", task, trained, folder / "checkpoint.pt")
                    anew = trained.with_name(f"{trained.name}.anew")
                    take_statistics_anew(trained / "model.pt", task, anew)
                    cells = np.flatnonzero(task.split.train)
                    size = resolve_batch_size(batch_size, len(cells), epochs)
                    label = {"epochs": epochs, "batch_size": batch_size, "steps": epochs * len(batches_of(cells, size))}
                    for statistics, model in (("as trained", trained), ("taken anew", anew)):
                        rows.append(label | {"statistics": statistics} | score(model, task, config, folder))
    found = pd.DataFrame(rows).groupby(["steps", "epochs", "batch_size", "statistics"])
    told = found.agg(lambda x: f"{x.median():.2f} ({x.min():.2f} to {x.max():.2f})")
    print(told.assign(folds=found.size()).reset_index().to_markdown(index=False))


if __name__ == "__main__":
    main()
