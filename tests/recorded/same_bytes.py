"""Same seed, same bytes? A small Cellina is trained again and again, each time by a process of its own; the record is
same_bytes.tsv.

    python tests/recorded/same_bytes.py --trainings 50 --jobs 2

A row says how many trainings with so many threads ended in which weights (their SHA-256), how far these are from the
first row's at most, and how busy the machine was.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".tsv")


def train(threads: int, weights: Path) -> None:
    """Train as a job of the workflow does, and keep the weights."""
    sys.path.insert(0, str(ROOT / "workflow"))
    from tissue_counterfactuals.jobs import job

    with job(weights.with_suffix(".log"), threads):
        from tissue_counterfactuals.graph import slide_graph
        from tissue_counterfactuals.models.cellina import Cellina
        from tissue_counterfactuals.question.folds import Fold, split_cells
        from tissue_counterfactuals.simulate import simulate_tissue

        slide = simulate_tissue(n_cells=900, n_genes=40, n_slides=1, seed=0)
        split = split_cells(slide, Fold("type_0", "domain_0", ("domain_1",)))
        graph = slide_graph(slide, max_neighbors=20, excluded=split.held_out)
        model = Cellina(n_hidden=16, n_latent=4, epochs=15, batch_size=64, device="cpu").fit(slide, graph, split)
        state = model.network.state_dict()
        np.save(weights, np.concatenate([state[name].double().ravel() for name in sorted(state)]))


def repeated(threads: int, n: int, jobs: int, first: np.ndarray | None) -> tuple[list, np.ndarray]:
    """A row for each set of weights that n trainings ended in, and the first weights of all."""
    with tempfile.TemporaryDirectory() as folder:

        def one(i: int) -> tuple[np.ndarray, float]:
            weights = Path(folder, f"{i}.npy")
            command = [sys.executable, __file__, "--train", weights, "--threads", str(threads)]
            subprocess.run(command, check=True)
            return np.load(weights), os.getloadavg()[0]

        with ThreadPoolExecutor(jobs) as pool:
            found = list(pool.map(one, range(n)))
    first = found[0][0] if first is None else first
    rows = {}
    for weights, load in found:
        digest = hashlib.sha256(weights.tobytes()).hexdigest()
        row = rows.setdefault(digest, {"threads": threads, "weights": digest, "trainings": 0})
        row["trainings"] += 1
        row["largest_difference"] = f"{np.abs(weights - first).max():.1e}"
        row["lowest_load"] = min(row.get("lowest_load", np.inf), round(load, 1))
        row["highest_load"] = max(row.get("highest_load", 0), round(load, 1))
    return list(rows.values()), first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.threads, options.train)
    started = time.monotonic()
    rows, first = repeated(1, options.trainings, options.jobs, None)
    # With two threads a fifth as often.
    rows += repeated(2, max(1, options.trainings // 5), options.jobs, first)[0]
    table = pd.DataFrame(rows)
    table.to_csv(TABLE, sep="\t", index=False)
    print(table.to_string(index=False), f"{time.monotonic() - started:.0f} s", sep="\n")


if __name__ == "__main__":
    main()
