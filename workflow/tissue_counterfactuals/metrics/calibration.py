"""Metrics under test: what each says of predictions whose worth is known before.

A metric that cannot tell the truth from a control should not rank methods. In every fold the target cells are parted at
random: one half is scored against, the other makes predictions that know the answer, in whole or by a known share.
Nulls know nothing of it: untouched control cells, another type's mean, the answer with its genes permuted. What lies
between, such as the mean over types or a model's twin, is shown and not judged by.

Per metric and fold, with the better end of the metric upwards:

- dynamic range fraction (Miller et al. 2025): (ceiling - null) / (best value - null), the null being the one that
  scores best; 1, all of the scale tells knowledge from none; 0 and below, none of it;
- monotony: Spearman correlation of the scores of mixtures with their share of target cells;
- place of a prediction: (score - control) / (ceiling - control), a ratio of means over folds.
"""

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.metrics import GIVEN, METRICS, Noise
from tissue_counterfactuals.metrics.fold import UNKNOWN, FoldScorer
from tissue_counterfactuals.slide import normalize_counts
from tissue_counterfactuals.streams import stream

SHARES = (0.25, 0.5, 0.75)
CEILING, CONTROL, TWIN = "ceiling", "control", "twin"
MIXTURES = {f"mixture_{share:g}": share for share in SHARES}
# Prediction -> what it is, in the order of the figure.
PREDICTIONS = {
    CEILING: "other half of the target cells",
    "truth": "exact expectation",
    "target_mean": "mean of the other half",
    "truth_of_donors": "exact expectation, given donors",
    **{name: f"{share:.0%} target cells" for name, share in reversed(MIXTURES.items())},
    TWIN: "a model's twin",
    "types": "mean over types",
    CONTROL: "control cells",
    "other_type": "another type's mean",
    "permuted": "other half, genes permuted",
}
# They know the answer: whoever scores one of them below control is blind to it. The mean stands in for expected counts
# where the truth is not known; what it lacks beside, that cells differ, is held against it by metrics of populations.
KNOWING = (CEILING, "truth")
WITHOUT_TRUTH = (CEILING, "target_mean")
NULLS = (CONTROL, "other_type", "permuted")
JUDGED = tuple(n for n, m in METRICS.items() if m.direction != "none" and m.needs <= GIVEN)
CALIBRATED, SATURATED, BLIND = "calibrated", "saturated", "blind"
# Folds in which what knows the answer must beat the control, least mean monotony, and the place from which on a null
# takes up so much of the scale that a score says little.
MOST_FOLDS, LEAST_MONOTONY, MOST_OF_NULL = 0.9, 0.7, 0.5
COLUMNS = ["prediction", "metric", "value"]


def predictions_of(task, target: str, twin: Prediction | None) -> tuple[dict[str, Prediction], np.ndarray]:
    """Predictions of known worth by name (see PREDICTIONS), and the half of the target cells to score them against.

    Those that a slide does not allow are left out: the truth where nothing is simulated, the mean over types where
    there is no other type.
    """
    slide, rng = task.slide, stream(task.seed, "metrics_under_test", target)
    own, scored = _halves(task.target_cells(target), rng)
    focal, _ = _halves(task.focal, rng)

    def observed(cells: np.ndarray, genes: np.ndarray | slice = slice(None)) -> Prediction:
        return Prediction(slide.X[cells].toarray()[:, genes], cells, keeps_noise=True)

    def everywhere(cells: np.ndarray) -> Prediction:
        profile = np.asarray(normalize_counts(slide.X[cells]).mean(axis=0)).ravel()
        values = np.broadcast_to(profile, (len(focal), profile.size))
        return Prediction(at_library(values, slide, focal), focal)

    made = {CEILING: observed(own), CONTROL: observed(focal), "target_mean": everywhere(own)}
    n = min(len(own), len(focal))
    for name, share in MIXTURES.items():
        n_target = round(share * n)
        made[name] = observed(np.concatenate([own[:n_target], focal[: n - n_target]]))
    made["permuted"] = observed(own, rng.permutation(slide.n_vars))
    here = (slide.obs["domain"] == task.fold.control).to_numpy() & task.split.train
    others = slide.obs["cell_type"][here & (slide.obs["cell_type"] != task.fold.cell_type)]
    if len(others):
        most = (slide.obs["cell_type"] == others.astype(str).value_counts().index[0]).to_numpy()
        made["other_type"] = everywhere(np.flatnonzero(here & most))
    if twin is not None:
        made[TWIN] = twin
    try:
        made["types"] = METHODS["mean_shift_by_type"].adapter.predict(task, None, target)["-"]
    except InputError as error:
        task.report(f"metrics under test: {error}")
    if "simulation_received" in slide.obsm:
        from tissue_counterfactuals.simulate import true_expression

        dispersion = slide.var["simulation_overdispersion"].to_numpy()
        made["truth"] = Prediction(true_expression(slide, own), own, dispersion=dispersion)
        asked = METHODS["truth"].adapter.predict(task, None, target)
        found = [p for p in asked.values() if not isinstance(p, str)]
        # The twin comes last; alone, it is what was asked where no donor rule found enough donors.
        if len(found) > 1:
            made["truth_of_donors"] = found[0]
    return {name: made[name] for name in PREDICTIONS if name in made}, np.sort(scored)


def _halves(cells: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shuffled = rng.permutation(cells)
    return shuffled[: len(cells) // 2], shuffled[len(cells) // 2 :]


def score_fold(task, switches: dict[str, str], n_deg: int, target: str, twin: Prediction | None = None) -> pd.DataFrame:
    """Scores of predictions of known worth: a row per prediction and metric, see COLUMNS."""
    made, scored = predictions_of(task, target, twin)
    fold, rows = FoldScorer(task, switches, n_deg), []
    for name, prediction in made.items():
        noise = UNKNOWN
        if prediction.keeps_noise or prediction.dispersion is not None:
            noise = Noise(None if prediction.keeps_noise else prediction.dispersion)
        values = prediction.values
        # Cells of observed counts are mostly zeros.
        values = sparse.csr_array(values) if prediction.keeps_noise else values
        scores = fold.score(target, scored, values, noise)
        rows += [(name, metric, scores[metric]) for metric in JUDGED if metric in scores]
    return pd.DataFrame(rows, columns=COLUMNS)


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """A row per metric: its mean score of every prediction, what follows from them, and a verdict.

    Args:
        table: folds of `score_fold`, one below the other, told apart by a column `fold`.

    Returns:
        metric; the mean score of each prediction; `place_` of each; `dynamic_range`, `monotony`, `told_apart` (smallest
        share of folds in which a prediction that knows the answer beats the control), `n_folds`, `verdict`, `reason`.
    """
    rows = []
    for metric in JUDGED:
        own = table[table["metric"] == metric]
        if own.empty:
            continue
        scores = own.pivot(index="fold", columns="prediction", values="value")
        scores = scores.reindex(columns=list(PREDICTIONS))
        sign = 1 if METRICS[metric].direction == "higher" else -1
        better, best = sign * scores, sign * METRICS[metric].best
        # What has no value tells nothing: it stands where nothing is known.
        floor = better[CONTROL].mean()
        asked = scores.columns.isin(own["prediction"])
        better.loc[:, asked] = better.loc[:, asked].fillna(floor)
        shared = better[[CONTROL, *MIXTURES, CEILING]]
        monotony = shared.apply(_monotony, axis=1)
        null = better[list(NULLS)].max(axis=1)
        ranges = [dynamic_range(c, n, best) for c, n in zip(better[CEILING], null, strict=True)]
        knowing = KNOWING if (own["prediction"] == "truth").any() else WITHOUT_TRUTH
        wins = {name: (better[name] > better[CONTROL]).mean() for name in knowing}
        scale = (better[CEILING] - better[CONTROL]).mean()
        places = {name: (better[name] - better[CONTROL]).mean() / scale if scale else np.nan for name in PREDICTIONS}
        row = {"metric": metric, **scores.mean()} | {f"place_{k}": v for k, v in places.items()}
        row |= {"dynamic_range": _mean(ranges), "monotony": _mean(monotony)}
        row |= {"told_apart": min(wins.values()), "n_folds": len(scores)}
        row["verdict"], row["reason"] = _verdict(wins, row["monotony"], places, len(scores))
        rows.append(row)
    return pd.DataFrame(rows)


def dynamic_range(knowing: float, null: float, best: float) -> float:
    """Dynamic range fraction between -1 and 1, better end upwards; NaN where the null is beyond the best value."""
    if not np.isfinite(null) or null > best:
        return np.nan
    return float(np.clip((knowing - null) / (best - null + 1e-6), -1, 1))


def _monotony(scores: pd.Series) -> float:
    if scores.isna().any() or scores.nunique() < 2:
        return 0.0
    return float(scores.rank().corr(pd.Series(range(len(scores)), scores.index)))


def _mean(values) -> float:
    values = np.asarray(list(values), dtype=float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _verdict(wins: dict, monotony: float, places: dict, n_folds: int) -> tuple[str, str]:
    """The verdict, and the one observation that it rests on."""
    worst = min(wins, key=wins.get)
    if wins[worst] < MOST_FOLDS:
        return BLIND, (
            f"{PREDICTIONS[worst]}: better than control cells in {wins[worst] * n_folds:.0f} of {n_folds} folds"
        )
    if monotony < LEAST_MONOTONY:
        return (BLIND, f"mixtures with more target cells do not score better (monotony {monotony:.2f})")
    null = max(NULLS, key=lambda name: np.nan_to_num(places[name], nan=-np.inf))
    if places[null] >= MOST_OF_NULL:
        return SATURATED, (f"{PREDICTIONS[null]}: {places[null]:.0%} of the way from control cells to the other half")
    return CALIBRATED, (f"best null, {PREDICTIONS[null]}: {places[null]:.0%} of the way to the other half")
