"""Modules of genes that vary together over a latent space: local autocorrelation and local correlation.

The statistics are those of Hotspot (DeTomaso and Yosef 2021, doi 10.1016/j.cels.2021.04.005), in sparse matrix
products: its package takes most of a minute to compile before its first gene, and a Python loop over pairs of genes.
Values agree with hotspotsc 1.1.3 (a test).

Under the null, counts of a gene follow a negative binomial whose mean is proportional to the depth of the cell, and
cells that are neighbours in the latent space are not more alike than others.
"""

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from tissue_counterfactuals.gene_sets import benjamini_hochberg

UNASSIGNED = 0
# A sum over pairs of neighbours is far from normal where few cells show a gene: without any structure, p is at most
# .001 in up to 2 of 100 genes of a handful of cells, and Benjamini-Hochberg picks out just these.
FEWEST_CELLS = 50
_BLOCK = 256


def neighbor_weights(latent: np.ndarray, n_neighbors: int = 30) -> sparse.csr_array:
    """(n, n) number of times that two cells name each other among their nearest: 1, or 2 where both do; symmetric."""
    from sklearn.neighbors import NearestNeighbors  # slow to import

    search = NearestNeighbors(n_neighbors=n_neighbors).fit(latent)
    nearest = search.kneighbors(return_distance=False)
    ones = np.ones(nearest.size)
    own = sparse.csr_array(
        (ones, nearest.ravel(), np.arange(0, nearest.size + 1, nearest.shape[1])), (len(latent),) * 2
    )
    return own + own.T.tocsr()


def standardize(counts: sparse.csc_array, depth: np.ndarray) -> np.ndarray:
    """Counts (n, g) as deviations from what the depth (n,) of the cells expects, in standard deviations (n, g) float32.

    The dispersion of a gene is that which explains its variance about that (Andrews and Hemberg 2019).
    """
    values = np.empty(counts.shape, np.float32)
    for start in range(0, counts.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        values[:, block] = _deviations(counts[:, block], depth)
    return values


def _deviations(counts: sparse.csc_array, depth: np.ndarray) -> np.ndarray:
    x = counts.toarray().astype(np.float64)
    n, total = len(x), x.sum(axis=0)
    mean = np.outer(depth, total) / depth.sum()
    excess = n * (x - mean).var(axis=0) - total
    inverse = np.where(excess > 0, excess, 0) / np.maximum((mean**2).sum(axis=0), 1e-300)
    variance = mean + mean**2 * inverse
    return np.divide(x - mean, np.sqrt(variance), out=np.zeros_like(x), where=variance > 0)


def autocorrelation(counts: sparse.spmatrix, weights: sparse.csr_array, genes: pd.Index) -> pd.DataFrame:
    """Of every gene, whether cells that are neighbours have it alike.

    Args:
        counts: (n, g), all genes of the model: their sum is the depth of a cell.
        weights: (n, n) from `neighbor_weights`.

    Returns:
        gene, n_cells that show it, strength (share of the largest possible autocorrelation), z, p_value (one-sided),
        fdr (Benjamini-Hochberg); largest z first. Genes that fewer than FEWEST_CELLS show are not tested: p_value and
        fdr are NaN.
    """
    counts, depth = sparse.csc_array(counts), np.asarray(counts.sum(axis=1), dtype=float).ravel()
    degree = np.asarray(weights.sum(axis=1)).ravel()
    spread = np.sqrt((weights.data**2).sum() / 2)
    z, strength = np.zeros(len(genes)), np.zeros(len(genes))
    for start in range(0, len(genes), _BLOCK):
        block = slice(start, start + _BLOCK)
        values = _deviations(counts[:, block], depth)
        found = (values * (weights @ values)).sum(axis=0) / 2
        most = (degree[:, None] * values**2).sum(axis=0) / 2
        z[block], strength[block] = found / spread, found / np.maximum(most, 1e-300)
    n_cells = np.asarray((counts > 0).sum(axis=0)).ravel()
    p_value = np.where(n_cells >= FEWEST_CELLS, stats.norm.sf(z), np.nan)
    table = pd.DataFrame({"gene": genes, "n_cells": n_cells, "strength": strength, "z": z, "p_value": p_value})
    table["fdr"] = benjamini_hochberg(p_value)
    return table.sort_values(["z", "gene"], ascending=[False, True], ignore_index=True)


def local_correlation(values: np.ndarray, weights: sparse.csr_array) -> np.ndarray:
    """Z scores (g, g) of pairs of genes: whether one is high where the neighbours have the other high.

    Args:
        values: (n, g) of `standardize`. The null holds one gene as it is, either of the two: the smaller score counts.
    """
    n_genes = values.shape[1]
    together, size = np.empty((n_genes, n_genes)), np.empty(n_genes)
    for start in range(0, n_genes, _BLOCK):
        block = slice(start, start + _BLOCK)
        smoothed = weights @ values[:, block]
        together[:, block] = values.T @ smoothed.astype(values.dtype)
        size[block] = np.sqrt((smoothed**2).sum(axis=0))
    z = together / np.maximum(np.maximum.outer(size, size), 1e-300)
    np.fill_diagonal(z, 0)
    return (z + z.T) / 2


def modules(z: np.ndarray, min_genes: int, fdr: float = 0.05) -> np.ndarray:
    """Module (g,) of each gene, 1 for the largest; 0 for genes in none.

    Genes are joined, the most correlated first (mean of the scores), while scores are above those that occur by chance
    (`fdr`). A group of `min_genes` is a module. Two modules are never joined, and what would come to both together is
    left out.
    """
    if len(z) < 2:
        return np.full(len(z), UNASSIGNED)
    pairs = squareform(z, checks=False)
    kept = pairs[stats.false_discovery_control(stats.norm.sf(pairs)) <= fdr]
    lowest = kept.min() if len(kept) else np.inf
    top = pairs.max()
    # Group -> (its genes, its module: a number, None for none yet, UNASSIGNED where two were joined).
    groups = {i: ([i], None) for i in range(len(z))}
    found = np.full(len(z), UNASSIGNED)
    for step, (a, b, distance, _) in enumerate(linkage(top - pairs, "average")):
        (ours, one), (theirs, other) = groups.pop(int(a)), groups.pop(int(b))
        both = ours + theirs
        if top - distance < lowest:
            break
        if one is None and other is None:
            module = found.max() + 1 if len(both) >= min_genes else None
        elif one is None or other is None:
            module = other if one is None else one
        else:
            module = UNASSIGNED
        if module is not None and module != UNASSIGNED:
            found[both] = module
        groups[len(z) + step] = (both, module)
    sizes = np.bincount(found, minlength=found.max() + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(found.max() + 1, dtype=int)
    number[order + 1] = np.arange(1, len(sizes) + 1)
    return number[found]


def module_of_cells(values: np.ndarray, weights: sparse.csr_array, module: np.ndarray) -> np.ndarray:
    """The module (n,) whose genes are highest around each cell, each on its own scale; 0 where there are no modules."""
    labels = [m for m in np.unique(module) if m != UNASSIGNED]
    if not labels:
        return np.full(len(values), UNASSIGNED)
    means = np.column_stack([values[:, module == m].mean(axis=1) for m in labels])
    degree = np.maximum(np.asarray(weights.sum(axis=1)), 1e-300).reshape(-1, 1)
    around = weights @ means / degree
    around = (around - around.mean(axis=0)) / np.maximum(around.std(axis=0), 1e-300)
    return np.array(labels)[around.argmax(axis=1)]
