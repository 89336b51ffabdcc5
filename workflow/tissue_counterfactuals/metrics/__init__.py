"""How well predicted cells resemble the target cells: the metrics of Cellina (appendix A) and unbiased forms of them.

All scores compare three groups of raw counts: `control` (cells of a type in the control domain), `target` (cells of
the type in the target domain) and `predicted` (control cells moved there by a method). Expression is CP10K: counts
divided by the cell's total over the given genes, times 10,000. An "observed change" is the log-fold change from
control to target, a "predicted change" the one from control to predicted, both of mean CP10K over cells; `n_deg` genes
with the largest absolute observed change are the differential genes ("top genes"), ties going to the earlier gene.

Published log-fold changes share one control group: whatever the control cells deviate from their type's mean, the
observed and the predicted change deviate alike, so every prediction that shrinks towards the mean correlates with
the truth. The metrics whose names end in `_split` and `_twin` are free of that; those in `_expressed` are free of
genes that are hardly there.

Linear algebra runs on one thread, so that scores do not depend on the number of cores.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse
from threadpoolctl import threadpool_limits

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.metrics.populations import (
    Counts,
    Moments,
    distances,
    expression_blocks,
    local_energy,
    log_expression_of,
    mean_expression,
    principal_axes,
    subsample,
)
from tissue_counterfactuals.streams import stream, stream_seed

# What `corrected` and `as_run` mean for metrics: name of the switch -> its value under either protocol.
SWITCHES = {
    name: {protocol: getattr(switch, protocol) for protocol in protocols.PROTOCOLS}
    for name, switch in protocols.SWITCHES.items()
    if switch.step == "metrics"
}

N_REPEATS = 10


@dataclass(frozen=True)
class Metric:
    """What a score means: `direction` says which values are better (`higher`, `lower`, or `none` where neither is, as for
    a spread), `best` is the value of a perfect prediction (NaN where there is none).

    `needs` names inputs beyond control, target and prediction without which the metric is not computed.
    """

    name: str
    label: str
    direction: str
    best: float
    description: str
    needs: frozenset[str] = frozenset()


_TWIN = frozenset({"twin"})
METRICS = {
    metric.name: metric
    for metric in (
        Metric("pearson", "Pearson", "higher", 1, "Pearson correlation of observed and predicted change over the top genes"),
        Metric("spearman", "Spearman", "higher", 1, "Spearman correlation of observed and predicted change over the top genes"),
        Metric("precision", "Precision", "higher", 1, "share of the top genes that are also among the top genes of the predicted change; undefined where these are a matter of order, because the change of the last of them ties with the next gene's"),
        Metric("signed_precision", "Signed precision", "higher", 1, "as precision, counting only genes whose predicted change has the right sign"),
        Metric("signed_precision_intersection", "Signed precision (shared genes)", "higher", 1, "share of the genes in both top lists that have the right sign; 0 when no gene is in both"),
        Metric("sign_agreement", "Sign agreement", "higher", 1, "share of the top genes whose predicted change has the right sign"),
        Metric("rmse_lfc", "RMSE of log-fold change", "lower", 0, "root mean squared error of the predicted change over the top genes"),
        Metric("rmse_counts", "RMSE of expression", "lower", 0, "root mean squared error over the top genes of log expression, normalised within these genes and averaged over cells (as_run: summed over cells)"),
        Metric("e_distance", "E-distance", "lower", 0, "local energy distance between predicted and target cells: 10 nearest cells, 50 principal components, mean of 10 subsamples of up to 200 cells; copies of the target cells score below 0"),
        Metric("e_distance_std", "Spread of E-distance", "none", np.nan, "standard deviation of the local energy distance over its 10 subsamples"),
        Metric("e_distance_global", "E-distance (global)", "lower", 0, "energy distance between predicted and target cells on log expression of all genes, mean of the same 10 subsamples"),
        Metric("mixing_index", "Mixing index", "higher", 1, "how evenly two k-means clusters of the pooled predicted and target cells hold both"),
        Metric("pearson_split", "Pearson (split control)", "higher", 1, "as pearson, observed and predicted change measured against different halves of the control cells"),
        Metric("pearson_expressed", "Pearson (expressed genes)", "higher", 1, "as pearson, top genes chosen among genes detected in at least 5 % of control and of target cells"),
        Metric("rmse_lfc_expressed", "RMSE of log-fold change (expressed genes)", "lower", 0, "as rmse_lfc, top genes chosen among genes detected in at least 5 % of control and of target cells"),
        Metric("pearson_twin", "Pearson (against own twin)", "higher", 1, "as pearson, the predicted change measured against the same model's prediction without intervention", _TWIN),
        Metric("rmse_lfc_twin", "RMSE of log-fold change (against own twin)", "lower", 0, "as rmse_lfc, the predicted change measured against the same model's prediction without intervention", _TWIN),
        Metric("signed_precision_twin", "Signed precision (against own twin)", "higher", 1, "as signed_precision, the predicted change measured against the same model's prediction without intervention", _TWIN),
    )
}  # fmt: skip


def score(
    control: Counts,
    target: Counts,
    predicted: Counts,
    train: Counts | None = None,
    n_deg: int = 50,
    seed: int = 0,
    protocol: str = "corrected",
    **switches: str,
) -> dict[str, float]:
    """All metrics of one prediction that need no twin and no split; see `Reference`, better for many predictions."""
    return Reference(control, target, train, n_deg, seed, protocol, **switches).score(predicted)


def unbiased_scores(
    control: Counts,
    target: Counts,
    predicted: Counts,
    twin: Counts | None = None,
    n_deg: int = 50,
    seed: int = 0,
    min_detected: float = 0.05,
    protocol: str = "corrected",
    **switches: str,
) -> dict[str, float]:
    """The unbiased forms for one prediction; see `Reference.unbiased_scores`."""
    reference = Reference(control, target, None, n_deg, seed, protocol, **switches)
    return reference.unbiased_scores(predicted, twin, min_detected)


class Reference:
    """Control and target cells that many predictions are scored against; what depends on them is computed once.

    Args:
        control, target: raw counts (cells, genes), dense or sparse, at least two cells each.
        train: raw counts of the training cells, on which the E-distance's principal components are fitted. Without
            them the control and target cells together serve.
        n_deg: number of differential genes; all genes where there are fewer.
        seed: of subsamples, halves and k-means. The authors' subsamples are unseeded.
        protocol: `corrected` or `as_run`; see SWITCHES.
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
        self.switches = _resolved(protocol, switches)
        self.control = _checked(control, "control")
        self.n_genes = self.control.shape[1]
        self.target = _checked(target, "target", self.n_genes)
        self.train = None if train is None else _checked(train, "train", self.n_genes)
        if n_deg < 1:
            raise InputError(f"metrics: n_deg is {n_deg}: give a whole number from 1 up.")
        self.n_deg = min(n_deg, self.n_genes)
        self.seed = seed

    @threadpool_limits.wrap(limits=1)
    def score(self, predicted: Counts) -> dict[str, float]:
        """Score predicted cells (cells, genes): whole or fractional counts >= 0, any number of cells.

        Correlations with a constant are nan, and so are precisions where the genes that are predicted to change most are
        not determined.

        Raises:
            ValueError: negative or non-finite predictions (a method's fault, not the user's).
            InputError: fewer than two predicted cells, or other genes.
        """
        predicted = _checked(predicted, "predicted", self.n_genes, fault=ValueError)
        change = self._change(mean_expression(predicted), self._control_mean)
        scores = _compare_changes(self._observed, change, self.n_deg)
        scores["rmse_counts"] = self._rmse_counts(predicted)
        local, everywhere = self._energy_distances(predicted)
        scores["e_distance"] = local.mean()
        scores["e_distance_std"] = local.std(ddof=1)
        scores["e_distance_global"] = everywhere.mean()
        scores["mixing_index"] = self._mixing_index(predicted)
        return {name: float(value) for name, value in scores.items()}

    @threadpool_limits.wrap(limits=1)
    def unbiased_scores(
        self, predicted: Counts, twin: Counts | None = None, min_detected: float = 0.05
    ) -> dict[str, float]:
        """Forms of the scores without the published definitions' biases; not part of the paper.

        - `_split`: the control cells are halved at random, the observed change is measured against one half and the
          predicted change against the other; mean over both assignments. A prediction of as many cells as there are
          control cells is taken to follow them cell by cell, and only the moved cells of the second half then count.
        - `_expressed`: differential genes are chosen among those detected (count > 0) in at least `min_detected` of
          the control cells and of the target cells.
        - `_twin`, only with a twin: the predicted change is measured against the model's own prediction for the
          same cells in their own neighbourhood (`twin`, raw counts); the observed change is as published.
        """
        predicted = _checked(predicted, "predicted", self.n_genes, fault=ValueError)
        mean = mean_expression(predicted)
        shuffled = stream(self.seed, "control_halves").permutation(self.control.shape[0])
        halves = [np.sort(half) for half in np.array_split(shuffled, 2)]
        correlations = []
        for first, second in (halves, halves[::-1]):
            observed = self._change(self._target_mean, mean_expression(self.control[first]))
            moved = predicted[second] if predicted.shape[0] == self.control.shape[0] else predicted
            change = self._change(mean_expression(moved), mean_expression(self.control[second]))
            top = _top_genes(observed, self.n_deg)
            correlations.append(_correlation(observed[top], change[top]))
        scores = {"pearson_split": np.mean(correlations)}

        change = self._change(mean, self._control_mean)
        expressed = np.minimum(_detected(self.control), _detected(self.target)) >= min_detected
        among = _compare_changes(self._observed[expressed], change[expressed], self.n_deg)
        scores["pearson_expressed"] = among["pearson"]
        scores["rmse_lfc_expressed"] = among["rmse_lfc"]

        if twin is not None:
            twin = _checked(twin, "twin", self.n_genes, fault=ValueError)
            own = self._change(mean, mean_expression(twin))
            against_twin = _compare_changes(self._observed, own, self.n_deg)
            for name in ("pearson", "rmse_lfc", "signed_precision"):
                scores[f"{name}_twin"] = against_twin[name]
        return {name: float(value) for name, value in scores.items()}

    def _change(self, mean: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """Log-fold change (genes,) between two mean profiles."""
        if self.switches["lfc"] == "natural_pseudocount_1":
            change = np.log1p(mean) - np.log1p(baseline)
        else:
            change = np.log2((mean + 1e-6) / (baseline + 1e-6))
        # Rounding must not give an unchanged gene a sign.
        change[np.abs(change) < 1e-9] = 0
        return change

    @cached_property
    def _control_mean(self) -> np.ndarray:
        return mean_expression(self.control)

    @cached_property
    def _target_mean(self) -> np.ndarray:
        return mean_expression(self.target)

    @cached_property
    def _observed(self) -> np.ndarray:
        return self._change(self._target_mean, self._control_mean)

    @cached_property
    def _differential(self) -> np.ndarray:
        return _top_genes(self._observed, self.n_deg)

    @cached_property
    def _target_profile(self) -> np.ndarray:
        return self._profile(self.target)

    def _profile(self, counts: Counts) -> np.ndarray:
        """Log expression of the top genes, normalised within them, over all cells (`rmse_counts` says how)."""
        total = sum(
            block.sum(axis=0)
            for block in expression_blocks(counts, log=True, genes=self._differential)
        )
        return total / counts.shape[0] if self.switches["rmse_counts"] == "mean" else total

    def _rmse_counts(self, predicted: Counts) -> float:
        return _root_mean_square(self._profile(predicted) - self._target_profile)

    @cached_property
    def _components(self) -> np.ndarray:
        log = self.switches["pca_fit"] == "log"
        if self.train is not None:
            return principal_axes(Moments.of(self.train, log))
        return principal_axes(Moments.of(self.control, log) + Moments.of(self.target, log))

    @cached_property
    def _target_samples(self) -> list[tuple[np.ndarray, ...]]:
        """For each repeat: a subsample of target cells on components and on genes, and its distances on both."""
        samples = []
        for repeat in range(N_REPEATS):
            genes = log_expression_of(
                self.target, subsample(self.target, stream(self.seed, "target_subsample", repeat))
            )
            axes = genes @ self._components
            samples.append((axes, genes, distances(axes, axes), distances(genes, genes)))
        return samples

    def _energy_distances(self, predicted: Counts) -> tuple[np.ndarray, np.ndarray]:
        """Local and global energy distance of every repeat, two arrays (N_REPEATS,)."""
        local, everywhere = [], []
        for repeat, (axes, genes, target_axes, target_genes) in enumerate(self._target_samples):
            own_genes = log_expression_of(
                predicted, subsample(predicted, stream(self.seed, "predicted_subsample", repeat))
            )
            own_axes = own_genes @ self._components
            local.append(
                local_energy(distances(own_axes, own_axes), target_axes, distances(own_axes, axes))
            )
            # The standard form; zeros on the diagonals count, as run in the authors' code.
            own = distances(own_genes, own_genes).mean()
            everywhere.append(2 * distances(own_genes, genes).mean() - own - target_genes.mean())
        return np.array(local), np.array(everywhere)

    @cached_property
    def _target_moments(self) -> Moments:
        return Moments.of(self.target, log=False)

    def _mixing_index(self, predicted: Counts) -> float:
        """Overlap of predicted and target cells in two clusters of CP10K (no logarithm, as run)."""
        from sklearn.cluster import KMeans  # slow to import, and most jobs score nothing

        axes = principal_axes(Moments.of(predicted, log=False) + self._target_moments)
        if axes.shape[1] == 0:
            return 1.0  # all cells are the same
        groups = (predicted, self.target)
        pooled = np.concatenate(
            [b @ axes for group in groups for b in expression_blocks(group, log=False)]
        )
        label = (
            KMeans(2, random_state=stream_seed(self.seed, "mixing_index"), n_init=1)
            .fit(pooled)
            .labels_
        )
        n_predicted, n_target = (group.shape[0] for group in groups)
        share = np.bincount(label[:n_predicted], minlength=2) / n_predicted
        target_share = np.bincount(label[n_predicted:], minlength=2) / n_target
        return np.minimum(share, target_share).sum()


def _resolved(protocol: str, given: dict[str, str]) -> dict[str, str]:
    if protocol not in protocols.PROTOCOLS:
        raise InputError(
            f"metrics: protocol is {protocol!r}; allowed are {', '.join(protocols.PROTOCOLS)}."
        )
    for name, value in given.items():
        if name not in SWITCHES:
            raise InputError(
                f"metrics: {name} is no switch; the switches are {', '.join(SWITCHES)}."
            )
        allowed = SWITCHES[name].values()
        if value not in allowed:
            raise InputError(
                f"metrics: switch {name} is {value!r}; allowed are {', '.join(allowed)}."
            )
    return {name: given.get(name, values[protocol]) for name, values in SWITCHES.items()}


def _checked(counts: Counts, group: str, n_genes: int | None = None, fault=InputError) -> Counts:
    counts = sparse.csr_array(counts) if sparse.issparse(counts) else np.asarray(counts)
    if counts.ndim != 2 or (n_genes is not None and counts.shape[1] != n_genes):
        raise InputError(
            f"group {group!r}: shape is {counts.shape} and (cells, {n_genes or 'genes'}) is needed: give the same genes "
            "to all groups."
        )
    if counts.shape[0] < 2:
        raise InputError(
            f"group {group!r}: {counts.shape[0]} cell{'s' * (counts.shape[0] != 1)} and a comparison needs at least 2: "
            "leave this cell type out or choose another domain."
        )
    values = counts.data if sparse.issparse(counts) else counts
    if not (values.min(initial=0) >= 0 and values.max(initial=0) < np.inf):
        raise fault(
            f"group {group!r}: counts are negative or not finite: give raw counts of 0 and above."
        )
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
