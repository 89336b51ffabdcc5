"""What a spatial screen is asked, by the authors' protocol and with the controls, and how predictions of it are scored.

`as_run` is the protocol of the authors of Cellina on Perturb-FISH: recipients near a target against recipients far from
any guide, matched by depth; the ten most changed of all genes; Pearson, equal signs and RMSE; donors of the target
against random donors. `corrected` compares with recipients near control guides and keeps clones whole
(`intervention_statistics`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import wilcoxon

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments.intervention_statistics import TOP_GENES, Arena
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.simulate.screen import CONTROL, RECIPIENT, TUMOUR
from tissue_counterfactuals.streams import stream


@dataclass(frozen=True)
class Screen:
    """Sections whose carriers are known.

    Attributes:
        place: (n, 2) micrometres, sections side by side; section: (n,) their numbers, from 0.
        counts: (n, g) of the genes that are looked at; genes: their names.
        code: (n,) -1 no guide, 0 a control guide, 1.. the targets in the order of `names`.
        guide: (n,) number of the guide of each carrier, or None where only its target is known.
        tumour, recipient: (n,) bool; recipients carry nothing themselves.
        radius_um: within which a recipient is near a carrier; far ones have none within `far_um`.
        nearest: as run, a recipient sees the carriers among so many nearest cells within `far_um`, which is the
            authors' graph, and not those within the radius.
    """

    place: np.ndarray
    section: np.ndarray
    counts: sparse.csr_matrix
    genes: np.ndarray
    code: np.ndarray
    guide: np.ndarray | None
    names: tuple[str, ...]
    tumour: np.ndarray
    recipient: np.ndarray
    radius_um: float
    far_um: float
    nearest: int | None = None

    @cached_property
    def totals(self) -> np.ndarray:
        """(n,) counts of the cells over these genes."""
        return np.asarray(self.counts.sum(axis=1)).ravel()

    @cached_property
    def carriers(self) -> np.ndarray:
        """(c,) tumour cells with a guide."""
        return np.flatnonzero(self.tumour & (self.code >= 0))

    @cached_property
    def arena(self) -> Arena:
        """Recipients around the clones."""
        return self.arena_of(np.flatnonzero(self.recipient))

    def arena_of(self, members: np.ndarray) -> Arena:
        """The arena of any cells, `members` (m,), around the clones."""
        return statistics.build_arena(
            self.place, self.carriers, self.code[self.carriers], members, self.counts, self.names, self.radius_um,
            None if self.guide is None else self.guide[self.carriers],
        )  # fmt: skip

    def shifted_sizes(self, draws: int, seed: int) -> np.ndarray:
        """(draws, k) `size` of each target's effect when the map of carriers is moved as a whole."""
        return statistics.shifted_sizes(
            self.place, self.section, self.carriers, self.code[self.carriers], np.flatnonzero(self.recipient),
            self.counts, self.names, draws, seed, self.radius_um,
            None if self.guide is None else self.guide[self.carriers],
        )  # fmt: skip

    @cached_property
    def clonality(self) -> np.ndarray:
        """(1 + k,) how many times as often as by chance carriers of a label stand within the radius of each other."""
        place, code = self.place[self.carriers], self.code[self.carriers]
        tile = np.unique(np.floor(place / statistics.TILE_UM), axis=0, return_inverse=True)[1].ravel()
        return statistics.clonality(place, code, tile, self.radius_um, 1 + len(self.names))

    @cached_property
    def near_any(self) -> np.ndarray:
        """(n,) whether a carrier other than the cell itself stands within the radius (K11: it may be its sibling)."""
        distance, _ = cKDTree(self.place[self.carriers]).query(self.place, k=2)
        own = (self.code >= 0) & self.tumour
        return np.where(own, distance[:, 1], distance[:, 0]) <= self.radius_um

    @cached_property
    def far(self) -> np.ndarray:
        """(r,) recipients with a tumour cell but no carrier within `far_um`."""
        distance, _ = cKDTree(self.place[self.carriers]).query(self.place)
        beside, _ = cKDTree(self.place[self.tumour]).query(self.place)
        return np.flatnonzero(self.recipient & (distance > self.far_um) & (beside <= self.far_um))

    @cached_property
    def seen(self) -> np.ndarray:
        """(n,) the label that all carriers near a recipient bear; -1 for none, or several."""
        seen = np.full(len(self.place), statistics.NONE)
        if self.nearest is None:
            seen[self.arena.members] = self.arena.exposure()[0]
            return seen
        tree, most = cKDTree(self.place), self.nearest + 1
        _, cells = tree.query(self.place[self.recipient], most, distance_upper_bound=self.far_um)
        # Where there are fewer cells than that, the rest are given as one beyond the last.
        labels = np.append(np.where(self.tumour, self.code, statistics.NONE), statistics.NONE)[cells]
        label = labels.max(axis=1, keepdims=True)
        alike = ((labels == label) | (labels == statistics.NONE)).all(axis=1)
        seen[self.recipient] = np.where(alike, label.ravel(), statistics.NONE)
        return seen

    def near(self, target: int) -> np.ndarray:
        """(r,) recipients near carriers of a target and of no other guide, control guides included."""
        return np.flatnonzero(self.seen == target)

    def spilled_genes(self) -> np.ndarray:
        """K12: (g,) genes more than five times as high in tumour cells as in recipients: a little spill would show."""
        tumour, recipients = (np.asarray(self.counts[m].mean(axis=0)).ravel() for m in (self.tumour, self.recipient))
        return tumour > 5 * np.maximum(recipients, 1e-9)


def read_screen(
    slide: AnnData, column: str = "target_raw", radius_um: float = 30.0, far_um: float = 45.0, min_mean: float = 0.0
) -> Screen:
    """The screen on a slide, its samples laid side by side.

    Args:
        column: of obs, with the called gene of each cell, Control for a control guide, "" for none.
        min_mean: mean counts per cell that a gene needs.

    Raises:
        InputError: a column is missing, there are no control guides or no targets, or obs says that cells have several
            guides.
    """
    for needed in (column, "cell_type"):
        if needed not in slide.obs:
            raise InputError(
                f"slide: it has no obs column {needed!r}, which a screen needs; read it with the source perturb_fish, "
                "or write one with the target of each cell's guide."
            )
    called = slide.obs[column].astype(str).replace("nan", "")
    names = tuple(sorted(set(called) - {"", CONTROL}))
    if CONTROL not in set(called) or not names:
        raise InputError(
            f"slide: column {column!r} names {len(names)} targets and {'no ' * (CONTROL not in set(called))}control "
            f"guides ({CONTROL!r}); both are needed."
        )
    several = column.replace("target", "n_guides")
    if several in slide.obs and (found := int((slide.obs[several] > 1).sum())):
        raise InputError(
            f"slide: {found} cells have several guides (obs column {several!r}), and would be taken for cells without "
            "any; leave them out."
        )
    number = {name: place for place, name in enumerate((CONTROL, *names))} | {"": -1}
    code = called.map(number).to_numpy().astype(int)
    tumour = (slide.obs["cell_type"] == TUMOUR).to_numpy()
    recipient = (slide.obs["cell_type"] == RECIPIENT).to_numpy() & (code < 0)
    if "excluded" in slide.obs:
        recipient &= ~slide.obs["excluded"].to_numpy(bool)
    guide_column = column.replace("target", "guide")
    guide = pd.factorize(slide.obs[guide_column])[0] if guide_column in slide.obs else None
    kept = np.asarray(slide.X.mean(axis=0)).ravel() >= min_mean
    section = pd.factorize(slide.obs["sample"].astype(str), sort=True)[0]
    place = np.array(slide.obsm["spatial"], float)
    # So far apart that no radius reaches another section, and that matches are found in one's own first.
    place[:, 0] += section * (2 * np.ptp(place, axis=0).sum() + 2000)
    return Screen(
        place, section, slide.X.tocsr()[:, kept], slide.var_names[kept].to_numpy(), code, guide,
        names,
        tumour, recipient, radius_um, far_um,
    )  # fmt: skip


# --- the authors' protocol --------------------------------------------------------------------------------------------


def against_far(screen: Screen, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Change (g,) of recipients against far ones, to each that of the nearest depth, which may serve several times."""
    depth = np.log1p(screen.totals)
    order = far[np.argsort(depth[far], kind="stable")]
    at = np.searchsorted(depth[order], depth[near]).clip(1, len(order) - 1)
    lower = depth[near] - depth[order[at - 1]] < depth[order[at]] - depth[near]
    matched = order[at - lower]
    return log_mean(screen.counts[near]) - log_mean(screen.counts[matched])


def score_top_genes(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float]:
    """Pearson, share of equal signs and RMSE of changes (g,) on the ten genes that are observed to change most; a
    correlation with a constant counts as 0.
    """
    top = np.argsort(-np.abs(observed), kind="stable")[:TOP_GENES]
    a, b = predicted[top], observed[top]
    r = statistics.row_correlations(a[None], b[None])[0]
    return {
        "pearson": float(np.nan_to_num(r)),
        "sign_agreement": float((np.sign(a) == np.sign(b)).mean()),
        "rmse": float(np.sqrt(np.mean((a - b) ** 2))),
    }


def score_as_run(observed: np.ndarray, predicted: np.ndarray, at_random: np.ndarray) -> list[dict[str, object]]:
    """The authors' scores: a row per truth (full, ko_specific), donors (target, random) and target.

    Args:
        observed: (k, g) against far recipients; KO-specific is less the mean over all targets, the own one included,
            while predictions stay as they are.
        predicted: (k, g); at_random: (r, g) with random donors, whose scores are averaged.
    """
    rows = []
    for truth, values in (("full", observed), ("ko_specific", observed - observed.mean(axis=0))):
        for target, (own, aim) in enumerate(zip(predicted, values, strict=True)):
            rows.append({"truth": truth, "donors": "target", "target": target} | score_top_genes(own, aim))
            drawn = [score_top_genes(other, aim) for other in at_random]
            mean = {name: float(np.mean([d[name] for d in drawn])) for name in drawn[0]}
            rows.append({"truth": truth, "donors": "random", "target": target} | mean)
    return rows


def authors_test(rows: list[dict], truth: str) -> tuple[float, float, float]:
    """Mean Pearson with the target's donors and with random ones, and the authors' one-sided Wilcoxon p over
    targets.
    """
    own, other = (
        np.array([r["pearson"] for r in rows if r["truth"] == truth and r["donors"] == donors])
        for donors in ("target", "random")
    )
    p = 1.0 if np.allclose(own, other) else wilcoxon(own, other, alternative="greater").pvalue
    return float(own.mean()), float(other.mean()), float(p)


# --- with the controls ------------------------------------------------------------------------------------------------


def score_corrected(
    observed: np.ndarray, predicted: np.ndarray, twin: np.ndarray, null: np.ndarray, seed: int, draws: int = 9999
) -> dict[str, float]:
    """Scores over targets of predicted changes with their controls.

    Args:
        observed: (k, g) effects of `assess`; null: (1 + draws, k, g) of `joint_null`.
        predicted: (k, g) change by the target's carriers against control carriers; twin: (k, g) the same with the own
            neighbours, nothing where a method changes nothing then.

    Returns:
        `pearson`, mean over targets and all genes; p_clones (K5) of it, as the first row of `null` has it; `matched`
        and p_wrong_target (K3c);
        `centred`, the mean after the other targets' mean is taken from both sides (K2); `over_others` and `over_twin`
        with their 95 % intervals over targets (K2, K4), and p of their lower ends where clones are permuted; p_joint,
        of K2, K3c, K4 and K5 at once. K6 is no part of it: it knows no prediction, and where effects are real it holds
        for all, so that a prediction that knows nothing would be let through the more easily.
    """
    own = np.nan_to_num(statistics.row_correlations(predicted, observed))
    table = statistics.fits(predicted, null)
    of_drawn = np.diagonal(table, axis1=-2, axis2=-1)
    scored = {
        "pearson": float(own.mean()),
        # Effects of `null` are matched among all members, and so may differ a little from those observed.
        "p_clones": statistics.empirical_p(of_drawn[0].mean(), of_drawn[1:].mean(axis=1)),
    } | statistics.wrong_target(predicted, observed, draws, stream(seed, "wrong_target"))
    others = statistics.others_mean(observed)
    centred = statistics.row_correlations(predicted - statistics.others_mean(predicted), observed - others)
    scored["centred"] = float(np.nan_to_num(centred).mean())
    evidence = [of_drawn.mean(axis=1), statistics.own_over_others(table)]
    for name, rows, of_draws in (("others", others, statistics.others_mean(null)), ("twin", twin, twin)):
        over = own - np.nan_to_num(statistics.row_correlations(rows, observed))
        mean, low, high = map(float, statistics.paired_interval(over))
        scored |= {f"over_{name}": mean, f"over_{name}_low": low, f"over_{name}_high": high}
        over = of_drawn - np.nan_to_num(statistics.row_correlations(of_draws, null))
        evidence.append(statistics.paired_interval(over)[1])
        scored[f"p_over_{name}"] = statistics.joint_p(evidence[-1][:, None])
    return scored | {"p_joint": statistics.joint_p(np.column_stack(evidence))}
