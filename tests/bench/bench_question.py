"""A user's own question on one large slide: seconds and peak memory of each step, each in a process of its own.

    PYTHONPATH=workflow python tests/bench/bench_question.py                # 400,000 cells x 200 genes
    PYTHONPATH=workflow python tests/bench/bench_question.py --cells 5000

Simulated tissue, which is written first and not measured; all cells of one type in domain_0 are moved to domain_1, and
`hierarchical` answers. The bound is kept where the exit status is 0: 8 GB.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fresh_process import peak_gb, run_alone

from tissue_counterfactuals.config import load_config

LIMIT_GB = 8.0
STEPS = ("graph", "question", "fit", "predict", "answer")


def simulate(folder: Path, cells: int, genes: int) -> None:
    from tissue_counterfactuals.simulate import simulate_tissue
    from tissue_counterfactuals.slide import write_slide

    write_slide(simulate_tissue(n_cells=cells, n_genes=genes, n_slides=1, seed=0), folder / "slide.h5ad")


def measure(folder: Path, step: str) -> None:
    """One step of the workflow."""
    from tissue_counterfactuals import protocols, steps
    from tissue_counterfactuals.methods import run
    from tissue_counterfactuals.results.answer import write_answer

    move = {"name": "q", "cell_type": "type_0", "domain": "domain_0", "move_to": "domain_1"}
    entry = {"source": "simulated", "questions": [move | {"methods": ["hierarchical"]}]}
    config = load_config({"datasets": {"large": entry}})
    dataset = config["datasets"]["large"]
    (asked,), graph = dataset["questions"], dataset["graph"]
    settings = {k: v for k, v in config["hierarchical"].items() if k != "time_limit_minutes"}
    slide, question, model, predictions = (folder / name for name in ("slide.h5ad", "q.npz", "model", "p.h5ad"))
    began, cpu = time.perf_counter(), time.process_time()
    if step == "graph":
        steps.build_graph(slide, graph, folder / "graph.npz")
    elif step == "question":
        drawn = {"protocol": "corrected", "switches": protocols.resolve("corrected"), "graph": graph}
        drawn |= {"n_donors": config["counterfactual"]["n_donors"], "validation_fraction": 0.1}
        steps.write_own_question(slide, folder / "graph.npz", asked, 0, drawn, question)
    elif step == "answer":
        names = {"dataset": "large", "slide": "slide", "kind": "simulated", "label": "Large"}
        outputs = {k: folder / f"{k}.tsv" for k in ("genes", "cells", "sets", "pathways")}
        outputs |= {"text": folder / "answer.md", "figure": folder / "answer.png"}
        write_answer(slide, [question], [predictions], asked, names, outputs)
        print((folder / "answer.md").read_text().split("\n\n")[1])
    else:
        task = run.load_task(slide, question, "cpu")
        task.settings = settings
        if step == "fit":
            run.fit("hierarchical", task, model, folder / "checkpoint.pt")
        else:
            run.predict({"hierarchical": model}, task, predictions, {"hierarchical": settings})
    peak = peak_gb()
    (folder / f"{step}.peak").write_text(str(peak))
    seconds = f"{time.perf_counter() - began:.1f} s, CPU {time.process_time() - cpu:.1f} s"
    print(f"{step}: {seconds}, peak {peak:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=400_000)
    parser.add_argument("--genes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_alone(simulate, folder, options.cells, options.genes)
        for step in STEPS:
            run_alone(measure, folder, step)
        peaks = [float((folder / f"{step}.peak").read_text()) for step in STEPS]
        sys.exit(0 if max(peaks) < LIMIT_GB else "the bound was not kept")


if __name__ == "__main__":
    main()
