"""What the ids, gene names and coordinates of a published file must be like: faults that a slide would not show."""

import re

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError

_NO_SYMBOL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?|\d+")


def check_ids(ids: pd.Index, where: str) -> None:
    """Refuse cell ids that are not unique: what is matched by them would be matched wrongly.

    Raises:
        InputError: with the first double.
    """
    doubled = ids.duplicated()
    if doubled.any():
        first = ids[doubled.argmax()]
        raise InputError(
            f"{where}: the cell id {first!r} occurs {(ids == first).sum()} times ({doubled.sum()} doubles in all); "
            "use the file as it was published, or make the ids unique."
        )


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


def nearest_distance(coordinates: np.ndarray) -> float:
    """Median distance of the cells (n, 2) to their nearest neighbour, in the unit of the coordinates."""
    from scipy.spatial import cKDTree

    if len(coordinates) < 2:
        return float("nan")
    return float(np.median(cKDTree(coordinates).query(coordinates, k=2)[0][:, 1]))


def check_spacing(
    coordinates_um: np.ndarray, plausible_um: tuple[float, float], unit: str, where: str
) -> None:
    """Refuse coordinates whose unit cannot be the one they were taken for.

    Args:
        plausible_um: smallest and largest median distance to the nearest cell, in micrometres.
        unit: what they were taken for, as the message puts it.
    Raises:
        InputError: cells would lie too close together or too far apart.
    """
    distance = nearest_distance(coordinates_um)
    # Written so that NaN is refused too.
    if not plausible_um[0] <= distance <= plausible_um[1]:
        raise InputError(
            f"{where}: taken for {unit}, the coordinates put the nearest cell {distance:.3g} um away (median), "
            f"which is outside {plausible_um[0]:g} to {plausible_um[1]:g} um; they must be in another unit, use the "
            "file as it was published."
        )
