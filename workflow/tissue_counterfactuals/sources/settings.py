"""How a slide is read and filtered: sections `columns` and `preprocess` of a data set."""

from pydantic import Field

from tissue_counterfactuals.settings import Settings, Text


class ColumnsSettings(Settings):
    """Which columns hold the labels, those of obs or of the file `labels`; bundles of instruments without such a column
    get one label for all cells."""

    cell_type: Text = "cell_type"
    """Column with the cell type; cells without one are dropped and counted."""
    domain: Text = "domain"
    """Column with the tissue domain; cells without one are dropped and counted."""
    sample: Text | None = None
    """Column with the section or sample, no two of which share neighbours; `null` means that the file holds one
    sample. For bundles of instruments it is a column of the file `labels`, and says to which sample a row belongs: each
    of their folders (for `spatialdata`, each region) is one sample, whatever stands here."""


class PreprocessSettings(Settings):
    """Filters, in this order."""

    min_counts_per_cell: int = Field(3, ge=0, le=1_000_000_000)
    """Cells with fewer counts are dropped."""
    min_counts_per_gene: int = Field(3, ge=0, le=1_000_000_000)
    """Genes with fewer counts over the kept cells are dropped."""
    n_top_genes: int | None = Field(2000, ge=2, le=1_000_000)
    """Highly variable genes to keep (Seurat v3, on counts); `null` keeps all."""
