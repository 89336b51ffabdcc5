"""What an intervention changes in a tissue by Celcomen: generation with it, and its twin without.

Generation moves every cell, intervention or not. Its result against its start is therefore mostly that drift; the twin
starts from the same tissue, takes the same steps and is subtracted. What the intervention holds, the twin holds at the
values that were observed: the two differ in these values alone, as they do in the exact counterfactual of the Gaussian
field (`celcomen_field.py`). Generation comes to that where cells keep no norm. On the sphere, whose cells share out
among their other genes what they lose of one, it agrees in direction, and in size within a factor of about two over all
genes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.models.celcomen_generation import EPOCHS, Generation, generate, keeps_norm
from tissue_counterfactuals.models.celcomen_interventions import OverExpress, intervene
from tissue_counterfactuals.models.celcomen_statistics import scale_cells


@dataclass(frozen=True)
class Counterfactual:
    """A tissue with interventions and without.

    Attributes:
        effect: (n, g) what the interventions changed: with minus without (switch `knockout_effect` `against_twin`), or
            with minus where its own generation started, the interventions already in (`against_start`, as run).
        edited: generation with the interventions.
        twin: generation without, the entries that the interventions hold held as observed.
    """

    effect: np.ndarray
    edited: Generation
    twin: Generation


def counterfactual(
    expression: np.ndarray | sparse.csr_array,
    graph: sparse.csr_array,
    inter: np.ndarray,
    intra: np.ndarray,
    interventions: Sequence[OverExpress],
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
    protocol: str = "corrected",
    switches: dict[str, str] | None = None,
    twin: Generation | None = None,
    **settings,
) -> Counterfactual:
    """Generate a tissue with interventions, and the same tissue without.

    Args:
        expression: (n, g) cells in the unit that interventions are told in, for example log counts; scaled to norm 1
            after the interventions, as run, where the switches say that cells keep a norm (`keeps_norm`).
        graph, inter, intra, epochs, learning_rate, protocol, switches: see `generate`.
        interventions: applied in turn, see `celcomen_interventions`.
        twin: of an earlier call with the same tissue and settings in which the same entries were held.
        settings: further arguments of `generate`.
    Raises:
        InputError: see `generate` and the interventions.
    """
    values = protocols.chosen(protocol, switches)
    changed, clamp = intervene(expression, interventions)
    unit = "l2" if keeps_norm(values) else "none"
    observed = scale_cells(expression, unit)
    shared = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "protocol": protocol,
        "switches": switches,
        "return_history": True,
        # One for both runs: an intervention must not change what all cells are drawn to.
        "mean": observed.mean(axis=0),
        **settings,
    }
    if twin is None:
        twin = generate(observed, graph, inter, intra, clamp=clamp, **shared)
    edited = generate(scale_cells(changed, unit), graph, inter, intra, clamp=clamp, **shared)
    against_twin = values["knockout_effect"] == "against_twin"
    without = twin.expression if against_twin else edited.history[0]["expression"]
    return Counterfactual(edited.expression - without, edited, twin)
