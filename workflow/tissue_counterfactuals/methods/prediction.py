"""What an adapter gives back."""

from dataclasses import dataclass, field

import numpy as np
from anndata import AnnData


@dataclass
class Prediction:
    """Expected counts of m cells.

    Attributes:
        values: (m, g) float32, non-negative, on the scale of counts.
        cells: (m,) indices of the cells that were predicted.
        target_cells: cells to compare with, if not all target cells (the ceiling keeps one half for itself).
        diagnostics: numbers about the prediction that are no scores.
        interval: (2, g) mean CP10K of the predicted population, the limits between which it lies with probability .9.
        abstained: (g,) genes about which the method says that they cannot be known, whatever stands in `values`.
        per_gene: name -> (g,) further numbers about each gene of a prediction with an interval.
        keeps_noise: made of observed counts, so that the values scatter as counts do; others are expected counts.
        dispersion: (g,) a in the variance m + a m^2 of counts about their expectation, where the method models it.
        per_cell: of the genes that change most, `genes` (k,) indices, and of every cell `change` (m, k) of the
            logarithm of its expected share; `half` (m, k), where the method gives it, half the length of its 90 %
            interval.
        attention: whom the cells listen to, of a model that says so: neighbours (m, k) int32, indices of cells and -1
            for none, and weights (m, k, layers) float32, which add up to 1 over the neighbours in each layer.
        genes: names of the columns, from a method that returns them; they must be the slide's, in its order.
    """

    values: np.ndarray
    cells: np.ndarray
    target_cells: np.ndarray | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    interval: np.ndarray | None = None
    abstained: np.ndarray | None = None
    per_gene: dict[str, np.ndarray] = field(default_factory=dict)
    per_cell: dict[str, np.ndarray] = field(default_factory=dict)
    keeps_noise: bool = False
    dispersion: np.ndarray | None = None
    attention: tuple[np.ndarray, np.ndarray] | None = None
    genes: list[str] | None = None

    def check(self, slide: AnnData) -> None:
        """A method that returns nonsense fails here, not as a strange score.

        Raises:
            ValueError: other genes or shape than asked for, negative or non-finite values.
        """
        expected = (len(self.cells), slide.n_vars)
        if np.shape(self.values) != expected:
            raise ValueError(f"the prediction has shape {np.shape(self.values)}, not {expected}")
        if self.genes is not None and list(self.genes) != list(slide.var_names):
            wrong = next(g for g, own in zip(self.genes, slide.var_names, strict=True) if g != own)
            raise ValueError(f"the prediction's genes are not the slide's: {wrong!r} is out of place")
        if not np.isfinite(self.values).all() or self.values.min() < 0:
            raise ValueError("the prediction holds negative or non-finite counts")
        if self.interval is not None:
            shapes = np.shape(self.interval), np.shape(self.abstained)
            if shapes != ((2, slide.n_vars), (slide.n_vars,)):
                raise ValueError(f"the interval and the abstained genes have shapes {shapes}")
            lower, upper = self.interval
            if not (np.isfinite(self.interval).all() and (lower <= upper).all()):
                raise ValueError("the interval holds non-finite limits, or a lower one above its upper")


def at_library(profile: np.ndarray, slide: AnnData, cells: np.ndarray) -> np.ndarray:
    """Scale profiles (m, g) or (g,) to the observed total counts of the cells; float32."""
    library = np.asarray(slide.X[cells].sum(axis=1), dtype=np.float64).reshape(-1, 1)
    profile = np.atleast_2d(profile).astype(np.float64)
    total = profile.sum(axis=1, keepdims=True)
    return (profile / np.maximum(total, 1e-12) * library).astype(np.float32)
