"""Filters that every slide goes through before anything is computed on it."""

import numpy as np
import scanpy as sc
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import check_slide, record_filter


def prepare_slide(
    slide: AnnData,
    min_counts_per_cell: int = 3,
    min_counts_per_gene: int = 3,
    n_top_genes: int | None = 2000,
) -> AnnData:
    """Drop empty cells and genes, then keep the most variable genes, in the authors' order of steps.

    First cells by their counts over all genes, then genes by their counts over the kept cells, then the
    `n_top_genes` highly variable genes (Seurat v3 on counts, as run in the authors' code; the paper says only
    "Seurat"), in the order in which they stand. None, or a slide with no more genes than that, keeps all genes.

    Returns:
        A new slide; each filter stands in its provenance with the numbers of cells and genes before and after.
    Raises:
        InputError: nothing is left, or the variable genes cannot be found.
    """
    provenance = dict(slide.uns["provenance"])
    counts = slide.X
    cells = np.asarray(counts.sum(axis=1)).ravel() >= min_counts_per_cell
    # A product with the mask sums over the kept cells without a copy of them.
    genes = counts.T @ cells.astype(np.float64) >= min_counts_per_gene
    n_cells, n_genes = slide.shape
    record_filter(
        provenance,
        f"at least {min_counts_per_cell} counts per cell",
        (n_cells, n_genes),
        (cells.sum(), n_genes),
    )
    record_filter(
        provenance,
        f"at least {min_counts_per_gene} counts per gene",
        (cells.sum(), n_genes),
        (cells.sum(), genes.sum()),
    )
    if not cells.any() or not genes.any():
        raise InputError(
            f"slide {provenance.get('source', '')}: no {'gene' if cells.any() else 'cell'} passes the filters; "
            "lower preprocess.min_counts_per_cell and preprocess.min_counts_per_gene."
        )
    prepared = slide[cells, genes].copy()
    if n_top_genes is not None and n_top_genes < prepared.n_vars:
        variable = _variable_genes(prepared, n_top_genes)
        record_filter(
            provenance,
            f"{n_top_genes} most variable genes",
            prepared.shape,
            (prepared.n_obs, variable.sum()),
        )
        prepared = prepared[:, variable].copy()
    prepared.uns["provenance"] = provenance
    check_slide(prepared, str(provenance.get("source", "")))
    return prepared


def _variable_genes(slide: AnnData, n_top_genes: int) -> np.ndarray:
    """Mask (genes,) of the most variable genes."""
    try:
        table = sc.pp.highly_variable_genes(
            slide, flavor="seurat_v3", n_top_genes=n_top_genes, inplace=False
        )
    except ValueError as error:
        raise InputError(
            f"slide {slide.uns['provenance'].get('source', '')}: the variable genes cannot be found, the fit of "
            f"variance on mean failed ({error}); set preprocess.n_top_genes to null."
        ) from error
    return table["highly_variable"].to_numpy()
