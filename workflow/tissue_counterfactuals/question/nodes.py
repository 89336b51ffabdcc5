"""Node perturbations as data: what the cells around a focal cell express afterwards. No model is involved.

A node perturbation (Cellina, section 3.3) leaves every edge where it is and alters the expression of neighbours: of
each type's cells by its own change of the natural logarithm, gene by gene. By default all cells of the slide are
altered, as published, among them focal cells where others hear them. What a focal cell itself expresses stays what it
was: a method reads that from the slide and not from what is altered here.

The paper adds the change to log1p(CP10K) for models of log expression (Cellina), and multiplies counts by its
exponential for models of counts (Cellina-GAT). `alter_log` and `alter_counts` do the one and the other; which of them,
and what becomes of a cell's total, is asked of `Task.altered_log` and `Task.altered_counts`.
"""

from dataclasses import dataclass, field

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.streams import stream

# Name of the perturbation -> whether each type has its own change, or all types have that of all cells together.
SHIFTS = {"node": True, "node_global": False}


@dataclass(frozen=True)
class NodePerturbation:
    """Altered expression of the cells around focal cells.

    Attributes:
        shift: (types, g) float32, change of the natural logarithm by type of the altered cell, types in the order of
            the slide's categories, genes those of the question; 0 is none, minus infinity a knock-out.
        cells: (k,) indices of the altered cells; None: all cells.
        scale: on which the change is applied: `own` (that of the method's publication), `log` (log1p of CP10K) or
            `counts`.
        origin: how it was made, for methods that repeat it elsewhere: of a pseudobulk difference `towards` (a domain),
            `n_genes`, `by_type`, times `dose`.
    """

    shift: np.ndarray
    cells: np.ndarray | None = None
    scale: str = "own"
    origin: dict = field(default_factory=dict)


def pseudobulk_shift(
    slide: AnnData,
    control: str,
    target: str,
    held_out: np.ndarray,
    cell_type: str | None = None,
    n_genes: int | None = 200,
    by_type: bool = True,
) -> np.ndarray:
    """Log change of types from one domain to another: log1p(CP10K) of their summed counts, target minus control.

    Args:
        slide: n cells x g genes, counts.
        held_out: (n,) bool, cells that nothing is computed from.
        cell_type: the held-out type; it gets the change of all cells of other types together, as published.
        n_genes: so many genes of each type keep their change, the largest ones; None: all.
        by_type: each type has its own; otherwise all have that of all cells but the held-out type's.

    Returns:
        (types, g) float32; 0 for types that stand in one of the domains only, unless `by_type` is false.

    Raises:
        InputError: no cell is left in one of the domains to compare.
    """
    labels = slide.obs["cell_type"]
    types, code = labels.cat.categories.astype(str), labels.cat.codes.to_numpy()
    domain = slide.obs["domain"].astype(str).to_numpy()
    sums = {}
    for name in (control, target):
        here = (domain == name) & ~np.asarray(held_out)
        pick = sparse.csr_array((here.astype(np.float64), (code, np.arange(len(code)))), (len(types), len(code)))
        sums[name] = (pick @ slide.X).toarray()
    others = types != cell_type

    def change(rows: np.ndarray) -> np.ndarray | None:
        profiles = []
        for name in (target, control):
            total = sums[name][rows].sum(axis=0)
            if total.sum() == 0:
                return None
            profiles.append(np.log1p(total / total.sum() * 1e4))
        return _largest(profiles[0] - profiles[1], n_genes)

    every = change(others)
    if every is None:
        raise InputError(
            f"node perturbation from {control!r} to {target!r}: one of both domains has no counts of types other than "
            f"{cell_type!r} to compare: name other domains."
        )
    shift = np.zeros((len(types), slide.n_vars), dtype=np.float32)
    for number, name in enumerate(types):
        own = every if not by_type or name == cell_type else change(types == name)
        if own is not None:
            shift[number] = own
    return shift


def _largest(change: np.ndarray, n: int | None) -> np.ndarray:
    """The n largest changes; the others are 0."""
    if n is None or n >= len(change):
        return change
    kept = np.argsort(-np.abs(change), kind="stable")[:n]
    few = np.zeros_like(change)
    few[kept] = change[kept]
    return few


def altered_cells(
    who: str,
    share: float,
    seed: int,
    graph: sparse.csr_array,
    focal: np.ndarray,
    *name: str,
    senders: np.ndarray | None = None,
) -> np.ndarray | None:
    """Indices (k,) of the cells that are altered, ascending; None for all.

    Args:
        who: `all` cells of the slide, or only the `neighbors` of focal cells. share: of them, drawn at random.
        graph: (n, n), of all cells. focal: (m,).
        name: tells apart draws of one seed.
        senders: (n,) bool, cells of which the share is drawn; None: all.
    """
    n = graph.shape[0]
    pool = np.unique(graph[focal].indices) if who == "neighbors" else np.arange(n)
    if share < 1:
        pool = pool if senders is None else pool[senders[pool]]
        drawn = stream(seed, "altered_cells", *name)
        pool = np.sort(drawn.choice(pool, round(share * len(pool)), replace=False))
    return None if len(pool) == n else pool


def alter_log(
    values: sparse.csr_matrix, code: np.ndarray, node: NodePerturbation, renormalize: bool = False
) -> sparse.csr_matrix:
    """Add the change to log expression (n, g); nothing falls below 0.

    Args:
        values: log1p(CP10K), CSR. code: (n,) number of each cell's type.
        renormalize: scale every altered row so that its sum stays, as in the authors' code.
    """
    values = sparse.csr_matrix(values)
    changed = values.copy()
    rows = np.arange(values.shape[0]) if node.cells is None else node.cells
    for number, shift in enumerate(node.shift):
        genes, own = np.flatnonzero(shift), rows[code[rows] == number]
        if not len(genes) or not len(own):
            continue
        before = values[own][:, genes].toarray()
        added = np.maximum(before + shift[genes], 0) - before
        index = np.repeat(own, len(genes)), np.tile(genes, len(own))
        changed = changed + sparse.csr_matrix((added.ravel().astype(values.dtype), index), shape=values.shape)
    changed.eliminate_zeros()
    return _with_sums_of(values, changed) if renormalize else changed


def alter_counts(
    counts: sparse.csr_matrix,
    code: np.ndarray,
    node: NodePerturbation,
    one_more: bool = False,
    renormalize: bool = False,
) -> sparse.csr_matrix:
    """Multiply counts (n, g) by the exponential of the change.

    Args:
        counts: CSR. code: (n,) number of each cell's type.
        one_more: multiply counts + 1 and take 1 off again, as in the authors' code, so that a gene that was not seen
            may appear.
        renormalize: scale every altered row so that its total stays, as in the authors' code.
    """
    counts = sparse.csr_matrix(counts, dtype=np.float32)
    if one_more:
        logs = counts.copy()
        np.log1p(logs.data, out=logs.data)
        changed = alter_log(logs, code, node)
        np.expm1(changed.data, out=changed.data)
    else:
        changed = counts.copy()
        altered = np.ones(len(code), dtype=bool)
        if node.cells is not None:
            altered[:] = False
            altered[node.cells] = True
        per_cell = np.diff(counts.indptr)
        factors = np.exp(node.shift)[np.repeat(code, per_cell), counts.indices]
        factors[~np.repeat(altered, per_cell)] = 1
        changed.data *= factors
        changed.eliminate_zeros()
    return _with_sums_of(counts, changed) if renormalize else changed


def _with_sums_of(before: sparse.csr_matrix, after: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of `after` at the sums of `before`; a row that has nothing left stays so."""
    old, new = (np.asarray(x.sum(axis=1, dtype=np.float64)).ravel() for x in (before, after))
    scale = np.divide(old, new, out=np.zeros_like(old), where=new > 0)
    after.data *= np.repeat(scale, np.diff(after.indptr)).astype(after.dtype)
    return after
