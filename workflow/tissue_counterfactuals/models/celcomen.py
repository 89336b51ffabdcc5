"""Celcomen: forces between genes, within cells and between cells, and the tissue that they make likely.

`fit_interactions` is the inference (CCE), `generate` the generation (SCE). The estimator is a switch: `log_partition:
gaussian` (corrected) has one finite optimum, `paper` and `vmf` are the mean field, whose loss has none.

What of the paper's inference is offered, and how:

- several slides: pooled, one likelihood;
- dissociated cells, alone or beside slides: `dissociated`;
- neighbours of neighbours: any graph is a graph, `neighbors.second_neighbors(graph)` holds these alone; forces of both
  rings at once, each with a matrix of its own, are not offered: their two graphs have no common eigenvectors, on which
  the Gaussian field rests.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.models.celcomen_gaussian import fit_gaussian
from tissue_counterfactuals.models.celcomen_generation import generate
from tissue_counterfactuals.models.celcomen_interactions import Interactions
from tissue_counterfactuals.models.celcomen_meanfield import fit_mean_field
from tissue_counterfactuals.models.celcomen_statistics import (
    checked_expression,
    interaction_weights,
    scale_cells,
    statistics,
)

__all__ = ["Interactions", "fit_interactions", "generate"]

Expression = np.ndarray | sparse.csr_array


def fit_interactions(
    slides: Sequence[tuple[Expression, sparse.csr_array]],
    protocol: str = "corrected",
    epochs: int = 200,
    learning_rate: float = 0.05,
    seed: int = 0,
    dissociated: Sequence[Expression] = (),
    switches: dict[str, str] | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    ridge: float = 0.0,
    errors: bool = True,
) -> Interactions:
    """Forces between genes, fitted to slides.

    Cells are summed up once, in blocks and without making sparse data dense; after that the cost does not depend on
    their number.

    Args:
        slides: for each slide the cells (n, g), dense or sparse, such as log counts, and their graph (n, n), row i
            holding the neighbours of cell i, binary or weighted. Cells are scaled as the switch `scale` says; give
            `switches={"scale": "none"}` for cells that shall be used as they are.
        protocol: `corrected` or `as_run`.
        epochs, learning_rate, start: of the mean field's descent, see `fit_mean_field`; the gaussian optimum is found
            by Newton steps, is one wherever they begin, and needs none of these.
        seed: of the start and the order of slides (mean field), of the spectrum's probes (gaussian).
        dissociated: cells (n, g) without positions, scaled likewise. They have no neighbours, so their likelihood is
            that of the model with no forces between cells, and they inform the forces within cells alone.
        switches: values of the switches of step `inference` that differ from the protocol's.
        ridge, errors: of the gaussian optimum, see `fit_gaussian`: with a ridge the model's moments are 1 / (1 + ridge)
            of those observed, and no longer the paper's constraints. Not read under the switch `ridge: none`.

    Returns:
        Forces with history and diagnostics.

    Raises:
        InputError: bad slides (see `statistics`), an unknown protocol or switch, or slides of different genes.
    """
    values = protocols.chosen(protocol, switches)
    names = [f"slide {place + 1}" for place in range(len(slides))]
    names += [f"dissociated cells {place + 1}" for place in range(len(dissociated))]
    kind = values["interaction_weights"]
    graphs = [interaction_weights(graph, kind, name) for (_, graph), name in zip(slides, names, strict=False)]
    graphs += [None] * len(dissociated)
    cells = [expression for expression, _ in slides] + list(dissociated)
    pairs = [
        (scale_cells(checked_expression(expression, name), values["scale"]), graph)
        for expression, graph, name in zip(cells, graphs, names, strict=True)
    ]
    if values["log_partition"] == "gaussian":
        if values["ridge"] == "none":
            ridge = 0.0
        return fit_gaussian(pairs, centre=values["centre"], ridge=ridge, errors=errors, seed=seed)
    moments = [
        statistics(expression, weights, name=name) for (expression, weights), name in zip(pairs, names, strict=True)
    ]
    return fit_mean_field(moments, values, epochs, learning_rate, seed, start)
