"""Forces from the Gaussian field: the maximum-entropy model under the paper's constraints, with one finite optimum.

The field has the paper's energy (equation 5) with the cells' norms held softly instead of fixed,

    P(s) ~ exp( sum_i s_i' g' s_i + sum_ij J_ij s_i' g s_j - lambda/2 sum_i |s_i|^2 ),

J symmetric, the second sum over ordered pairs, s centred or not. On the eigenvectors of J, with eigenvalue j, the genes
have the precision Q(j) = P - 2 j g with P = lambda I - 2 g', so that per cell

    -log likelihood = 1/2 tr(P S) - tr(g C) - 1/2 mean_j log det Q(j) + const,   S = X'X / n,   C = X'JX / n.

This is strictly convex where every Q(j) is positive definite, infinite at the border of that set, and at its minimum
the model's S and C are the observed ones (with a ridge a part of them, see `fit_gaussian`). lambda and the diagonal of
g' are one parameter: lambda is fixed to 1 (`NORM_WEIGHT`) and the diagonal of g' takes what is left; off-diagonal
forces do not depend on that choice.

V with V'PV = I, V'gV = diag(d) turns genes into combinations that do not see each other. In them the Hessian falls
apart into one 2 x 2 block for each pair of combinations, so that a Newton step is exact, and so is the Fisher
information, at the cost of one eigendecomposition of a genes x genes matrix, whatever the number of cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_interactions import Interactions, diagnose
from tissue_counterfactuals.models.celcomen_spectrum import Spectrum, pooled, spectrum, symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import statistics

# lambda: what the diagonal of the forces within cells is counted from.
NORM_WEIGHT = 1.0
# Newton steps straight to the optimum; of a stage on the way around, and of the last one.
_MOST_STRAIGHT, _MOST_OF_STAGE, _MOST_STEPS = 30, 30, 100
_MAX_HALVINGS = 60
# Of the squared Newton decrement, twice the distance of the loss from its minimum, before the last step, which squares
# it.
_TOLERANCE, _TOLERANCE_OF_STAGE = 1e-9, 1e-2
# Of either end of the spectrum, whose own weights sum to 1.
_WEIGHTS_OF_ENDS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class FieldStatistics:
    """All that the field's likelihood takes from slides; float64.

    Attributes:
        n_cells: cells of all slides.
        mean: (g,) mean expression over all cells, before centring.
        intra: (g, g) S, mean over cells of s_i s_i'.
        inter: (g, g) C, sum over ordered pairs of J_ij s_i s_j' per cell; symmetric.
        spectrum: of J, all slides side by side; dissociated cells stand at eigenvalue 0.
        centred: whether intra and inter are those of cells less the mean of their slide.
    """

    n_cells: int
    mean: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    spectrum: Spectrum
    centred: bool = True


def field_statistics(
    slides: Sequence[tuple[np.ndarray | sparse.csr_array, sparse.csr_array | None]], centre: str = "mean", seed: int = 0
) -> FieldStatistics:
    """Second moments of slides and the spectrum of their graphs, the slides pooled cell by cell.

    The likelihood of several slides is that of the pooled moments under the pooled spectrum, exactly.

    Args:
        slides: cells (n, g), dense or sparse, and weights J (n, n) of each; a J that is not symmetric counts with its
            symmetric part, which is all that symmetric forces see of it. None for dissociated cells.
        centre: `mean` takes from each slide its own mean expression; `none` takes the cells as they are.
        seed: of the spectrum's probes (slides of more than 800 cells).

    Raises:
        InputError: see `statistics`; slides with different numbers of genes, or no slide.
    """
    if not slides:
        raise InputError("inference: there is no slide; give at least one.")
    moments, spectra = [], []
    for place, (expression, weights) in enumerate(slides):
        own = statistics(expression, weights, name=f"slide {place + 1}")
        if moments and own.n_genes != moments[0].n_genes:
            raise InputError(
                f"slide {place + 1}: it has {own.n_genes} genes and slide 1 has {moments[0].n_genes}: give all slides "
                "the same genes in the same order."
            )
        moments.append(own)
        if weights is None:
            spectra.append(Spectrum(np.zeros(1), np.ones(1), own.n_cells))
        else:
            spectra.append(spectrum(symmetric_part(weights), seed))
    n_cells = sum(part.n_cells for part in moments)
    mean = sum(part.mean * part.n_cells for part in moments) / n_cells
    if centre == "mean":
        moments = [part.centred() for part in moments]
    inter = sum(part.inter for part in moments) / n_cells
    return FieldStatistics(
        n_cells=n_cells,
        mean=mean,
        intra=sum(part.intra for part in moments) / n_cells,
        inter=(inter + inter.T) / 2,
        spectrum=pooled(spectra),
        centred=centre == "mean",
    )


def fit_gaussian(
    slides: Sequence[tuple[np.ndarray | sparse.csr_array, sparse.csr_array | None]] | FieldStatistics,
    centre: str = "mean",
    ridge: float = 0.0,
    errors: bool = True,
    seed: int = 0,
) -> Interactions:
    """The forces of the field that is most likely for the slides.

    Args:
        slides: see `field_statistics`, or what it returned; dissociated cells inform forces within cells alone.
        centre: see `field_statistics`; not read where statistics are given.
        ridge: pseudo-cells per cell in which genes vary as observed but neither with each other nor in space: the
            conjugate prior, which draws off-diagonal and inter forces towards 0 and makes the optimum finite even with
            fewer cells than genes. It is a departure from the paper: the model's S (off its diagonal) and C are
            1 / (1 + ridge) of the observed ones, the paper's constraints hold for ridge 0 alone.
        errors: whether to compute standard errors; about genes^4 operations (500 genes: 2 x 10^11). With a ridge there
            are none: forces are drawn towards 0, by far more than their spread where the ridge is large, and no
            interval around them covers the truth as often as it says.
        seed: of the spectrum's probes.

    Returns:
        Forces, their standard errors from the Fisher information of the field (honest as far as cells are such a
        field; None with a ridge), and the loss (negative log-likelihood per cell) of each step, without those of a
        detour (see `_newton`).

    Raises:
        InputError: see `field_statistics`; a gene that does not vary, genes that are linear combinations of each other
            or too few cells for the genes (with ridge 0), a negative ridge, or no finite optimum.
    """
    observed = slides if isinstance(slides, FieldStatistics) else field_statistics(slides, centre, seed)
    if not 0 <= ridge < np.inf:
        raise InputError(f"inference: ridge is {ridge}; give a number from 0 up.")
    scale = np.sqrt(np.diag(observed.intra))
    if not (scale > 0).all():
        raise InputError(
            f"inference: gene number {int(np.argmin(scale))} (counted from 0) is the same in all cells; leave it out."
        )
    # In standardised genes the problem is well conditioned, and one ridge suits all.
    s, c = observed.intra / np.outer(scale, scale), observed.inter / np.outer(scale, scale)
    if ridge:
        s, c = (s + ridge * np.eye(len(s))) / (1 + ridge), c / (1 + ridge)
    _refuse_collinear(s)
    unit = replace(observed, intra=s, inter=c)
    precision, inter, history = _newton(unit, ridge)

    intra_error = inter_error = None
    if errors and not ridge:
        precision_error, inter_error = _standard_errors(unit, precision, inter)
        intra_error = precision_error / 2 / np.outer(scale, scale)
        inter_error /= np.outer(scale, scale)
    inter = inter / np.outer(scale, scale)
    intra = (NORM_WEIGHT * np.eye(len(s)) - precision / np.outer(scale, scale)) / 2
    diagnostics = diagnose(inter, intra, observed.mean, None, history, None)
    # A fit that does not converge is refused.
    diagnostics["converged"] = True
    mean = observed.mean if observed.centred else np.zeros_like(observed.mean)
    return Interactions(inter, intra, history, diagnostics, inter_error, intra_error, mean)


def precision_of(inter: np.ndarray, intra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P = lambda I - 2 g', and g, both (g, g), of the forces between cells `inter` and within cells `intra`."""
    return NORM_WEIGHT * np.eye(len(intra)) - 2 * np.asarray(intra), np.asarray(inter, dtype=float)


def neighbor_response(inter: np.ndarray, intra: np.ndarray) -> np.ndarray:
    """K (g, g) = 2 g P^-1: given all others, the mean of cell i about the field's is sum_j J_ij s_j' K, J symmetric.

    Its density holds -s_i' P s_i / 2 + 2 s_i' g sum_j J_ij s_j, each pair of the energy being counted twice.
    """
    precision, inter = precision_of(inter, intra)
    return np.linalg.solve(precision, 2 * inter).T


def partial_correlations(fit: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """Inter and intra forces, each (g, g), free of the genes' units: 2 g_ab and 2 g'_ab over sqrt(P_aa P_bb).

    Within cells this is the correlation of two genes in a cell, given all else; its diagonal is set to 0. Between cells
    multiply by J_ij to get the same for gene a of cell i and b of j.
    """
    precision, inter = precision_of(fit.inter, fit.intra)
    scale = np.sqrt(np.outer(np.diag(precision), np.diag(precision)))
    intra = 2 * fit.intra / scale
    np.fill_diagonal(intra, 0)
    return 2 * inter / scale, intra


# --- the likelihood in the combinations of genes that do not see each other ---------------------------------------


@dataclass(frozen=True)
class _Point:
    """Forces with V'PV = I and V'gV = diag(d): combinations V, their inverse, and 1 / (1 - 2 j_k d_a)."""

    precision: np.ndarray
    inter: np.ndarray
    combinations: np.ndarray  # V
    inverse: np.ndarray  # V^-1
    gain: np.ndarray  # (m, g)
    log_det: float  # mean_j log det Q(j)
    spectrum: Spectrum

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The model's S and C: mean_j Q(j)^-1 and mean_j j Q(j)^-1."""
        weights, nodes = self.spectrum.weights, self.spectrum.nodes
        v = self.combinations
        return (v * (weights @ self.gain)) @ v.T, (v * ((weights * nodes) @ self.gain)) @ v.T

    def curvature(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entries of the block of each pair of combinations, [[a, b], [b, c]] for (P, g): three (g, g)."""
        nodes, weighted = self.spectrum.nodes[:, None], self.spectrum.weights[:, None] * self.gain
        return (self.gain.T @ weighted, -2 * self.gain.T @ (nodes * weighted), 4 * self.gain.T @ (nodes**2 * weighted))


def diagonalise(precision: np.ndarray, inter: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """V (g, g) and d (g,) with V'PV = I and V'gV = diag(d); None where P is not positive definite."""
    try:
        factor = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        return None
    half = linalg.solve_triangular(factor, inter, lower=True)
    middle = linalg.solve_triangular(factor, half.T, lower=True)
    strength, rotation = np.linalg.eigh((middle + middle.T) / 2)
    return linalg.solve_triangular(factor, rotation, lower=True, trans="T"), strength


def _diagonalised(measure: Spectrum, precision: np.ndarray, inter: np.ndarray) -> _Point | None:
    """None outside the model."""
    found = diagonalise(precision, inter)
    if found is None:
        return None
    combinations, strength = found
    stiffness = 1 - 2 * np.outer(measure.nodes, strength)
    # Linear in j: positive at both ends of the spectrum is positive in between.
    if not (stiffness[[0, -1]] > 0).all():
        return None
    log_det = np.linalg.slogdet(precision)[1] + (measure.weights @ np.log(stiffness)).sum()
    inverse = combinations.T @ precision
    return _Point(precision, inter, combinations, inverse, 1 / stiffness, log_det, measure)


def _loss(observed: FieldStatistics, point: _Point) -> float:
    energy = (point.precision * observed.intra).sum() / 2 - (point.inter * observed.inter).sum()
    return float(energy - point.log_det / 2)


def _newton_direction(observed: FieldStatistics, point: _Point):
    """Newton step (P, g) and its squared decrement, from the 2 x 2 blocks."""
    variance, covariance = point.moments()
    for_precision = point.inverse @ (observed.intra - variance) @ point.inverse.T
    for_inter = 2 * point.inverse @ (covariance - observed.inter) @ point.inverse.T
    a, b, c = point.curvature()
    determinant = a * c - b * b
    # Without interaction nothing says what the forces between cells are; they stay.
    solvable = determinant > 1e-14 * np.abs(a * c)
    determinant = np.where(solvable, determinant, 1)
    step_precision = -np.where(solvable, (c * for_precision - b * for_inter) / determinant, for_precision / a)
    step_inter = -np.where(solvable, (a * for_inter - b * for_precision) / determinant, 0)
    decrement = -(step_precision * for_precision + step_inter * for_inter).sum() / 2
    back = point.inverse
    return back.T @ step_precision @ back, back.T @ step_inter @ back, float(decrement)


def _newton(observed: FieldStatistics, ridge: float) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """P, g and the loss of each step, by Newton steps from cells without forces between them: convex, and infinite at
    the border, so they end at the one optimum.

    The ends of the spectrum are the border, and weigh next to nothing: where genes are nearly as many as cells the
    optimum lies close to it, and whole Newton steps cross it. Then the ends weigh more at first and less from stage to
    stage, each of which begins at the optimum of the one before (a barrier method).
    """
    precision = _symmetric(np.linalg.inv(observed.intra))
    forces, history = (precision, np.zeros_like(observed.inter)), []
    point = _descend(observed, forces, history, _MOST_STRAIGHT, _TOLERANCE)
    if history[-1]["decrement"] > _TOLERANCE:
        for weight in _WEIGHTS_OF_ENDS:
            heavier = replace(observed, spectrum=_with_ends(observed.spectrum, weight))
            point = _descend(heavier, forces, [], _MOST_OF_STAGE, _TOLERANCE_OF_STAGE)
            forces = point.precision, point.inter
        point = _descend(observed, forces, history, _MOST_STEPS, _TOLERANCE)
    if history[-1]["decrement"] > _TOLERANCE:
        raise InputError(
            "inference: the field has no finite optimum for these cells, some combination of genes is the same in all "
            f"neighbours; give {'a larger ridge' if ridge else 'ridge, for example 0.01'}."
        )
    return point.precision, point.inter, history


def _with_ends(measure: Spectrum, weight: float) -> Spectrum:
    """The spectrum with so much more weight at either end; its weights sum to 1 again."""
    weights = measure.weights.copy()
    weights[[0, -1]] += weight
    return replace(measure, weights=weights / weights.sum())


def _descend(
    observed: FieldStatistics, forces: tuple[np.ndarray, np.ndarray], history: list[dict], most: int, tolerance: float
) -> _Point:
    """Newton steps with backtracking until the squared decrement is below `tolerance`, as the last entry of `history`
    then says, until no step gains anything, or for `most` steps.
    """
    point = _diagonalised(observed.spectrum, *forces)
    loss = _loss(observed, point)
    for _ in range(most):
        for_precision, for_inter, decrement = _newton_direction(observed, point)
        history.append({"epoch": len(history), "loss": loss, "decrement": decrement})
        for halvings in range(_MAX_HALVINGS):
            size = 0.5**halvings
            trial = _diagonalised(
                observed.spectrum,
                _symmetric(point.precision + size * for_precision),
                _symmetric(point.inter + size * for_inter),
            )
            reached = np.inf if trial is None else _loss(observed, trial)
            # Near the optimum the gain drowns in rounding.
            if reached <= loss - 0.1 * size * decrement + 1e-12 * abs(loss):
                break
        else:
            break
        point, loss = trial, reached
        # The step from here squares what is left, so that it is taken before the end.
        if decrement <= tolerance:
            break
    return point


def _standard_errors(observed, precision, inter) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of P and g from the inverse Fisher information, exact, by matrix products.

    In the combinations the estimates of the pairs are independent with covariance (block)^-1 / n, twice that on the
    diagonal. Back in genes, x_ab = sum_cd W_ac z_cd W_bd, W = V^-T.
    """
    point = _diagonalised(observed.spectrum, precision, inter)
    a, b, c = point.curvature()
    determinant = a * c - b * b
    solvable = determinant > 1e-14 * np.abs(a * c)
    determinant = np.where(solvable, determinant, 1)
    of_precision = np.where(solvable, c / determinant, 1 / a) / observed.n_cells
    # Nothing is known of forces between cells that never met.
    of_inter = np.where(solvable, a / determinant, np.inf) / observed.n_cells
    back = point.inverse.T
    return (
        np.sqrt(_variance_of_entries(back, of_precision)),
        np.sqrt(_variance_of_entries(back, of_inter)) if solvable.all() else np.full_like(inter, np.inf),
    )


def _variance_of_entries(back: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Variances of W z W' for symmetric z with independent entries: `variance` off, twice it on the diagonal.

    Var(x_ab) = sum_cd variance_cd (W_ac^2 W_bd^2 + W_ac W_bc W_ad W_bd), both sums over all c, d.
    """
    squares = back**2
    first, second = squares @ variance @ squares.T, np.zeros_like(back)
    for row in range(len(back)):
        product = back[row:] * back[row]
        second[row, row:] = ((product @ variance) * product).sum(axis=1)
    return first + np.triu(second) + np.triu(second, 1).T


def _refuse_collinear(correlation: np.ndarray) -> None:
    smallest = np.linalg.eigvalsh(correlation)[0]
    if smallest <= 1e-10:
        raise InputError(
            f"inference: the {len(correlation)} genes are linear combinations of each other in these cells (smallest "
            f"eigenvalue of their correlation {smallest:.1e}); give more cells, fewer genes, or ridge, for example "
            "0.01."
        )


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
