"""What an intervention changes in a tissue by Celcomen: generation with it, and its twin without.

Generation moves every cell, intervention or not. Its result against its start is therefore mostly that drift; the twin
starts from the same tissue, takes the same steps and is subtracted. What the intervention holds, the twin holds at the
values that were observed: the two differ in these values alone, as they do in the exact counterfactual of the Gaussian
field (`celcomen_field.py`), which generation comes close to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.models.celcomen_generation import EPOCHS, Generation, generate
from tissue_counterfactuals.models.celcomen_interventions import Intervention, intervene
from tissue_counterfactuals.models.celcomen_statistics import scale_cells


@dataclass(frozen=True)
class Counterfactual:
    """A tissue with interventions and without.

    Attributes:
        cells: (m,) rows, in the tissue that was given, of the cells that stand in both.
        effect: (m, g) what the interventions changed in them: with minus without (switch `knockout_effect`
            `against_twin`), or with minus where its own generation started, the interventions already in
            (`against_start`, as run).
        edited: generation with the interventions; its rows are those of `origin`.
        twin: generation without, the entries that the interventions hold held as observed; its rows are those of the
            tissue that was given.
        origin: (n',) row of each cell of `edited` in the tissue that was given, -1 for inserted cells.
    """

    cells: np.ndarray
    effect: np.ndarray
    edited: Generation
    twin: Generation
    origin: np.ndarray


def counterfactual(
    expression: np.ndarray | sparse.csr_array,
    graph: sparse.csr_array,
    inter: np.ndarray,
    intra: np.ndarray,
    interventions: Sequence[Intervention],
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
            after the interventions, as run.
        graph, inter, intra, epochs, learning_rate, protocol, switches: see `generate`.
        interventions: applied in turn, see `perturb_celcomen`.
        twin: of an earlier call with the same tissue and settings in which the same entries were held.
        settings: further arguments of `generate`.
    Raises:
        InputError: see `generate` and the interventions.
    """
    values = protocols.resolve(protocol) | (switches or {})
    tissue = intervene(expression, graph, interventions)
    observed = scale_cells(expression, "l2")
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
        held = np.zeros(observed.shape, dtype=bool)
        kept = tissue.origin >= 0
        held[tissue.origin[kept]] = tissue.clamp[kept]
        twin = generate(observed, graph, inter, intra, clamp=held, **shared)
    edited = generate(
        scale_cells(tissue.expression, "l2"),
        tissue.graph,
        inter,
        intra,
        clamp=tissue.clamp,
        **shared,
    )
    rows = np.flatnonzero(tissue.origin >= 0)
    cells = tissue.origin[rows]
    if values["knockout_effect"] == "against_twin":
        without = twin.expression[cells]
    else:
        without = edited.history[0]["expression"][rows]
    effect = edited.expression[rows] - without
    return Counterfactual(cells, effect, edited, twin, tissue.origin)
