"""Counts that stand in a CSV with a column for each gene (CosMx, MERSCOPE), made sparse block by block."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import bundles
from tissue_counterfactuals.sources.text_tables import column_names, read_matrix, read_table


def read_counts(
    path: Path,
    ids: tuple[str, ...],
    no_genes: tuple[str, ...],
    controls: str,
    name_cells: Callable[[pd.DataFrame], pd.Index],
) -> bundles.Sample:
    """Counts of the genes, without coordinates yet; controls are left unread and recorded.

    Args:
        ids: columns that name a cell, `no_genes` all other columns that are no genes.
        controls: pattern of the names of control probes.
        name_cells: from the columns of `ids` to the id of each row, missing for rows that are no cells.
    Raises:
        InputError: not whole, no such columns, or values that are no counts.
    """
    features = [name for name in column_names(path) if name not in (*ids, *no_genes)]
    genes = [name for name in features if not re.match(controls, name)]
    if not genes:
        raise InputError(f"file {path}: it has no column of a gene; use the matrix of counts.")
    names, lengths, indices, data, n_read = [], [], [], [], 0
    for block_ids, values in read_matrix(path, ids, genes):
        cells = name_cells(block_ids)
        block = sp.csr_matrix(values[cells.notna()])
        bundles.refuse_fractions(block, cells[cells.notna()], np.array(genes, dtype=object), path)
        names.append(cells[cells.notna()])
        lengths.append(np.diff(block.indptr))
        indices.append(block.indices)
        data.append(block.data)
        n_read += len(cells)
    index = pd.Index(np.concatenate(names)) if names else pd.Index([])
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([*lengths, []]), dtype=np.int64)])
    # One after the other, so that no more than one of the two exists twice.
    indices = np.concatenate([*indices, np.empty(0, np.int32)])
    data = np.concatenate([*data, np.empty(0, np.float32)])
    counts = sp.csr_matrix((data, indices, indptr), shape=(len(index), len(genes)))
    sample = bundles.Sample(
        counts,
        np.array(genes, dtype=object),
        pd.DataFrame(index=index),
        stored=(n_read, len(features)),
    )
    if len(genes) < len(features):
        sample.filters.append(
            ("genes without control probes", (n_read, len(features)), (n_read, len(genes)))
        )
    if len(index) < n_read:
        sample.filters.append(
            ("rows that are cells", (n_read, len(genes)), (len(index), len(genes)))
        )
    return sample


def place_cells(
    sample: bundles.Sample,
    matrix: Path,
    path: Path,
    ids: tuple[str, ...],
    name_cells: Callable[[pd.DataFrame], pd.Index],
    x: str,
    y: str,
    unit_um: float,
    dataset: dict,
) -> None:
    """Give cells their coordinates, and what labels there are, from a table of one row per cell."""
    present = column_names(path)
    labels = [c for c in (dataset.get("columns") or {}).values() if c in present and c not in ids]
    table = read_table(path, texts=tuple(dict.fromkeys([*ids, *labels])), numbers=(x, y))
    table.index = name_cells(table)
    table = table[table.index.notna()].rename(columns={x: "x", y: "y"})[["x", "y", *labels]]
    cells, found = bundles.join(
        sample.cells.index, table, matrix, path, sample.notes, same_cells=True
    )
    cells[["x", "y"]] *= unit_um
    sample.cells, sample.placed_in = cells, path
    sample.keep_cells(found, f"cells that stand in {path.name}")
