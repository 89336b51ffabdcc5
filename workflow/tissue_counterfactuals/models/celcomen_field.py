"""Draws from the Gaussian field of `celcomen_gaussian.py`, and its exact counterfactuals.

In the combinations of genes that do not see each other (V'PV = I, V'gV = diag(d)) the field is one scalar field per
combination with precision I - 2 d_a J. Its roots and inverses are functions of J and come from Chebyshev series cut at
rounding: nothing is factorised, nothing of size cells x cells is made.
"""

import numpy as np
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, precision_of
from tissue_counterfactuals.models.celcomen_spectrum import apply_function, bounds, symmetric_part
from tissue_counterfactuals.streams import stream


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
        return self._in_combinations(rng.standard_normal(self.shape), -0.5)

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
