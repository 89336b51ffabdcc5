"""Celcomen's generation: the most likely tissue under fixed forces, from where a tissue stands.

Cells are points on the unit sphere of gene space. Up to a constant their log likelihood is the energy

    E(X) = sum_i s_i' intra s_i + sum_ij J_ij s_i' inter s_j                      (equation 17 of the paper)

and generation climbs it (appendix H) while chosen entries are held. As run in the authors' code, steps are taken in
nested angles (`celcomen_chart.py`), and log Z varies with the mean of the generated cells.

On the sphere a step takes every cell s_i to (G_i + c s_i) / |G_i + c s_i|, G the gradient of E. That maximises a lower
bound of E which touches it at X, provided that E + c |X|^2 / 2 is convex, so no such step can lower E. The smallest
safe c follows from the eigenvalues of the forces and of J; a learning rate is 1 / c.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_chart as chart
from tissue_counterfactuals.models.celcomen_meanfield import log_sphere
from tissue_counterfactuals.models.celcomen_spectrum import bounds, symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.streams import stream

# Epochs, learning rate and snapshots of the authors' run on glioblastoma.
EPOCHS = 50
ANGLE_LEARNING_RATE = 1e-3
SNAPSHOT_EVERY = 5
# A cell whose norm is this near to 1 is taken as it comes: which cells collapse as run hangs on their last bits.
_UNIT = 1e-5

Recorder = Callable[[int, np.ndarray, np.ndarray], None]


class Generation(NamedTuple):
    """A generated tissue and how it came about.

    Attributes:
        expression: (n, g) cells.
        history: one dict per epoch, about the tissue before that epoch's step, and on the sphere one more about the
            result: `epoch`; `loss`, the negative log likelihood up to a constant; `collapsed_cells`, the number of
            cells without any expression; `negative_fraction`, the share of negative entries; `constant_genes`, the
            number of genes that are the same in all cells; now and then `expression`, the tissue (n, g) itself.
    """

    expression: np.ndarray
    history: list[dict]


@dataclass(frozen=True)
class Field:
    """Fixed forces on tissues that share a graph; see `build_field`.

    Attributes:
        weights: (n, n) CSR, (J + J') / 2, in the dtype to compute in.
        inter, intra: (tissues, g, g) symmetric, same dtype, as they weigh in the energy.
        mean_field: (tissues, g, g) float64, A = q inter + 2 intra of equation 49; None for a frozen log Z.
        dimensions: of the sphere that log Z integrates over, see `log_sphere`.
    """

    weights: sparse.csr_array
    inter: np.ndarray
    intra: np.ndarray
    mean_field: np.ndarray | None
    dimensions: int = 3

    def loss_and_gradient(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For cells (tissues, n, g): negative log likelihood (tissues,) float64 up to a constant, and its gradient."""
        pull = cells @ self.intra
        pull += self._around(cells) @ self.inter
        loss = -np.einsum("tng,tng->tn", cells, pull).sum(axis=1, dtype=np.float64)
        pull *= -2
        if self.mean_field is not None:
            mean = cells.mean(axis=1, dtype=np.float64)
            log_z, by_mean = _log_partition(mean, self.mean_field, self.dimensions)
            loss += cells.shape[1] * log_z
            pull += by_mean[:, None, :].astype(cells.dtype)
        return loss, pull

    def curvature(self) -> float:
        """An upper bound of the loss's curvature in any direction; steps of up to its inverse are safe."""
        inter, intra = self.inter.astype(np.float64), self.intra.astype(np.float64)
        # The least eigenvalue of intra + j inter is concave in j, so it is least at an end of the spectrum of J.
        ends = bounds(self.weights.astype(np.float64))
        largest = -2 * min(np.linalg.eigvalsh(intra + j * inter).min() for j in ends)
        if self.mean_field is not None:
            values = np.linalg.eigvalsh(self.mean_field)
            # The slope of `log_sphere` at kappa is at most kappa / dimensions, its curvature 1 / dimensions.
            largest += max(-values.min(), 0) + (values**2).max() / self.dimensions
        return max(float(largest), 0.0)

    def _around(self, cells: np.ndarray) -> np.ndarray:
        """What stands around each cell, summed as J weighs it."""
        tissues, n, g = cells.shape
        side_by_side = np.ascontiguousarray(cells.transpose(1, 0, 2)).reshape(n, tissues * g)
        return (self.weights @ side_by_side).reshape(n, tissues, g).transpose(1, 0, 2)


def generate(
    expression: np.ndarray | sparse.csr_array | None,
    graph: sparse.csr_array,
    inter: np.ndarray,
    intra: np.ndarray,
    clamp: np.ndarray | sparse.csr_array | None = None,
    epochs: int = EPOCHS,
    learning_rate: float | None = None,
    protocol: str = "corrected",
    seed: int = 0,
    return_history: bool = False,
    switches: dict[str, str] | None = None,
    dtype: str | None = None,
    snapshot_every: int | None = None,
) -> np.ndarray | Generation:
    """Climb from a tissue towards the most likely one under fixed forces.

    Nothing is drawn at random but a tissue that starts as noise, so runs that differ in one entry can be subtracted.

    Args:
        expression: (n, g) cells, dense or sparse, put on the unit sphere if they are not; None starts from noise. A
            cell without expression (that is not held) starts in the direction that its neighbours pull it to.
        graph: (n, n) adjacency; weighed by the switch `interaction_weights`, as in inference.
        inter, intra: (g, g) symmetric forces.
        clamp: (n, g) bool; True holds an entry at its value in `expression` while the rest of the cell keeps the norm
            at 1; a row of True holds a cell as it is. Not read where the switch `knocked_out_gene` is `free`.
        epochs: steps. As run, the tissue before the last step is returned.
        learning_rate: of the steps; default: 0.001 in angles, as run, and the largest safe one on the sphere, where a
            larger one is cut to it, so that the likelihood never falls.
        seed: of the noise.
        return_history: return a `Generation` instead of the cells alone.
        switches: values of switches that shall differ from the protocol's.
        dtype: `float32` or `float64` to compute and return; default: float32 in angles, as run, else float64.
        snapshot_every: epochs between snapshots in the history; default: 5 in angles, a tenth of `epochs` else.
    Returns:
        (n, g) cells, or a `Generation`.
    Raises:
        InputError: matrices whose shapes do not go together, forces that are not symmetric or not finite, expression
            that is not finite, held entries of a norm above 1, a graph without edges, an unknown protocol; in angles,
            a cell without expression.
    """
    values = protocols.resolve(protocol) | (switches or {})
    protocols.resolve("corrected", switches)  # refuses unknown names and values
    in_angles = values["chart"] == "angles"
    if epochs < 1 or not (learning_rate is None or learning_rate > 0):
        raise InputError(
            f"generation: epochs is {epochs} and learning_rate is {learning_rate}; give both above 0."
        )
    dtype = np.dtype(dtype or ("float32" if in_angles else "float64"))
    field = build_field(graph, inter, intra, values, dtype)
    n, g = field.weights.shape[0], field.inter.shape[-1]
    if values["knocked_out_gene"] == "free":
        clamp = None
    if snapshot_every is None:
        snapshot_every = SNAPSHOT_EVERY if in_angles else max(epochs // 10, 1)
    history = []

    def record(epoch: int, cells: np.ndarray, loss: np.ndarray) -> None:
        if return_history:
            history.append({"epoch": epoch, "loss": float(loss[0]), **diagnose(cells[0])})
            if epoch % snapshot_every == 0 and (in_angles or epoch < epochs):
                history[-1]["expression"] = cells[0].copy()

    held, start = _starting_point(expression, clamp, (n, g), dtype)
    if in_angles:
        if start is None:
            angles = noise_angles(n, g, seed).astype(dtype)
        elif (empty := ~start.any(axis=1)).any():
            raise InputError(
                f"expression: cell number {int(empty.argmax())} (counted from 0) has no expression, and so no angles; "
                "remove it."
            )
        else:
            angles = chart.encode(start, values["angles"])
        rate = ANGLE_LEARNING_RATE if learning_rate is None else learning_rate
        cells = descend_in_angles(angles[None], field, epochs, rate, values, held, record)
    else:
        if start is None:
            noise = stream(seed, "generation_start").standard_normal((n, g))
            start = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(dtype)
        cells = climb_on_sphere(start[None], field, epochs, learning_rate, held, record)
    return Generation(cells[0], history) if return_history else cells[0]


def build_field(
    graph: sparse.csr_array,
    inter: np.ndarray,
    intra: np.ndarray,
    switches: dict[str, str],
    dtype: str | np.dtype = "float64",
) -> Field:
    """Fixed forces as the switches have them act.

    The switches of the inference say which likelihood the forces belong to: `interaction_weights`, and for forces of
    the mean field also `neighbour_number`, `pair_sum` and `temperature` (the Gaussian field has none of these).

    Args:
        graph: (n, n) adjacency.
        inter, intra: (g, g), or (tissues, g, g) for several tissues at once.
    """
    weights = interaction_weights(graph, switches["interaction_weights"])
    inter, intra = _checked_forces(inter, "inter"), _checked_forces(intra, "intra")
    if inter.shape != intra.shape:
        raise InputError(
            f"forces: inter has shape {inter.shape} and intra {intra.shape}; give two matrices of the same genes."
        )
    mean_field = None
    if switches["generation_log_partition"] == "sample_mean":
        given = switches["neighbour_number"]
        neighbours = weights.sum() / weights.shape[0] if given == "graph" else float(given)
        mean_field = neighbours * inter + 2 * intra
    if switches["log_partition"] != "gaussian":
        intra = float(switches["temperature"]) * intra
        pairs = 0.5 if switches["pair_sum"] == "unordered" else 1.0
        inter = pairs * float(switches["temperature"]) * inter
    return Field(
        symmetric_part(weights).astype(dtype),
        inter.astype(dtype),
        intra.astype(dtype),
        mean_field,
        inter.shape[-1] if switches["log_partition"] == "vmf" else 3,
    )


def climb_on_sphere(
    cells: np.ndarray,
    field: Field,
    epochs: int,
    learning_rate: float | None,
    held: "Held",
    record: Recorder = lambda *_: None,
) -> np.ndarray:
    """Steps on the sphere itself, see the module's text; no order of genes or cells matters.

    Args:
        cells: (tissues, n, g) as `Held.put` gives them.
        learning_rate: at most this; None for the largest safe one.
        record: called with (epoch, cells, loss) before each step and after the last.
    Returns:
        (tissues, n, g).
    """
    inertia = field.curvature()
    if learning_rate is not None:
        inertia = max(inertia, 1 / learning_rate)
    inertia = cells.dtype.type(inertia)
    _, gradient = field.loss_and_gradient(cells)
    cells = np.where(held.undirected(cells)[..., None], held.put(-gradient, cells), cells)
    for epoch in range(epochs + 1):
        loss, gradient = field.loss_and_gradient(cells)
        record(epoch, cells, loss)
        if epoch < epochs:
            cells = held.put(np.subtract(inertia * cells, gradient, out=gradient), cells)
    return cells


def descend_in_angles(
    angles: np.ndarray,
    field: Field,
    epochs: int,
    learning_rate: float,
    switches: dict[str, str],
    held: "Held",
    record: Recorder = lambda *_: None,
) -> np.ndarray:
    """Gradient descent in nested angles, as run in the authors' code (plain steps of one size).

    Args:
        angles: (tissues, n, g - 1).
        switches: `angles` and `last_gene`.
        held: entries to hold; after each step the angles of these cells are taken anew.
        record: called with (epoch, cells, loss) before each step.
    Returns:
        cells (tissues, n, g) before the last step.
    """
    rate, last_gene = angles.dtype.type(learning_rate), switches["last_gene"]
    rows = held.rows
    for epoch in range(epochs):
        cells, decoded = chart.decode(angles, last_gene)
        if len(rows):
            cells = held.put(cells, cells)
            angles[:, rows] = chart.encode(cells[:, rows], switches["angles"])
            _, decoded = chart.decode(angles, last_gene)
        loss, gradient = field.loss_and_gradient(cells)
        record(epoch, cells, loss)
        if epoch < epochs - 1:
            gradient = held.release(gradient)
            angles = angles - rate * chart.pull_back(gradient, decoded, last_gene)
    return cells


def noise_angles(n_cells: int, n_genes: int, seed: int) -> np.ndarray:
    """Angles (n, g - 1) float32 around pi, normal with standard deviation pi / 2, as run in the simulations."""
    draw = np.random.RandomState(seed).normal(np.pi, np.pi / 2, size=(n_cells, n_genes - 1))
    return draw.astype(np.float32)


def diagnose(cells: np.ndarray) -> dict[str, float]:
    """Signs of a tissue gone wrong, see `Generation.history`; cells (n, g)."""
    return {
        "collapsed_cells": int((~cells.any(axis=1)).sum()),
        "negative_fraction": float((cells < 0).mean()),
        "constant_genes": int((cells == cells[0]).all(axis=0).sum()),
    }


class Held:
    """Entries of a tissue that generation may not change, and the norm that is left for the rest of each cell."""

    def __init__(self, cells: np.ndarray | None = None, clamp: np.ndarray | None = None):
        """`cells` (n, g) give the held values, `clamp` (n, g) bool says which they are; nothing is held without it."""
        self.clamp = clamp if clamp is not None and clamp.any() else None
        self.rows = np.zeros(0, np.int64)
        if self.clamp is None:
            return
        self.rows = np.flatnonzero(clamp.any(axis=1))
        self.values = np.where(clamp, cells, 0)[self.rows]
        self.clamp = clamp[self.rows]
        taken = np.square(self.values, dtype=np.float64).sum(axis=1)
        whole = self.clamp.all(axis=1)
        too_much = ~whole & (taken > 1 + _UNIT)
        if too_much.any():
            place = int(too_much.argmax())
            raise InputError(
                f"clamp: the held entries of cell number {self.rows[place]} (counted from 0) have norm "
                f"{taken[place] ** 0.5:.3g}, and a cell has norm 1; scale the cells first, with scale_cells(.., 'l2')."
            )
        self.left = np.sqrt(np.clip(1 - taken, 0, None)).astype(self.values.dtype)

    def put(self, directions: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Cells (..., n, g) of norm 1 along directions of the free entries; `otherwise` where these are all 0."""
        free = self.release(directions)
        norm = np.sqrt(np.einsum("...ng,...ng->...n", free, free))
        target = np.ones_like(norm)
        if self.clamp is not None:
            target[..., self.rows] = self.left
        cells = free * (target / np.where(norm > 0, norm, 1))[..., None]
        if not (norm > 0).all():
            cells = np.where((norm > 0)[..., None], cells, otherwise)
        if self.clamp is not None:
            cells[..., self.rows, :] = np.where(self.clamp, self.values, cells[..., self.rows, :])
        return cells

    def release(self, directions: np.ndarray) -> np.ndarray:
        """Directions with 0 at held entries."""
        if self.clamp is None:
            return directions
        free = directions.copy()
        free[..., self.rows, :] *= ~self.clamp
        return free

    def undirected(self, cells: np.ndarray) -> np.ndarray:
        """(..., n) bool: cells that have room for free entries, and all of these 0."""
        room = np.ones(cells.shape[:-1], bool)
        if self.clamp is not None:
            room[..., self.rows] = (self.left > 0) & ~self.clamp.all(axis=1)
        return room & ~self.release(cells).any(axis=-1)


def _log_partition(
    mean: np.ndarray, matrix: np.ndarray, dimensions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean-field log Z per cell (tissues,) of equation 49, and its gradient by the mean (tissues, g).

    With A = q inter + 2 intra it is log_sphere(kappa) - m'A m / 2 at kappa = |A m|. The code's own form for kappa above
    20 differs by less than rounding.
    """
    pull = np.einsum("tgh,th->tg", matrix, mean)
    kappa = np.linalg.norm(pull, axis=1)
    if dimensions == 3:
        value, ratio = log_sphere_of_many(kappa)
    else:
        value, slope = np.transpose([log_sphere(k, dimensions) for k in kappa])
        ratio = slope / np.maximum(kappa, 1e-12)
    value -= np.einsum("tg,tg->t", mean, pull) / 2
    return value, -pull + ratio[:, None] * np.einsum("tgh,th->tg", matrix, pull)


def log_sphere_of_many(kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`log_sphere` in three dimensions for many strengths (t,), and its slope over the strength."""
    kappa = np.maximum(kappa, 1e-12)
    value = kappa + np.log(-np.expm1(-2 * kappa)) - np.log(kappa)
    # The series stands where the difference would cancel.
    series = 1 / 3 - kappa**2 / 45 + 2 * kappa**4 / 945
    return value, np.where(kappa < 0.02, series, (1 / np.tanh(kappa) - 1 / kappa) / kappa)


def _starting_point(expression, clamp, shape, dtype) -> tuple[Held, np.ndarray | None]:
    """What is held, and the cells (n, g) on the unit sphere; None for noise."""
    if expression is None:
        if clamp is not None:
            raise InputError("clamp: noise has no values to hold; give the expression too.")
        return Held(), None
    cells = expression.toarray() if sparse.issparse(expression) else np.asarray(expression)
    if cells.shape != shape:
        raise InputError(
            f"expression: its shape is {cells.shape}, but graph and forces are for {shape}; give cells x genes."
        )
    cells = cells.astype(dtype)
    if not np.isfinite(cells).all():
        row = int(np.argmin(np.isfinite(cells).all(axis=1)))
        raise InputError(
            f"expression: cell number {row} (counted from 0) holds values that are not finite; remove it."
        )
    if clamp is not None:
        clamp = clamp.toarray() if sparse.issparse(clamp) else np.asarray(clamp)
        if clamp.shape != shape or clamp.dtype != bool:
            raise InputError(
                f"clamp: it is {clamp.dtype} of shape {clamp.shape}; give truth values of shape {shape}."
            )
    held = Held(cells, clamp)
    placed = held.put(cells, cells)
    as_given = np.abs(np.linalg.norm(cells, axis=1) - 1) < _UNIT
    as_given[held.rows] = False
    placed[as_given] = cells[as_given]
    return held, placed


def _checked_forces(forces: np.ndarray, name: str) -> np.ndarray:
    forces = np.asarray(forces, dtype=np.float64)
    if forces.ndim == 2:
        forces = forces[None]
    if forces.ndim != 3 or forces.shape[1] != forces.shape[2]:
        raise InputError(f"forces: {name} has shape {forces.shape}; give genes x genes.")
    if not np.isfinite(forces).all():
        raise InputError(f"forces: {name} holds values that are not finite; fit it again.")
    uneven = np.abs(forces - forces.transpose(0, 2, 1))
    if uneven.max() > 1e-6 * max(np.abs(forces).max(), 1e-300):
        a, b = np.unravel_index(uneven.argmax(), uneven.shape)[1:]
        raise InputError(
            f"forces: {name} is not symmetric at genes {a} and {b}; give (matrix + matrix.T) / 2."
        )
    return forces
