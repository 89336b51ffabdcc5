"""The largest colorectal slide (120: 741,155 cells x 18,936 genes) from its file to a slide of 2,000 genes.

    PYTHONPATH=workflow python tests/bench/bench_prepare_crc.py                  # full size, some 9 GB of disk
    PYTHONPATH=workflow python tests/bench/bench_prepare_crc.py --genes 947      # a twentieth of the genes

The file is simulated in the published layout, gene by gene, so that writing it takes no memory either; it is not part
of what is measured. How many counts are not 0 is published nowhere that we could read, but the size of the file is:
2,284.5 MB. With gzip and --genes-per-cell 1680 (8.5 % of the counts, 1,600 genes in a cell once some are limited to one
side) ours has about that size; the script prints both.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from fresh_process import measured

LIMIT_GB = 16.0
CELLS, GENES = 741_155, 18_936
PUBLISHED_MB = 2284.5
TYPES = ("epi1", "epi2", "fib1", "EC", "TC", "mye1", "PC_IgA", "SMC")
REGIONS = ("120_REF", "120_CRC1", "120_CRC2")


def simulate(path: Path, cells: int, genes: int, genes_per_cell: float, compression: str) -> None:
    """Write the file; genes differ in how many cells have them and in how much, some by region."""
    rng = np.random.default_rng(0)
    detection = rng.lognormal(0, 1.3, genes)
    # Scaled until the expected number of genes per cell fits, no gene being in more than 95 % of the cells.
    wanted = genes_per_cell * genes / GENES
    for _ in range(50):
        detection = np.minimum(detection * wanted / detection.sum(), 0.95)
    options = {"chunks": (1 << 18,), "maxshape": (None,)}
    if compression != "none":
        options["compression"] = compression
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csc_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = np.array([cells, genes])
        data = x.create_dataset("data", (0,), dtype="f8", **options)
        indices = x.create_dataset("indices", (0,), dtype="i4", **options)
        indptr = np.zeros(genes + 1, dtype=np.int64)
        batch, held = ([], []), 0
        for gene in range(genes):
            rows = _hits(rng, cells, detection[gene])
            if gene % 10 == 0:
                # A gene of one side of the tissue: such are the variable ones.
                rows = rows[(rows < cells // 3) | (rng.random(len(rows)) < 0.3)]
            indptr[gene + 1] = indptr[gene] + len(rows)
            batch[0].append(rows)
            batch[1].append(rng.geometric(1 / (1 + detection[gene] * rng.uniform(0.3, 3)), len(rows)))
            held += len(rows)
            if held > 1 << 23 or gene == genes - 1:
                for dataset, pieces in ((indices, batch[0]), (data, batch[1])):
                    dataset.resize(indptr[gene + 1], axis=0)
                    dataset[indptr[gene + 1] - held :] = np.concatenate(pieces)
                batch, held = ([], []), 0
        x["indptr"] = indptr
        _write_tables(file, rng, cells, genes)


def _hits(rng, n: int, probability: float) -> np.ndarray:
    """Indices below n that each occur with a probability, in time of their number: sums of geometric gaps."""
    expected = n * probability
    gaps = rng.geometric(probability, int(expected + 6 * np.sqrt(expected) + 20))
    places = np.cumsum(gaps) - 1
    return places[places < n]


def _write_tables(file: h5py.File, rng, cells: int, genes: int) -> None:
    obs, var = file.create_group("obs"), file.create_group("var")
    for table, names, prefix in ((obs, cells, "c_1_"), (var, genes, "GENE")):
        table.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        table["_index"] = np.array([f"{prefix}{i}" for i in range(names)], dtype="S")
        table["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        table.attrs["column-order"] = np.array([], dtype="S")
    side = np.sqrt(cells) * 9 / 0.12028
    for axis in "XY":
        obs[f"Center{axis}_global_px"] = rng.uniform(0, side, cells)
    region = np.arange(cells) * len(REGIONS) // cells
    for name, codes, categories in (
        ("ist", rng.integers(-1, len(TYPES), cells), TYPES),
        ("typ", np.where(rng.random(cells) < 0.04, -1, region), REGIONS),
    ):
        column = obs.create_group(name)
        column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        column["codes"] = codes.astype(np.int8)
        column["categories"] = np.array(categories, dtype="S")


def prepare(folder: Path, n_top_genes: int) -> None:
    from tissue_counterfactuals import steps
    from tissue_counterfactuals.config import load_config

    dataset = {
        "source": "cosmx_crc",
        "kind": "simulated",
        "path": str(folder / "120.h5ad"),
        "control_domain": "REF",
        "target_domains": ["CRC"],
        "preprocess": {"n_top_genes": n_top_genes},
    }
    dataset = load_config({"datasets": {"crc": dataset}})["datasets"]["crc"]
    files = {"h5ad": folder / "120.h5ad"}
    steps.prepare(dataset, files, ["120"], folder / "slide.h5ad", folder / "shapes.tsv")
    print((folder / "shapes.tsv").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--genes", type=int, default=GENES)
    parser.add_argument("--genes-per-cell", type=float, default=1680)
    parser.add_argument("--compression", choices=["gzip", "lzf", "none"], default="gzip")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        started = time.perf_counter()
        path = folder / "120.h5ad"
        simulate(
            path,
            arguments.cells,
            arguments.genes,
            arguments.genes_per_cell,
            arguments.compression,
        )
        with h5py.File(path) as file:
            entries = int(file["X/indptr"][-1])
        share = arguments.cells * arguments.genes / (CELLS * GENES)
        size = path.stat().st_size / 1e6
        print(
            f"simulated {arguments.cells:,} cells x {arguments.genes:,} genes in {time.perf_counter() - started:.0f} "
            f"s: {entries:,} counts that are not 0 ({entries / arguments.cells / arguments.genes:.1%}), {size:,.1f} "
            f"MB (published: {PUBLISHED_MB * share:,.1f} MB for this share of the slide)",
            flush=True,
        )
        seconds, peak = measured(prepare, folder, max(2, round(2000 * arguments.genes / GENES)))
        print(f"prepare: {seconds:.1f} s, {peak:.2f} GB peak (limit {LIMIT_GB:g} GB)")
    sys.exit(peak > LIMIT_GB)


if __name__ == "__main__":
    main()
