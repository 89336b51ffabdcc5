"""One large slide through the steps: prepare, graph, one training epoch. Time and peak memory of each, in a process of
its own.

    PYTHONPATH=workflow python tests/bench/bench_large_slide.py            # 400,000 cells x 2,000 genes
    PYTHONPATH=workflow python tests/bench/bench_large_slide.py --cells 20000 --genes 500

Simulated tissue; the slide is written first and is not part of what is measured.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from fresh_process import measured

from tissue_counterfactuals.config import load_config

LIMIT_GB = 12.0


def simulate(folder: Path, cells: int, genes: int) -> None:
    from tissue_counterfactuals.simulate import simulate_tissue
    from tissue_counterfactuals.slide import write_slide

    write_slide(simulate_tissue(n_cells=cells, n_genes=genes, n_slides=1, seed=0), folder / "raw.h5ad")


def settings(folder: Path) -> dict:
    """What a user of that file would configure."""
    dataset = {
        "source": "h5ad",
        "path": str(folder / "raw.h5ad"),
        "columns": {"sample": "sample"},
        "control_domain": "domain_0",
        "target_domains": ["domain_1"],
    }
    return load_config({"datasets": {"large": dataset}, "device": "cpu"})


def prepare(folder: Path) -> None:
    from tissue_counterfactuals import steps

    dataset = settings(folder)["datasets"]["large"]
    files = {"h5ad": folder / "raw.h5ad"}
    steps.prepare(dataset, files, None, folder / "slide.h5ad", folder / "shapes.tsv")


def graph(folder: Path) -> None:
    from tissue_counterfactuals import steps

    dataset = settings(folder)["datasets"]["large"]
    steps.build_graph(folder / "slide.h5ad", dataset["graph"], folder / "graph.npz")
    fold_keys = ("control_domain", "target_domains", "holdout")
    steps.write_folds(folder / "slide.h5ad", "large", {k: dataset[k] for k in fold_keys}, folder / "folds.tsv")


def train(folder: Path) -> None:
    """The ablated model's epoch updates from the first; the supervised one's first epoch would only measure."""
    import torch

    from tissue_counterfactuals import protocols, steps
    from tissue_counterfactuals.methods import run

    torch.set_num_threads(2)
    config = settings(folder)
    drawn_from = {
        "protocol": "corrected",
        "graph": config["datasets"]["large"]["graph"],
        "switches": protocols.resolve("corrected"),
        "validation_fraction": config["datasets"]["large"]["holdout"]["validation_fraction"],
        **config["counterfactual"],
    }
    files = (folder / "slide.h5ad", folder / "graph.npz", folder / "folds.tsv")
    steps.write_question(*files, "type_0", 0, drawn_from, folder / "question.npz")
    task = run.load_task(folder / "slide.h5ad", folder / "question.npz", "cpu")
    task.settings = config["cellina"] | {"epochs": 1}
    del task.settings["time_limit_minutes"]
    run.fit("cellina_ablated", task, folder / "model", folder / "checkpoint.pt")
    print((folder / "model/history.tsv").read_text())


def shown(stage, folder: Path, *arguments) -> float:
    """Run a stage in a fresh process; print its seconds and peak resident memory, and return the latter in GB."""
    seconds, peak = measured(stage, folder, *arguments)
    print(f"{stage.__name__:>10}  {seconds:7.1f} s  {peak:5.2f} GB peak", flush=True)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=400_000)
    parser.add_argument("--genes", type=int, default=2_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown(simulate, folder, arguments.cells, arguments.genes)
        peak = max(shown(stage, folder) for stage in (prepare, graph, train))
    print(f"largest peak {peak:.2f} GB (limit {LIMIT_GB:g} GB)")
    sys.exit(peak > LIMIT_GB)


if __name__ == "__main__":
    main()
