"""Counts that may be too many for memory: read from a file block by block, as often as needed.

A `Counts` is a matrix (cells x genes) of which only sums are taken and parts are loaded. The blocks are scipy
matrices, so what is done with one runs at the speed of its products; peak memory is one block and the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import are_counts, count_fault
from tissue_counterfactuals.sources.columns import open_h5ad
from tissue_counterfactuals.sources.hdf5 import Malformed, attribute, check_indices, check_indptr

# Stored entries read at once (64 MB with their indices), and the longest stretch of unwanted entries that is rather
# read along than skipped.
_BLOCK = 1 << 23
_GAP = 1 << 16

# Rows, columns, and the entries there as a matrix of that shape.
Block = tuple[slice, slice, sp.csr_matrix | sp.csc_matrix]


class Counts:
    """Counts of `cells` (n,) x `genes` (g,), stored with the rows of other cells in between.

    Attributes:
        rows: (stored rows,) bool, which of them are cells of this matrix; their order is that of `cells`.
        where: what messages call the file.
    """

    def __init__(self, cells: pd.Index, genes: pd.Index, rows: np.ndarray, where: str):
        self.cells, self.genes, self.rows, self.where = cells, genes, rows, where
        self.shape = (len(cells), len(genes))


class BlockCounts(Counts, ABC):
    """Counts of one matrix that comes in blocks; a kind of it says how these are read and how large they are."""

    def count_entries(self) -> int:
        """How many stored values all cells and genes have at most; no values are read for it."""
        return self._count_entries(self.rows, np.ones(self.shape[1], dtype=bool))

    def survey(self, genes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Totals of the cells (n,) over some genes, (g,) bool, or all; and the `gene_moments` of all cells.

        Raises:
            InputError: a value is no count; this pass looks at every one, also of other genes.
        """
        everything, weights = np.ones(self.shape[1], dtype=bool), self.rows.astype(np.float64)
        chosen = (everything if genes is None else genes).astype(np.float64)
        totals, sums, squares = np.zeros(len(self.rows)), *np.zeros((2, self.shape[1]))
        for rows, columns, block in self._blocks(self.rows, everything):
            self._check(rows, columns, block)
            values = block.astype(np.float64)
            totals[rows] += values @ chosen[columns]
            sums[columns] += values.T @ weights[rows]
            values.data *= values.data
            squares[columns] += values.T @ weights[rows]
        return totals[self.rows], sums, squares

    def gene_moments(self, cells: np.ndarray, clip: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Sums and sums of squares over some cells, each (g,) float64.

        Args:
            cells: (n,) bool.
            clip: (g,) highest value of each gene, to which higher ones are lowered first; None for no limit.
        """
        weights = self._stored(cells).astype(np.float64)
        sums, squares = np.zeros((2, self.shape[1]))
        for rows, columns, block in self._blocks(weights > 0, np.ones(self.shape[1], dtype=bool)):
            values = block.astype(np.float64)
            if clip is not None:
                np.minimum(values.data, _per_entry(clip[columns], block), out=values.data)
            sums[columns] += values.T @ weights[rows]
            values.data *= values.data
            squares[columns] += values.T @ weights[rows]
        return sums, squares

    def take(self, cells: np.ndarray, genes: np.ndarray) -> sp.csr_matrix:
        """The counts of some cells (n,) bool and genes (g,) bool, CSR float32."""
        wanted = self._stored(cells)
        bound = self._count_entries(wanted, genes)
        # Room for all entries that there can be: what stays empty is never touched and costs no memory.
        data, indices = np.empty(bound, dtype=np.float32), np.empty(bound, dtype=np.int32)
        lengths, end, form = [np.zeros(1, dtype=np.int64)], 0, sp.csr_matrix
        for rows, columns, block in self._blocks(wanted, genes):
            # Blocks span all rows or all columns, so the indices of a part are those of the result.
            part = block[wanted[rows]][:, genes[columns]]
            form = type(part)
            begin, end = end, end + part.nnz
            data[begin:end], indices[begin:end] = part.data, part.indices
            lengths.append(np.diff(part.indptr))
        indptr = np.cumsum(np.concatenate(lengths))
        shape = (int(cells.sum()), int(genes.sum()))
        return form((data[:end], indices[:end], indptr), shape=shape).tocsr()

    @abstractmethod
    def _blocks(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Block]:
        """Blocks that together hold all entries of the wanted stored rows and columns (masks), and maybe others."""

    @abstractmethod
    def _count_entries(self, rows: np.ndarray, columns: np.ndarray) -> int:
        """No fewer than there are in the wanted rows and columns."""

    def _stored(self, cells: np.ndarray) -> np.ndarray:
        stored = np.zeros(len(self.rows), dtype=bool)
        stored[self.rows] = cells
        return stored

    def _check(self, rows: slice, columns: slice, block: sp.csr_matrix | sp.csc_matrix) -> None:
        values = block.data
        good = are_counts(values)
        if good.all():
            return
        entries = block.tocoo()
        bad = ~good & self.rows[rows][entries.row]
        if not bad.any():
            return
        first = np.flatnonzero(bad)[np.lexsort((entries.col[bad], entries.row[bad]))[0]]
        cell = self.cells[np.count_nonzero(self.rows[: rows.start + entries.row[first]])]
        gene = self.genes[columns.start + entries.col[first]]
        raise InputError(f"{self.where}: cell {cell!r}, gene {gene!r} {count_fault(float(entries.data[first]))}.")


class MemoryCounts(BlockCounts):
    """Counts that are in memory already, as CSR."""

    def __init__(self, counts: sp.csr_matrix, cells: pd.Index, genes: pd.Index, where: str):
        super().__init__(cells, genes, np.ones(len(cells), dtype=bool), where)
        self.counts = counts

    def _blocks(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Block]:
        counts = self.counts
        for start, stop in _runs(counts.indptr, rows):
            entries = slice(counts.indptr[start], counts.indptr[stop])
            indptr = counts.indptr[start : stop + 1] - counts.indptr[start]
            block = sp.csr_matrix(
                (counts.data[entries], counts.indices[entries], indptr), shape=(stop - start, self.shape[1])
            )
            yield slice(start, stop), slice(0, self.shape[1]), block

    def _count_entries(self, rows: np.ndarray, columns: np.ndarray) -> int:
        return int(np.diff(self.counts.indptr)[rows].sum())


class FileCounts(BlockCounts):
    """Counts in an h5ad file, in any of its three forms (CSR, CSC, dense).

    Args:
        key: where the matrix is, for example "X" or "raw/X".
    Raises:
        InputError: another form, or another shape than that of the tables.
    """

    def __init__(self, path: str | Path, key: str, cells: pd.Index, genes: pd.Index, rows: np.ndarray, where: str):
        super().__init__(cells, genes, rows, where)
        self.path, self.key = path, key
        with open_h5ad(path) as file:
            matrix = file[key]
            self.kind, stored = _form(matrix, len(rows), len(genes))
            expected = (len(rows), len(genes))
            if self.kind not in ("dense", "csr", "csc") or stored != expected:
                raise InputError(
                    f"{where}: the counts {key} are stored as {self.kind} of shape {stored}, but must be CSR, CSC or "
                    f"dense numbers with {expected[0]} cells x {expected[1]} genes; save the file again."
                )
            if self.kind == "dense":
                self.indptr = np.arange(len(rows) + 1, dtype=np.int64) * len(genes)
            else:
                n_entries = [matrix[part].shape for part in ("data", "indices")]
                if n_entries[0] != n_entries[1] or len(n_entries[0]) != 1:
                    raise Malformed(f"{key} has values {n_entries[0]} and indices {n_entries[1]}")
                n = expected[self.kind == "csc"]
                self.indptr = check_indptr(matrix["indptr"][:], n, n_entries[0][0], f"{key}/indptr")

    def _blocks(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Block]:
        with open_h5ad(self.path) as file:
            matrix = file[self.key]
            for start, stop in _runs(self.indptr, columns if self.kind == "csc" else rows):
                block = self._read(matrix, start, stop)
                if self.kind == "csc":
                    yield slice(0, len(rows)), slice(start, stop), block
                else:
                    yield slice(start, stop), slice(0, len(columns)), block

    def _read(self, matrix: h5py.Group | h5py.Dataset, start: int, stop: int):
        if self.kind == "dense":
            return sp.csr_matrix(matrix[start:stop].astype(np.float32))
        entries = slice(self.indptr[start], self.indptr[stop])
        data = matrix["data"][entries]
        across = len(self.rows) if self.kind == "csc" else self.shape[1]
        parts = (
            data.astype(np.float32, copy=False),
            check_indices(matrix["indices"][entries], across, f"{self.key}/indices"),
            (self.indptr[start : stop + 1] - self.indptr[start]).astype(np.int32),
        )
        if self.kind == "csc":
            block = sp.csc_matrix(parts, shape=(len(self.rows), stop - start))
        else:
            block = sp.csr_matrix(parts, shape=(stop - start, self.shape[1]))
        # Some writers leave an entry in two pieces; squares must be those of the whole.
        block.sum_duplicates()
        return block

    def _count_entries(self, rows: np.ndarray, columns: np.ndarray) -> int:
        return int(np.diff(self.indptr)[columns if self.kind == "csc" else rows].sum())


class StackedCounts(Counts):
    """Counts of several files below each other; genes are matched by their symbols.

    Args:
        parts: each with all of `genes`, in any order and maybe among others.
    """

    def __init__(self, parts: list[Counts], genes: pd.Index, where: str):
        cells = parts[0].cells.append([part.cells for part in parts[1:]])
        super().__init__(cells, genes, np.ones(len(cells), dtype=bool), where)
        self.parts = parts
        self.places = [part.genes.get_indexer(genes) for part in parts]
        self.borders = np.cumsum([0, *(part.shape[0] for part in parts)])

    def _each(self) -> Iterator[tuple[Counts, np.ndarray, slice]]:
        for i, part in enumerate(self.parts):
            yield part, self.places[i], slice(self.borders[i], self.borders[i + 1])

    def count_entries(self) -> int:
        return sum(part.count_entries() for part in self.parts)

    def survey(self, genes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        wanted = self.genes if genes is None else self.genes[genes]
        surveys = [part.survey(part.genes.isin(wanted)) for part in self.parts]
        totals, sums, squares = zip(*surveys, strict=True)
        return (
            np.concatenate(totals),
            *(sum(m[p] for m, p in zip(ms, self.places, strict=True)) for ms in (sums, squares)),
        )

    def gene_moments(self, cells: np.ndarray, clip: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        sums, squares = np.zeros((2, self.shape[1]))
        for part, places, own in self._each():
            limit = None
            if clip is not None:
                limit = np.full(part.shape[1], np.inf)
                limit[places] = clip
            for total, of_part in zip((sums, squares), part.gene_moments(cells[own], limit), strict=True):
                total += of_part[places]
        return sums, squares

    def take(self, cells: np.ndarray, genes: np.ndarray) -> sp.csr_matrix:
        loaded = []
        for part, places, own in self._each():
            wanted = np.zeros(part.shape[1], dtype=bool)
            wanted[places[genes]] = True
            # The part gives its genes in its own order; ranks of the places bring them into ours.
            order = np.argsort(np.argsort(places[genes]))
            loaded.append(part.take(cells[own], wanted)[:, order])
        return sp.vstack(loaded, format="csr")


def _form(matrix: h5py.Group | h5py.Dataset, n: int, g: int) -> tuple[str, tuple[int, ...]]:
    """How a matrix is stored (dense, csr, csc or what it says of itself) and its shape, for n cells and g genes."""
    values = matrix if isinstance(matrix, h5py.Dataset) else matrix.get("data")
    # What is true or false says whether there is a count, and not which.
    if values is None or values.shape is None or values.dtype.kind not in "iuf":
        return f"{getattr(values, 'dtype', 'nothing')}", ()
    if values is matrix:
        return "dense", matrix.shape
    kind = attribute(matrix, "encoding-type", attribute(matrix, "h5sparse_format", "unknown"))[:3]
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    if kind not in ("csr", "csc") and "indptr" in matrix and n != g:
        # Some writers do not say it, but there is only one way in which the places can be meant.
        kind = {n + 1: "csr", g + 1: "csc"}.get(matrix["indptr"].size, kind)
    return kind, (n, g) if shape is None else tuple(int(size) for size in np.ravel(shape))


def _runs(indptr: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows (or columns) that hold the wanted ones, about _BLOCK entries each and one row at least."""
    places = np.flatnonzero(wanted)
    if not len(places):
        return
    # Where the way to the next wanted row is long, a new run begins.
    breaks = np.flatnonzero(indptr[places[1:]] - indptr[places[:-1] + 1] > _GAP)
    for first, last in zip(np.r_[0, breaks + 1], np.r_[breaks, len(places) - 1], strict=True):
        start, end = int(places[first]), int(places[last]) + 1
        while start < end:
            stop = int(np.searchsorted(indptr, indptr[start] + _BLOCK, side="right")) - 1
            stop = max(start + 1, min(stop, end))
            yield start, stop
            start = stop


def _per_entry(values: np.ndarray, block: sp.csr_matrix | sp.csc_matrix) -> np.ndarray:
    """The value of each stored entry's column."""
    if block.format == "csc":
        return np.repeat(values, np.diff(block.indptr))
    return values[block.indices]
