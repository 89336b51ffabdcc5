"""The plain model on one large slide: training and predictions of a fold, time and peak memory, in a process of its
own.

    PYTHONPATH=workflow python tests/bench/bench_hierarchical.py            # 400,000 cells x 2,000 genes
    PYTHONPATH=workflow python tests/bench/bench_hierarchical.py --cells 5000 --genes 300

Simulated tissue; slide and question, with its graph, are written first and are not part of what is measured. The bounds
are kept where the exit status is 0: ten minutes of wall time and 8 GB for the full size, on two cores.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fresh_process import peak_gb, run_alone

from tissue_counterfactuals.config import load_config

LIMIT_S, LIMIT_GB = 600.0, 8.0


def write(folder: Path, cells: int, genes: int) -> None:
    """Slide and question."""
    from tissue_counterfactuals import protocols, steps
    from tissue_counterfactuals.simulate import simulate_tissue
    from tissue_counterfactuals.slide import write_slide

    write_slide(simulate_tissue(n_cells=cells, n_genes=genes, n_slides=1, seed=0), folder / "slide.h5ad")
    entry = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}
    config = load_config({"datasets": {"large": entry}})
    dataset, drawn = config["datasets"]["large"], config["counterfactual"]
    graph = dataset["graph"]
    steps.build_graph(folder / "slide.h5ad", graph, folder / "graph.npz")
    dataset["holdout"]["cell_types"] = ["type_0"]
    steps.write_folds(folder / "slide.h5ad", "large", dataset, folder / "folds.tsv")
    settings = {"protocol": "corrected", "switches": protocols.resolve("corrected"), "graph": graph}
    settings |= drawn | {"donor_rules": ["published"], "validation_fraction": 0.1}
    settings["node"] = drawn["node"] | {"shifts": ["node"]}
    files = (folder / name for name in ("slide.h5ad", "graph.npz", "folds.tsv"))
    steps.write_question(*files, "type_0", 0, settings, folder / "question.npz")


def run(folder: Path) -> None:
    """Fit and predict, as the steps of the workflow do."""
    from tissue_counterfactuals.methods import run

    config = load_config(
        {"datasets": {"large": {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}}}
    )
    settings = {k: v for k, v in config["hierarchical"].items() if k != "time_limit_minutes"}
    began, cpu = time.perf_counter(), time.process_time()
    task = run.load_task(folder / "slide.h5ad", folder / "question.npz", "cpu")
    task.settings = settings
    run.fit("hierarchical", task, folder / "model", folder / "checkpoint.pt")
    fitted = time.perf_counter()
    run.predict({"hierarchical": folder / "model"}, task, folder / "p.h5ad", {"hierarchical": settings})
    end = time.perf_counter()
    peak = peak_gb()
    print(
        f"{task.slide.n_obs:,} cells x {task.slide.n_vars:,} genes, {len(task.focal):,} moved: fit "
        f"{fitted - began:.1f} s, predict {end - fitted:.1f} s, CPU {time.process_time() - cpu:.1f} s, peak "
        f"{peak:.2f} GB"
    )
    status = run.read_status(folder / "model")
    if status["status"] != "ok":
        sys.exit(status["reason"])
    sys.exit(0 if end - began < LIMIT_S and peak < LIMIT_GB else "a bound was not kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=400_000)
    parser.add_argument("--genes", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run_alone(write, Path(name), options.cells, options.genes)
        run_alone(run, Path(name))


if __name__ == "__main__":
    main()
