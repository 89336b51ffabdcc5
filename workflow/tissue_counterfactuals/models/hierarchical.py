"""A plain model: log expression linear in what neighbours express, with cell types as random effects.

Every type t and gene g has a Poisson rate regression with overdispersion,

    x_vg ~ library_v * exp(a_tg + b_tg . d_v),     d_v = (h_v, domain_v)

where h_v are the first principal components of the mean log expression of the cell's neighbours and domain_v says in
which target domain it stands. The slopes of the types scatter around a common slope, b_tg ~ N(m_g, T), m_g ~ N(0, S); T
and S are diagonal, shared by all genes and learnt. They are the ridge, and say how many of the components count: slopes
of one that says nothing get next to no variance. A type that was held out of a domain so gets what its own cells say
about other neighbourhoods, and for the rest what other types do, with a variance that says how far types agree.

All that is kept of the cells are sums: a gradient and an information matrix per type and gene.

A user may ask for neighbourhoods unlike all that were seen. Then the variance also has what a change brings about off
the components (`variance_beyond`), and how far types bend along the way (`Bend`), both learnt from the slide.

Few cells show what they express with much counting noise, and no factor moves a count of 0. So a population is first
told what it is likely to express (`likely_share`, `told`): the posterior mean of each gene's rate, whose prior is a
mixture of what other cells express. Where cells have many counts, it is what they show.

The model's own variance misses what it leaves out. So each type whose answer is known is asked the same question as if
it were not, and the variance is multiplied by what that takes (`calibrate`): a two-layer conformal interval, genes
within types.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, ndtri

LARGEST_CHANGE = 3.0
N_CELLS_OF_AXES = 20_000
_STEPS_OF_MIXTURE, _STEPS_OF_SCATTER = 200, 6
_STEPS_OF_REGRESSION, _STEPS_OF_SPREAD = 40, 40
# Keeps the steps of a regression stable; taken out of the evidence again.
_RIDGE = 1.0
_VALUES_PER_BLOCK = 1 << 22
# A Newton step of a log rate after which a gene's regression is done: the next one would be about its square.
_SMALL_STEP = 0.01
_FLOOR = 1e-4
# The model's variance of a gene that it has hardly seen says nothing: all get this share of the mean squared error.
_SHARE_OF_ERROR = 0.1
# Genes from which the variances are learnt: they have few parameters, and steps over all genes take long.
_GENES_OF_SPREAD = 500
# Of a change that lies off the axes for more than this share, what the axes say is no answer.
MOST_OFF = 0.5
COVERAGE = 0.9
QUANTILE = ndtri((1 + COVERAGE) / 2)
N_LEVELS = 3
# Fewer types whose answer is known say nothing about how far off the next one is.
FEWEST_TYPES = 3
# What a gene's own errors weigh: as much as its level's, once it has as many types.
_TYPES_OF_LEVEL = 6


@dataclass(frozen=True)
class Axes:
    """Principal components of received expression: h = (phi - mean) @ loadings, of unit variance.

    Attributes:
        mean: (g,). loadings: (g, k).
    """

    mean: np.ndarray
    loadings: np.ndarray

    @classmethod
    def of(cls, received: np.ndarray, n_components: int) -> "Axes":
        """From received expression (n, g); fewer components where there is less variance."""
        received = received.astype(np.float64)
        mean = received.mean(axis=0)
        centred = received - mean
        covariance = centred.T @ centred / max(len(received) - 1, 1)
        n_genes = len(mean)
        k = min(n_components, n_genes, len(received) - 1)
        variances, vectors = eigh(covariance, subset_by_index=[n_genes - k, n_genes - 1])
        kept = variances > 1e-9 * max(np.trace(covariance), 1e-300)
        variances, vectors = variances[kept][::-1], vectors[:, kept][:, ::-1]
        largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
        return cls(mean, vectors * np.sign(largest) / np.sqrt(variances))

    def beyond(self, change: np.ndarray) -> float:
        """Squared length of what a change of what cells receive (g,) has off the axes, where no slope was seen."""
        on = change @ (self.loadings / np.linalg.norm(self.loadings, axis=0))
        return max(float((change**2).sum() - (on**2).sum()), 0.0)

    def off(self, change: np.ndarray) -> float:
        """Share of a change of what cells receive (g,) that lies off the axes."""
        return self.beyond(change) / max(float((change**2).sum()), 1e-12)

    def project(self, graph: sparse.csr_array, log_expression: sparse.csr_array) -> np.ndarray:
        """h (m, k) of cells with neighbours given by rows of `graph` (m, n); without any, what an average cell
        receives.
        """
        total = np.asarray(graph.sum(axis=1)).ravel()
        received = graph @ (log_expression @ self.loadings) / np.maximum(total, 1e-12)[:, None]
        return np.where(total[:, None] > 0, received - self.mean @ self.loadings, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What some cells say about their slopes, as a Gaussian likelihood in natural form; genes first.

    Attributes:
        linear: (g, p) information @ slope. information: (g, p, p).
        level: (g,) fitted log rate at the centre. centre: (p,) mean design of the cells.
        dispersion: (g,) variance over mean.
        n_cells: how many cells.
    """

    linear: np.ndarray
    information: np.ndarray
    level: np.ndarray
    centre: np.ndarray
    dispersion: np.ndarray
    n_cells: int


def regress(counts: sparse.csr_array, library: np.ndarray, design: np.ndarray) -> Evidence:
    """Poisson regressions of all genes on one design, by Newton steps on sums over blocks of cells.

    A gene takes steps until one moves no coefficient by more than 0.01; genes with large changes need many.

    Args:
        counts: (n, g). library: (n,) total counts. design: (n, p).
    """
    counts, (n, g), p = sparse.csr_array(counts), counts.shape, design.shape[1]
    centre = design.mean(axis=0)
    z = np.column_stack([np.ones(n), design - centre])
    pairs = np.triu_indices(p + 1)
    total = np.asarray(counts.sum(axis=0)).ravel()
    observed = (counts.T @ z).T
    coefficients = np.zeros((p + 1, g))
    coefficients[0] = np.log((total + 0.5) / library.sum())
    penalty = np.diag([0.0] + [_RIDGE] * p)
    moving = np.arange(g)
    for _ in range(_STEPS_OF_REGRESSION):
        now = coefficients[:, moving]
        expected, information = _sums(z, library, now, pairs)
        gradient = observed[:, moving] - expected - penalty @ now
        step = np.linalg.solve(information + penalty + 1e-6 * np.eye(p + 1), gradient.T[..., None])[..., 0].T
        # No component moves by more than 1 in a step: far steps of a Poisson fit do not come back.
        size = np.abs(step).max(axis=0)
        coefficients[:, moving] = now + step / np.maximum(1, size)
        moving = moving[size > _SMALL_STEP]
        if not len(moving):
            break
    expected, information = _sums(z, library, coefficients, pairs)
    dispersion = _dispersion(counts, z, library, coefficients, total, expected[0], p)
    information /= dispersion[:, None, None]
    # The level is fitted beside the slopes: what is left for them is the Schur complement.
    cross = information[:, 0, 1:]
    slopes = information[:, 1:, 1:] - cross[:, :, None] * cross[:, None, :] / np.maximum(information[:, :1, :1], 1e-12)
    score = (observed - expected)[1:].T / dispersion[:, None]
    fitted = coefficients[1:].T
    linear = _times(slopes, fitted) + score
    return Evidence(linear, slopes, coefficients[0], centre, dispersion, n)


def _blocks(n: int, g: int) -> Iterator[slice]:
    rows = max(1, _VALUES_PER_BLOCK // g)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _sums(z, library, coefficients, pairs) -> tuple[np.ndarray, np.ndarray]:
    """Z' mu (p + 1, g) and Z' diag(mu) Z (g, p + 1, p + 1)."""
    p1, g = coefficients.shape
    expected, products = np.zeros((p1, g)), np.zeros((len(pairs[0]), g))
    # Products of columns are the larger table where few genes still move.
    for rows in _blocks(len(z), max(g, len(pairs[0]))):
        part = z[rows]
        rate = np.exp(np.clip(part @ coefficients, -30, 10)) * library[rows, None]
        expected += part.T @ rate
        products += (part[:, pairs[0]] * part[:, pairs[1]]).T @ rate
    information = np.empty((g, p1, p1))
    information[:, pairs[0], pairs[1]] = products.T
    information[:, pairs[1], pairs[0]] = products.T
    return expected, information


def _dispersion(counts, z, library, coefficients, total, expected, p) -> np.ndarray:
    """Pearson's chi-square per degree of freedom (g,), at least 1: counts scatter no less than Poisson's."""
    g = counts.shape[1]
    squares = np.zeros(g)
    for rows in _blocks(len(z), g):
        part = counts[rows].tocoo()
        rate = np.exp(np.clip(z[rows] @ coefficients, -30, 10)) * library[rows, None]
        squares += np.bincount(part.col, part.data.astype(float) ** 2 / rate[part.row, part.col], minlength=g)
    chi_square = squares - 2 * total + expected
    return np.maximum(chi_square / max(len(z) - p - 1, 1), 1.0)


@dataclass(frozen=True)
class Prior:
    """Slopes of a type that has not been seen: mean (g, p) and covariance (g, p, p)."""

    mean: np.ndarray
    covariance: np.ndarray

    def update(self, evidence: Evidence | None) -> "Prior":
        """With what the type's own cells say."""
        if evidence is None:
            return self
        precision = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(precision + evidence.information)
        linear = _times(precision, self.mean) + evidence.linear
        return Prior(_times(covariance, linear), covariance)


@dataclass(frozen=True)
class Spread:
    """How far slopes reach: variance of the common slope and between types, (p,) each, shared by all genes."""

    common: np.ndarray
    between: np.ndarray


def learn_spread(evidence: list[Evidence]) -> Spread:
    """Both variances by expectation maximisation over types and genes."""
    g, p = evidence[0].linear.shape
    if g > _GENES_OF_SPREAD:
        some = np.linspace(0, g - 1, _GENES_OF_SPREAD).astype(int)
        evidence = [replace(own, linear=own.linear[some], information=own.information[some]) for own in evidence]
    common, between = np.full(p, 0.1), np.full(p, 0.05)
    for _ in range(_STEPS_OF_SPREAD):
        mean, covariance, parts = _common_slope(evidence, Spread(common, between))
        common = np.maximum((mean**2 + covariance.diagonal(axis1=1, axis2=2)).mean(axis=0), _FLOOR)
        moments = [_deviation(part, mean, covariance) for part in parts]
        between = np.maximum(np.mean(moments, axis=(0, 1)), _FLOOR)
    return Spread(common, between)


def _common_slope(evidence, spread):
    """Posterior of the common slope, mean (g, p) and covariance (g, p, p), and each type's share in it."""
    g, p = evidence[0].linear.shape
    inverse = np.diag(1 / spread.between)
    precision, linear = np.tile(np.diag(1 / spread.common), (g, 1, 1)), np.zeros((g, p))
    parts = []
    for own in evidence:
        # Posterior of a type's deviation from a common slope m: covariance c, mean c (linear - information m).
        c = np.linalg.inv(own.information + inverse)
        kept = inverse @ c
        precision += kept @ own.information
        linear += _times(kept, own.linear)
        parts.append((own, c))
    precision = (precision + precision.transpose(0, 2, 1)) / 2
    covariance = np.linalg.inv(precision)
    return _times(covariance, linear), covariance, parts


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(g, p, q) times (g, q)."""
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _deviation(part, mean, covariance) -> np.ndarray:
    """Expected squared deviation of a type's slopes from the common ones (g, p)."""
    own, c = part
    gain = c @ own.information
    deviation = _times(c, own.linear) - _times(gain, mean)
    spread = c.diagonal(axis1=1, axis2=2) + ((gain @ covariance) * gain).sum(axis=2)
    return deviation**2 + spread


def predictive_prior(evidence: list[Evidence], spread: Spread) -> Prior:
    """Slopes that a further type may have, before any of its cells is seen."""
    mean, covariance, _ = _common_slope(evidence, spread)
    return Prior(mean, covariance + np.diag(spread.between))


def likely_share(counts: sparse.csr_array, others: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """What a population expresses, in the light of all others: posterior mean shares of counts (g,).

    Counts of gene g have a mean in proportion to r_g; r_g is gamma distributed with mean p_g and a shape. The profile p
    is the mixture of `others` from which the counts come most likely. The shape is the most likely one (empirical
    Bayes): it says how far populations stray from mixtures of others. Counts that scatter more than Poisson's count for
    less.

    Args:
        counts: (m, g). others: (k, g) total counts of other groups of cells.
        dispersion: (g,) a in the variance m + a m^2 of a cell's counts.
    """
    library = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    each = np.divide(1.0, library, out=np.zeros_like(library), where=library > 0)
    n_shown = max(np.count_nonzero(library), 1)
    share = counts.T @ each / n_shown
    if not share.any() or not len(others):
        return share
    # The mean share of cells scatters as if so many counts had been drawn at once.
    total = n_shown**2 / each.sum()
    every = others.sum(axis=0) + np.asarray(counts.sum(axis=0)).ravel()
    # Groups of few cells have not shown all that they express.
    profiles = others + every / every.sum()
    profiles = profiles / profiles.sum(axis=1, keepdims=True)
    weights = np.full(len(profiles), 1 / len(profiles))
    for _ in range(_STEPS_OF_MIXTURE):
        weights = weights * (profiles @ (share / np.maximum(weights @ profiles, 1e-300)))
    mean = weights @ profiles
    seen, likely = every > 0, np.zeros_like(share)
    # Counts scatter by what a gene likely expresses, which is not known before.
    for _ in range(_STEPS_OF_SCATTER):
        scatter = 1 + dispersion * likely * library.sum() / n_shown
        x, m = ((total * values / scatter)[seen] for values in (share, mean))
        own = m / (m + _likely_shape(x, m))
        likely[seen] = own * share[seen] + (1 - own) * mean[seen]
    return likely


def _likely_shape(counts: np.ndarray, mean: np.ndarray) -> float:
    """Shape of the gamma distribution, of mean 1, that most likely stands between Poisson counts (g,) and their
    means.
    """

    def misfit(log_shape: float) -> float:
        a = np.exp(log_shape)
        odds = counts * np.log(mean / (a + mean)) + a * np.log(a / (a + mean))
        return -(gammaln(counts + a) - gammaln(a) + odds).sum()

    return np.exp(minimize_scalar(misfit, bounds=(-5, 9), method="bounded").x)


def told(counts: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Counts (m, g) of a population, scaled gene by gene to its likely shares (g,); totals stay; float64.

    Cells keep their scatter. Of a gene that none of them shows, all get the same share.
    """
    library, mean = counts.sum(axis=1, keepdims=True), _mean(counts) / 1e4
    shown = mean > 0
    values = counts * np.where(shown, share / np.where(shown, mean, 1), 0)
    values[:, ~shown] = library * share[~shown]
    return values * (library / np.maximum(values.sum(axis=1, keepdims=True), 1e-12))


def change(prior: Prior, move: np.ndarray) -> np.ndarray:
    """Log change of expected expression (m, g), for moves of the design (m, p)."""
    return np.clip(move @ prior.mean.T, -LARGEST_CHANGE, LARGEST_CHANGE)


def variance_of_change(prior: Prior, move: np.ndarray) -> np.ndarray:
    """Variance of the log change (g,) for one move (p,)."""
    return np.einsum("p,gpq,q->g", move, prior.covariance, move)


def variance_beyond(prior: Prior, axes: Axes, received: np.ndarray) -> np.ndarray:
    """Variance of the log change (g,) that a change of what cells receive (g,) brings about off the axes.

    What no neighbourhoods differ by, no slope was learnt for. A gene is taken to answer it as strongly as it answers
    the axes, per unit of what is received: half by its own slopes, half by those of all genes.
    """
    k = axes.loadings.shape[1]
    squares = (prior.mean**2 + prior.covariance.diagonal(axis1=1, axis2=2))[:, :k].sum(axis=1)
    per_unit = squares / (1 / (axes.loadings**2).sum(axis=0)).sum()
    return axes.beyond(received) * (per_unit + per_unit.mean()) / 2


@dataclass(frozen=True)
class Bend:
    """How far log rates bend along a direction of neighbourhoods, where slopes say that they are straight.

    Attributes:
        direction: (k,) on the axes, of length 1.
        variance: of the coefficient of the square, over genes and types.
    """

    direction: np.ndarray
    variance: float

    @staticmethod
    def square(along: np.ndarray, centre: float) -> np.ndarray:
        """The column of the square, of places along the direction (n,)."""
        return (along - centre) ** 2

    @classmethod
    def of(cls, direction: np.ndarray, evidence: list[Evidence]) -> "Bend":
        """Learnt from regressions of types whose last column is the square."""
        spread = learn_spread(evidence)
        return cls(direction, float(spread.common[-1] + spread.between[-1]))

    def variance_of_change(self, old: np.ndarray, new: np.ndarray, centre: np.ndarray) -> float:
        """Of the mean log change of cells that go from neighbourhoods `old` to `new` (m, k); their type's are around
        `centre` (k,).
        """
        middle = centre @ self.direction
        squares = (self.square(x @ self.direction, middle).mean() for x in (new, old))
        return self.variance * float(np.subtract(*squares)) ** 2


def moved(counts: np.ndarray, prior: Prior, move: np.ndarray) -> np.ndarray:
    """Counts (m, g) after a move (m, p), scaled to each cell's total; float64."""
    values = counts * np.exp(change(prior, move))
    total, new = counts.sum(axis=1, keepdims=True), values.sum(axis=1, keepdims=True)
    return values * (total / np.maximum(new, 1e-12))


@dataclass(frozen=True)
class Answer:
    """The change of a population's mean expression: log1p of mean CP10K, new minus old; all (g,).

    Attributes:
        base: log1p of mean CP10K before. change: predicted. variance: the model's own.
    """

    base: np.ndarray
    change: np.ndarray
    variance: np.ndarray


def answer(
    counts: np.ndarray, values: np.ndarray, prior: Prior, move: np.ndarray, beyond: np.ndarray | float = 0.0
) -> Answer:
    """What `values` (m, g), moved from `counts` by moves (m, p), say about the population.

    Args:
        beyond: (g,) of `variance_beyond`.
    """
    base, mean = _mean(counts), _mean(values)
    # The log rate's variance on the scale of log1p.
    variance = (variance_of_change(prior, move.mean(axis=0)) + beyond) * (mean / (1 + mean)) ** 2
    return Answer(np.log1p(base), np.log1p(mean) - np.log1p(base), variance)


def half_width_apart(
    told: Answer, prior: Prior, axes: Axes, steps: tuple[np.ndarray, ...], off: np.ndarray
) -> np.ndarray:
    """Half the length of an interval about how far cells among their donors may be from those that stand there (g,).

    Intervals are learnt from cells that stand in a domain. Donors are a neighbourhood that may be purer than any there,
    and what the domain does beyond neighbours may be of those who stand there, or the donors' doing. Nothing says
    which, so each of these changes counts as large as it is told, with either sign.

    Args:
        steps: (p,) each, of the design: from the neighbourhoods in place to the donors', and of the domain alone.
        off: (g,) change of what is received from the neighbourhoods in place to the donors'.
    """
    variance = variance_beyond(prior, axes, off)
    for step in steps:
        variance += change(prior, step) ** 2 + variance_of_change(prior, step)
    # A small change of the log rate on the scale of log1p.
    return QUANTILE * np.sqrt(variance) * -np.expm1(-(told.base + told.change))


def change_per_cell(counts: np.ndarray, prior: Prior, move: np.ndarray) -> np.ndarray:
    """Log change of each gene's expected share in each cell (m, g), for counts (m, g) before and moves (m, p); NaN for
    a cell without counts, which has no shares.
    """
    every, before = change(prior, move), counts.sum(axis=1)
    # Shares add up to 1 again: what all genes gain, each loses.
    total = np.full(len(counts), np.nan)
    np.divide((counts * np.exp(every)).sum(axis=1), before, out=total, where=before > 0)
    return every - np.log(total)[:, None]


def products_of_near_cells(counts: np.ndarray, expected: np.ndarray, near: sparse.csr_array) -> np.ndarray:
    """Sums over pairs of near cells of products of residuals, and of products of expectations (2, g).

    Their ratio is the mean square of what the expectation misses, as a share of it: near cells miss it alike, and
    counting noise and what cells differ by on their own are in no two cells the same.

    Args:
        counts, expected: (m, g). near: (m, m) 1 for pairs that are near each other, 0 on the diagonal.
    """
    residual = counts - expected
    pairs = (residual * (near @ residual), expected * (near @ expected))
    return np.array([product.sum(axis=0) for product in pairs])


def error_per_cell(sums: np.ndarray) -> float:
    """Mean square error of the log change in a cell, over the genes of `products_of_near_cells` (..., 2, genes).

    What the move misses in the new place and what the cells' own counts owe to the old one add up, so the first axis,
    of places, is summed; genes weigh by what is expected of them. NaN without near cells.
    """
    products, expected = sums[..., 0, :], np.sqrt(sums[..., 1, :])
    weighted = np.where(expected > 0, products / np.maximum(expected, 1e-12), 0)
    axes = tuple(range(1, expected.ndim))
    with np.errstate(invalid="ignore"):
        return float(np.maximum(weighted.sum(axis=axes) / expected.sum(axis=axes), _FLOOR).sum())


def half_width_per_cell(prior: Prior, move: np.ndarray, error: np.ndarray | float) -> np.ndarray:
    """Half the length of the interval of each cell's log change (m, g), for moves (m, p) and `error_per_cell`."""
    variance = np.einsum("mp,gpq,mq->mg", move, prior.covariance, move, optimize=True)
    return QUANTILE * np.sqrt(variance + error)


def _mean(counts: np.ndarray) -> np.ndarray:
    return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)).mean(axis=0) * 1e4


@dataclass(frozen=True)
class Known:
    """A type that was asked although its answer is known; all (g,), on the scale of `Answer`.

    Attributes:
        answer: predicted without the type's cells in the target.
        observed: change. noise: variance of `observed` from counting.
        shown: genes of which the type shows a count, in either domain; others say nothing.
    """

    answer: Answer
    observed: np.ndarray
    noise: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """How far off the model is where the answer is known; all (g,).

    Attributes:
        floor: added to the model's variance, which is next to none where cells show next to nothing of a gene.
        inflation: factor of both under which `COVERAGE` of the known answers lie in their intervals.
        effect: root mean square of observed changes, counting noise taken off, among genes of the same level.
        growth: the squared change times this is added too: what is told wrong grows with what is told.
    """

    floor: np.ndarray
    inflation: np.ndarray
    effect: np.ndarray
    growth: np.ndarray

    def half_width(self, told: Answer) -> np.ndarray:
        """Half the length of the interval of the change (g,)."""
        return QUANTILE * np.sqrt(self.variance(told) * self.inflation)

    def variance(self, told: Answer) -> np.ndarray:
        """Of the change (g,), before it is inflated."""
        return told.variance + self.floor + self.growth * told.change**2

    def abstains(self, half: np.ndarray) -> np.ndarray:
        """Genes (g,) about which an interval of this half width says no more than that types change between these
        domains.
        """
        return half >= QUANTILE * self.effect


def levels(expression: np.ndarray) -> np.ndarray:
    """Thirds of genes by mean expression: 0 (low), 1, 2 (high), (g,)."""
    rank = np.argsort(np.argsort(expression, kind="stable"), kind="stable")
    return rank * N_LEVELS // len(expression)


def calibrate(known: list[Known], level: np.ndarray, grows: bool = False) -> Calibration | None:
    """Learn from types whose answer is known how much wider intervals must be; None from fewer than `FEWEST_TYPES`.

    A gene's factor is the mean of its own squared standard errors over types, shrunk to its level's; a further factor
    per level makes the share of known answers within their intervals right. A type then counts without its own errors.

    Args:
        level: (g,) of `levels`.
        grows: what the model's variance leaves unexplained is taken to grow with the change that is told.
    """
    n = len(known)
    if n < FEWEST_TYPES:
        return None
    noise = np.array([own.noise for own in known])
    observed = np.array([own.observed for own in known])
    observed[~np.array([own.shown for own in known])] = np.nan
    error = (observed - np.array([own.answer.change for own in known])) ** 2
    unexplained = _by_level(error - noise, level, np.nanmean)
    floor = np.maximum(_SHARE_OF_ERROR * unexplained, 1e-6)
    variance, growth = np.array([own.answer.variance for own in known]) + floor, np.zeros(len(level))
    if grows:
        squares = np.where(np.isfinite(error), np.array([own.answer.change for own in known]) ** 2, np.nan)
        missing = max(float(np.nansum(error - noise - variance)), 0.0)
        growth += missing / max(float(np.nansum(squares)), 1e-12)
        variance += growth * np.nan_to_num(squares)
    ratio = error / (variance + noise)

    def scale(types: np.ndarray) -> np.ndarray:
        own = np.nansum(ratio[types], axis=0)
        seen = np.isfinite(ratio[types]).sum(axis=0)
        wide = _by_level(ratio[types], level, np.nanmean)
        return np.maximum((_TYPES_OF_LEVEL * wide + own) / (_TYPES_OF_LEVEL + seen), 1e-3)

    every = np.arange(n)
    scales = np.array([scale(every[every != left_out]) for left_out in every])
    # A little more than the coverage, most where types are few: the next one may be further off than all of them.
    share = COVERAGE + (1 - COVERAGE) / (n + 1)
    needed = (error / QUANTILE**2 - noise) / (variance * scales)
    factor = _by_level(needed, level, lambda values: np.nanquantile(values, share))
    effect = _by_level(observed**2 - noise, level, np.nanmean)
    inflation = scale(every) * np.maximum(factor, 0.01)
    return Calibration(floor, inflation, np.sqrt(np.maximum(effect, 0)), growth)


@dataclass(frozen=True)
class Rehearsal:
    """How good answers are where they are known: means over types, each told by the others.

    Attributes:
        coverage: share of genes whose observed change lies in its interval.
        error, error_of_no_change: root mean square over the `N_TOP` most changed genes.
        abstained: share of genes.
    """

    coverage: float
    error: float
    error_of_no_change: float
    abstained: float


N_TOP = 50


def rehearse(known: list[Known], level: np.ndarray, grows: bool = False) -> Rehearsal:
    """Calibrate by all types but one, in turn; the coverage is undefined below `FEWEST_TYPES` + 1 types."""
    rows = []
    for number, own in enumerate(known):
        top = np.argsort(-np.abs(own.observed), kind="stable")[:N_TOP]
        error = own.observed - own.answer.change
        inside, abstained = np.nan, np.nan
        if found := calibrate(known[:number] + known[number + 1 :], level, grows):
            half = found.half_width(own.answer)
            wide = np.sqrt(half**2 + QUANTILE**2 * own.noise)
            inside = np.mean((np.abs(error) <= wide)[own.shown])
            abstained = found.abstains(half).mean()
        squares = (np.sqrt(np.mean(x[top] ** 2)) for x in (error, own.observed))
        rows.append((inside, *squares, abstained))
    return Rehearsal(*np.mean(rows, axis=0).tolist())


def _by_level(values: np.ndarray, level: np.ndarray, statistic) -> np.ndarray:
    """A statistic of values (types, g) over all of a level's genes, for every gene (g,); over all where a level has
    none.
    """
    seen = np.isfinite(values)
    result = np.empty(len(level))
    for number in np.unique(level):
        own = level == number
        result[own] = statistic(values[:, own] if seen[:, own].any() else values)
    return result
