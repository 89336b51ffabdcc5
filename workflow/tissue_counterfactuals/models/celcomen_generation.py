"""Celcomen's generation: the most likely tissue under fixed forces, from where a tissue stands.

Cells are points on the unit sphere of gene space. Up to a constant their log likelihood is the energy

    E(X) = sum_i s_i' intra s_i + sum_ij J_ij s_i' inter s_j                      (equation 17 of the paper)

and generation climbs it (appendix H) while chosen entries are held. Gaussian forces are fitted about the mean
expression m (switch `centre`), and so is what is climbed: the field's own log density, s_i - m in place of s_i and its
norm term -|s_i - m|^2 / 2 added. As run in the authors' code, steps are taken in nested angles (`celcomen_chart.py`),
and log Z varies with the mean of the generated cells.

A step takes every cell to the maximum of a lower bound of E that touches it where the tissue stands: a quadratic with
the same curvature M for every cell, the least that E can have whatever the neighbours do (`curvature`). So no step can
lower E, and a tissue whose genes vary on different scales is climbed as fast as one whose genes do not.

Forces fitted to cells as they are (`scale: none`) know no sphere: their field holds the norm of cells softly, by its
norm term alone. Generation then moves in the space of expression (`keeps_norm`). The density has one maximum there, the
field's exact conditional mean, which generation comes to from anywhere, and with it the exact counterfactual.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_chart as chart
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import NORM_WEIGHT
from tissue_counterfactuals.models.celcomen_meanfield import log_sphere
from tissue_counterfactuals.models.celcomen_spectrum import bounds, symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.streams import stream

# Epochs, learning rate and snapshots of the authors' run on glioblastoma.
EPOCHS = 50
ANGLE_LEARNING_RATE = 1e-3
SNAPSHOT_EVERY = 5
# Snapshots of a run on the sphere or off it.
SNAPSHOTS = 10
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
        mean: (g,) float64, what the forces act about and cells are drawn to; None for forces that act about 0.
    """

    weights: sparse.csr_array
    inter: np.ndarray
    intra: np.ndarray
    mean_field: np.ndarray | None
    dimensions: int = 3
    mean: np.ndarray | None = None

    def loss_and_gradient(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For cells (tissues, n, g): negative log likelihood (tissues,) float64 up to a constant, and its gradient."""
        about = cells if self.mean is None else cells - self.mean.astype(cells.dtype)
        pull = about @ self.intra
        if self.mean is not None:
            pull -= about * (NORM_WEIGHT / 2)
        pull += self._around(about) @ self.inter
        loss = -np.einsum("tng,tng->tn", about, pull).sum(axis=1, dtype=np.float64)
        pull *= -2
        if self.mean_field is not None:
            mean = cells.mean(axis=1, dtype=np.float64)
            log_z, by_mean = _log_partition(mean, self.mean_field, self.dimensions)
            loss += cells.shape[1] * log_z
            pull += by_mean[:, None, :].astype(cells.dtype)
        return loss, pull

    def curvature(self) -> np.ndarray:
        """M (tissues, g, g): the second derivative of the loss is at most that of sum_i s_i' M s_i / 2."""
        # Of J only its ends count: j * force is largest at one of them, for each eigenvector of the forces.
        lowest, highest = bounds(self.weights.astype(np.float64))
        strength, combinations = np.linalg.eigh(self.inter.astype(np.float64))
        between = np.maximum(-lowest * strength, -highest * strength)[:, None, :]
        found = 2 * (combinations * between) @ combinations.transpose(0, 2, 1) - 2 * self.intra
        own = 0.0 if self.mean is None else NORM_WEIGHT
        if self.mean_field is not None:
            values = np.linalg.eigvalsh(self.mean_field)
            # The slope of `log_sphere` at kappa is at most kappa / dimensions, its curvature 1 / dimensions.
            own += max(-values.min(), 0) + (values**2).max() / self.dimensions
        return found + own * np.eye(found.shape[-1])

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
    mean: np.ndarray | None = None,
    columns: np.ndarray | None = None,
) -> np.ndarray | Generation:
    """Climb from a tissue towards the most likely one under fixed forces.

    Nothing is drawn at random but a tissue that starts as noise, so runs that differ in one entry can be subtracted.

    Args:
        expression: (n, g) cells, dense or sparse, put on the unit sphere if they are not; None starts from noise. A
            cell without expression (that is not held) starts in the direction that its neighbours pull it to. Cells of
            forces that know no sphere (`keeps_norm`) are taken as they are.
        graph: (n, n) adjacency; weighed by the switch `interaction_weights`, as in inference.
        inter, intra: (g, g) symmetric forces.
        clamp: (n, g) bool; True holds an entry at its value in `expression` while the rest of the cell keeps the norm
            at 1 (on the sphere); a row of True holds a cell as it is. Not read where the switch `knocked_out_gene` is
            `free`.
        epochs: steps. As run, the tissue before the last step is returned.
        learning_rate: of the steps; default: 0.001 in angles, as run, and the largest safe one else, where no step is
            longer than that, so that the likelihood never falls.
        seed: of the noise.
        return_history: return a `Generation` instead of the cells alone, with a snapshot every 5 epochs in angles, as
            run, and every tenth of `epochs` else.
        switches: values of switches that shall differ from the protocol's.
        dtype: `float32` or `float64` to return, and in angles to compute in; default: float32 in angles, as run, else
            float64.
        mean: (g,) expression of scaled cells that gaussian forces act about, such as `Interactions.mean`; default: the
            tissue's own, of the entries that are not held, since inference centres each slide by its own mean; 0 for
            noise. Runs that are to be compared need the same. Not read under `centre: none` or a mean-field log Z.
        columns: genes (k,) that snapshots after the first keep; default: all.
    Returns:
        (n, g) cells, or a `Generation`.
    Raises:
        InputError: matrices whose shapes do not go together, forces that are not symmetric or not finite, expression
            that is not finite, held entries of a norm above 1, a graph without edges, an unknown protocol; in angles,
            a cell without expression; off the sphere, forces under which the tissue has no finite variance.
    """
    values = protocols.chosen(protocol, switches)
    in_angles = values["chart"] == "angles"
    if epochs < 1 or not (learning_rate is None or learning_rate > 0):
        raise InputError(f"generation: epochs is {epochs} and learning_rate is {learning_rate}; give both above 0.")
    dtype = np.dtype(dtype or ("float32" if in_angles else "float64"))
    field = build_field(graph, inter, intra, values, dtype if in_angles else "float64")
    n, g = field.weights.shape[0], field.inter.shape[-1]
    if values["knocked_out_gene"] == "free":
        clamp = None
    snapshot_every = SNAPSHOT_EVERY if in_angles else max(epochs // SNAPSHOTS, 1)
    history = []

    def record(epoch: int, cells: np.ndarray, loss: np.ndarray) -> None:
        if return_history:
            history.append({"epoch": epoch, "loss": float(loss[0]), **diagnose(cells[0])})
            if epoch % snapshot_every == 0 and (in_angles or epoch < epochs):
                few = cells[0] if columns is None or epoch == 0 else cells[0][:, columns]
                history[-1]["expression"] = few.copy()

    unit = keeps_norm(values)
    if not unit:
        # Refused where the density has no maximum.
        GaussianField(field.weights, *((f[0] + f[0].T) / 2 for f in (field.inter, field.intra)))
    held, start = _starting_point(expression, clamp, (n, g), dtype, unit)
    if acts_about_mean(values) and (mean is not None or start is not None):
        mean = _own_mean(start, held) if mean is None else np.asarray(mean, dtype=np.float64)
        if mean.shape != (g,) or not np.isfinite(mean).all():
            raise InputError(f"mean: its shape is {mean.shape}; give {g} finite values, one a gene.")
        field = replace(field, mean=mean)
    elif not unit:
        field = replace(field, mean=np.zeros(g))
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
        cells = climb(start[None], field, epochs, learning_rate, held, record)
        cells = cells.astype(dtype)
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

    Raises:
        InputError: forces that are not finite, not square, or not of the same genes.
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


def climb(
    cells: np.ndarray,
    field: Field,
    epochs: int,
    learning_rate: float | None,
    held: "Held",
    record: Recorder = lambda *_: None,
) -> np.ndarray:
    """Steps on the sphere itself or in expression, see the module's text; no order of genes or cells matters.

    Args:
        cells: (tissues, n, g) as `Held.put` gives them.
        learning_rate: of the steps, at most the inverse of the largest curvature; None for the largest safe steps.
        record: called with (epoch, cells, loss) before each step and after the last.
    Returns:
        (tissues, n, g) float64.
    """
    cells = cells.astype(np.float64)
    curvature = field.curvature()
    if learning_rate is not None:
        largest = np.linalg.eigvalsh(curvature)[:, -1, None, None]
        curvature = curvature + np.maximum(1 / learning_rate - largest, 0) * np.eye(cells.shape[2])
    parts = [(rows, free, norm, curvature[:, free][:, :, free]) for rows, free, norm in held.patterns(*cells.shape[1:])]
    parts = [(*part, *np.linalg.eigh(part[-1])) for part in parts]
    _, gradient = field.loss_and_gradient(cells)
    cells = np.where(held.undirected(cells)[..., None], held.put(-gradient, cells), cells)
    for epoch in range(epochs + 1):
        loss, gradient = field.loss_and_gradient(cells)
        record(epoch, cells, loss)
        if epoch == epochs:
            return cells
        moved = cells.copy()
        for rows, free, norm, block, values, vectors in parts:
            place = np.ix_(range(len(cells)), rows, free)
            pull = cells[place] @ block - gradient[place]
            if norm is None:
                highest = (pull @ vectors) / values[:, None, :]
            else:
                highest = _farthest_on_sphere(pull @ vectors, values, norm)
            moved[place] = np.where(
                pull.any(axis=-1, keepdims=True) | (norm is None), highest @ vectors.transpose(0, 2, 1), cells[place]
            )
        cells = moved
    return cells


def _farthest_on_sphere(pull: np.ndarray, values: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """The x of a given norm at which pull'x - x' diag(values) x / 2 is largest: x = pull / (values + shift).

    The norm of that falls in the shift, and 1 / norm is concave in it, so that Newton steps from a shift too small come
    to the right one from below (More and Sorensen 1983).

    Args:
        pull: (tissues, n, g).
        values: (tissues, g) ascending.
        norm: (n,) above 0.
    """
    values = values[:, None, :]
    # No entry alone may be longer than the whole.
    shift = (np.abs(pull) / norm[:, None] - values).max(axis=-1)
    size = np.linalg.norm(pull, axis=-1) / norm
    shift = np.maximum(shift, -values[..., 0] + 1e-14 * size + 1e-300)
    for _ in range(100):
        stiffness = values + shift[..., None]
        found = pull / stiffness
        length = np.linalg.norm(found, axis=-1)
        slope = np.einsum("tng,tng->tn", found, found / stiffness)
        slope = np.where(slope > 0, slope, 1)
        longer = length / norm - 1
        if not (longer > 1e-11).any():
            break
        shift += np.maximum(longer, 0) * length**2 / slope
    # Where even the smallest shift gives too short an x, the softest direction has no pull and takes what is left.
    left = np.sqrt(np.maximum(norm**2 - length**2, 0)) * (longer < -1e-8)
    found[..., 0] += np.where(pull[..., 0] < 0, -left, left)
    return found * (norm / np.linalg.norm(found, axis=-1))[..., None]


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

    def __init__(self, cells: np.ndarray | None = None, clamp: np.ndarray | None = None, unit: bool = True):
        """`cells` (n, g) give the held values, `clamp` (n, g) bool says which they are; nothing is held without it.

        Without `unit` cells have no norm to keep.
        """
        self.unit = unit
        self.clamp = clamp if clamp is not None and clamp.any() else None
        self.rows = np.zeros(0, np.int64)
        if self.clamp is None:
            return
        self.rows = np.flatnonzero(clamp.any(axis=1))
        self.values = np.where(clamp, cells, 0)[self.rows]
        self.clamp = clamp[self.rows]
        self.left = np.ones(len(self.rows))
        if not unit:
            return
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
        """Cells (..., n, g) of norm 1 along directions of the free entries; `otherwise` where these are all 0.

        Without a norm to keep: the directions themselves.
        """
        free = self.release(directions)
        if not self.unit:
            if self.clamp is not None:
                free[..., self.rows, :] += self.values
            return free
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
        """Directions (..., n, g) with 0 at held entries."""
        if self.clamp is None:
            return directions
        free = directions.copy()
        free[..., self.rows, :] *= ~self.clamp
        return free

    def patterns(self, n: int, g: int):
        """Cells that hold the same genes: (their rows, their free genes, the norm that is left for these (rows,)).

        The norm is None where there is none to keep.
        """
        free = np.setdiff1d(np.arange(n), self.rows)
        if len(free):
            yield free, np.arange(g), np.ones(len(free)) if self.unit else None
        if self.clamp is None:
            return
        kinds, kind = np.unique(self.clamp, axis=0, return_inverse=True)
        for number, held in enumerate(kinds):
            own = np.flatnonzero((kind.ravel() == number) & (self.left > 0))
            if len(own) and not held.all():
                norm = self.left[own].astype(np.float64) if self.unit else None
                yield self.rows[own], np.flatnonzero(~held), norm

    def undirected(self, cells: np.ndarray) -> np.ndarray:
        """(..., n) bool: cells with a norm to keep and room for free entries, all of which are 0."""
        room = np.full(cells.shape[:-1], self.unit)
        if self.clamp is not None:
            room[..., self.rows] &= (self.left > 0) & ~self.clamp.all(axis=1)
        return room & ~self.release(cells).any(axis=-1)


def _log_partition(mean: np.ndarray, matrix: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
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


def acts_about_mean(switches: dict[str, str]) -> bool:
    """Whether the forces of these switches are those of cells less their mean."""
    return switches["log_partition"] == "gaussian" and switches["centre"] == "mean"


def keeps_norm(switches: dict[str, str]) -> bool:
    """Whether generated cells are points on the unit sphere: not those of a Gaussian field of cells as they are."""
    as_they_are = switches["log_partition"] == "gaussian" and switches["scale"] == "none"
    on_sphere = switches["chart"] == "sphere" and switches["generation_log_partition"] == "frozen"
    return not (as_they_are and on_sphere)


def _own_mean(cells: np.ndarray, held: Held) -> np.ndarray:
    """Mean of the entries (g,) that are not held; of all where every cell holds a gene."""
    if held.clamp is None:
        return cells.mean(axis=0, dtype=np.float64)
    free = np.ones(cells.shape, dtype=bool)
    free[held.rows] = ~held.clamp
    free[:, ~free.any(axis=0)] = True
    return (cells * free).sum(axis=0, dtype=np.float64) / free.sum(axis=0)


def _starting_point(expression, clamp, shape, dtype, unit) -> tuple[Held, np.ndarray | None]:
    """What is held, and the cells (n, g), on the unit sphere where they keep a norm; None for noise."""
    if expression is None:
        if clamp is not None:
            raise InputError("clamp: noise has no values to hold; give the expression too.")
        return Held(unit=unit), None
    cells = expression.toarray() if sparse.issparse(expression) else np.asarray(expression)
    if cells.shape != shape:
        raise InputError(
            f"expression: its shape is {cells.shape}, but graph and forces are for {shape}; give cells x genes."
        )
    cells = cells.astype(dtype)
    if not np.isfinite(cells).all():
        row = int(np.argmin(np.isfinite(cells).all(axis=1)))
        raise InputError(f"expression: cell number {row} (counted from 0) holds values that are not finite; remove it.")
    if clamp is not None:
        clamp = clamp.toarray() if sparse.issparse(clamp) else np.asarray(clamp)
        if clamp.shape != shape or clamp.dtype != bool:
            raise InputError(f"clamp: it is {clamp.dtype} of shape {clamp.shape}; give truth values of shape {shape}.")
    held = Held(cells, clamp, unit)
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
        raise InputError(f"forces: {name} is not symmetric at genes {a} and {b}; give (matrix + matrix.T) / 2.")
    return forces
