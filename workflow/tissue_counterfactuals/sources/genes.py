"""What a gene is, for every layout: by the type of the feature where it is given, and by its name."""

import re

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.ids import plain_name

GENE_TYPE = "Gene Expression"

# Probes and codewords that mark nothing: MERSCOPE, CosMx, Xenium (all its versions), spike-ins.
_CONTROLS = re.compile(
    r"blank([-_ .]?\d+)?|(neg(ative)?[-_ .]?(control|ctrl|probe|prb|add)|negative|systemcontrol|falsecode).*"
    r"|(unassigned|deprecated)[-_ ]?codeword.*|antisense_.+|intergenic[-_ ]?region.*|ERCC-\d{5}",
    re.IGNORECASE,
)
# Columns about cells that stand among the genes of a table, without capitals and separators.
_COLUMNS = re.compile(
    r"fov|slide|sample|volume|barcodes?|entityid|cell(s|id|area|volume)?"
    r"|(slide|sample|run|tissue|assay)(id|name|idnumeric)|runtissuename|transcriptcounts?"
    r"|(n|num|total|pct|log1p)(counts?|features?|genes?|transcripts?|umis?)\w*"
    r"|(center|centroid|min|max)[xyz]\w*"
)
_NO_SYMBOL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?|\d+")


def are_genes(names: list[str] | np.ndarray | pd.Index, types: list[str] | np.ndarray | None = None) -> np.ndarray:
    """Mask (features,) of those that are genes: not of another type than Gene Expression, no control, no column about
    cells.

    Args:
        types: of each feature, None where the layout gives none; those of a file that knows no Gene Expression are
            left out of account.
    """
    genes = np.array([not (_CONTROLS.fullmatch(n) or _COLUMNS.fullmatch(plain_name(n))) for n in names], dtype=bool)
    if types is not None and (of_type := np.asarray(types) == GENE_TYPE).any():
        genes &= of_type
    return genes


def tell_left_out(names: list[str] | np.ndarray | pd.Index, genes: np.ndarray) -> list[str]:
    """A sentence about the features that `genes` (n,) bool says are no genes, none where there are none."""
    left_out = [str(name) or "a column without a name" for name, gene in zip(names, genes, strict=True) if not gene]
    if not left_out:
        return []
    more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
    return [f"left out because they are no genes: {', '.join(left_out[:8])}{more}"]


def unique_symbols(genes: pd.Index, provenance: dict, where: str) -> pd.Index:
    """Gene symbols, doubles numbered (GENE, GENE-1) and counted in the provenance.

    Raises:
        InputError: most of them are no symbols but Ensembl ids or numbers.
    """
    import anndata.utils

    other = np.array([_NO_SYMBOL.fullmatch(gene) is not None for gene in genes])
    if other.sum() * 2 > len(genes):
        raise InputError(
            f"{where}: the gene names are no symbols but ids like {genes[other.argmax()]!r} ({other.sum():,} of "
            f"{len(genes):,}); use the file as it was published, with symbols as the names of its genes."
        )
    doubled = int(genes.duplicated().sum())
    if not doubled:
        return genes
    provenance["repeated_symbols"] = str(doubled)
    return anndata.utils.make_index_unique(genes)
