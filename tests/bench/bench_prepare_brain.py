"""One section of the whole mouse brain (4,000,000 cells in 66 sections) from its file to a slide.

    PYTHONPATH=workflow python tests/bench/bench_prepare_brain.py                 # some 2 GB of disk
    PYTHONPATH=workflow python tests/bench/bench_prepare_brain.py --mixed         # cells of all sections in mixed order
    PYTHONPATH=workflow python tests/bench/bench_prepare_brain.py --cells 200000

The file is simulated in the published layout, block by block, with 60 of 1,120 genes in a cell; writing it is not part
of what is measured. What a section costs must depend on its own size and on the number of cells, not on all counts.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from fresh_process import measured

LIMIT_GB = 4.0
SECTIONS, GENES, GENES_PER_CELL = 66, 1120, 60
TYPES = ("glutamatergic neuron", "oligodendrocyte", "astrocyte", "GABAergic neuron", "endothelial cell")
REGIONS = ("Thalamus", "Isocortex", "Fiber_tracts", "Hypothalamus")


def simulate(path: Path, cells: int, mixed: bool) -> None:
    rng = np.random.default_rng(0)
    section = np.sort(rng.integers(0, SECTIONS, cells))
    if mixed:
        rng.shuffle(section)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("X", "raw/X"):
            x = file.create_group(name)
            x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
            x.attrs["shape"] = np.array([cells, GENES])
        # X, which nobody reads, is left empty.
        empty = {"data": np.empty(0, "f4"), "indices": np.empty(0, "i4"), "indptr": np.zeros(cells + 1, "i8")}
        for name, values in empty.items():
            file["X"][name] = values
        lengths = rng.poisson(GENES_PER_CELL, cells)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        options = {"chunks": (1 << 18,), "compression": "gzip"}
        data = x.create_dataset("data", (indptr[-1],), dtype="f4", **options)
        indices = x.create_dataset("indices", (indptr[-1],), dtype="i4", **options)
        x["indptr"] = indptr
        step = 100_000
        for start in range(0, cells, step):
            stop = min(cells, start + step)
            # Genes in rising order, none twice: sorted draws with one gene more at each further place.
            rows = np.repeat(np.arange(start, stop), lengths[start:stop])
            place = np.arange(len(rows)) + indptr[start] - indptr[rows]
            draws = rng.integers(0, GENES - lengths[start:stop].max(), len(rows))
            order = np.lexsort((draws, rows))
            entries = slice(indptr[start], indptr[stop])
            indices[entries] = draws[order] + place
            data[entries] = rng.geometric(0.4, len(rows))
        _write_tables(file, rng, cells, section)


def _write_tables(file: h5py.File, rng, cells: int, section: np.ndarray) -> None:
    file.create_group("obs"), file.create_group("var"), file.create_group("raw/var")
    for name, rows, prefix in (("obs", cells, "cell-"), ("var", GENES, "ENSMUSG"), ("raw/var", GENES, "ENSMUSG")):
        table = file[name]
        table.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        table["_index"] = np.array([f"{prefix}{i:011d}" for i in range(rows)], dtype="S")
        table["_index"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    file["var/feature_name"] = np.array([f"Gene{i}" for i in range(GENES)], dtype="S")
    names = [f"C57BL6J-2.{i:03d}" for i in range(SECTIONS)]
    for name, codes, categories in (
        ("cell_type", rng.integers(0, len(TYPES), cells), TYPES),
        ("major_brain_region", rng.integers(-1, len(REGIONS), cells), REGIONS),
        ("brain_section_label", section, names),
    ):
        column = file["obs"].create_group(name)
        column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        column["codes"] = codes.astype(np.int8)
        column["categories"] = np.array(categories, dtype="S")
    file.create_group("obsm")["X_spatial_coords"] = rng.uniform(0, 8000, (cells, 2))


def prepare(folder: Path) -> None:
    from tissue_counterfactuals import steps
    from tissue_counterfactuals.config import load_config

    dataset = {
        "source": "merfish_brain",
        "kind": "simulated",
        "path": str(folder / "brain.h5ad"),
        "control_domain": "Thalamus",
        "target_domains": ["Isocortex"],
        "preprocess": {"n_top_genes": 1120},
    }
    dataset = load_config({"datasets": {"brain": dataset}})["datasets"]["brain"]
    files = {"h5ad": folder / "brain.h5ad"}
    steps.prepare(dataset, files, ["C57BL6J-2.039"], folder / "slide.h5ad", folder / "shapes.tsv")
    print((folder / "shapes.tsv").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=4_000_000)
    parser.add_argument("--mixed", action="store_true", help="sections in mixed order")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        started = time.perf_counter()
        simulate(folder / "brain.h5ad", arguments.cells, arguments.mixed)
        size = (folder / "brain.h5ad").stat().st_size / 1e6
        print(
            f"simulated {arguments.cells:,} cells in {SECTIONS} sections, {size:,.0f} MB, in "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
        seconds, peak = measured(prepare, folder)
        print(f"prepare one section: {seconds:.1f} s, {peak:.2f} GB peak (limit {LIMIT_GB:g} GB)")
    sys.exit(peak > LIMIT_GB)


if __name__ == "__main__":
    main()
