"""Scores of a fold: what metrics need beside a prediction, from the slide and the question, each part computed once."""

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from tissue_counterfactuals.methods.mean_shift_by_type import mean_profiles
from tissue_counterfactuals.metrics import Counts, Interval, Noise, Reference
from tissue_counterfactuals.metrics.populations import overdispersion

# Noise of a prediction about which nothing is said: its counts are expectations.
UNKNOWN = "unknown"


class FoldScorer:
    """Scores predictions of one fold against observed cells.

    Args:
        task: slide and question.
        switches: of the metrics.
        n_deg: number of differential genes.
    """

    def __init__(self, task, switches: dict[str, str], n_deg: int):
        self.task, self.switches, self.n_deg = task, switches, n_deg
        self._references: dict[bytes, Reference] = {}
        self._shared: dict[str, np.ndarray | None] = {}
        self._dispersion: np.ndarray | None = None

    def reference(self, target_cells: np.ndarray) -> Reference:
        """The focal cells as control, and these cells, indices (k,) in the slide, as target."""
        key = target_cells.tobytes()
        if key not in self._references:
            counts = self.task.slide.X
            self._references[key] = Reference(
                counts[self.task.focal],
                counts[target_cells],
                train=counts[self.task.split.train],
                n_deg=self.n_deg,
                seed=self.task.seed,
                **self.switches,
            )
        return self._references[key]

    def score(
        self,
        target: str,
        target_cells: np.ndarray,
        predicted: Counts,
        noise: Noise | str = UNKNOWN,
        twin: Counts | None = None,
        interval: Interval | None = None,
        truths: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, float]:
        """All metrics whose needs are there, by name; arguments as in `Comparison`, `target_cells` (k,)
        indices in the slide.
        """
        reference = self.reference(target_cells)
        if noise == UNKNOWN:
            noise = Noise(self.dispersion())
        return reference.score(predicted) | reference.unbiased_scores(
            predicted, twin, interval=interval, truths=truths, noise=noise, shared=self.shared(target, reference)
        )

    def dispersion(self) -> np.ndarray:
        """Overdispersion (genes,) of the held-out type's training cells, domain by domain."""
        if self._dispersion is None:
            task = self.task
            own = (task.slide.obs["cell_type"] == task.fold.cell_type).to_numpy() & task.split.train
            domains = task.slide.obs["domain"].cat.codes.to_numpy()
            groups = [np.flatnonzero(own & (domains == code)) for code in np.unique(domains[own])]
            counts = [sparse.csr_array(task.slide.X[group]) for group in groups]
            self._dispersion = overdispersion(counts) if counts else np.zeros(task.slide.n_vars)
        return self._dispersion

    def shared(self, target: str, reference: Reference) -> np.ndarray | None:
        """Mean (genes,) over the other types of their log-fold change from the control domain to the target; None
        without any.
        """
        if target not in self._shared:
            changes = [reference.change(*profiles) for profiles in mean_profiles(self.task, target)]
            self._shared[target] = np.mean(changes, axis=0) if changes else None
        return self._shared[target]
