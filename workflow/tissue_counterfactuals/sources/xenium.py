"""Xenium output bundle: the matrix of its cells, and their centroids in micrometres."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.sources.headers import absent_columns, count_cells

if TYPE_CHECKING:
    from tissue_counterfactuals.sources.bundles import Sample

_PLACES = ("x_centroid", "y_centroid")

absent = partial(absent_columns, role="cells", coordinates=_PLACES)
cells = partial(count_cells, role="matrix")


def read_sample(files: dict[str, Path], dataset: dict) -> "Sample":
    """One bundle: features that are genes, cells joined by id.

    Raises:
        InputError: a file is not whole, or the two do not belong together.
    """
    from tissue_counterfactuals.sources import bundles
    from tissue_counterfactuals.sources.tenx import read_10x

    matrix = read_10x(files["matrix"])
    bundles.refuse_fractions(matrix.counts, matrix.barcodes, matrix.names, files["matrix"])
    path = files["cells"]
    cells = bundles.read_cells(path, dataset, *_PLACES, more=("cell_area",))
    notes: list[str] = []
    cells, found = bundles.join(matrix.barcodes, cells, files["matrix"], path, notes, same_cells=True)
    cells[["x", "y"]] *= dataset.get("unit_um") or 1.0
    sample = bundles.Sample(
        matrix.counts,
        matrix.names,
        cells,
        notes=notes,
        placed_in=path,
        cell_area_um2=float(cells["cell_area"].median()) if "cell_area" in cells else None,
        gene_ids=matrix.ids,
    )
    sample.keep_genes(matrix.types)
    sample.keep_cells(found, f"cells that stand in {path.name}")
    return sample
