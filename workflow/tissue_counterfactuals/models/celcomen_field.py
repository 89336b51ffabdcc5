"""Draws from the Gaussian field of `celcomen_gaussian.py`, and its exact counterfactuals.

In the combinations of genes that do not see each other (V'PV = I, V'gV = diag(d)) the field is one scalar field per
combination with precision I - 2 d_a J. Its roots and inverses are functions of J and come from Chebyshev series cut at
rounding: nothing is factorised, nothing of size cells x cells is made.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, precision_of
from tissue_counterfactuals.models.celcomen_spectrum import apply_function, bounds, symmetric_part
from tissue_counterfactuals.streams import stream

# Up to so many free entries (cells x genes) the conditional is taken from a dense factor, its variance exactly.
_DENSE_UP_TO = 3000


@dataclass(frozen=True)
class Conditional:
    """Expression given clamped entries: mean and variance (n, g) float64; clamped entries have variance 0.

    `variance_from` says how the variance was found: `factor` (exact), `draws` (estimated) or `none` (not asked for,
    and `variance` is None).
    """

    mean: np.ndarray
    variance: np.ndarray | None
    variance_from: str


class GaussianField:
    """The field of given forces on a given graph.

    Args:
        weights: (n, n) sparse J; its symmetric part counts.
        inter, intra: (g, g) symmetric forces; the weight of the norm is `celcomen_gaussian.NORM_WEIGHT`.

    Raises:
        InputError: a bad graph (see `symmetric_part`), forces of the wrong shape, or forces under which the tissue has
            no finite variance on this graph.
    """

    def __init__(self, weights: sparse.sparray, inter: np.ndarray, intra: np.ndarray):
        self.graph = symmetric_part(weights)
        for name, forces in (("inter", inter), ("intra", intra)):
            forces = np.asarray(forces)
            if forces.ndim != 2 or forces.shape != np.shape(intra) or not np.array_equal(forces, forces.T):
                raise InputError(
                    f"field: {name} forces have shape {forces.shape}; give symmetric matrices, genes x genes, of the "
                    "same size for both."
                )
        self.precision, self.inter = precision_of(inter, intra)
        found = diagonalise(self.precision, self.inter)
        self._ends = bounds(self.graph)
        if found is None or (1 - 2 * np.outer(self._ends, found[1])).min() <= 0:
            raise InputError(
                "field: with these forces the tissue has no finite variance on this graph; scale the forces down."
            )
        self._combinations, self._strength = found

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, genes."""
        return self.graph.shape[0], len(self.precision)

    def sample(self, seed: int | np.random.Generator = 0) -> np.ndarray:
        """One draw (n, g) of mean 0: exact up to rounding, for any number of cells."""
        rng = stream(seed, "field_sample") if isinstance(seed, int) else seed
        return self._draw(rng)

    def conditional(
        self,
        values: np.ndarray,
        clamp: np.ndarray,
        mean: np.ndarray | float = 0.0,
        variance: bool = True,
        n_draws: int = 64,
        seed: int = 0,
        tolerance: float = 1e-8,
    ) -> Conditional:
        """Mean and variance of every entry when the clamped ones are held.

        Args:
            values: (n, g) expression; read where clamped.
            clamp: (n, g) bool; a whole cell is a full row.
            mean: (g,) or scalar, what the field varies about (the slide's mean where forces were fitted centred).
            variance: whether to give it: up to 3,000 free entries exactly; beyond, from `n_draws` conditional draws,
                each entry given its neighbours (Rao and Blackwell), so that its relative error is below sqrt(2 /
                n_draws).
            n_draws, seed: of that estimate.
            tolerance: relative residual of the conjugate gradients.

        Raises:
            InputError: shapes that do not fit, or clamped values that are not finite.
        """
        clamp = self._checked_clamp(clamp)
        change = self._checked(values, clamp, "values") - np.where(clamp, mean, 0)
        free = ~clamp
        if variance and 0 < free.sum() <= _DENSE_UP_TO:
            inverse = np.linalg.inv(self.dense()[np.ix_(free.ravel(), free.ravel())])
            response = change.copy()
            response[free] = -inverse @ self._times(change)[free]
            spread = np.zeros(self.shape)
            spread[free] = np.diag(inverse)
            return Conditional(mean + response, spread, "factor")
        response = self._respond(change, clamp, tolerance)
        if not variance:
            return Conditional(mean + response, None, "none")
        spread = self._sampled_variance(clamp, n_draws, seed, tolerance)
        return Conditional(mean + response, spread, "draws")

    def counterfactual(
        self, expression: np.ndarray, values: np.ndarray, clamp: np.ndarray, tolerance: float = 1e-8
    ) -> np.ndarray:
        """This tissue, cell by cell, had the clamped entries held other values: expression plus the field's response.

        Every other entry keeps what the forces do not explain, so that with values as observed the tissue stays as it
        is: the twin without intervention is built in. It does not depend on the mean.

        Args:
            expression: (n, g) as observed.
            values: (n, g); read where clamped.

        Returns:
            (n, g) float64.
        """
        clamp = self._checked_clamp(clamp)
        observed = self._checked(expression, np.ones(self.shape, dtype=bool), "expression")
        change = np.where(clamp, self._checked(values, clamp, "values") - observed, 0)
        return observed + self._respond(change, clamp, tolerance)

    def dense(self) -> np.ndarray:
        """The precision of all entries, (n g, n g), cell by cell; for small tissues and for tests."""
        identity = np.eye(self.shape[0])
        return np.kron(identity, self.precision) - 2 * np.kron(self.graph.toarray(), self.inter)

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        return self._in_combinations(rng.standard_normal(self.shape), -0.5)

    def _in_combinations(self, block: np.ndarray, power: float) -> np.ndarray:
        """Rows are combinations' coefficients; each column through (I - 2 d_a J)^power, back to genes."""
        strength = self._strength
        mixed = apply_function(
            self.graph, lambda j: (1 - 2 * np.multiply.outer(j, strength)) ** power, block, self._ends
        )
        return mixed @ self._combinations.T

    def _times(self, block: np.ndarray) -> np.ndarray:
        """The precision applied to (n, g)."""
        return block @ self.precision - 2 * (self.graph @ block) @ self.inter

    def _solve(self, block: np.ndarray) -> np.ndarray:
        """The covariance applied to (n, g)."""
        return self._in_combinations(block @ self._combinations, -1.0)

    def _respond(self, change: np.ndarray, clamp: np.ndarray, tolerance: float) -> np.ndarray:
        """Clamped entries as given, free ones at their conditional mean about 0.

        Conjugate gradients on the free entries, preconditioned by the covariance without clamps: that differs from the
        inverse sought by as many ranks as entries are clamped, so a few clamps take a few steps.
        """
        free = ~clamp
        result = np.where(clamp, change, 0.0)
        residual = np.where(free, -self._times(result), 0.0)
        target = tolerance * np.linalg.norm(residual)
        if target == 0:
            return result
        rest = np.zeros_like(result)
        direction, product = np.zeros_like(result), 1.0
        for _ in range(1000):
            if np.linalg.norm(residual) <= target:
                return result + rest
            conditioned = np.where(free, self._solve(residual), 0.0)
            last, product = product, (residual * conditioned).sum()
            direction = conditioned + (product / last if direction.any() else 0) * direction
            image = np.where(free, self._times(direction), 0.0)
            size = product / (direction * image).sum()
            rest += size * direction
            residual -= size * image
        raise InputError(
            "field: the conjugate gradients did not converge, the forces are at the border of the model; scale them "
            "down."
        )

    def _sampled_variance(self, clamp, n_draws, seed, tolerance) -> np.ndarray:
        rng = stream(seed, "field_variance")
        own = np.diag(self.precision)
        total = np.zeros(self.shape)
        for _ in range(n_draws):
            # A free draw, corrected so that its clamped entries are 0, is a draw given the clamps.
            draw = self._draw(rng)
            draw = draw - self._respond(np.where(clamp, draw, 0), clamp, tolerance)
            # The mean of an entry given all others; the rest of its variance, 1 / own, is known.
            total += (draw - self._times(draw) / own) ** 2
        return np.where(clamp, 0.0, 1 / own + total / n_draws)

    def _checked_clamp(self, clamp) -> np.ndarray:
        clamp = np.asarray(clamp)
        if clamp.shape != self.shape or clamp.dtype != bool:
            raise InputError(
                f"clamp: it is {clamp.dtype} of shape {clamp.shape}; give true or false for {self.shape[0]} cells x "
                f"{self.shape[1]} genes."
            )
        return clamp

    def _checked(self, values, where, name) -> np.ndarray:
        """Values (n, g) float64 where they are read, 0 elsewhere."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape != self.shape:
            raise InputError(
                f"{name}: the shape is {values.shape}; give {self.shape[0]} cells x {self.shape[1]} genes."
            )
        values = np.where(where, values, 0.0)
        if not np.isfinite(values).all():
            cell, gene = np.argwhere(~np.isfinite(values))[0]
            raise InputError(
                f"{name}: cell number {cell}, gene number {gene} (counted from 0) is {values[cell, gene]}; give finite "
                "values."
            )
        return values
