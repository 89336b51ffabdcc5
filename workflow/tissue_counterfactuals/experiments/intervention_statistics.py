"""What an intervention in a tissue did, with the confounders of space taken out: one language for every such
experiment.

Units are what was changed together: clones of carriers of one guide (Perturb-FISH), lesions (Perturb-map). Members are
the cells that may show it: recipients near carriers, or the spots of a lesion. A member counts for a label only where
all units around it have that label. Labels: 0 is the control, 1, 2, ... are the targets.

The effect of a target is the change of log mean expression between its members and control members, each matched to the
control member of nearest depth in the same tile, or else in the nearest tile. It is tested by giving the units of a
stratum (tile and size of the unit) each other's labels: clones stay whole and stay where they are, so that what the
regions of a tissue differ by differs in every draw as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.special import comb
from scipy.stats import rankdata
from scipy.stats import t as student

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.force_statistics import empirical_p
from tissue_counterfactuals.gene_sets import benjamini_hochberg
from tissue_counterfactuals.streams import stream

CONTROL, NONE = 0, -1
# Fewer members, controls or arrangements of units than these are no experiment.
FEWEST_MEMBERS, FEWEST_ARRANGEMENTS = 5, 20
LEVEL, POWER = 0.05, 0.8
# Carriers of one guide that are no farther apart than this are taken for one clone. Where some of a clone are not
# called, the rest of it falls apart at the radius of contacts (30), and permuting the parts by themselves is liberal.
_CLONE_UM = 60.0
TILE_UM = 250.0
# What a ceiling must exceed for an agreement with the truth to mean anything.
LEAST_CEILING = 0.3
# Two-sided 5 %, power 80 %: 1.96 + 0.84 standard deviations.
_DETECTABLE, _ONE_SIDED = 2.80, 1.645
# Changes of log expression that are tried where genes are spiked.
_SPIKES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4, 2.0)
# Genes that are looked at where the most changed ones are, as the authors do.
TOP_GENES = 10
_CANDIDATES = 24
_DRAWS_AT_ONCE = 250
# Halvings of the tiles at every draw of a joint null; each takes two effects more.
_HALVINGS = 3


@dataclass(frozen=True)
class Arena:
    """Members, the units around them, and what the units bear.

    Attributes:
        members: (m,) which cells they are.
        values: (m, g) expression of the members, scaled to equal totals.
        depth: (m,) log(1 + counts).
        tile: (m, 2) whole numbers; members are matched, and halves are split, by tile.
        unit, start: around member i stand units unit[start[i]:start[i + 1]].
        carriers: as many of each of these units stand around the member, as long as `unit`.
        labels: (u,) of the units.
        unit_tile: (u, 2), unit_size: (u,) carriers or spots.
        target_names: of the labels 1, 2, ...
    """

    members: np.ndarray
    values: np.ndarray
    depth: np.ndarray
    tile: np.ndarray
    unit: np.ndarray
    start: np.ndarray
    carriers: np.ndarray
    labels: np.ndarray
    unit_tile: np.ndarray
    unit_size: np.ndarray
    target_names: tuple[str, ...]

    @cached_property
    def candidates(self) -> np.ndarray:
        """(m, c) the nearest other members as one would match them: nearest tile first, then depth."""
        found = cKDTree(self.points).query(self.points, k=min(_CANDIDATES + 1, len(self.points)))[1]
        found = found.reshape(len(self.points), -1)
        # Among members of the same tile and depth a member need not be its own nearest, nor be found at all.
        itself = found == np.arange(len(found))[:, None]
        itself[~itself.any(axis=1), -1] = True
        return found[~itself].reshape(len(found), -1)

    @cached_property
    def points(self) -> np.ndarray:
        """(m, 3) places whose distances say who is matched to whom: tile, then depth."""
        # Depth is squeezed into a tenth of a tile, so that no difference of it reaches the next one.
        span = max(float(np.ptp(self.depth)), 1e-9)
        return np.column_stack([self.tile, 0.1 * self.depth / span])

    def only(self, *labels: int) -> "Arena":
        """The members around which no other unit stands, and the units of these labels."""
        kept = np.isin(self.labels, labels)
        lengths = np.diff(self.start)
        inside = np.logical_and.reduceat(kept[self.unit], self.start[:-1])
        number = np.cumsum(kept) - 1
        edges = np.repeat(inside, lengths)
        return replace(
            self,
            members=self.members[inside],
            values=self.values[inside],
            depth=self.depth[inside],
            tile=self.tile[inside],
            unit=number[self.unit[edges]],
            start=np.concatenate([[0], np.cumsum(lengths[inside])]),
            carriers=self.carriers[edges],
            labels=self.labels[kept],
            unit_tile=self.unit_tile[kept],
            unit_size=self.unit_size[kept],
        )

    def exposure(self, labels: np.ndarray | None = None) -> np.ndarray:
        """(b, m) the label that all units around a member bear, NONE where they differ, for each row of labels (b,
        u).
        """
        labels = np.atleast_2d(self.labels if labels is None else labels)
        at_edges = labels[:, self.unit]
        low = np.minimum.reduceat(at_edges, self.start[:-1], axis=1)
        high = np.maximum.reduceat(at_edges, self.start[:-1], axis=1)
        return np.where(low == high, low, NONE)


@dataclass(frozen=True)
class Effects:
    """Effects of a target in b draws: `change` and `z` (b, g), NaN with fewer than three matched members; `n` (b,)."""

    change: np.ndarray
    z: np.ndarray
    n: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """(b,) mean squared z over genes; infinite where there is none, so that an empty draw never helps."""
        return np.where(self.n >= 3, (self.z**2).mean(axis=1), np.inf)


def build_arena(
    place: np.ndarray,
    carriers: np.ndarray,
    code: np.ndarray,
    members: np.ndarray,
    counts: sparse.csr_matrix,
    names: tuple[str, ...],
    radius_um: float,
    guide: np.ndarray | None,
) -> Arena:
    """The arena of cells around carriers.

    Args:
        place: (n, 2) micrometres.
        carriers: (c,) cells with a guide; code: (c,) their labels.
        members: (m,) cells that may show an effect; those with no carrier within the radius are left out.
        counts: (n, g) of the genes that are looked at.
        names: of the labels 1, 2, ...
        guide: (c,) guide of each carrier, which clones share; None: the labels, so that neighbouring clones of one
            target are taken for one.

    Raises:
        InputError: no member has a carrier nearby.
    """
    unit_of = clones(place[carriers], code if guide is None else guide, _CLONE_UM)
    pairs = cKDTree(place[members]).query_ball_tree(cKDTree(place[carriers]), radius_um)
    near = np.flatnonzero([len(p) > 0 for p in pairs])
    if len(near) == 0:
        raise InputError(
            f"slide: no recipient has a carrier of a guide within {radius_um:g} um; raise the radius, or check which "
            "cells carry guides."
        )
    around = [np.unique(unit_of[pairs[i]], return_counts=True) for i in near]
    members = members[near]
    totals = np.asarray(counts.sum(axis=1)).ravel()
    first = np.unique(unit_of, return_index=True)[1]
    return Arena(
        members=members,
        values=scaled(counts[members], totals[members]),
        depth=np.log1p(totals[members]),
        tile=np.floor(place[members] / TILE_UM).astype(int),
        unit=np.concatenate([units for units, _ in around]),
        start=np.concatenate([[0], np.cumsum([len(units) for units, _ in around])]),
        carriers=np.concatenate([count for _, count in around]),
        labels=code[first],
        unit_tile=np.floor(place[carriers][first] / TILE_UM).astype(int),
        unit_size=np.bincount(unit_of),
        target_names=names,
    )


def scaled(counts: sparse.csr_matrix, totals: np.ndarray) -> np.ndarray:
    """Counts per 10,000 of each cell's total, (m, g) float64."""
    return counts.toarray() / np.maximum(totals, 1)[:, None] * 1e4


def clones(place: np.ndarray, code: np.ndarray, radius_um: float) -> np.ndarray:
    """(c,) number of the clone of each carrier: what hangs together, carrier by carrier, under one guide."""
    pairs = cKDTree(place).query_pairs(radius_um, output_type="ndarray")
    pairs = pairs[code[pairs[:, 0]] == code[pairs[:, 1]]]
    graph = sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(place),) * 2)
    return connected_components(graph, directed=False)[1]


def clonality(place: np.ndarray, code: np.ndarray, stratum: np.ndarray, radius_um: float, n_labels: int) -> np.ndarray:
    """(n_labels,) how many times as often as by chance two cells of a label stand together, for the labels 0, 1, ...

    By chance: if the labels of a stratum stood on its cells in any order. 1 where carriers are independent; far above
    it they are clones, and permuting single cells would take a patch of tissue for many observations. NaN where chance
    brings no two together.

    Args:
        place: (c, 2) micrometres; code: (c,) labels; stratum: (c,) whole numbers. Pairs up to `radius_um` from each
            other.
    """
    n = np.zeros((stratum.max() + 1, n_labels))
    np.add.at(n, (stratum, code), 1)
    total = n.sum(axis=1, keepdims=True)
    chance = n * (n - 1) / np.maximum(total * (total - 1), 1)
    pairs = cKDTree(place).query_pairs(radius_um, output_type="ndarray")
    pairs = pairs[stratum[pairs[:, 0]] == stratum[pairs[:, 1]]]
    alike = pairs[code[pairs[:, 0]] == code[pairs[:, 1]], 0]
    expected = chance[stratum[pairs[:, 0]]].sum(axis=0)
    found = np.bincount(code[alike], minlength=len(expected))
    return np.divide(found, expected, out=np.full(len(expected), np.nan), where=expected > 0)


def matches(arena: Arena, exposure: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of an exposure (b, m), member of the target and the control member it is matched to, three arrays (n,).

    Every member has a match, but in a row without any control member, which has none at all: were those left out whose
    neighbours in depth are of the target too, an effect and its null would be of different members.
    """
    draw, member = np.nonzero(exposure == target)
    choices = arena.candidates[member]
    fits = exposure[draw[:, None], choices] == CONTROL
    found = fits.any(axis=1)
    match = choices[np.arange(len(member)), fits.argmax(axis=1)]
    # Most find one among the few that are nearest; for the others all control members of the row are searched.
    rest = np.flatnonzero(~found)
    for row in np.unique(draw[rest]):
        controls, own = np.flatnonzero(exposure[row] == CONTROL), rest[draw[rest] == row]
        if len(controls):
            nearest = cKDTree(arena.points[controls]).query(arena.points[member[own]])[1]
            match[own], found[own] = controls[nearest], True
    return draw[found], member[found], match[found]


def effects(arena: Arena, exposure: np.ndarray, target: int, of_matches: np.ndarray | None = None) -> Effects:
    """Effect of a target for each row of an exposure (b, m).

    Args:
        of_matches: (m, g) expression that members have where they serve as matches; default: their own.
    """
    b = len(exposure)
    draw, member, match = matches(arena, exposure, target)
    n = np.bincount(draw, minlength=b)
    used = np.maximum(n, 1)[:, None]
    mean, variance = [], []
    own = arena.values
    for side, values in ((member, own), (match, own if of_matches is None else of_matches)):
        picked = sparse.csr_array((np.ones(len(side)), (draw, side)), shape=exposure.shape)
        mean.append(picked @ values / used)
        square = picked @ values**2 / used - mean[-1] ** 2
        variance.append(np.maximum(square, 1e-12) / used / (mean[-1] + 1) ** 2)
    change = np.log1p(mean[0]) - np.log1p(mean[1])
    change[n < 3] = np.nan
    return Effects(change, change / np.sqrt(variance[0] + variance[1]), n)


# --- K5: the null that keeps clones whole and in place --------------------------------------------------------------


def strata(arena: Arena) -> np.ndarray:
    """(u,) strata in which labels change places: tile and size class (1, 2-3, 4 and more carriers).

    Where a stratum holds one label that is not the control's, it joins the nearest one: of its size class, else of any.
    So which strata join follows from where the labels are, and a null within them is exact for strata given, not for
    the joining; in simulations it keeps its level.
    """
    sizes = np.digitize(arena.unit_size, [2, 4])
    key = np.column_stack([arena.unit_tile, sizes])
    place, stratum = np.unique(key, axis=0, return_inverse=True)
    stratum = stratum.ravel()
    # Another size class is farther than any tile.
    place = place * [1.0, 1.0, 1e4]
    pending = list(range(len(place)))
    while pending:
        one = pending.pop()
        own = arena.labels[stratum == one]
        if len(own) == 0 or len(np.unique(own)) > 1 or own[0] == CONTROL:
            continue
        others = np.setdiff1d(stratum, [one])
        if len(others) == 0:
            break
        distance = ((place[others] - place[one]) ** 2).sum(axis=1)
        into = others[distance.argmin()]
        stratum[stratum == one] = into
        pending.append(into)
    return stratum


def permuted_labels(arena: Arena, stratum: np.ndarray, draws: int, rng) -> np.ndarray:
    """(draws, u) labels after the units of each stratum have exchanged theirs at random."""
    inside = np.argsort(stratum, kind="stable")
    order = np.argsort(stratum + rng.random((draws, len(stratum))), axis=1)
    labels = np.empty((draws, len(stratum)), arena.labels.dtype)
    labels[:, inside] = arena.labels[order]
    return labels


def arrangements(arena: Arena, stratum: np.ndarray, target: int) -> float:
    """How many ways there are to place a target's units within the strata, which `stratum` (u,) tells of each unit."""
    own = arena.labels == target
    n, k = np.bincount(stratum), np.bincount(stratum, weights=own)
    return float(np.prod(comb(n, k)))


def in_parts(arena: Arena, labels: np.ndarray, target: int, of_matches: np.ndarray | None = None) -> Effects:
    """`effects` for rows of labels (b, u), some hundred at a time."""
    parts = [effects(arena, exposure, target, of_matches) for exposure in _exposures(arena, labels)]
    return Effects(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("change", "z", "n")))


def _exposures(arena: Arena, labels: np.ndarray) -> Iterator[np.ndarray]:
    """`exposure` of rows of labels, some hundred at a time: a screen has many more edges than members."""
    return (arena.exposure(labels[i : i + _DRAWS_AT_ONCE]) for i in range(0, len(labels), _DRAWS_AT_ONCE))


@dataclass(frozen=True)
class Tested:
    """What one target did, and its nulls; see `assess` for `row`."""

    row: dict
    change: np.ndarray
    detectable: np.ndarray
    halves: np.ndarray


def assess(arena: Arena, target: int, draws: int, seed: int, splits: int = 100, *tag: str) -> Tested:
    """The effect of a target with everything that says whether it can be known.

    Args:
        arena: with all targets.
        draws: of the nulls; splits: of the halves; tag: tells the draws of another arena with this target apart.

    Returns:
        `row` with target, n (members with a match), n_control, n_units; `size` (mean squared z) and `median_change`;
        p_clones and z_clones (K5), p_joint (K5 and K6 together, see `joint_p`), p_pseudo (K1: against sets of control
        units in the place of the target's), movable (share of the target's units with somewhere to go) and
        arrangements; what `ceiling` says (K6);
        detectable (K7: median over genes of the smallest change found with power 80 %), above (share of the genes
        beyond their own) and bound (95 % of the genes changed by less, each at one-sided 95 %);
        status: "tested" or why not. `change` is the effect (g,), `detectable` (g,), `halves` the effects
        (2, splits, g) in either half of the tiles.
    """
    own = arena.only(CONTROL, target)
    exposure = own.exposure()
    found = effects(own, exposure, target)
    n, n_units = int(found.n[0]), int((own.labels == target).sum())
    row = {
        "target": arena.target_names[target - 1],
        "n": n,
        "n_control": int((exposure == CONTROL).sum()),
        "n_units": n_units,
    }
    g = arena.values.shape[1]
    nothing = np.full(g, np.nan)
    stratum = strata(own) if n_units else np.zeros(len(own.labels), int)
    ways = arrangements(own, stratum, target) if n_units else 0.0
    row["arrangements"] = min(ways, 1e12)
    reason = ""
    if n < FEWEST_MEMBERS or row["n_control"] < FEWEST_MEMBERS:
        reason = f"not testable: {n} recipients with a match, {row['n_control']} controls"
    elif ways < max(FEWEST_ARRANGEMENTS, min(n / 2, draws)):
        reason = f"not testable: its {n_units} clones can be placed in {ways:.0f} ways only"
    if reason:
        return Tested(row | {"status": reason}, nothing, nothing, np.full((2, splits, g), np.nan))
    name = (row["target"], *tag)
    labels = permuted_labels(own, stratum, draws, stream(seed, "clone_null", *name))
    null = in_parts(own, labels, target)
    sizes = np.bincount(stratum, weights=own.labels == CONTROL)
    row["movable"] = float((sizes[stratum[own.labels == target]] > 0).mean())
    observed = found.size[0]
    row |= {
        "size": observed,
        "median_change": float(np.median(np.abs(found.change))),
        "p_clones": empirical_p(observed, null.size),
    }
    finite = null.size[np.isfinite(null.size)]
    spread = finite.std() if len(finite) > 1 else 0.0
    row["z_clones"] = (observed - finite.mean()) / spread if spread > 0 else np.nan
    agreement = halves_agree(own, np.vstack([own.labels, labels]), target, stream(seed, "joint_halves", *name))
    size = np.append(observed, null.size)
    agreement[np.isinf(size)] = np.inf
    row["p_joint"] = joint_p(np.column_stack([size, agreement]))
    pseudo = pseudo_targets(own, n_units, draws, stream(seed, "pseudo_targets", *name))
    row["p_pseudo"] = empirical_p(observed, pseudo.size) if pseudo is not None else np.nan
    halves = half_effects(own, exposure, target, splits, stream(seed, "halves", *name))
    row |= ceiling(halves)
    detectable = nothing
    if pseudo is not None and (pseudo.n >= 3).sum() > 2:
        detectable = _DETECTABLE * np.nanstd(pseudo.change, axis=0, ddof=1)
    row["detectable"] = float(np.median(detectable))
    size = np.abs(found.change[0])
    row["above"] = float((size > detectable).mean()) if np.isfinite(detectable).all() else np.nan
    row["bound"] = float(np.quantile(size + _ONE_SIDED * detectable / _DETECTABLE, 0.95))
    return Tested(row | {"status": "tested"}, found.change[0], detectable, halves)


def pseudo_targets(arena: Arena, n_units: int, draws: int, rng) -> Effects | None:
    """Effects of random sets of so many whole control units (K1, K7), None where there are not twice as many."""
    control = arena.only(CONTROL)
    labels = _pseudo_labels(len(control.labels), n_units, draws, rng)
    return None if labels is None else in_parts(control, labels, 1)


def _pseudo_labels(n: int, n_units: int, draws: int, rng) -> np.ndarray | None:
    """(draws, n) labels of n control units, of which `n_units` are a target's."""
    if n < 2 * n_units:
        return None
    labels = np.zeros((draws, n), int)
    np.put_along_axis(labels, np.argsort(rng.random((draws, n)), axis=1)[:, :n_units], 1, axis=1)
    return labels


def spiked(arena: Arena, target: int, draws: int, seed: int) -> np.ndarray:
    """K7 by spiking: (g,) the change of each gene that is found with power 80 %, infinite where none that is tried is.

    Random sets of as many control units as the target has get a known change: the counts of a gene in the cells that
    they are compared with are thinned (binomial) by its exponential. The gene is found where its change leaves the
    middle 95 % of what the sets show without it. Assumes nothing of how errors are distributed, as `detectable` does.
    NaN where there are not twice as many control units.
    """
    own = arena.only(CONTROL, target)
    control, n_units = own.only(CONTROL), int((own.labels == target).sum())
    rng = stream(seed, "spiked", arena.target_names[target - 1])
    labels = _pseudo_labels(len(control.labels), n_units, draws, rng)
    if labels is None or n_units == 0:
        return np.full(arena.values.shape[1], np.nan)
    null = in_parts(control, labels, 1).change
    if np.isfinite(null[:, 0]).sum() < 3:
        return np.full(arena.values.shape[1], np.nan)
    usual = np.nanmean(null, axis=0)
    limit = np.nanquantile(np.abs(null - usual), 1 - LEVEL, axis=0)
    per_count = 1e4 / np.maximum(np.expm1(control.depth), 1)[:, None]
    counts = np.rint(control.values / per_count).astype(int)
    power = [np.full(len(usual), LEVEL)]
    for change in _SPIKES:
        thinned = rng.binomial(counts, np.exp(-change)) * per_count
        moved = in_parts(control, labels, 1, thinned).change
        power.append((np.abs(moved - usual) > limit)[np.isfinite(moved[:, 0])].mean(axis=0))
    power, steps = np.array(power), np.array([0.0, *_SPIKES])
    reached = (power >= POWER).argmax(axis=0)
    result = np.full(len(usual), np.inf)
    for gene in np.flatnonzero(reached):
        above = reached[gene]
        result[gene] = np.interp(POWER, power[above - 1 : above + 1, gene], steps[above - 1 : above + 1])
    return result


def half_effects(arena: Arena, exposure: np.ndarray, target: int, splits: int, rng) -> np.ndarray:
    """(2, splits, g) the effect in random halves of the tiles, matches included; NaN where a half is too small."""
    first = _first_halves(arena, splits, rng)
    return np.stack([effects(arena, np.where(side, exposure, NONE), target).change for side in (first, ~first)])


def _first_halves(arena: Arena, splits: int, rng) -> np.ndarray:
    """(splits, m) whether a member stands in the first half of the tiles."""
    _, tile = np.unique(arena.tile, axis=0, return_inverse=True)
    return (rng.random((splits, tile.max() + 1)) < 0.5)[:, tile.ravel()]


def halves_agree(arena: Arena, labels: np.ndarray, target: int, rng) -> np.ndarray:
    """(b,) K6 for rows of labels (b, u): correlation over genes of the effects in either half of the tiles.

    Mean over a few halvings, the same for all rows; 0 where a half is too small to say anything.
    """
    first, found = _first_halves(arena, _HALVINGS, rng), []
    for exposure in _exposures(arena, labels):
        halves = [[effects(arena, np.where(s, exposure, NONE), target).change for s in (side, ~side)] for side in first]
        found.append(np.nan_to_num([row_correlations(*both) for both in halves]).mean(axis=0))
    return np.concatenate(found)


def joint_p(evidence: np.ndarray) -> float:
    """p of several conditions at once: how often does chance meet all of them as well as they are met?

    Each condition is ranked among all arrangements of the labels, and an arrangement is worth its least convincing
    condition. Where labels may change places nothing but the joining of `strata` tells the first arrangement from the
    others, so that p <= .05 in about 5 % of cases, whatever the conditions and however they depend on each other. It
    tests that nothing happened: where one condition truly holds and another does not, p is small in more than 5 %, and
    it is no proof of each condition.

    Args:
        evidence: (1 + draws, c), the labels as they are first; the larger, the more convincing.
    """
    if np.isnan(evidence).any():
        return np.nan
    # What is equal but for rounding is equal.
    weakest = rankdata(-evidence.round(9), method="max", axis=0).max(axis=1)
    return float((weakest <= weakest[0]).mean())


def ceiling(halves: np.ndarray) -> dict:
    """K6: how well the effect in one half of the tiles tells that in the other, and so what a perfect prediction
    reaches.

    Returns:
        `split_half`, the mean correlation r of the halves over the genes; `reliability` 2r / (1 + r) and `ceiling`, its
        square root (0 below 0): the correlation with the measured effect of a prediction that is exactly right.
        `split_half_top`, r over the ten genes that change most in the other half, to which `by_halves` compares.
    """
    r = row_correlations(*halves)
    if np.isnan(r).all():
        return dict.fromkeys(("split_half", "reliability", "ceiling", "split_half_top"), np.nan)
    r = float(np.nanmean(r))
    reliability = 2 * r / (1 + r)
    top = float(np.nanmean([row_correlations(*_top_of_first(a, a, b)) for a, b in (halves, halves[::-1])]))
    return {
        "split_half": r,
        "reliability": reliability,
        "ceiling": float(np.sqrt(max(reliability, 0))),
        "split_half_top": top,
    }


def by_halves(predicted: np.ndarray, halves: np.ndarray) -> float:
    """K6: Pearson of a prediction (g,) with the effect in one half over the ten genes that change most in the other.

    Where genes are chosen and scored on the same noisy effect, noise is chosen too. Mean over both ways and all splits;
    0 for a prediction that says nothing of these genes.
    """
    predicted = np.broadcast_to(predicted, halves[0].shape)
    known = np.isfinite(halves).all(axis=(0, 2))
    found = [
        np.where(known, np.nan_to_num(row_correlations(*_top_of_first(a, predicted, b))), np.nan)
        for a, b in (halves, halves[::-1])
    ]  # fmt: skip
    return float(np.nanmean(found)) if known.any() else np.nan


def _top_of_first(ranks: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Columns of values (n, g) that are largest in the same row of `ranks` (n, g)."""
    top = np.argsort(-np.abs(ranks), axis=1, kind="stable")[:, :TOP_GENES]
    return [np.take_along_axis(v, top, axis=1) for v in values]


def row_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlations (...) along the last axis of a (..., g) and b (..., g); NaN where a side is constant or
    missing.
    """
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    product = (a * b).sum(axis=-1)
    return np.divide(product, size, out=np.full(np.shape(product), np.nan), where=size > 0)


def dose_slope(arena: Arena, target: int, draws: int, seed: int) -> dict:
    """K8: does the effect grow with the number of carriers around a member?

    The slope of each gene's change over log2 of the number of carriers, and the effect at their mean, are independent
    where nothing happens; the statistic is their correlation over genes, tested with permuted labels, by which every
    member keeps the carriers around it. A draw without a slope never helps.
    """
    own = arena.only(CONTROL, target)
    around = np.add.reduceat(own.carriers, own.start[:-1])
    labels = permuted_labels(own, strata(own), draws, stream(seed, "dose_null", arena.target_names[target - 1]))
    found = _slopes(own, own.exposure(), target, np.log2(around))
    null = np.concatenate([_slopes(own, exposure, target, np.log2(around)) for exposure in _exposures(own, labels)])
    return {
        "dose_correlation": float(found[0]),
        "p_dose": empirical_p(found[0], np.where(np.isnan(null), np.inf, null)),
    }


def by_dose(arena: Arena, target: int, seed: int) -> dict:
    """K8: the effect among members with 1, 2, and 3 or more carriers around them, with as many members at each dose.

    Fewer members make larger changes by chance alone, so that each dose with five members or more gets as many as the
    least of these has, `n_dose`. `change_1`, `change_2`, `change_3` are medians of |change| over genes, NaN where there
    are too few.
    """
    own = arena.only(CONTROL, target)
    exposure = own.exposure()[0]
    dose = np.minimum(np.add.reduceat(own.carriers, own.start[:-1]), 3)
    members = {d: np.flatnonzero((exposure == target) & (dose == d)) for d in (1, 2, 3)}
    members = {d: m for d, m in members.items() if len(m) >= FEWEST_MEMBERS}
    n = min(map(len, members.values()), default=0)
    rng = stream(seed, "dose_members", arena.target_names[target - 1])
    found = {"n_dose": n} | dict.fromkeys(("change_1", "change_2", "change_3"), np.nan)
    for d, every in members.items():
        kept = np.where(exposure == target, NONE, exposure)
        kept[rng.choice(every, n, replace=False)] = target
        found[f"change_{d}"] = float(np.median(np.abs(effects(own, kept[None], target).change[0])))
    return found


def _slopes(arena: Arena, exposure: np.ndarray, target: int, dose: np.ndarray) -> np.ndarray:
    """(b,) correlation over genes of the slope over dose with the mean effect, both over the spread of the gene."""
    result = np.full(len(exposure), np.nan)
    spread = arena.values.std(axis=0) + 1e-9
    for b, row in enumerate(exposure):
        _, member, match = matches(arena, row[None], target)
        if len(member) < 6 or np.ptp(dose[member]) == 0:
            continue
        difference = (arena.values[member] - arena.values[match]) / spread
        centred = dose[member] - dose[member].mean()
        slope, mean = centred @ difference, difference.mean(axis=0)
        result[b] = row_correlations(slope[None], mean[None])[0]
    return result


def without_each_tile(arena: Arena, targets: list[int]) -> np.ndarray:
    """K9: (t, k, g) the effects of some targets, each time without the members of one tile and their matches.

    Tiles are those with a member of any of the targets. NaN where nothing is left of a target.
    """
    sides = []
    for target in targets:
        own = arena.only(CONTROL, target)
        _, member, match = matches(own, own.exposure(), target)
        sides.append((own.tile[member], own.values[member], own.values[match]))
    made = []
    for tile in np.unique(np.concatenate([own[0] for own in sides]), axis=0):
        kept = [(tiles != tile).any(axis=1) for tiles, _, _ in sides]
        made.append(
            [
                np.log1p(a[k].mean(axis=0)) - np.log1p(b[k].mean(axis=0)) if k.any() else np.full(a.shape[1], np.nan)
                for k, (_, a, b) in zip(kept, sides, strict=True)
            ]
        )
    return np.array(made)


def jackknife_variance(values: np.ndarray) -> np.ndarray:
    """(...) variance of a statistic over tissue, from its values (t, ...) without each of t tiles; NaN for one tile.

    Drawing tiles again would count their noise twice: where a score is a correlation, all draws lie below it.
    """
    n = len(values)
    return (n - 1) * values.var(axis=0) if n > 1 else np.full(values.shape[1:], np.nan)


def shifted_sizes(
    place: np.ndarray,
    section: np.ndarray,
    carriers: np.ndarray,
    code: np.ndarray,
    members: np.ndarray,
    counts: sparse.csr_matrix,
    names: tuple[str, ...],
    draws: int,
    seed: int,
    radius_um: float,
    guide: np.ndarray | None,
) -> np.ndarray:
    """The second null: (draws, k) `size` of each target's effect when the map of carriers is moved as a whole.

    Each draw moves it by 300 to 1,000 micrometres in a random direction, around the edges of each section; carriers
    that end where no cell is are dropped. `section` (n,) counts from 0; other arguments as `build_arena`.
    """
    rng, tree = stream(seed, "carrier_shifts"), cKDTree(place)
    guide = code if guide is None else guide
    edges = [(own.min(axis=0), np.ptp(own, axis=0)) for own in (place[section == s] for s in range(section.max() + 1))]
    low, side = (np.array(edge)[section[carriers]] for edge in zip(*edges, strict=True))
    sizes = np.full((draws, len(names)), np.inf)
    for draw in range(draws):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(300, 1000)
        moved = place[carriers] - low + length * np.array([np.cos(angle), np.sin(angle)])
        moved = low + moved % side
        kept = tree.query(moved)[0] <= radius_um
        everywhere = np.concatenate([place, moved[kept]])
        new = len(place) + np.arange(kept.sum())
        try:
            arena = build_arena(everywhere, new, code[kept], members, counts, names, radius_um, guide[kept])
        except InputError:
            continue
        for target in range(1, len(names) + 1):
            own = arena.only(CONTROL, target)
            if len(own.values) > 1:
                sizes[draw, target - 1] = effects(own, own.exposure(), target).size[0]
    return sizes


# --- predictions -----------------------------------------------------------------------------------------------------


def others_mean(rows: np.ndarray) -> np.ndarray:
    """K2: for each row of (..., k, g) the mean of all other rows, the leave-one-out shared effect; the same shape."""
    return (rows.sum(axis=-2, keepdims=True) - rows) / (rows.shape[-2] - 1)


def wrong_target(predicted: np.ndarray, observed: np.ndarray, draws: int, rng) -> dict:
    """K3c: do predictions fit the effects of their own targets better than those of others?

    `matched` is the mean correlation of a prediction (k, g) with its own effect less that with the others'; p from
    exchanging the predictions.
    """
    k = len(predicted)
    table = fits(predicted, observed)
    orders = np.argsort(rng.random((draws, k)), axis=1)
    found = float(own_over_others(table))
    # Sums of the same numbers in another order are equal but for rounding.
    return {"matched": found, "p_wrong_target": empirical_p(found, own_over_others(table[orders]) + 1e-12)}


def fits(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(..., k, k) correlation of each prediction (k, g), in rows, with the effect of each target (..., k, g)."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (predicted, observed))
    size = np.sqrt((a**2).sum(axis=-1))[:, None] * np.sqrt((b**2).sum(axis=-1))[..., None, :]
    return np.divide(a @ b.swapaxes(-1, -2), size, out=np.zeros(size.shape), where=size > 0)


def own_over_others(table: np.ndarray) -> np.ndarray:
    """Mean of the diagonal of each table (..., k, k) less that of what is beside it, (...)."""
    k, own = table.shape[-1], np.trace(table, axis1=-2, axis2=-1)
    return own / k - (table.sum(axis=(-2, -1)) - own) / (k * (k - 1))


def paired_interval(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over targets (..., k), and the ends of its 95 % interval (Student's t), each (...)."""
    n = difference.shape[-1]
    mean = difference.mean(axis=-1)
    half = student.ppf(0.975, n - 1) * difference.std(axis=-1, ddof=1) / np.sqrt(n) if n > 1 else np.inf
    return mean, mean - half, mean + half


def variance_components(scores: np.ndarray) -> dict[str, float]:
    """K9: variance of one score of a method that lost genes, seeds and their interplay make, from scores (k, seeds).

    A two-way random model without repetition; NaN for what one seed cannot tell.
    """
    k, n = scores.shape
    of_gene = scores.mean(axis=1)
    if n < 2:
        return {"gene": float(of_gene.var(ddof=1)), "seed": np.nan, "interplay": np.nan}
    of_seed = scores.mean(axis=0)
    rest = scores - of_gene[:, None] - of_seed + scores.mean()
    interplay = float((rest**2).sum() / ((k - 1) * (n - 1)))
    return {
        "gene": max(float(of_gene.var(ddof=1)) - interplay / n, 0.0),
        "seed": max(float(of_seed.var(ddof=1)) - interplay / k, 0.0),
        "interplay": interplay,
    }


def joint_null(arena: Arena, targets: list[int], draws: int, seed: int) -> np.ndarray:
    """(1 + b, k, g) effects of all targets when all labels change places together, as a null of scores over targets.

    The labels as they are come first. Draws that leave a target without an effect are left out.
    """
    labels = permuted_labels(arena, strata(arena), draws, stream(seed, "joint_null"))
    labels = np.vstack([arena.labels, labels])
    change = np.stack([in_parts(arena, labels, target).change for target in targets], axis=1)
    kept = np.isfinite(change).all(axis=(1, 2))
    kept[0] = True
    return change[kept]


def verdict(row: dict, relevant: float) -> str:
    """What a section says about the effect of a target, by numbers of `assess` and its q value over targets.

    An effect is claimed only where the null that keeps clones rejects and the halves agree enough to be predicted; that
    there is none (of a size that matters) only where its own p does not reject either and 95 % of the genes are bounded
    below that size. The rest is not resolvable from this section.
    """
    if row["status"] != "tested":
        return row["status"]
    if row["q_clones"] <= LEVEL:
        if row["ceiling"] > LEAST_CEILING:
            return "effect"
        why = "there are no halves to compare" if np.isnan(row["ceiling"]) else "its halves do not agree"
        return f"not resolvable from this section: it differs, but {why}"
    if row["p_clones"] > LEVEL and row["bound"] < relevant:
        return f"no effect of {relevant:g} or more in 95 % of genes"
    return "not resolvable from this section"


def prediction_verdict(scored: dict, ceiling_median: float) -> str:
    """Whether a method has predicted an intervention, by the numbers of its controls.

    Claimed only if predictions fit their own targets (K3c), the agreement leaves the null of clones behind (K5), the
    ceiling allows any (K6), and the method beats the shared effect of the other targets and its own twin over targets.
    """
    if not ceiling_median > LEAST_CEILING:
        return "not resolvable from this section"
    failed = [
        name
        for name, passed in (
            ("no better than the wrong target", scored["p_wrong_target"] <= LEVEL),
            ("no better than with permuted clones", scored["p_clones"] <= LEVEL),
            ("no better than the other targets' mean", scored["over_others_low"] > 0),
            ("no better than its twin", scored["over_twin_low"] > 0),
        )
        if not passed
    ]
    return "predicted" if not failed else failed[0]


def rows_of(tested: list[Tested], relevant: float) -> pd.DataFrame:
    """`row` of each target with its q value over all tested ones and the verdict."""
    table = pd.DataFrame([one.row for one in tested])
    if "p_clones" in table:
        table["q_clones"] = benjamini_hochberg(table["p_clones"])
    table["verdict"] = [verdict(row, relevant) for row in table.to_dict("records")]
    return table
