"""Time of the Gaussian graph against scikit-learn's ball tree, the authors' way (k + 1 neighbours, itself among them).

Both are timed in the same run, in turns, several times; the table shows medians and the ratio to ours. Ours is the
whole graph (search, weights, cutoff, CSR); the ball tree is timed for its search alone and for the whole graph.
"""

import argparse
import statistics
import time

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from tissue_counterfactuals.graph import gaussian_graph

SPACING_UM = 10.0
BANDWIDTH_UM = 100.0
CUTOFF = 0.1


def ball_tree_search(coords, k, n_jobs):
    """Distances and numbers of the k + 1 nearest cells."""
    return NearestNeighbors(n_neighbors=k + 1, algorithm="ball_tree", n_jobs=n_jobs).fit(coords).kneighbors(coords)


def ball_tree_graph(coords, k, n_jobs):
    """The same graph as ours."""
    distance, neighbor = ball_tree_search(coords, k, n_jobs)
    n = len(coords)
    weight = np.exp(-(distance**2) / (2 * BANDWIDTH_UM**2)).astype(np.float32)
    weight[weight <= CUTOFF] = 0
    indptr = np.arange(0, n * (k + 1) + 1, k + 1)
    graph = sparse.csr_array((weight.ravel(), neighbor.ravel(), indptr), shape=(n, n))
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--neighbors", type=int, default=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="2,000 cells and 50 neighbours")
    options = parser.parse_args()
    if options.small:
        options.cells, options.neighbors = [2000], 50
    k = options.neighbors

    print(f"uniform cells, one per {SPACING_UM:g} x {SPACING_UM:g} um, k = {k}, median of {options.repeats}")
    print(f"{'cells':>9} {'threads':>7} {'what':<24} {'seconds':>8} {'ratio':>6}")
    for n in options.cells:
        coords = np.random.default_rng(0).random((n, 2)) * np.sqrt(n) * SPACING_UM
        # Compiles our kernels as well.
        sample = coords[:2000]
        ours, theirs = gaussian_graph(sample, BANDWIDTH_UM, k, CUTOFF), ball_tree_graph(sample, k, 1)
        assert np.array_equal(ours.indices, theirs.indices)
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-5)
        for threads in options.threads:
            runs = {
                "ours": (gaussian_graph, coords, BANDWIDTH_UM, k, CUTOFF, None, threads),
                "ball tree, search only": (ball_tree_search, coords, k, threads),
                "ball tree, whole graph": (ball_tree_graph, coords, k, threads),
            }
            seconds = {name: [] for name in runs}
            for _ in range(options.repeats):
                for name, run in runs.items():
                    seconds[name].append(timed(*run))
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            for name, value in medians.items():
                ratio = value / medians["ours"]
                print(f"{n:>9,} {threads:>7} {name:<24} {value:>8.2f} {ratio:>6.1f}")


if __name__ == "__main__":
    main()
