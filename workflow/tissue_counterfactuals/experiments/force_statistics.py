"""How much two matrices of forces agree, what else explains it, and which genes act between cells."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu, rankdata, t

from tissue_counterfactuals.gene_sets import LOCALIZATIONS
from tissue_counterfactuals.streams import stream

# Pairs of classes that Figure 3b compares.
PAIRS = (("secreted", "cytoplasmic"), ("secreted", "membrane"), ("membrane", "cytoplasmic"))
# Values that an interval of their mean takes: from fewer no estimate of their skewness is worth anything.
LEAST_VALUES = 10
# Share of all pairs of genes in either tail of `gene_tails`.
TAIL = 0.05


def entries(matrix: np.ndarray, which: str = "upper_triangle") -> np.ndarray:
    """The entries of a symmetric matrix (g, g) that are compared, (n,): each pair of genes once, or (`all`)
    everything.
    """
    if which == "all":
        return matrix.ravel()
    return matrix[np.triu_indices(len(matrix), k=1)]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two vectors (n,); NaN where one side is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else np.nan


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman correlation of two vectors (n,), ties sharing their mean rank; NaN where one side is constant."""
    return correlation(rankdata(a), rankdata(b))


def partial_spearman(a: np.ndarray, b: np.ndarray, given: Iterable[np.ndarray]) -> float:
    """Spearman correlation of a and b, each (n,), after the ranks of others (n,) are regressed out of both ranks;
    NaN where these explain a side fully."""
    ranks = [rankdata(v) for v in (a, b, *given)]
    ranks = np.column_stack([r - r.mean() for r in ranks])
    sides, others = ranks[:, :2], ranks[:, 2:]
    rest = sides - others @ np.linalg.lstsq(others, sides, rcond=None)[0]
    # What is left of a side that the others explain fully is rounding, not signal.
    explained = np.linalg.norm(rest, axis=0) <= 1e-9 * np.linalg.norm(sides, axis=0)
    return np.nan if explained.any() else correlation(rest[:, 0], rest[:, 1])


def mean_expression_forces(mean: np.ndarray) -> np.ndarray:
    """The matrix -m m' (g, g) that knows mean expression and nothing else."""
    return -np.outer(mean, mean)


def random_agreement(a: np.ndarray, b: np.ndarray, kind: str, which: str, n: int, seed: int) -> np.ndarray:
    """Spearman correlations (n,) of two force matrices after one was made random.

    Args:
        a, b: symmetric (g, g).
        kind: `permuted` gives the genes of b new names, rows and columns together, so that all structure of both stays
            and only the match of genes goes; `resampled` draws the compared entries of both with replacement, as in
            the authors' code.
        which: as in `entries`.
    """
    rng = stream(seed, "random_forces")
    x, y = entries(a, which), entries(b, which)
    if kind == "resampled":
        return np.array([spearman(rng.choice(x, x.size), rng.choice(y, y.size)) for _ in range(n)])
    # Renaming genes moves entries and changes none, so ranks are needed only once.
    x = rankdata(x)
    ranked = np.zeros(b.shape)
    if which == "all":
        ranked[:] = rankdata(y).reshape(b.shape)
    else:
        upper = np.triu_indices(len(b), k=1)
        ranked[upper] = rankdata(y)
        ranked += ranked.T
    orders = [rng.permutation(len(b)) for _ in range(n)]
    return np.array([correlation(x, entries(ranked[np.ix_(o, o)], which)) for o in orders])


def empirical_p(observed: float, null: np.ndarray) -> float:
    """Share of the null (b,) at or above the observed value, the observed one counted in; NaN stays NaN."""
    if np.isnan(observed) or np.isnan(null).any():
        return np.nan
    return (1 + np.sum(null >= observed)) / (1 + len(null))


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean, from Student's t corrected for skewness (Hall 1992, J. R. Stat. Soc. B 54, 221).

    Of ten draws from an exponential it covers the mean in 94 of 100 samples, where Student's t alone does in 91 and
    misses on one side; of values that lie evenly about their mean it is Student's. NaN for fewer than LEAST_VALUES.

    Args:
        values: (n,).
    """
    n = len(values)
    if n < LEAST_VALUES:
        return np.nan, np.nan
    mean, error = values.mean(), values.std(ddof=1)
    if not error > 0:
        return mean, mean
    reach = t.ppf([0.025, 0.975], n - 1) / np.sqrt(n)
    skew = np.mean((values - mean) ** 3) / values.std() ** 3
    if abs(skew) > 1e-6:
        reach = (np.cbrt(1 + skew * (reach - skew / (6 * n))) - 1) * 3 / skew
    low, high = mean - error * reach[::-1]
    return float(low), float(high)


def rank_test(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided Mann-Whitney p value of x (n,) against y (m,); NaN in them is left out, and the p value is NaN where
    one is then empty.
    """
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    if min(len(x), len(y)) == 0:
        return np.nan
    # Ties do not matter to how small p can be, and the approximation for many values goes below that.
    method = "exact" if max(len(x), len(y)) <= 8 else "asymptotic"
    return float(mannwhitneyu(x, y, alternative="two-sided", method=method).pvalue)


# --- localisation -----------------------------------------------------------------------------------------------


def entry_differences(inter: np.ndarray, intra: np.ndarray) -> np.ndarray:
    """Inter minus intra of every entry, (g, g), z-scored over all entries, as in the authors' code."""
    difference = inter - intra
    return (difference - difference.mean()) / (difference.std() or 1.0)


def gene_differences(inter: np.ndarray, intra: np.ndarray, signed: bool = False) -> np.ndarray:
    """How much more a gene acts between cells than within them, (g,), z-scored over genes.

    For each gene the mean over its partners (itself left out) of the strength |force|, or of the force itself if
    `signed`; each kind of force is brought to unit spread over all pairs first, so that the one with the larger
    numbers does not decide.
    """
    n = len(inter)
    sides = []
    for matrix in (inter, intra):
        values = matrix if signed else np.abs(matrix)
        spread = entries(values).std() or 1.0
        sides.append((values.sum(axis=1) - np.diag(values)) / (spread * max(n - 1, 1)))
    difference = sides[0] - sides[1]
    return (difference - difference.mean()) / (difference.std() or 1.0)


def gene_tails(inter: np.ndarray, intra: np.ndarray) -> np.ndarray:
    """How often a gene is among the pairs that act most between cells rather than most within them, (g,).

    Of each pair of genes inter minus intra strength is taken, at unit spread as in `gene_differences`. A gene's value
    is the share of its pairs in the upper tail of all pairs (beyond the quantile 1 - `TAIL`) less that in the lower
    tail, z-scored over genes. Pairs at a quantile are in no tail: of forces that are mostly cut to one value little is
    left, and the value is 0 for all genes where nothing is.
    """
    inter, intra = (np.abs(matrix) / (entries(np.abs(matrix)).std() or 1.0) for matrix in (inter, intra))
    difference = inter - intra
    np.fill_diagonal(difference, np.nan)
    low, high = np.nanquantile(difference, [TAIL, 1 - TAIL])
    tails = ((difference > high).sum(axis=1) - (difference < low).sum(axis=1)) / max(len(inter) - 1, 1)
    return (tails - tails.mean()) / (tails.std() or 1.0)


def localization_of_entries(values: np.ndarray, classes: pd.DataFrame) -> pd.DataFrame:
    """Fig. 3b as run: Mann-Whitney between all entries of the rows of two classes, as if they were independent.

    Args:
        values: (g, g) from `entry_differences`.
        classes: bool (g, 3), columns LOCALIZATIONS.
    """
    means = {c: values[classes[c].to_numpy()].ravel() for c in LOCALIZATIONS}
    rows = []
    for first, second in PAIRS:
        a, b = means[first], means[second]
        rows.append(
            {
                "first": first,
                "second": second,
                "n_first": len(a),
                "n_second": len(b),
                "difference": a.mean() - b.mean() if len(a) and len(b) else np.nan,
                "p_value": rank_test(a, b),
            }
        )
    return pd.DataFrame(rows)


def localization_of_genes(
    values: np.ndarray, classes: pd.DataFrame, mean_expression: np.ndarray, n_bins: int, n_permutations: int, seed: int
) -> pd.DataFrame:
    """Difference of the class means of a value per gene, tested by exchanging labels among genes of like expression.

    Genes that are in both classes of a pair are left out of that pair. Two-sided p values. What is exchanged are the
    values less their trend over expression (a cubic in its rank): within a bin expression still differs, and where
    values and classes both follow it, labels of raw values are not exchangeable.

    Args:
        values: (g,).
        classes: bool (g, 3), columns LOCALIZATIONS.
        mean_expression: (g,), what the bins are made of (quantiles, among the genes of the pair).
    """
    rng = stream(seed, "localization_labels")
    rows = []
    for first, second in PAIRS:
        a, b = classes[first].to_numpy(), classes[second].to_numpy()
        chosen = np.flatnonzero(a ^ b)
        is_first = a[chosen]
        n_first = int(is_first.sum())
        row = {"first": first, "second": second, "n_first": n_first}
        row |= {"n_second": len(chosen) - n_first, "difference": np.nan, "p_value": np.nan}
        if 0 < n_first < len(chosen):
            x = values[chosen]
            place = rankdata(mean_expression[chosen], "ordinal") - 1
            row["difference"] = x[is_first].mean() - x[~is_first].mean()
            rest = _without_trend(x, place)
            own = rest[is_first].mean() - rest[~is_first].mean()
            bins = place * n_bins // len(chosen)
            null = _exchanged(rest, is_first, bins, n_permutations, rng)
            # Rounding must not part what is equal.
            beyond = np.abs(null) >= abs(own) - 1e-12
            row["p_value"] = (1 + beyond.sum()) / (1 + n_permutations)
        rows.append(row)
    return pd.DataFrame(rows)


def _without_trend(x: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values (n,) less a cubic in the rank; of few genes a lower power, that half of the freedom is left."""
    degree = min(3, len(x) // 4)
    trend = np.polynomial.Legendre.fit(place, x, degree)
    return x - trend(place)


def _exchanged(x, is_first, bins, n, rng) -> np.ndarray:
    """Differences of the two means (n,) after labels were exchanged within bins."""
    sums = np.zeros(n)
    for bin_ in np.unique(bins):
        members = np.flatnonzero(bins == bin_)
        n_first = int(is_first[members].sum())
        # The first places of a random order are a random draw without replacement.
        order = rng.random((n, len(members))).argsort(axis=1)[:, :n_first]
        sums += x[members][order].sum(axis=1)
    n_first = is_first.sum()
    return sums / n_first - (x.sum() - sums) / (len(x) - n_first)
