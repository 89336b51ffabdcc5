"""Unweighted neighbour graphs, as Celcomen uses them: a fixed number of neighbours, or all within a radius."""

from collections.abc import Callable

import numpy as np
from anndata import AnnData
from scipy import sparse
from scipy.spatial import KDTree

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import checked_coordinates, gaussian_graph, join_samples

# More neighbours than this on average are no contacts, and their graph would fill the memory.
_MOST_CONTACTS = 500


def knn_graph(coords_um: np.ndarray, k: int = 6) -> sparse.csr_array:
    """Each cell's k nearest cells; directed, as run in the authors' code of Celcomen.

    Among cells at exactly the same distance the one that comes first is nearer.

    Args:
        coords_um: (n, 2) positions; any unit, since only the order of distances counts.

    Returns:
        (n, n) float32, row i holding a 1 for each of the k nearest of cell i (never itself).

    Raises:
        InputError: coordinates that are not (n, 2) and finite, or fewer than k + 1 cells.
    """
    coords = checked_coordinates(coords_um)
    if not 1 <= k < len(coords):
        raise InputError(f"graph: {k} neighbours asked for among {len(coords)} cells: give 1 to {len(coords) - 1}.")
    # Weights are not used: no cutoff, and a bandwidth to which no distance is suspiciously small.
    graph = gaussian_graph(coords, bandwidth_um=1e-100, max_neighbors=k, cutoff=0.0)
    graph.data[:] = 1
    return graph


def second_neighbors(graph: sparse.csr_array) -> sparse.csr_array:
    """Pairs of cells two steps apart and not one: neighbours of neighbours, without the neighbours and the cell itself.

    Args:
        graph: (n, n), row i holding the neighbours of cell i; read as present or not.

    Returns:
        (n, n) float32 of ones.
    """
    one = sparse.csr_array(graph) != 0
    two = sparse.csr_array(one.astype(np.int32) @ one.astype(np.int32) != 0)
    two = two.astype(np.float32) - two.multiply(one).astype(np.float32)
    two = sparse.csr_array(two - sparse.diags_array(two.diagonal()))
    two.eliminate_zeros()
    return two


def radius_graph(coords_um: np.ndarray, radius_um: float) -> sparse.csr_array:
    """All pairs of cells at distances 0 < d < radius; symmetric. Cells at one position are no neighbours.

    Args:
        coords_um: (n, 2) positions in micrometres.

    Returns:
        (n, n) float32 of ones; a cell may have no neighbour.

    Raises:
        InputError: coordinates that are not (n, 2) and finite, a radius that is not above 0, no pair within the radius,
            or so many that the unit cannot be right.
    """
    coords = checked_coordinates(coords_um)
    if not 0 < radius_um < np.inf:
        raise InputError(f"graph: radius_um is {radius_um}: give a length above 0.")
    n = len(coords)
    tree = KDTree(coords)
    contacts = tree.count_neighbors(tree, radius_um) / n - 1
    if contacts > _MOST_CONTACTS:
        raise InputError(
            f"coordinates: cells have {contacts:.0f} others within {radius_um:g} um on average, so they are not in "
            "micrometres but perhaps in millimetres: set unit_um, the micrometres in one coordinate unit."
        )
    first, second = tree.query_pairs(radius_um, output_type="ndarray").T
    distance = np.hypot(*(coords[first] - coords[second]).T)
    kept = (distance > 0) & (distance < radius_um)
    if not kept.any():
        raise InputError(
            f"coordinates: no two of {n} cells lie within {radius_um:g} um of each other: set unit_um, the micrometres "
            "in one coordinate unit, or widen the radius."
        )
    rows = np.concatenate([first[kept], second[kept]])
    columns = np.concatenate([second[kept], first[kept]])
    return sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(n, n))


def sample_graph(slide: AnnData, builder: Callable[[np.ndarray], sparse.csr_array]) -> sparse.csr_array:
    """One graph per value of `slide.obs["sample"]`, with no edge between samples.

    Args:
        builder: makes the graph of one sample from its coordinates (n, 2) in micrometres.

    Returns:
        (n, n), rows and columns following the cells of the slide.

    Raises:
        InputError: as the builder, naming the sample.
    """
    coords = checked_coordinates(slide.obsm["spatial"])
    return join_samples(slide.obs["sample"], lambda members: builder(coords[members]))
