"""Time and peak memory of simulating one large slide and writing it: `python tests/bench/bench_simulate.py`.

Bounds for 400,000 cells x 2,000 genes on 2 cores: 10 minutes and 6 GB; the exit status says whether they were kept.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.slide import write_slide

BOUND_SECONDS, BOUND_GB = 600, 6.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=400_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    start = time.perf_counter()
    slide = simulate_tissue(options.cells, options.genes, n_slides=1, n_threads=options.threads)
    simulated = time.perf_counter()
    after_simulation = _peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.h5ad"
        write_slide(slide, path)
        written = time.perf_counter()
        size_gb = path.stat().st_size / 1e9

    filled = slide.X.nnz / (slide.n_obs * slide.n_vars)
    print(f"slide              {slide.n_obs:,} cells x {slide.n_vars:,} genes, {filled:.1%} non-zero")
    print(f"threads            {options.threads} (machine: {os.cpu_count()} cores)")
    print(f"simulate           {simulated - start:.1f} s, peak {after_simulation:.2f} GB")
    print(f"check and write    {written - simulated:.1f} s, file {size_gb:.2f} GB")
    print(f"total              {written - start:.1f} s (bound {BOUND_SECONDS} s)")
    print(f"peak resident      {_peak_gb():.2f} GB (bound {BOUND_GB:.0f} GB)")
    return int(written - start > BOUND_SECONDS or _peak_gb() > BOUND_GB)


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
