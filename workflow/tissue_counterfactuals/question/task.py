"""What an adapter is handed: the slide, the question about it, and the method's own settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.question.donors import EdgePerturbation
from tissue_counterfactuals.question.folds import Fold, Split
from tissue_counterfactuals.question.nodes import NodePerturbation, alter_counts, alter_log
from tissue_counterfactuals.question.question import Question
from tissue_counterfactuals.slide import log_normalize


@dataclass
class Task:
    """One question to one method.

    Attributes:
        slide: raw counts, n cells x g genes.
        question: who is held out and who trains, whom to move and who stands around them afterwards.
        settings: the method's own section of the configuration.
        device: of training and prediction.
        checkpoint: where a training may leave what it needs to go on after it was killed.
        report: receives lines for the log.
        resumed: where a training goes on from its checkpoint, told the seconds that its epochs have taken so far.
        steps: optimiser steps that every method takes (`budget: equal`), to the nearest epoch; None: as its own
            settings say.
    """

    slide: AnnData
    question: Question
    settings: dict = field(default_factory=dict)
    device: str = "auto"
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    resumed: Callable[[float], None] = lambda seconds: None
    steps: int | None = None

    @property
    def fold(self) -> Fold:
        """The held-out type, the control domain and the targets."""
        return self.question.fold

    @property
    def split(self) -> Split:
        """Who trains, validates and is held out."""
        return self.question.split

    @property
    def switches(self) -> dict[str, str]:
        """Switches of the protocol, name -> value."""
        return self.question.switches

    @property
    def seed(self) -> int:
        """Reaches every draw."""
        return self.question.seed

    def epochs(self, own: int, n_batches: int, stages: int = 1) -> int:
        """Epochs to train with so many batches each: a method's own number, or those nearest to its share of an equal
        budget, one at least.

        Args:
            stages: how many trainings share the budget, one after the other.
        """
        if self.steps is None:
            return own
        epochs = max(1, round(self.steps / stages / n_batches))
        self.report(f"epochs: {epochs} of {n_batches} steps, for a share of {self.steps / stages:g}")
        return epochs

    def patience(self, own: int | None, epochs: int) -> int | None:
        """Epochs without progress that end a training: none do where all methods take the same steps."""
        return own if self.steps is None or own is None else epochs

    @property
    def focal(self) -> np.ndarray:
        """(m,) cells to move: all cells of the held-out type in the control domain."""
        return self.question.focal

    @cached_property
    def answers(self) -> np.ndarray:
        """Mask (n,) of the held-out cells that nobody may read, not even where the question is asked.

        Other cells of a patient who is left out are held out too: nothing is learnt from them, but they stand around
        the focal cells, and the focal cells are among them.
        """
        return self.split.held_out & self.fold.answers(self.slide)

    @cached_property
    def masked_graph(self) -> sparse.csr_array:
        """(n, n) graph of the question without the answers."""
        return self.graph_without_answers()

    def graph_without_answers(self, **settings) -> sparse.csr_array:
        """(n, n) graph in which `answers` are nobody's neighbours and have none.

        Other cells of a patient who is left out keep their neighbours, which are all of the same sample.

        Args:
            settings: of the graph, where they are not those of the question.
        """
        # numba, which an interpreter of a guest that needs no graph may lack.
        from tissue_counterfactuals.graph import slide_graph

        return slide_graph(self.slide, excluded=self.answers, **(self.question.graph | settings))

    def target_cells(self, target: str) -> np.ndarray:
        """The held-out cells that a prediction is compared with."""
        return self.fold.cells(self.slide, target)

    def counterfactuals(self, target: str, predict_one: Callable[[EdgePerturbation], object]) -> dict:
        """One prediction per donor rule; a rule that found too few donors gives its reason instead."""
        return {
            rule: donors if isinstance(donors, str) else predict_one(EdgePerturbation(self.focal, donors))
            for rule, donors in self.question.donors(target).items()
        }

    def altered(self, target: str, predict_one: Callable[[NodePerturbation], object]) -> dict:
        """One prediction per node perturbation; one that cannot be had gives its reason instead."""
        return {
            name: node if isinstance(node, str) else predict_one(node)
            for name, node in self.question.nodes(target).items()
        }

    def altered_log(self, node: NodePerturbation) -> sparse.csr_matrix:
        """log1p(CP10K) (n, g) of all cells after a node perturbation: its change is added, or counts were
        multiplied.
        """
        if node.scale != "counts":
            return alter_log(log_normalize(self.slide.X), self._codes, node, self._keeps_totals)
        counts = self.altered_counts(node)
        # Per 10,000 of what the cell had: a gene that is taken out makes no other larger, unless totals are kept.
        counts.data *= np.repeat(1e4 / self._totals, np.diff(counts.indptr)).astype(np.float32)
        np.log1p(counts.data, out=counts.data)
        return counts

    def altered_counts(self, node: NodePerturbation) -> sparse.csr_matrix:
        """Counts (n, g), fractional ones too, of all cells after a node perturbation: see `altered_log`."""
        if node.scale != "log":
            one_more = self.switches["node_scaling"] == "counts_plus_one"
            return alter_counts(self.slide.X, self._codes, node, one_more, self._keeps_totals)
        values = self.altered_log(node)
        np.expm1(values.data, out=values.data)
        values.data *= np.repeat(self._totals / 1e4, np.diff(values.indptr)).astype(np.float32)
        return values

    @property
    def _keeps_totals(self) -> bool:
        return self.switches["node_renormalization"] == "totals"

    @property
    def _codes(self) -> np.ndarray:
        return self.slide.obs["cell_type"].cat.codes.to_numpy()

    @property
    def _totals(self) -> np.ndarray:
        return np.maximum(np.asarray(self.slide.X.sum(axis=1, dtype=np.float64)).ravel(), 1e-12)
