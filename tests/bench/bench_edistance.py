"""Time of the local energy distance against the broadcast form, which builds the (n, m, dimensions) array.

Both are timed in the same run, in turns, several times, on the same cells, and must agree.
"""

import argparse
import statistics
import time

import numpy as np
from threadpoolctl import threadpool_limits

from tissue_counterfactuals.metrics.populations import N_NEIGHBORS, distances, local_energy


def ours(x, y):
    """Local energy distance as the metrics compute it."""
    return local_energy(distances(x, x), distances(y, y), distances(x, y))


def broadcast(x, y):
    """The same by broadcasting and sorting."""

    def nearest(a, b, skip):
        difference = a[:, None, :] - b[None, :, :]
        sorted_rows = np.sort(np.sqrt((difference**2).sum(axis=2)), axis=1)
        return sorted_rows[:, skip : skip + N_NEIGHBORS].mean()

    return nearest(x, y, 0) + nearest(y, x, 0) - nearest(x, x, 1) - nearest(y, y, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200, help="cells of each population")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[50, 300, 2000])
    parser.add_argument("--subsamples", type=int, default=10, help="distances in one timing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="50 cells in 10 dimensions")
    options = parser.parse_args()
    if options.small:
        options.cells, options.dimensions = 50, [10]

    print(f"{options.subsamples} subsamples of {options.cells} cells, one thread, median of {options.repeats}")
    print(f"{'dimensions':>10} {'ours (ms)':>10} {'broadcast (ms)':>15} {'ratio':>6}")
    rng = np.random.default_rng(0)
    for dimensions in options.dimensions:
        pairs = rng.normal(size=(options.subsamples, 2, options.cells, dimensions))
        milliseconds = {ours: [], broadcast: []}
        with threadpool_limits(1):
            np.testing.assert_allclose(ours(*pairs[0]), broadcast(*pairs[0]), rtol=1e-6, atol=1e-9)
            for _ in range(options.repeats):
                for function, values in milliseconds.items():
                    start = time.perf_counter()
                    for x, y in pairs:
                        function(x, y)
                    values.append(1e3 * (time.perf_counter() - start))
        a, b = (statistics.median(values) for values in milliseconds.values())
        print(f"{dimensions:>10} {a:>10.1f} {b:>15.1f} {b / a:>6.1f}")


if __name__ == "__main__":
    main()
