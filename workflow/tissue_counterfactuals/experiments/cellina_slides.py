"""What experiments on Cellina share: a model of a whole slide, of which no type is held out."""

from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.models.settings import under_switches
from tissue_counterfactuals.question.folds import Split
from tissue_counterfactuals.slide import VARIABLE, log_normalize, read_slide
from tissue_counterfactuals.streams import stream

VALIDATION_SHARE = 0.1


def read_inputs(slide: Path, graph: Path) -> tuple[AnnData, sparse.csr_array]:
    """The slide, in its variable genes, and the graph (n, n) of all its cells, CSR float32."""
    cells = read_slide(slide, check=False)
    chosen = cells.var.get(VARIABLE)
    if chosen is not None:
        cells = cells[:, chosen.to_numpy()].copy()
    return cells, sparse.csr_array(sparse.load_npz(graph))


def split_slide(n_cells: int, seed: int, test_share: float = 0.0) -> Split:
    """Random cells for a test, then a tenth of the others for validation; those that are tested are `held_out`."""
    order = stream(seed, "parts_of_slide").permutation(n_cells)
    n_test = round(n_cells * test_share)
    n_validation = max(1, round((n_cells - n_test) * VALIDATION_SHARE))
    parts = np.split(order, [n_test, n_test + n_validation])
    held_out, validation, train = (np.isin(np.arange(n_cells), part) for part in parts)
    return Split(train, validation, held_out)


def fit(
    slide: AnnData, graph: sparse.csr_array, split: Split, model: dict, switches: dict[str, str], seed: int, device: str
) -> Cellina:
    """Cellina trained on a slide; its graph is not masked, so that tested cells are neighbours of others, as run.

    Args:
        graph: (n, n) weights.
        model: section `cellina` of the configuration.
    """
    form = Cellina(device=device, **under_switches(model, switches))
    return form.fit(slide, graph, split, seed=seed, report=print)


def own_features(slide: AnnData, graph: sparse.csr_array, cells: np.ndarray) -> np.ndarray:
    """Neighbourhood features (m, g) of cells where they are."""
    return neighborhood_features(graph[cells], log_normalize(slide.X))
