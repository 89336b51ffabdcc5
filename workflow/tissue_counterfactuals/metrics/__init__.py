"""How well predicted cells resemble the target cells: the metrics of Cellina (appendix A) and unbiased forms of them.

All scores compare three groups of raw counts: `control` (cells of a type in the control domain), `target` (cells of
the type in the target domain) and `predicted` (control cells moved there by a method). Expression is CP10K: counts
divided by the cell's total over the given genes, times 10,000. An "observed change" is the log-fold change from
control to target, a "predicted change" the one from control to predicted, both of mean CP10K over cells; `n_deg` genes
with the largest absolute observed change are the differential genes ("top genes"), ties going to the earlier gene.

Published log-fold changes share one control group: whatever the control cells deviate from their type's mean, the
observed and the predicted change deviate alike, so every prediction that shrinks towards the mean correlates with
the truth. The metrics whose names end in `_split` and `_twin` are free of that; those in `_expressed` are free of
genes that are hardly there. Expected counts scatter less than cells do, whatever their expectations are worth:
`e_distance_noisy` gives them their counting noise. `metrics/calibration.py` tests the metrics themselves.

Linear algebra runs on one thread, so that scores do not depend on the number of cores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.metrics.populations import (
    Counts,
    Moments,
    counting_noise,
    distances,
    expression_blocks,
    local_energy,
    log_expression_of,
    log_moments,
    mean_expression,
    principal_axes,
    subsample,
)
from tissue_counterfactuals.slide import noise_of_log_mean
from tissue_counterfactuals.streams import stream, stream_seed

N_REPEATS = 10
# Share of the cells of either group that must show a gene for `pearson_expressed` and its kin.
MIN_DETECTED = 0.05
# Half the length of a 90 % interval of a normal distribution, in its standard deviations.
_HALF_LENGTH = ndtri(0.95)


class Interval(NamedTuple):
    """Limits of 90 % intervals of the predicted population's mean CP10K, and where the method abstains; all
    (genes,).
    """

    lower: np.ndarray
    upper: np.ndarray
    abstained: np.ndarray


class Noise(NamedTuple):
    """Counting noise that a prediction lacks: `dispersion` is a (genes,) in the variance m + a m^2; None: it lacks
    none.
    """

    dispersion: np.ndarray | None


@dataclass(frozen=True)
class Metric:
    """What a score means, and the function that computes it.

    Attributes:
        direction: which values are better, `higher` or `lower`, or `none` where neither is, as for a spread.
        best: the value of a perfect prediction; NaN where there is none.
        function: from a `Comparison` to a number.
        needs: what the comparison must have beyond control, target and prediction; without it there is no score.
        unbiased: no metric of the paper, but one free of a bias that those have, or a newer proposal.
    """

    name: str
    label: str
    direction: str
    best: float
    description: str
    function: Callable[["Comparison"], float]
    needs: frozenset[str] = frozenset()
    unbiased: bool = False


class Reference:
    """Control and target cells that many predictions are scored against; what depends on them is computed once.

    Args:
        control, target: raw counts (cells, genes), dense or sparse, at least two cells each.
        train: raw counts of the training cells, on which the E-distance's principal components are fitted. Without
            them the control and target cells together serve.
        n_deg: number of differential genes; all genes where there are fewer.
        seed: of subsamples, halves and k-means. The authors' subsamples are unseeded.
        protocol: `corrected` or `as_run`; see `protocols`.
        switches: a value for a switch by its name, in place of the protocol's.

    Raises:
        InputError: a group with fewer than two cells, with other genes, or with negative or non-finite values;
            an unknown protocol, switch or value.
    """

    def __init__(
        self,
        control: Counts,
        target: Counts,
        train: Counts | None = None,
        n_deg: int = 50,
        seed: int = 0,
        protocol: str = "corrected",
        **switches: str,
    ):
        self.switches = protocols.chosen(protocol, switches)
        self.control = _checked(control, "control")
        self.n_genes = self.control.shape[1]
        self.target = _checked(target, "target", self.n_genes)
        self.train = None if train is None else _checked(train, "train", self.n_genes)
        if n_deg < 1:
            raise InputError(f"metrics: n_deg is {n_deg}: give a whole number from 1 up.")
        self.n_deg = min(n_deg, self.n_genes)
        self.seed = seed

    def score(self, predicted: Counts) -> dict[str, float]:
        """The paper's metrics of predicted cells (cells, genes): whole or fractional counts >= 0, any number of cells.

        Correlations with a constant are nan, and so are precisions where the genes that are predicted to change most
        are not determined.

        Raises:
            ValueError: negative or non-finite predictions (a method's fault, not the user's).
            InputError: fewer than two predicted cells, or other genes.
        """
        return Comparison(self, predicted).scores(unbiased=False)

    def unbiased_scores(self, predicted: Counts, twin: Counts | None = None, **given) -> dict[str, float]:
        """Forms of the scores without the published definitions' biases, and what needs a twin or an interval.

        Arguments and errors as in `Comparison`.
        """
        return Comparison(self, predicted, twin, **given).scores(unbiased=True)

    def change(self, mean: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """Log-fold change (genes,) from `baseline` to `mean`, each mean CP10K (genes,), as the switch `lfc` says."""
        if self.switches["lfc"] == "natural_pseudocount_1":
            change = np.log1p(mean) - np.log1p(baseline)
        else:
            change = np.log2((mean + 1e-6) / (baseline + 1e-6))
        # Rounding must not give an unchanged gene a sign.
        change[np.abs(change) < 1e-9] = 0
        return change

    @cached_property
    def control_mean(self) -> np.ndarray:
        """Mean CP10K (genes,) of the control cells."""
        return mean_expression(self.control)

    @cached_property
    def target_mean(self) -> np.ndarray:
        """Mean CP10K (genes,) of the observed target cells."""
        return mean_expression(self.target)

    @cached_property
    def noise(self) -> np.ndarray:
        """Variance (genes,) of the observed change from the scatter of cells, on the scale of log1p of mean CP10K."""
        return sum(noise_of_log_mean(sparse.csr_array(x)) for x in (self.control, self.target))

    @cached_property
    def observed(self) -> np.ndarray:
        """Observed log-fold change (genes,), from control to target cells."""
        return self.change(self.target_mean, self.control_mean)

    @cached_property
    def differential(self) -> np.ndarray:
        """Indices (n_deg,) of the genes with the largest observed change."""
        return _top_genes(self.observed, self.n_deg)

    @cached_property
    def weights(self) -> np.ndarray:
        """Weights (genes,) that sum to 1: squares of Welch's t of log1p CP10K, target against control, scaled to 0..1.

        Weights of WMSE and of weighted R2 (Mejia et al. 2025, "Diversity by design"); all the same where all t are.
        """
        (here, spread_here), (there, spread_there) = map(log_moments, (self.control, self.target))
        error = spread_here / self.control.shape[0] + spread_there / self.target.shape[0]
        # A gene that does not vary tells nothing apart.
        size = np.abs(there - here) / np.sqrt(np.where(error > 0, error, np.inf))
        size = size - size.min()
        return size**2 / np.sum(size**2) if size.any() else np.full(len(size), 1 / len(size))

    @cached_property
    def target_profile(self) -> np.ndarray:
        """`profile` of the observed target cells."""
        return self.profile(self.target)

    def profile(self, counts: Counts) -> np.ndarray:
        """Log expression (n_deg,) of the top genes, normalised within them, over all cells (`rmse_counts` says how)."""
        total = sum(block.sum(axis=0) for block in expression_blocks(counts, log=True, genes=self.differential))
        return total / counts.shape[0] if self.switches["rmse_counts"] == "mean" else total

    @cached_property
    def components(self) -> np.ndarray:
        """Principal axes (genes, axes) of the training cells, or of control and target cells where none are given."""
        log = self.switches["pca_fit"] == "log"
        if self.train is not None:
            return principal_axes(Moments.of(self.train, log))
        return principal_axes(Moments.of(self.control, log) + Moments.of(self.target, log))

    @cached_property
    def target_samples(self) -> list[tuple[np.ndarray, ...]]:
        """For each repeat: a subsample of n target cells on components (n, c) and on genes (n, genes), and its
        distances (n, n) on both.
        """
        samples = []
        for repeat in range(N_REPEATS):
            genes = log_expression_of(
                self.target, subsample(self.target, stream(self.seed, "target_subsample", repeat))
            )
            axes = genes @ self.components
            samples.append((axes, genes, distances(axes, axes), distances(genes, genes)))
        return samples

    @cached_property
    def target_moments(self) -> Moments:
        """Moments of the observed target cells on the scale of CP10K, without a logarithm."""
        return Moments.of(self.target, log=False)


class Comparison:
    """A prediction and what it is compared with: what metrics are computed from, each part once and only if asked
    for.

    Args:
        predicted: cells (cells, genes), as in `Reference.score`.
        twin: the model's own prediction for the same cells in their own neighbourhood, raw counts.
        interval: what the method says of its own error.
        truths: of a simulated tissue, mean CP10K (genes,): `truth`, the focal cells in the neighbourhood that was asked
            about, and `truth_in_place`, the target cells where they are.
        noise: the counting noise that the prediction lacks.
        shared: mean log-fold change (genes,) of the other types, by `Reference.change`.

    Raises:
        ValueError: negative or non-finite predictions or twins.
        InputError: fewer than two cells, or other genes.
    """

    def __init__(
        self,
        reference: Reference,
        predicted: Counts,
        twin: Counts | None = None,
        interval: Interval | None = None,
        truths: Mapping[str, np.ndarray] | None = None,
        noise: Noise | None = None,
        shared: np.ndarray | None = None,
    ):
        self.interval, self.noise, self.shared = interval, noise, shared
        self.reference = reference
        self.truths = truths or {}
        n_genes = reference.n_genes
        self.predicted = _checked(predicted, "predicted", n_genes, fault=ValueError)
        self.twin = None if twin is None else _checked(twin, "twin", n_genes, fault=ValueError)

    @threadpool_limits.wrap(limits=1)
    def scores(self, unbiased: bool) -> dict[str, float]:
        """All metrics of one kind whose needs are there."""
        given = {n for n in ("twin", "interval", *GIVEN) if getattr(self, n) is not None}
        present = given | {*self.truths}
        return {
            name: float(metric.function(self))
            for name, metric in METRICS.items()
            if metric.unbiased == unbiased and metric.needs <= present
        }

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean CP10K (genes,) of the predicted cells."""
        return mean_expression(self.predicted)

    @cached_property
    def change(self) -> np.ndarray:
        """Predicted log-fold change (genes,) against all control cells, as published."""
        return self.reference.change(self.mean, self.reference.control_mean)

    @cached_property
    def as_published(self) -> dict[str, float]:
        """Agreement of observed and predicted change over the top genes, by metric."""
        return _compare_changes(self.reference.observed, self.change, self.reference.n_deg)

    @cached_property
    def among_expressed(self) -> dict[str, float]:
        """The same, top genes chosen among those seen in at least `MIN_DETECTED` of control and of target cells."""
        reference = self.reference
        share = np.minimum(_detected(reference.control), _detected(reference.target))
        expressed = share >= MIN_DETECTED
        observed = reference.observed[expressed]
        return _compare_changes(observed, self.change[expressed], reference.n_deg)

    @cached_property
    def in_control(self) -> dict[str, float]:
        """The same, top genes chosen among those that any control cell shows (the authors' later form)."""
        shown, reference = self.reference.control_mean > 0, self.reference
        return _compare_changes(reference.observed[shown], self.change[shown], reference.n_deg)

    @cached_property
    def beyond_types(self) -> dict[str, float]:
        """The same, both changes without the mean change of the other types; top genes are those that stand out from
        it.
        """
        reference = self.reference
        own, predicted = reference.observed - self.shared, self.change - self.shared
        predicted[np.abs(predicted) < 1e-9] = 0
        return _compare_changes(own, predicted, reference.n_deg)

    @cached_property
    def against_twin(self) -> dict[str, float]:
        """The same, the predicted change measured against the twin; the observed change is as published."""
        own = self.reference.change(self.mean, mean_expression(self.twin))
        return _compare_changes(self.reference.observed, own, self.reference.n_deg)

    @cached_property
    def _shown(self) -> np.ndarray:
        """Indices of the genes that control or target cells show."""
        return np.flatnonzero(np.maximum(self.reference.control_mean, self.reference.target_mean))

    def coverage(self, level: int | None = None) -> float:
        """Share of genes whose observed change lies in the predicted interval, which is widened by counting noise.

        All on the scale of log1p of mean CP10K, whatever the protocol; genes that neither group shows do not count.

        Args:
            level: thirds of these genes by mean expression, 0 is low; None takes all of them.
        """
        reference, shown = self.reference, self._shown
        if level is not None:
            means = reference.control_mean + reference.target_mean
            shown = np.array_split(shown[np.argsort(means[shown], kind="stable")], 3)[level]
        lower, upper, point, observed = (
            np.log1p(x[shown]) for x in (*self.interval[:2], self.mean, reference.target_mean)
        )
        error = observed - point
        model = np.where(error < 0, point - lower, upper - point)
        noise = reference.noise[shown] * _HALF_LENGTH**2
        return np.mean(np.abs(error) <= np.sqrt(model**2 + noise)) if len(shown) else np.nan

    def width(self) -> float:
        """Median length of the intervals of the change, over the genes that either group shows."""
        lower, upper = (np.log1p(x[self._shown]) for x in self.interval[:2])
        return np.median(upper - lower) if len(self._shown) else np.nan

    def answered_error(self) -> float:
        """Root mean squared error over the top genes about which the method does not abstain."""
        reference = self.reference
        top = reference.differential[~self.interval.abstained[reference.differential]]
        return _root_mean_square((reference.observed - self.change)[top])

    def error_to(self, truth: str) -> float:
        """Root mean squared error of the predicted change over the top genes, the true change in the observed one's
        place.
        """
        reference = self.reference
        true = reference.change(self.truths[truth], reference.control_mean)
        return _root_mean_square((self.change - true)[reference.differential])

    def split_correlation(self) -> float:
        """Pearson correlation of changes that are measured against different halves of the control cells.

        Mean over both assignments of random halves. A prediction of as many cells as there are control cells is taken
        to follow them cell by cell, and only the moved cells of the second half then count.
        """
        reference, predicted, control = self.reference, self.predicted, self.reference.control
        shuffled = stream(reference.seed, "control_halves").permutation(control.shape[0])
        halves = [np.sort(half) for half in np.array_split(shuffled, 2)]
        correlations = []
        for first, second in (halves, halves[::-1]):
            observed = reference.change(reference.target_mean, mean_expression(control[first]))
            moved = predicted[second] if predicted.shape[0] == control.shape[0] else predicted
            change = reference.change(mean_expression(moved), mean_expression(control[second]))
            top = _top_genes(observed, reference.n_deg)
            correlations.append(_correlation(observed[top], change[top]))
        return np.mean(correlations)

    def rmse_counts(self) -> float:
        """Root mean squared error of the log expression profile over the top genes."""
        reference = self.reference
        return _root_mean_square(reference.profile(self.predicted) - reference.target_profile)

    def weighted_error(self) -> float:
        """Mean squared error of the predicted change, weighted by how surely a gene changes."""
        reference = self.reference
        return np.sum(reference.weights * (reference.observed - self.change) ** 2)

    def weighted_r2(self) -> float:
        """Share of the weighted variance of the observed change that the predicted change explains."""
        weights, observed = self.reference.weights, self.reference.observed
        total = np.sum(weights * (observed - np.sum(weights * observed)) ** 2)
        return 1 - self.weighted_error() / total if total > 0 else np.nan

    @cached_property
    def energy_distances(self) -> tuple[np.ndarray, np.ndarray]:
        """Local and global energy distance of every repeat, two arrays (N_REPEATS,)."""
        return self._energy_distances(None)

    @cached_property
    def noisy_energy_distances(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of counts drawn about the predicted ones, where these are expectations: two arrays (N_REPEATS,)."""
        dispersion = self.noise.dispersion
        return self.energy_distances if dispersion is None else self._energy_distances(dispersion)

    def _energy_distances(self, dispersion: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        local, everywhere = [], []
        reference = self.reference
        for repeat, (axes, genes, target_axes, target_genes) in enumerate(reference.target_samples):
            chosen = stream(reference.seed, "predicted_subsample", repeat)
            own = self.predicted[subsample(self.predicted, chosen)]
            if dispersion is not None:
                own = own.toarray() if sparse.issparse(own) else own
                rng = stream(reference.seed, "counting_noise", repeat)
                own = counting_noise(own, dispersion, rng)
            own_genes = log_expression_of(own, np.arange(own.shape[0]))
            own_axes = own_genes @ reference.components
            local.append(local_energy(distances(own_axes, own_axes), target_axes, distances(own_axes, axes)))
            # The standard form; zeros on the diagonals count, as run in the authors' code.
            own = distances(own_genes, own_genes).mean()
            everywhere.append(2 * distances(own_genes, genes).mean() - own - target_genes.mean())
        return np.array(local), np.array(everywhere)

    def mixing_index(self) -> float:
        """Overlap of predicted and target cells in two clusters of CP10K (no logarithm, as run)."""
        from sklearn.cluster import KMeans  # slow to import, and most jobs score nothing

        reference = self.reference
        axes = principal_axes(Moments.of(self.predicted, log=False) + reference.target_moments)
        if axes.shape[1] == 0:
            return 1.0  # all cells are the same
        groups = (self.predicted, reference.target)
        pooled = np.concatenate([b @ axes for group in groups for b in expression_blocks(group, log=False)])
        clusters = KMeans(2, random_state=stream_seed(reference.seed, "mixing_index"), n_init=1)
        label = clusters.fit(pooled).labels_
        n_predicted, n_target = (group.shape[0] for group in groups)
        share = np.bincount(label[:n_predicted], minlength=2) / n_predicted
        target_share = np.bincount(label[n_predicted:], minlength=2) / n_target
        return np.minimum(share, target_share).sum()


_TWIN, _INTERVAL = frozenset({"twin"}), frozenset({"interval"})
# What the scoring step gives every prediction, where the slide allows it.
GIVEN = frozenset({"noise", "shared"})
METRICS = {
    metric.name: metric
    for metric in (
        Metric("pearson", "Pearson", "higher", 1,
        "Pearson correlation of observed and predicted change over the top genes", lambda c: c.as_published["pearson"]),
        Metric("spearman", "Spearman", "higher", 1,
        "Spearman correlation of observed and predicted change over the top genes",
        lambda c: c.as_published["spearman"]),
        Metric("precision", "Precision", "higher", 1, "share of the top genes that are also among the top genes of the "
            "predicted change; undefined where these are a matter of order, because the change of the last of them "
            "ties with the next gene's", lambda c: c.as_published["precision"]),
        Metric("signed_precision", "Signed precision", "higher", 1,
        "as precision, counting only genes whose predicted change has the right sign",
        lambda c: c.as_published["signed_precision"]),
        Metric("signed_precision_intersection", "Signed precision (shared genes)", "higher", 1,
        "share of the genes in both top lists that have the right sign; 0 when no gene is in both",
        lambda c: c.as_published["signed_precision_intersection"]),
        Metric("sign_agreement", "Sign agreement", "higher", 1,
        "share of the top genes whose predicted change has the right sign", lambda c: c.as_published["sign_agreement"]),
        Metric("rmse_lfc", "RMSE of log-fold change", "lower", 0,
        "root mean squared error of the predicted change over the top genes", lambda c: c.as_published["rmse_lfc"]),
        Metric("rmse_counts", "RMSE of expression", "lower", 0, "root mean squared error over the top genes of log "
            "expression, normalised within these genes and averaged over cells (as_run: summed over cells)",
            Comparison.rmse_counts),
        Metric("e_distance", "E-distance", "lower", 0, "local energy distance between predicted and target cells: 10 "
            "nearest cells, 50 principal components, mean of 10 subsamples of up to 200 cells; copies of the target "
            "cells score below 0", lambda c: c.energy_distances[0].mean()),
        Metric("e_distance_std", "Spread of E-distance", "none", np.nan,
        "standard deviation of the local energy distance over its 10 subsamples",
        lambda c: c.energy_distances[0].std(ddof=1)),
        Metric("e_distance_global", "E-distance (global)", "lower", 0, "energy distance between predicted and target "
            "cells on log expression of all genes, mean of the same 10 subsamples",
            lambda c: c.energy_distances[1].mean()),
        Metric("mixing_index", "Mixing index", "higher", 1,
        "how evenly two k-means clusters of the pooled predicted and target cells hold both", Comparison.mixing_index),
        Metric("pearson_split", "Pearson (split control)", "higher", 1,
        "as pearson, observed and predicted change measured against different halves of the control cells",
        Comparison.split_correlation, unbiased=True),
        Metric("pearson_expressed", "Pearson (expressed genes)", "higher", 1,
        "as pearson, top genes chosen among genes detected in at least 5 % of control and of target cells",
        lambda c: c.among_expressed["pearson"], unbiased=True),
        Metric("rmse_lfc_expressed", "RMSE of log-fold change (expressed genes)", "lower", 0,
        "as rmse_lfc, top genes chosen among genes detected in at least 5 % of control and of target cells",
        lambda c: c.among_expressed["rmse_lfc"], unbiased=True),
        Metric("pearson_in_control", "Pearson (genes of the control)", "higher", 1,
        "as pearson, top genes chosen among genes that any control cell shows (the authors' later form)",
        lambda c: c.in_control["pearson"], unbiased=True),
        Metric("pearson_beyond_types", "Pearson (beyond the mean over types)", "higher", 1, "as pearson, both changes "
            "measured from the mean change of the other types, the perturbed centroid of Systema; undefined for a "
            "prediction that is this mean", lambda c: c.beyond_types["pearson"], frozenset({"shared"}), unbiased=True),
        Metric("weighted_r2", "Weighted R2 of the change", "higher", 1, "R2 of the predicted change over all genes, "
            "weighted by the squared t statistic of target against control, scaled to 0..1; below 0 where one change "
            "for all genes would be nearer", Comparison.weighted_r2, unbiased=True),
        Metric("wmse", "Weighted MSE of the change", "lower", 0,
        "mean squared error of the predicted change over all genes, weights as in weighted_r2",
        Comparison.weighted_error, unbiased=True),
        Metric("e_distance_noisy", "E-distance (with counting noise)", "lower", 0, "as e_distance, of counts drawn "
            "about predictions that are expected counts: with the method's own dispersion, else with that of the "
            "training cells of the type", lambda c: c.noisy_energy_distances[0].mean(), frozenset({"noise"}),
            unbiased=True),
        Metric("pearson_twin", "Pearson (against own twin)", "higher", 1,
        "as pearson, the predicted change measured against the same model's prediction without intervention",
        lambda c: c.against_twin["pearson"], _TWIN, unbiased=True),
        Metric("rmse_lfc_twin", "RMSE of log-fold change (against own twin)", "lower", 0,
        "as rmse_lfc, the predicted change measured against the same model's prediction without intervention",
        lambda c: c.against_twin["rmse_lfc"], _TWIN, unbiased=True),
        Metric("signed_precision_twin", "Signed precision (against own twin)", "higher", 1, "as signed_precision, the "
            "predicted change measured against the same model's prediction without intervention",
            lambda c: c.against_twin["signed_precision"], _TWIN, unbiased=True),
        Metric("coverage", "Coverage of 90 % intervals", "none", np.nan, "share of genes whose observed change lies in "
            "the method's 90 % interval, counting noise of both groups added; genes that neither shows do not count",
            Comparison.coverage, _INTERVAL, unbiased=True),
        Metric("coverage_low", "Coverage, low expression", "none", np.nan,
        "as coverage, the third of the genes with the lowest expression", lambda c: c.coverage(0), _INTERVAL,
        unbiased=True),
        Metric("coverage_middle", "Coverage, middle expression", "none", np.nan,
        "as coverage, the middle third of the genes", lambda c: c.coverage(1), _INTERVAL, unbiased=True),
        Metric("coverage_high", "Coverage, high expression", "none", np.nan,
        "as coverage, the third of the genes with the highest expression", lambda c: c.coverage(2), _INTERVAL,
        unbiased=True),
        Metric("interval_width", "Width of 90 % intervals", "lower", 0,
        "median length of the 90 % intervals of the change, log1p of mean CP10K", Comparison.width, _INTERVAL,
        unbiased=True),
        Metric("abstained", "Abstained", "none", np.nan,
        "share of genes about which the method says that they cannot be known from these data",
        lambda c: c.interval.abstained.mean(), _INTERVAL, unbiased=True),
        Metric("rmse_lfc_answered", "RMSE of log-fold change (answered)", "lower", 0,
        "as rmse_lfc, without the genes about which the method abstains", Comparison.answered_error, _INTERVAL,
        unbiased=True),
        Metric("rmse_lfc_truth", "RMSE of log-fold change (against the true counterfactual)", "lower", 0,
        "as rmse_lfc, the observed change replaced by the simulation's exact one for the focal cells among the same "
        "donors; a prediction without donors is compared under the first donor rule, a twin among its own neighbours",
        lambda c: c.error_to("truth"), frozenset({"truth"}), unbiased=True),
        Metric("rmse_lfc_truth_in_place", "RMSE of log-fold change (against the truth in place)", "lower", 0,
        "as rmse_lfc, the observed change replaced by the simulation's exact one for the target cells where they are",
        lambda c: c.error_to("truth_in_place"), frozenset({"truth_in_place"}), unbiased=True),
    )
}  # fmt: skip


def _checked(counts: Counts, group: str, n_genes: int | None = None, fault=InputError) -> Counts:
    counts = sparse.csr_array(counts) if sparse.issparse(counts) else np.asarray(counts)
    if counts.ndim != 2 or (n_genes is not None and counts.shape[1] != n_genes):
        raise InputError(
            f"group {group!r}: shape is {counts.shape} and (cells, {n_genes or 'genes'}) is needed: give the same "
            "genes to all groups."
        )
    if counts.shape[0] < 2:
        raise InputError(
            f"group {group!r}: {counts.shape[0]} cell{'s' * (counts.shape[0] != 1)} and a comparison needs at least 2: "
            "leave this cell type out or choose another domain."
        )
    values = counts.data if sparse.issparse(counts) else counts
    if not (values.min(initial=0) >= 0 and values.max(initial=0) < np.inf):
        raise fault(f"group {group!r}: counts are negative or not finite: give raw counts of 0 and above.")
    return counts


def _detected(counts: Counts) -> np.ndarray:
    """Share of cells in which each gene is detected."""
    return np.asarray((counts > 0).sum(axis=0)).ravel() / counts.shape[0]


def _top_genes(change: np.ndarray, n: int) -> np.ndarray:
    return np.argsort(-np.abs(change), kind="stable")[:n]


def _compare_changes(observed: np.ndarray, predicted: np.ndarray, n_deg: int) -> dict[str, float]:
    top, guessed = _top_genes(observed, n_deg), _top_genes(predicted, n_deg + 1)
    sizes = np.abs(predicted[guessed])
    # Where nothing or too little is predicted to change, any genes would do: no list, no precision.
    n = max(len(top), 1) if len(sizes) <= n_deg or sizes[-2] > sizes[-1] else np.nan
    shared = np.intersect1d(top, guessed[:n_deg])
    right = np.sign(observed) == np.sign(predicted)
    n_right = right[shared].sum()
    truth, guess = observed[top], predicted[top]
    return {
        "pearson": _correlation(truth, guess),
        "spearman": _correlation(*(pd.Series(x).rank().to_numpy() for x in (truth, guess))),
        "precision": len(shared) / n,
        "signed_precision": n_right / n,
        "signed_precision_intersection": n_right / max(len(shared), 1) + 0 * n,
        "sign_agreement": right[top].sum() / max(len(top), 1),
        "rmse_lfc": _root_mean_square(truth - guess),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return np.corrcoef(a, b)[0, 1]


def _root_mean_square(x: np.ndarray) -> float:
    return np.sqrt(np.mean(x**2)) if len(x) else np.nan
