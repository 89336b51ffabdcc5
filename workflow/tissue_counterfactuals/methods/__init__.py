"""The table of methods. Adding a method is one row in `METHODS` and one file with `fit` and `predict`.

An adapter file defines

    fit(task, folder)                      only if the method is learned: train, and leave in `folder` what predict needs
    predict(task, folder, target) -> dict  variant name -> Prediction, or the reason (str) why there is none

and knows nothing of Snakemake, files of slides or scores. Every learned method predicts, beside its counterfactuals,
its own twin `no_intervention`: the same fitted model and focal cells in their own neighbourhood.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.question.donors import EdgePerturbation, edge_perturbation
from tissue_counterfactuals.question.folds import Fold, Split, cells_of


@dataclass(frozen=True)
class Method:
    """One row of the table; `name` is also the name of the adapter file."""

    name: str
    learned: bool
    description: str
    needs_truth: bool = False

    @property
    def adapter(self) -> ModuleType:
        """The adapter, imported only when it is used: others need not be installed."""
        return import_module(f"{__name__}.{self.name}")


METHODS = {
    method.name: method
    for method in (
        Method("no_change", False, "the control cells themselves"),
        Method("mean_shift", False, "one log change of target against all other domains, all types mixed"),
        Method("mean_shift_by_type", False, "mean over other types of their log change, target against control"),
        Method("target_mean", False, "sees the answer: every cell gets the mean profile of the target cells"),
        Method("ceiling", False, "sees the answer: one random half of the target cells against the other"),
        Method("truth", False, "the simulation's exact expectation, given the same donors", needs_truth=True),
        Method("truth_in_place", False, "the simulation's exact expectation of the target cells", needs_truth=True),
        Method("cellina_ablated", True, "Cellina without classifier and adversary"),
        Method("cellina", True, "Cellina, edge perturbation"),
    )
}  # fmt: skip


def applicable(names: list[str], simulated: bool) -> list[Method]:
    """The named methods that a data set can run: the truth is known for simulated tissue only."""
    return [METHODS[name] for name in names if simulated or not METHODS[name].needs_truth]


@dataclass
class Task:
    """One question to a method: a slide, a fold, a protocol and a seed, and all that follows from them.

    Attributes:
        slide: raw counts, n cells x g genes.
        graph: (n, n) graph of all cells.
        fold, split: who is held out and who trains.
        switches: protocol switches, name -> value.
        seed: reaches every draw.
        graph_settings: bandwidth_um, max_neighbors, cutoff.
        settings: the method's own section of the configuration.
        donor_rules, n_donors: of the edge perturbation.
        device: of training and prediction.
        checkpoint: where a training may leave what it needs to go on after it was killed.
        report: receives lines for the log.
    """

    slide: AnnData
    graph: sparse.csr_array
    fold: Fold
    split: Split
    switches: dict[str, str]
    seed: int = 0
    graph_settings: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    donor_rules: tuple[str, ...] = ("published",)
    n_donors: int = 50
    device: str = "auto"
    checkpoint: Path | None = None
    report: Callable[[str], None] = print

    @cached_property
    def masked_graph(self) -> sparse.csr_array:
        """The graph without the held-out cells: they are nobody's neighbours and have none."""
        return slide_graph(self.slide, excluded=self.split.held_out, **self.graph_settings)

    @cached_property
    def focal(self) -> np.ndarray:
        """The cells to move: all cells of the held-out type in the control domain."""
        return cells_of(self.slide, self.fold.cell_type, self.fold.control)

    def target_cells(self, target: str) -> np.ndarray:
        """The held-out cells that the prediction is compared with."""
        return cells_of(self.slide, self.fold.cell_type, target)

    def perturbation(self, rule: str, target: str) -> EdgePerturbation:
        """The same donors for every method under the same rule, protocol and seed."""
        return edge_perturbation(
            self.slide,
            self.graph,
            self.split,
            self.fold.cell_type,
            target,
            self.focal,
            rule,
            restrict_to_domain=self.switches["donor_domain"] == "target_only",
            n_donors=self.n_donors,
            seed=self.seed,
        )

    def counterfactuals(
        self, target: str, predict_one: Callable[[EdgePerturbation], "Prediction"]
    ) -> dict[str, "Prediction | str"]:
        """One prediction per donor rule; a rule that finds too few donors gives its reason instead."""
        predictions = {}
        for rule in self.donor_rules:
            try:
                predictions[rule] = predict_one(self.perturbation(rule, target))
            except InputError as error:
                predictions[rule] = str(error)
        return predictions


@dataclass
class Prediction:
    """Expected counts of m cells.

    Attributes:
        values: (m, g) float32, non-negative, on the scale of counts.
        cells: (m,) indices of the cells that were predicted.
        target_cells: cells to compare with, if not all target cells (the ceiling keeps one half for itself).
        diagnostics: numbers about the prediction that are no scores.
    """

    values: np.ndarray
    cells: np.ndarray
    target_cells: np.ndarray | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)


def at_library(profile: np.ndarray, slide: AnnData, cells: np.ndarray) -> np.ndarray:
    """Scale profiles (m, g) or (g,) to the observed total counts of the cells; float32."""
    library = np.asarray(slide.X[cells].sum(axis=1), dtype=np.float64).reshape(-1, 1)
    profile = np.atleast_2d(profile).astype(np.float64)
    total = profile.sum(axis=1, keepdims=True)
    return (profile / np.maximum(total, 1e-12) * library).astype(np.float32)
