"""The plain model on a tissue that is not ours: SimSpace, in which receptors answer to what neighbours express.

    python -m venv simspace-env && simspace-env/bin/pip install simspace==0.4.2
    PYTHONPATH=workflow python tests/bench/bench_outside_simulator.py --peer-python simspace-env/bin/python

SimSpace places cells in niches by a Gibbs sampler, gives every type a Poisson mean per gene, and multiplies a marker
gene that is paired with another in each cell of its type: by 3 times the mean of the partner over the 20 nearest cells,
relative to all cells, where that is above 1.5, else by 1/3. So only the cells of one type answer to a gene, by a step:
other types say nothing of it, against what the plain model assumes. Every type is left out of the largest other niche
in turn.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

UM_PER_STEP, N_NEAREST, EFFECT, THRESHOLD = 40.0, 20, 3.0, 1.5

# Runs in the environment of the package. The factor is that of its `simSpatialOmics`, which does not return it.
_SIMULATE = """
import sys
import numpy as np
from scipy.spatial import KDTree
from simspace import omics, spatial, util
path, seed, side, genes = sys.argv[1], *map(int, sys.argv[2:5])
nearest, effect, threshold = int(sys.argv[5]), *map(float, sys.argv[6:8])
told = util.generate_random_parameters(n_group=3, n_state=6, seed=seed)
told["density_replicates"] = np.full(6, 0.95)
tissue = util.sim_from_params(told, (side, side), 4, 6, spatial.generate_offsets(3, "manhattan"), 0.2, seed)
cells = tissue.meta.reset_index(drop=True)
kinds = omics.simOmicsMeta(cells, genes, 0.2, (2, 2), (5, 3), 0.8, seed)
base = omics.simOmics(kinds, cells, seed)
counts = omics.simSpatialOmics(base, kinds, cells, nearest, effect, threshold, seed).to_numpy()
places, state, base = cells[["row", "col"]].to_numpy(), cells["state"].astype(int).to_numpy(), base.to_numpy()
near = KDTree(places).query(places, nearest + 1)[1][:, 1:]
mean = kinds[[f"Type_{t}" for t in sorted(set(state))]].to_numpy()[:, state].T
factor = np.ones_like(base)
for gene, (marker, partner) in enumerate(zip(kinds["Marker"], kinds["LRindex"])):
    if marker not in (-1, partner) and partner != -1:
        ratio = base[near, partner].mean(axis=1) / base[:, partner].mean()
        answer = np.where(ratio > threshold, effect * ratio, 1 / effect)
        factor[:, gene] = np.where(state == int(marker), answer, 1)
assert np.allclose(base * factor, counts)
np.savez(path, counts=np.rint(counts), expected=mean * factor, places=places, state=state, niche=cells["niche"])
"""


def simulate(python: str, seed: int, side: int, genes: int):
    """A slide, and the expected counts (cells, genes) by which it was drawn."""
    from tissue_counterfactuals.slide import make_slide

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tissue.npz"
        arguments = [str(x) for x in (path, seed, side, genes, N_NEAREST, EFFECT, THRESHOLD)]
        subprocess.run([python, "-c", _SIMULATE, *arguments], check=True)
        with np.load(path) as file:
            drawn = dict(file)
    labels = pd.DataFrame(
        {
            "cell_type": [f"type_{s}" for s in drawn["state"]],
            "domain": [f"niche_{n}" for n in drawn["niche"]],
            "sample": "slide",
        },
        index=[f"cell_{i}" for i in range(len(drawn["state"]))],
    )
    names = pd.Index([f"gene_{i}" for i in range(genes)])
    counts = sparse.csr_matrix(drawn["counts"].astype(np.float32))
    source = {"source": "SimSpace 0.4.2"}
    slide = make_slide(counts, labels, names, drawn["places"] * UM_PER_STEP, source)
    return slide, drawn["expected"]


def ask_all(slide, expected: np.ndarray, seed: int) -> pd.DataFrame:
    """A row per held-out type: error of three methods, and whether intervals hold observed and true changes."""
    from tissue_counterfactuals import protocols
    from tissue_counterfactuals.config import load_config
    from tissue_counterfactuals.graph import slide_graph
    from tissue_counterfactuals.methods import METHODS, hierarchical
    from tissue_counterfactuals.metrics import Interval
    from tissue_counterfactuals.metrics.fold import FoldScorer
    from tissue_counterfactuals.metrics.populations import mean_expression
    from tissue_counterfactuals.question.folds import Fold, cells_of
    from tissue_counterfactuals.question.question import ask
    from tissue_counterfactuals.question.task import Task

    control, target = slide.obs["domain"].value_counts().index[:2]
    entry = {"source": "simulated", "control_domain": control, "target_domains": [target]}
    config = load_config({"datasets": {"outside": entry}})
    switches = protocols.resolve("corrected")
    graph_of = config["datasets"]["outside"]["graph"]
    graph, rows = slide_graph(slide, **graph_of), []
    for label in slide.obs["cell_type"].cat.categories:
        if min(len(cells_of(slide, label, d)) for d in (control, target)) < 30:
            continue
        fold = Fold(label, control, (target,))
        question = ask(slide, graph, fold, "corrected", seed, switches, graph_of, ("any_type",), 50, 0.1)
        task = Task(slide, question, device="cpu", report=lambda line: None)
        task.settings = {k: v for k, v in config["hierarchical"].items() if k != "time_limit_minutes"}
        with tempfile.TemporaryDirectory() as folder:
            hierarchical.fit(task, Path(folder))
            made = {"hierarchical": hierarchical.predict(task, Path(folder), target)["any_type"]}
        for name in ("no_change", "mean_shift_by_type"):
            made[name] = METHODS[name].adapter.predict(task, None, target)["-"]
        scorer = FoldScorer(task, protocols.of_step(switches, "metrics"), 50)
        there = task.target_cells(target)
        row = {"type": label, "focal": len(task.focal), "target": len(there)}
        for name, prediction in made.items():
            interval = None
            if prediction.interval is not None:
                interval = Interval(*prediction.interval, prediction.abstained)
            found = scorer.score(target, there, prediction.values, interval=interval)
            row[f"rmse_{name}"] = found["rmse_lfc"]
            if interval is not None:
                row |= {"coverage": found["coverage"], "abstained": found["abstained"]}
                base = np.log1p(mean_expression(sparse.csr_array(slide.X[task.focal])))
                low, high = np.log1p(prediction.interval) - base
                true = [np.log1p(mean_expression(expected[c])) for c in (there, task.focal)]
                change = true[0] - true[1]
                inside = (low <= change) & (change <= high)
                answering = np.abs(change) > 0.1
                row["coverage_of_truth"] = inside.mean()
                row["changed"] = answering.sum()
                row["coverage_of_changed"] = inside[answering].mean() if answering.any() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--side", type=int, default=65, help="steps of the grid")
    parser.add_argument("--genes", type=int, default=90)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for seed in options.seeds:
        slide, expected = simulate(options.peer_python, seed, options.side, options.genes)
        print(
            f"seed {seed}: {slide.n_obs:,} cells x {slide.n_vars} genes, {slide.X.sum() / slide.n_obs:.0f} counts a "
            "cell"
        )
        table = ask_all(slide, expected, seed)
        print(table.round(2).to_string(index=False))
        print(table.mean(numeric_only=True).round(3).to_dict(), flush=True)


if __name__ == "__main__":
    main()
