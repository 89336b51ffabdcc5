"""Counts that stand in a CSV with a column for each gene (CosMx, MERSCOPE), made sparse block by block."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import bundles
from tissue_counterfactuals.sources.genes import are_genes, tell_left_out
from tissue_counterfactuals.sources.ids import id_columns, is_unnamed, name_cells
from tissue_counterfactuals.sources.text_tables import column_names, read_matrix

# Cells from which on a column can be proven to be no gene by its values.
_MANY = 20


def read_counts(path: Path) -> bundles.Sample:
    """Counts of the genes, without coordinates yet; columns that are no genes are left unread and recorded.

    Raises:
        InputError: not whole, no ids or genes, values that are no counts, or a column that can be no gene.
    """
    names = column_names(path)
    ids = id_columns(names, path)
    features = [name for name in names if name not in ids]
    mask = are_genes(features) & [not is_unnamed(name) for name in features]
    genes = [name for name, is_gene in zip(features, mask, strict=True) if is_gene]
    if not genes:
        raise InputError(f"file {path}: it has no column of a gene; use the matrix of counts.")
    cells, blocks, n_read = [], [sp.csr_matrix((0, len(genes)), dtype=np.float32)], 0
    for columns, values in read_matrix(path, ids, genes):
        index = name_cells(columns, path)
        block = sp.csr_matrix(values[index.notna()])
        bundles.refuse_fractions(block, index[index.notna()], np.array(genes, dtype=object), path)
        cells.append(index[index.notna()])
        blocks.append(block)
        n_read += len(index)
    index = cells[0].append(cells[1:]) if cells else pd.Index([])
    counts = sp.vstack(blocks, format="csr")
    _refuse_columns(counts, genes, path)
    sample = bundles.Sample(
        counts,
        np.array(genes, dtype=object),
        pd.DataFrame(index=index),
        stored=(n_read, len(features)),
        notes=tell_left_out(features, mask),
    )
    shape = (n_read, len(genes))
    if len(genes) < len(features):
        sample.filters.append(("features that are genes", sample.stored, shape))
    if len(index) < n_read:
        sample.filters.append(("rows that are cells", shape, counts.shape))
    return sample


def _refuse_columns(counts: sp.csr_matrix, genes: list[str], path: Path) -> None:
    """Raise where a column has a value in every cell that no gene has: always the same, or the sum of all others.

    Raises:
        InputError: with the first such column.
    """
    if counts.shape[0] < _MANY:
        return
    totals = counts.sum(axis=1, dtype=np.float64).A1
    everywhere = np.bincount(counts.indices, minlength=len(genes)) == counts.shape[0]
    for column in np.flatnonzero(everywhere):
        values = counts[:, [column]].toarray().ravel()
        same, total = np.ptp(values) == 0, np.array_equal(2 * values.astype(np.float64), totals)
        if same or (total and len(genes) > 2):
            what = f"the value {values[0]:g} in every cell" if same else "the sum of all others"
            raise InputError(
                f"file {path}: the column {genes[column]!r} holds {what}, so that it is no gene; remove it."
            )


def place_cells(
    sample: bundles.Sample, matrix: Path, path: Path, x: str, y: str, unit_um: float, dataset: dict
) -> None:
    """Give cells their coordinates, and what labels there are, from a table of one row per cell.

    Raises:
        InputError: the table is not that of these cells, or a column of the matrix stands in it too.
    """
    for name in column_names(path):
        if name in sample.genes:
            raise InputError(
                f"file {matrix}: its column {name!r} also stands in {path.name}, so that it is about cells and no "
                "gene; remove it from the matrix, or rename it there if it is a gene."
            )
    table = bundles.read_cells(path, dataset, x, y)
    cells, found = bundles.join(sample.cells.index, table, matrix, path, sample.notes, same_cells=True)
    cells[["x", "y"]] *= unit_um
    sample.cells, sample.placed_in = cells, path
    sample.keep_cells(found, f"cells that stand in {path.name}")
