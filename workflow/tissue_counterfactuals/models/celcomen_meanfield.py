"""Celcomen's inference as published: gradient steps on the mean-field likelihood (equations 4, 6 and 49).

    loss = log Z(g, g') - T (a <g, X'JX> + <g', X'X>),    v = (q g + 2 g') m
    log Z = S (f(|v|) - m'(g' + q/2 g) m),                 f(k) = log of the integral of exp(k u) over directions

g are the forces between cells, g' those within, m the mean expression, q the number of neighbours, T `temperature`,
and a what `pair_sum` says. Dissociated cells have no neighbours, hence q = 0 and X'JX = 0: their likelihood is that of
the same cells with the forces between cells switched off, and it informs g' alone.

The loss has no minimum: log Z knows g and g' through v only, as many numbers as there are genes, while the energy is
linear in all pairs of genes. Along a symmetric D with D m = 0 and <X'JX, D> > 0 the loss falls for ever, so that what
comes out is the start plus as many steps as were taken, unless a bound stops it.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numba import njit
from scipy.special import gammaln

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_interactions import Interactions, diagnose
from tissue_counterfactuals.models.celcomen_statistics import SlideStatistics

BOUNDS = {"signed": (-1.0, 1.0), "unit_box": (0.0, 1.0), "free": None}
# Field strength beyond which the series of `log_sphere` takes more than 14,000 terms.
_SERIES_UP_TO = 1e6
Forces = tuple[np.ndarray, np.ndarray]


def fit_mean_field(
    slides: list[SlideStatistics],
    switches: dict[str, str],
    epochs: int,
    learning_rate: float,
    seed: int = 0,
    start: Forces | None = None,
) -> Interactions:
    """Gradient descent on the mean-field loss, at a cost that does not depend on the number of cells.

    Args:
        slides: statistics of each slide; dissociated ones inform the forces within cells only.
        switches: values of the switches of step `inference`.
        epochs: rounds over all slides.
        learning_rate: of plain gradient descent.
        seed: of the random start and of the order of slides.
        start: forces between and within cells to start from, (g, g) each; default: as `first_forces` says.

    Returns:
        Forces after the last epoch; `history` holds for each epoch the loss before its steps (mean over slides, or per
        cell with `loss_unit: cell`) and the largest step of a force.

    Raises:
        InputError: slides of different genes, no slide with a graph, a start of another shape, epochs below 1, a
            learning rate not above 0, or forces that became infinite.
    """
    n_genes = _number_of_genes(slides)
    if epochs < 1 or not 0 < learning_rate < np.inf:
        raise InputError(f"inference: epochs is {epochs} and learning_rate {learning_rate}: give both above 0.")
    if start is None:
        start = first_forces(n_genes, switches["first_forces"], seed)
    if any(np.shape(forces) != (n_genes, n_genes) for forces in start):
        raise InputError(
            f"inference: start has shapes {[np.shape(forces) for forces in start]}: give two matrices of {n_genes} x "
            f"{n_genes} genes."
        )
    force_range = switches["force_range"]
    start = tuple(project(np.asarray(forces, np.float64), force_range) for forces in start)
    inter, intra = (forces.copy() for forces in start)
    if switches["slide_steps"] == "pooled":
        losses, orders = [MeanFieldLoss(slides, switches)], itertools.repeat([0])
    else:
        losses = [MeanFieldLoss([slide], switches) for slide in slides]
        orders = shuffled_orders(len(slides), seed)
    history = []
    for epoch, order in zip(range(epochs), orders, strict=False):
        with np.errstate(over="ignore", invalid="ignore"):
            steps = [losses[i].descend(inter, intra, learning_rate) for i in order]
        loss, largest_step = np.mean([s[0] for s in steps]), max(s[1] for s in steps)
        if not np.isfinite([loss, largest_step]).all():
            raise InputError(
                f"inference: forces are infinite after {epoch + 1} epochs: give a learning_rate below {learning_rate}."
            )
        history.append({"epoch": epoch, "loss": float(loss), "largest_step": largest_step})
    inter, intra = _mirrored(inter), _mirrored(intra)
    cells = np.array([slide.n_cells for slide in slides])
    mean = np.average([slide.mean for slide in slides], axis=0, weights=cells)
    found = diagnose(inter, intra, mean, start, history, BOUNDS[force_range])
    return Interactions(inter, intra, history, found, mean=np.zeros_like(mean))


def step(
    slides: list[SlideStatistics], inter: np.ndarray, intra: np.ndarray, switches: dict[str, str], learning_rate: float
) -> tuple[float, Forces]:
    """The loss of slides at symmetric forces (g, g), and the forces after one step down its gradient, projected."""
    inter, intra = (np.array(forces, dtype=np.float64) for forces in (inter, intra))
    loss, _ = MeanFieldLoss(slides, switches).descend(inter, intra, learning_rate)
    return loss, (_mirrored(inter), _mirrored(intra))


class MeanFieldLoss:
    """The loss of this module's head, summed over slides, as a function of the forces.

    Its derivative is a sum over slides of pulls times m', from log Z, less the moments X'JX and X'X, which do not
    change: so a step needs no matrix but these.

    Args:
        switches: read are log_partition (`paper` or `vmf`), neighbour_number, pair_sum, temperature, loss_unit and
            force_range.
    """

    def __init__(self, slides: list[SlideStatistics], switches: dict[str, str]):
        temperature = float(switches["temperature"])
        pairs = {"ordered": 1.0, "unordered": 0.5}[switches["pair_sum"]]
        n_cells = [slide.n_cells for slide in slides]
        # With cells as the unit, everything is divided by their number.
        unit = 1 / sum(n_cells) if switches["loss_unit"] == "cell" else 1.0
        self._cells = unit * np.array(n_cells, dtype=np.float64)
        self._means = np.array([slide.mean for slide in slides])
        self._q = np.array([_neighbours(slide, switches["neighbour_number"]) for slide in slides])
        self._inter = unit * temperature * pairs * sum(slide.inter for slide in slides)
        self._intra = unit * temperature * sum(slide.intra for slide in slides)
        self._symmetric_inter = (self._inter + self._inter.T) / 2
        self._kind, self._range = switches["log_partition"], switches["force_range"]

    def descend(self, inter: np.ndarray, intra: np.ndarray, learning_rate: float) -> tuple[float, float]:
        """Take one step in place from symmetric forces (g, g) float64; the loss before it, and the largest step of a
        force.

        Read and written are the upper triangles alone: see `_mirrored`.
        """
        loss, pulls = self._loss_and_pulls(
            _of_upper(inter, self._symmetric_inter, self._means), _of_upper(intra, self._intra, self._means)
        )
        low, high = BOUNDS[self._range] or (-np.inf, np.inf)
        unit_diagonal = self._range == "unit_box"
        largest = [
            _move(
                forces, learning_rate, rates[:, None] * pulls, self._means, moments, low, high, unit_diagonal
            )
            for forces, rates, moments in (
                (inter, self._q / 2, self._symmetric_inter),
                (intra, np.ones(len(pulls)), self._intra),
            )
        ]  # fmt: skip
        return loss, max(largest)

    def _loss_and_pulls(self, of_inter, of_intra) -> tuple[float, np.ndarray]:
        """The loss, and for each slide the vector that times m' is the derivative of log Z by `intra`.

        Given are, of either matrix, its energy and its products with the means.
        """
        (energy, inter_means), (own_energy, intra_means) = of_inter, of_intra
        loss = -energy - own_energy
        pulls = np.empty_like(self._means)
        for k, q in enumerate(self._q):
            field = q * inter_means[k] + 2 * intra_means[k]
            log_z, pulls[k] = log_partition(self._means[k], field, self._cells[k], self._kind)
            loss += log_z
        return float(loss), pulls


def log_partition(mean: np.ndarray, field: np.ndarray, n_cells: float, kind: str) -> tuple[float, np.ndarray]:
    """Mean-field log Z (equation 49), without the constant volume of the sphere, and the vector (g,) that times m' is
    its derivative by `intra`; by `inter` it is q / 2 times as much.

    Args:
        mean: (g,) mean expression m. field: (g,), (q g + 2 g') m.
        n_cells: S.
        kind: `paper`: cells are integrated over the sphere in three dimensions, whatever the number of genes (lemma
            2); `vmf`: over the sphere in as many dimensions as there are genes, which gives the normaliser of von
            Mises and Fisher. At three genes the two are equal.

    Raises:
        InputError: another kind.
    """
    if kind not in ("paper", "vmf"):
        raise InputError(f"log_partition is {kind!r}; the mean field knows paper and vmf.")
    strength = float(np.linalg.norm(field))
    value, slope = log_sphere(strength, 3 if kind == "paper" else len(mean))
    direction = field / strength if strength > 0 else field
    return n_cells * (value - mean @ field / 2), n_cells * (2 * slope * direction - mean)


def log_sphere(strength: float, dimensions: int) -> tuple[float, float]:
    """Log of twice the mean of exp(strength * u) over the unit sphere, u the first coordinate; and its slope.

    In three dimensions it is the log of the integral over u from -1 to 1, as in lemma 2. In general the mean is
    Gamma(v + 1) (k / 2)^-v I_v(k) with v = dimensions / 2 - 1, the normaliser of von Mises and Fisher. Bessel functions
    of large order underflow, so its power series of positive terms (k^2 / 4)^j / (j! (v + 1)_j) is summed as
    logarithms, around the largest term; where that takes too many terms, the first of Debye's expansion is exact to
    rounding.
    """
    if strength == 0:
        return float(np.log(2)), 0.0
    order = dimensions / 2 - 1
    both = np.hypot(order, strength)
    if strength > _SERIES_UP_TO:
        bessel = both + order * np.log(strength / (order + both)) - np.log(2 * np.pi * both) / 2
        value = np.log(2) + gammaln(order + 1) - order * np.log(strength / 2) + bessel
        return float(value), float((both - order) / strength - strength / (2 * both**2))
    peak = strength**2 / (2 * (order + both))
    # The terms fall off on both sides as a normal density of less than this variance does, or faster.
    width = 10 * np.sqrt(peak + 1) + 10
    j = np.arange(max(np.floor(peak - width), 0), np.ceil(peak + width) + 1)
    terms = 2 * j * np.log(strength / 2) + gammaln(order + 1) - gammaln(order + 1 + j) - gammaln(j + 1)
    largest = terms.max()
    shares = np.exp(terms - largest)
    slope = 2 * (j @ shares) / (shares.sum() * strength)
    return float(np.log(2) + largest + np.log(shares.sum())), float(slope)


def project(forces: np.ndarray, force_range: str) -> np.ndarray:
    """Forces (..., g, g) made symmetric, then brought into the range: `unit_box`, as run, is 0 to 1, ones on the
    diagonal.
    """
    forces = (forces + forces.swapaxes(-1, -2)) / 2
    if BOUNDS[force_range]:
        np.clip(forces, *BOUNDS[force_range], out=forces)
    if force_range == "unit_box":
        np.einsum("...gg->...g", forces)[...] = 1
    return forces


def first_forces(n_genes: int, kind: str, seed: int) -> Forces:
    """Forces before the first step: zeros, or uniform from 0 to 1, one matrix for both kinds (`shared`) or two.

    Drawn by NumPy's older generator, as run, so that a seed gives the authors' matrix.

    Returns:
        Forces between and within cells, (g, g) float64 each.
    """
    if kind == "zero":
        return np.zeros((n_genes, n_genes)), np.zeros((n_genes, n_genes))
    rng = np.random.RandomState(seed)
    inter = rng.random_sample((n_genes, n_genes))
    intra = inter.copy() if kind == "shared" else rng.random_sample((n_genes, n_genes))
    return inter, intra


def shuffled_orders(n_slides: int, seed: int) -> Iterator[list[int]]:
    """For each epoch the order of the slides, as PyTorch's shuffling loader draws it after `manual_seed(seed)`."""
    if n_slides == 1:
        while True:
            yield [0]
    import torch

    state = None
    while True:
        with torch.random.fork_rng(devices=[]):
            if state is None:
                torch.manual_seed(seed)
            else:
                torch.set_rng_state(state)
            loader = torch.utils.data.DataLoader(range(n_slides), batch_size=1, shuffle=True)
            order = [int(place) for place in loader]
            state = torch.get_rng_state()
        yield order


def _neighbours(slide: SlideStatistics, kind: str) -> float:
    if slide.dissociated:
        return 0.0
    return slide.degree if kind == "graph" else float(kind)


def _number_of_genes(slides: list[SlideStatistics]) -> int:
    numbers = sorted({slide.n_genes for slide in slides})
    if not numbers or all(slide.dissociated for slide in slides):
        raise InputError(
            "inference: no slide has a graph: give at least one, without it nothing tells forces between cells."
        )
    if len(numbers) > 1:
        raise InputError(
            f"inference: slides have {' and '.join(map(str, numbers))} genes: give all slides the same genes."
        )
    return numbers[0]


def _mirrored(forces: np.ndarray) -> np.ndarray:
    """A symmetric matrix from its upper triangle."""
    upper = np.triu(forces, 1)
    return upper + upper.T + np.diag(np.diag(forces))


# One pass over half of each matrix, without temporary ones: an epoch takes as long as reading the moments does.


@njit(cache=True, fastmath={"reassoc"})
def _of_upper(forces, moments, means):
    """<forces, moments>, and forces @ mean for each row of `means`, from upper triangles of symmetric matrices."""
    n_genes = len(forces)
    energy, products = 0.0, np.zeros(means.shape)
    for i in range(n_genes):
        row, moment = forces[i, i + 1 :], moments[i, i + 1 :]
        energy += 0.5 * forces[i, i] * moments[i, i]
        for j in range(len(row)):
            energy += row[j] * moment[j]
        for k in range(len(means)):
            own, mean, product = means[k, i], means[k, i + 1 :], products[k, i + 1 :]
            total = forces[i, i] * own
            for j in range(len(row)):
                total += row[j] * mean[j]
            for j in range(len(row)):
                product[j] += row[j] * own
            products[k, i] += total
    return 2 * energy, products


@njit(cache=True)
def _move(forces, rate, pulls, means, moments, low, high, unit_diagonal):
    """forces + rate (moments - pulls' means), made symmetric and clipped, in place; the largest step.

    Upper triangles only.
    """
    n_genes = len(forces)
    changes, largest = np.empty(n_genes), np.zeros(n_genes)
    for i in range(n_genes):
        row, change, most = forces[i, i:], changes[i:], largest[i:]
        change[:] = moments[i, i:]
        for k in range(len(pulls)):
            pull, mean = pulls[k, i:], means[k, i:]
            for j in range(len(row)):
                change[j] -= 0.5 * (pull[0] * mean[j] + pull[j] * mean[0])
        # Comparisons instead of min and max, which would keep the compiler from taking several genes at once.
        for j in range(1 if unit_diagonal else 0, len(row)):
            after = row[j] + rate * change[j]
            after = low if after < low else after
            after = high if after > high else after
            step = abs(after - row[j])
            most[j] = step if step > most[j] else most[j]
            row[j] = after
    return largest.max()
