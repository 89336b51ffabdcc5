"""How far a published number and ours may be apart if nothing is different but chance.

No tolerance is a round number: it comes from how far our own seeds and folds are apart. All are half lengths of 95 %
intervals of the difference of two runs, and a test holds them to that on simulated runs.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

LEVEL = 0.95


class Tolerance(NamedTuple):
    """Half length of the interval of the difference, and what it was taken from; NaN where nothing tells."""

    value: float
    origin: str


def rounding(printed: str) -> float:
    """Half of the last digit of a printed number: what rounding may have taken from it."""
    mantissa, _, exponent = printed.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 0.5 * 10.0 ** (int(exponent or 0) - decimals)


def of_folds(values: pd.DataFrame, n_published: int) -> Tolerance:
    """Tolerance of a mean over folds, each with one seed or several, against one printed mean (one seed).

    With as many folds as were published they are the same folds, so that only seeds tell the runs apart: both means
    have the variance between seeds, theirs of one seed. With fewer of them the folds left out add theirs. With one seed
    the variance between seeds is not known, and that between folds, which holds it, stands in its place: too wide.

    Args:
        values: `fold`, `value`; a row per fold and seed.
        n_published: folds behind the printed mean.
    """
    groups = values.groupby("fold")["value"]
    means, sizes = groups.mean(), groups.size()
    n_folds, freedom = len(means), int((sizes - 1).sum())
    if n_folds == 1 < n_published:
        return Tolerance(np.nan, "one of several folds says nothing of the others")
    if freedom:
        within = float(((values["value"] - groups.transform("mean")) ** 2).sum() / freedom)
        variance = within * (1 / n_published + (1 / sizes).sum() / n_folds**2)
        origin = f"spread of {int(sizes.max())} seeds in {n_folds} folds"
        if n_folds < n_published:
            variance += means.var() * (1 / n_folds - 1 / n_published)
            freedom = min(freedom, n_folds - 1)
            origin += f", and of the {n_published - n_folds} folds that are missing"
    elif n_folds > 1:
        variance, freedom = means.var() * (1 / n_folds + 1 / n_published), n_folds - 1
        origin = f"spread of {n_folds} folds; with one seed that of seeds is not known"
    else:
        return Tolerance(np.nan, "one fold and one seed have no spread")
    return Tolerance(float(t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance)), origin)


def of_replicates(replicates: np.ndarray, origin: str) -> Tolerance:
    """Tolerance of a statistic whose resampled values (n,), or values of several seeds, are given; both runs have that
    spread. NaN for fewer than two of them.
    """
    replicates = np.asarray(replicates, dtype=float)
    replicates = replicates[np.isfinite(replicates)]
    if len(replicates) < 2:
        return Tolerance(np.nan, f"{origin}: one value has no spread")
    quantile = t.ppf((1 + LEVEL) / 2, len(replicates) - 1)
    return Tolerance(float(quantile * np.sqrt(2) * replicates.std(ddof=1)), origin)
