"""Filters that every slide goes through before anything is computed on it."""

from collections.abc import Callable

import numpy as np
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import VARIABLE, check_slide, check_tables, record_filter
from tissue_counterfactuals.sources.stored import StoredSlide, in_memory


def prepare_slide(
    slide: AnnData | StoredSlide,
    min_counts_per_cell: int = 3,
    min_counts_per_gene: int = 3,
    n_top_genes: int | None = 2000,
    hold_out: Callable[[AnnData], dict[str, np.ndarray]] | None = None,
) -> AnnData:
    """Drop empty cells and genes, then keep the most variable genes, in the authors' order of steps.

    First cells by their counts over all genes, then genes by their counts over the kept cells, then the
    `n_top_genes` highly variable genes (Seurat v3 on counts, as run in the authors' code; the paper says only
    "Seurat"), in the order in which they stand. None, or a slide with no more genes than that, keeps all genes.

    Cells that are to be held out help to choose the genes, as run. With `hold_out` they are chosen without the cells of
    each fold as well; the slide then keeps the genes of all choices, and `var` says which gene is in which (bool):
    `variable_genes` of all cells, `variable_genes_without_NAME` of a fold.

    Where the counts are too many for memory they are gone through in their file, block by block and once for each of
    these steps; only the kept ones are loaded.

    Args:
        hold_out: from the kept cells (their tables only) to the folds: name -> bool mask of its held-out cells.

    Returns:
        A new slide; each filter stands in its provenance with the numbers of cells and genes before and after.
    Raises:
        InputError: nothing is left, a value is no count, or the variable genes cannot be found.
    """
    slide = in_memory(slide) if isinstance(slide, AnnData) else slide.settle()
    frame, counts = slide.frame, slide.counts
    name = str(frame.uns["provenance"].get("source", ""))
    check_tables(frame, name)
    n_cells, n_genes = frame.shape
    totals, sums, squares = counts.survey()
    cells = totals >= min_counts_per_cell
    if not cells.all():
        sums, squares = counts.gene_moments(cells)
    genes = sums >= min_counts_per_gene
    if not cells.any() or not genes.any():
        raise InputError(
            f"slide {name}: no {'gene' if cells.any() else 'cell'} passes the filters; "
            "lower preprocess.min_counts_per_cell and preprocess.min_counts_per_gene."
        )
    choices: dict[str, np.ndarray] = {}
    filters = [
        (f"at least {min_counts_per_cell} counts per cell", n_cells, cells.sum(), n_genes, n_genes),
        (f"at least {min_counts_per_gene} counts per gene", *[cells.sum()] * 2, n_genes, genes.sum()),
    ]
    if n_top_genes is not None and n_top_genes < genes.sum():
        choices[VARIABLE] = _variable_genes(slide, cells, genes, sums, squares, n_top_genes, name)
        for fold, held_out in (hold_out(frame[cells]) if hold_out else {}).items():
            others = cells.copy()
            others[cells] = ~held_out
            moments = counts.gene_moments(others)
            choices[f"{VARIABLE}_without_{fold}"] = _variable_genes(slide, others, genes, *moments, n_top_genes, name)
        variable = np.logical_or.reduce(list(choices.values()))
        text = f"{n_top_genes} most variable genes" + " of each choice" * (len(choices) > 1)
        filters.append((text, *[cells.sum()] * 2, genes.sum(), variable.sum()))
        genes = variable
    prepared = slide.take(cells, genes)
    for choice, chosen in choices.items():
        prepared.var[choice] = chosen[genes]
    for text, cells_before, cells_after, genes_before, genes_after in filters:
        record_filter(prepared.uns["provenance"], text, (cells_before, genes_before), (cells_after, genes_after))
    check_slide(prepared, name)
    return prepared


def _variable_genes(
    slide: StoredSlide,
    cells: np.ndarray,
    genes: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
    n_top_genes: int,
    name: str,
) -> np.ndarray:
    """Mask (all genes,) of the most variable ones of `genes`: Seurat v3 (Stuart et al. 2019), from sums alone.

    A gene's variance is compared with what the trend of log variance over log mean (loess of degree 2 over 30 % of
    the genes) expects: counts are standardised with the expected standard deviation, limited to sqrt(n) of them
    above the mean, and ranked by the variance that they then have.

    Args:
        sums, squares: (all genes,) of the counts of `cells` and of their squares.
    """
    from skmisc.loess import loess

    n = cells.sum()
    if n < 2:
        raise InputError(
            f"slide {name}: only one cell passes the filters, so no gene varies; leave the sample out with `samples`, "
            "or set preprocess.n_top_genes to null."
        )
    mean = sums[genes] / n
    variance = np.maximum(squares[genes] - n * mean**2, 0) / (n - 1)
    varies = variance > 0
    # With fewer points than coefficients of its parabola the loess ends the whole process.
    if varies.sum() < 4:
        raise InputError(
            f"slide {name}: {varies.sum()} genes vary among its {n} cells, too few for a trend of variance over mean; "
            "set preprocess.n_top_genes to null or leave the sample out with `samples`."
        )
    expected = np.zeros(len(mean))
    try:
        trend = loess(np.log10(mean[varies]), np.log10(variance[varies]), span=0.3, degree=2)
        trend.fit()
    except ValueError as error:
        raise InputError(
            f"slide {name}: the variable genes cannot be found, the fit of variance on mean failed ({error}); set "
            "preprocess.n_top_genes to null."
        ) from error
    expected[varies] = trend.outputs.fitted_values
    deviation = np.sqrt(10**expected)
    clip = np.full(len(genes), np.inf)
    clip[genes] = deviation * np.sqrt(n) + mean
    sums, squares = (moment[genes] for moment in slide.counts.gene_moments(cells, clip))
    standardized = (n * mean**2 + squares - 2 * sums * mean) / ((n - 1) * deviation**2)
    # Ranks by the very sorts that scanpy applies, so that ties fall the same way.
    rank = np.argsort(np.argsort(-standardized))
    chosen = np.zeros(len(genes), dtype=bool)
    chosen[np.flatnonzero(genes)[rank < n_top_genes]] = True
    return chosen
