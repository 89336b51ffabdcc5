"""Celcomen: seconds per epoch beside the published package, and how inference grows with the number of cells.

    PYTHONPATH=workflow python tests/bench/bench_celcomen.py --peer-python PATH
    PYTHONPATH=workflow python tests/bench/bench_celcomen.py --peer-python PATH --trial     # small, a minute

PATH is the Python of an environment of its own with tests/peers/celcomen-requirements.txt installed (`make peers`
leaves .venv/celcomen/bin/python). Every measurement runs in a process of its own, on the same simulated cells.

1. Beside the package, 2,500 cells x 500 genes: an epoch of inference (ours includes its share of the sums over cells,
   which are taken once), and an epoch of generation. The package's generation loops over pairs of genes in Python, so
   it is timed at 40, 60 and 80 genes and extrapolated as genes^2, which is kind to it. Bound: 100 times faster.
2. From 1,000 to 400,000 cells x 500 genes: the sums, 200 epochs as run, and the gaussian optimum. Bounds: at the
   largest 5 minutes for sums and epochs and 8 GB at the peak, cells included; epochs take at most 1.5 times those of
   the smallest.

The exit status says whether all bounds were kept.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PEER = Path(__file__).resolve().parents[1] / "peers/run_celcomen.py"
SPEEDUP, SECONDS, GIGABYTES, GROWTH = 100.0, 300.0, 8.0, 1.5
EPOCHS = 200
PEER_GENES, TRIAL_GENES = (40, 60, 80), (10, 15, 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of the environment that has celcomen")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trial", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--genes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options.cells, options.genes)))
        return 0
    cells, genes, large = (600, 80, 20_000) if options.trial else (2500, 500, 400_000)
    print(f"{options.threads} threads (machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})")
    kept = []
    if options.peer_python:
        kept += beside_package(options, cells, genes)
    kept += by_cells(options, [n for n in (1000, 10_000, 100_000, 400_000) if n <= large], genes)
    return int(not all(kept))


# --- the measurements ---


def beside_package(options, cells: int, genes: int) -> list[bool]:
    ours = run_worker("epochs", options, cells, genes)
    theirs = peer_seconds("fit", options, cells, genes)
    print(f"\nOne epoch, {cells:,} cells x {genes} genes")
    kept = [verdict("inference", ours["inference"], theirs)]
    sizes = TRIAL_GENES if options.trial else PEER_GENES
    points = [peer_seconds("generate", options, cells, g) for g in sizes]
    squares = np.square(sizes)
    at_full_size = float(squares @ points / (squares @ squares)) * genes**2
    print(
        "  package's generation: "
        + ", ".join(f"{s:.3f} s at {g} genes" for g, s in zip(sizes, points, strict=True))
        + f"; extrapolated to {genes}"
    )
    kept.append(verdict("generation, angles (as run)", ours["generation_as_run"], at_full_size))
    kept.append(verdict("generation, sphere (corrected)", ours["generation"], at_full_size))
    return kept


def by_cells(options, sizes: list[int], genes: int) -> list[bool]:
    print(f"\nFitting once the sums exist, {genes} genes")
    print(f"  {'cells':>8}  {'sums':>8}  {f'{EPOCHS} epochs':>10}  {'gaussian':>8}   (seconds)")
    found = [run_worker("large", options, cells, genes) for cells in sizes]
    for cells, one in zip(sizes, found, strict=True):
        print(f"  {cells:8,}  {one['sums']:8.2f}  {one['epochs']:10.3f}  {one['gaussian']:8.2f}")
    growth = found[-1]["epochs"] / found[0]["epochs"]
    print(f"  epochs, largest / smallest: {growth:.2f} (bound {GROWTH})")
    return [growth <= GROWTH, *at_size(found[-1], sizes[-1], genes)]


def at_size(found: dict, cells: int, genes: int) -> list[bool]:
    total = found["sums"] + found["epochs"]
    print(f"\n{cells:,} cells x {genes} genes, {found['filled']:.0%} non-zero, 6 neighbours")
    print(f"  weights of the graph            {found['weights']:8.2f} s")
    print(f"  sums over cells                 {found['sums']:8.2f} s")
    print(f"  {EPOCHS} epochs, as run             {found['epochs']:8.2f} s")
    print(f"  sums and epochs                 {total:8.2f} s (bound {SECONDS:.0f})")
    print(f"  peak memory                     {found['gigabytes']:8.2f} GB (bound {GIGABYTES:.0f})")
    print(f"  corrected: sums and spectrum    {found['gaussian_sums']:8.2f} s")
    print(f"  corrected: optimum              {found['gaussian']:8.2f} s")
    print(f"  corrected: its standard errors  {found['gaussian_errors']:8.2f} s")
    print(f"  peak memory with corrected      {found['gigabytes_all']:8.2f} GB")
    return [total <= SECONDS, found["gigabytes"] <= GIGABYTES]


def verdict(name: str, ours: float, theirs: float) -> bool:
    print(
        f"  {name:31s} {1000 * ours:9.3f} ms, package {1000 * theirs:11.1f} ms: {theirs / ours:9,.0f} times "
        f"(bound {SPEEDUP:.0f})"
    )
    return theirs / ours >= SPEEDUP


# --- what runs in a process of its own ---


def run_worker(worker: str, options, cells: int, genes: int) -> dict:
    command = [sys.executable, __file__, "--worker", worker, "--cells", cells, "--genes", genes]
    done = subprocess.run(
        list(map(str, command)),
        env=environment(options),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def environment(options) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(options.threads))


def peer_seconds(task: str, options, cells: int, genes: int) -> float:
    """Seconds per epoch of the package: long run less short run, so that what runs once does not count; best of two."""
    from tissue_counterfactuals.models.celcomen_meanfield import first_forces, project

    expression, graph = simulated(cells, genes)
    short, long = (1, 6) if task == "fit" else (1, 2)
    forces = project(first_forces(genes, "shared", 0)[0], "unit_box").astype(np.float32)
    arrays = {
        "expression_0": positive(expression).astype(np.float32), "edges_0": np.array(graph.nonzero()),
        "inter": forces, "intra": forces, "learning_rate": 1e-3, "seed": 0, "projection": "unit_box",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for epochs in (1, *(short, long) * 2):  # the first warms up
            given = Path(folder) / f"{len(jobs)}.npz"
            np.savez(given, **arrays, epochs=epochs)
            jobs += [task, str(given), f"{given}.out.npz"]
        command = [options.peer_python, PEER, *jobs, "--threads", str(options.threads)]
        done = subprocess.run(command, env=environment(options), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds = [float(np.load(output)["seconds"]) for output in jobs[2::3]]
    return (min(seconds[2::2]) - min(seconds[1::2])) / (long - short)


def simulated(cells: int, genes: int):
    """Scaled sparse cells (CSR float64) and their six nearest neighbours; expression varies in space."""
    from scipy import sparse

    from tissue_counterfactuals.models.celcomen_statistics import scale_cells
    from tissue_counterfactuals.neighbors import knn_graph

    rng = np.random.default_rng(0)
    coords = rng.random((cells, 2)) * 10 * np.sqrt(cells)
    base = 0.02 + rng.gamma(0.5, 0.5, genes)
    phase = rng.random(genes) * 2 * np.pi
    blocks = []
    for start in range(0, cells, 10_000):
        across = coords[start : start + 10_000, :1]
        rates = base * np.exp(np.sin(across / 200 + phase))
        blocks.append(sparse.csr_array(np.log1p(rng.poisson(rates))))
    return scale_cells(sparse.vstack(blocks, format="csr"), "l2"), knn_graph(coords, 6)


def positive(expression) -> np.ndarray:
    """Cells without zeros, on the unit sphere: with zeros the package's angles are not numbers."""
    cells = expression.toarray() + 0.01
    return cells / np.linalg.norm(cells, axis=1, keepdims=True)


def gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(function, repeats: int = 1) -> tuple[float, object]:
    started = time.perf_counter()
    for _ in range(repeats):
        result = function()
    return (time.perf_counter() - started) / repeats, result


def epochs_worker(cells: int, genes: int) -> dict:
    """Seconds per epoch of ours: inference from cells to forces over 200 epochs, generation over 20."""
    from tissue_counterfactuals.models.celcomen import fit_interactions, generate

    expression, graph = simulated(cells, genes)
    slides = [(expression, graph)]
    fit_interactions(slides, "as_run", epochs=1)
    inference, fit = timed(lambda: fit_interactions(slides, "as_run", EPOCHS, 1e-3), 3)
    found = {"inference": inference / EPOCHS}
    dense = positive(expression)
    for name, protocol in (("generation", "corrected"), ("generation_as_run", "as_run")):

        def run(protocol=protocol):
            return generate(dense, graph, fit.inter, fit.intra, epochs=20, protocol=protocol)

        run()
        # What is prepared once counts too, unlike for the package.
        found[name] = timed(run)[0] / 20
    return found


def large_worker(cells: int, genes: int) -> dict:
    from tissue_counterfactuals import protocols
    from tissue_counterfactuals.models.celcomen_gaussian import field_statistics, fit_gaussian
    from tissue_counterfactuals.models.celcomen_meanfield import fit_mean_field
    from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, statistics

    expression, graph = simulated(cells, genes)
    switches = protocols.resolve("as_run")
    found = {"filled": expression.nnz / np.prod(expression.shape)}
    found["weights"], weights = timed(lambda: interaction_weights(graph, "gcn"))
    found["sums"], moments = timed(lambda: statistics(expression, weights))
    fit_mean_field([moments], switches, 1, 1e-3)
    found["epochs"] = min(timed(lambda: fit_mean_field([moments], switches, EPOCHS, 1e-3))[0] for _ in range(3))
    found["gigabytes"] = gigabytes()
    weights = interaction_weights(graph, "symmetric")
    found["gaussian_sums"], observed = timed(lambda: field_statistics([(expression, weights)]))
    # Fewer cells than genes have no optimum without a prior; the same for all sizes.
    found["gaussian"], _ = timed(lambda: fit_gaussian(observed, ridge=0.01, errors=False))
    # There are standard errors without a ridge only, and an optimum then where cells are many.
    found["gaussian_errors"] = float("nan")
    if cells > 5 * genes:
        without, _ = timed(lambda: fit_gaussian(observed, errors=False))
        found["gaussian_errors"] = timed(lambda: fit_gaussian(observed))[0] - without
    found["gigabytes_all"] = gigabytes()
    return found


WORKERS = {"epochs": epochs_worker, "large": large_worker}

if __name__ == "__main__":
    sys.exit(main())
