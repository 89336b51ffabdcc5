"""Score tables: read and check them, write them, summarise them, and pair each prediction with what it must beat.

One row of a score table is one number: data set x slide x held-out type x target x method x variant x protocol x
seed x metric. A fold is one held-out type on one slide.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics import GIVEN, METRICS
from tissue_counterfactuals.protocols import PROTOCOLS

KINDS = ("simulated", "stand-in", "real")
MISSING = ("", "nan")
STATUSES = ("ok", "failed")
EXPERIMENT = ["dataset", "kind", "target", "protocol"]
FOLD = ["slide", "cell_type"]
KEY = [*EXPERIMENT, *FOLD, "method", "variant", "seed", "metric"]
COUNTS = ["n_control", "n_target", "n_predicted"]
COLUMNS = (
    *("dataset", "kind", "slide", "cell_type", "target", "method", "variant", "protocol", "seed"),
    *("metric", "value", *COUNTS, "status", "reason"),
)
# The variant of a learned method that answers no counterfactual: same model, same cells, own neighbours.
TWIN = "no_intervention"
# What a prediction must beat to be worth a model, besides its twin.
CONTROLS = ("no_change", "mean_shift", "mean_shift_by_type")
# Below six pairs the signed-rank test cannot reach p < 0.05 even if every fold improves.
MIN_WILCOXON_PAIRS = 6


def read_scores(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Read score tables into one checked table, sorted by its key.

    Returns:
        One row per score: text columns as `str`, `seed` int64, `value` float64 (NaN where the method failed or the
        metric is undefined), `n_control`, `n_target`, `n_predicted` nullable Int64.

    Raises:
        InputError: no table, a column too many or too few, a value of the wrong type, an unknown kind, protocol or
            status, a failed row without reason, or the same score twice.
    """
    tables = [_read_one(Path(path)) for path in paths]
    if not tables:
        raise InputError("score tables: none was given, so there is nothing to summarise.")
    scores = pd.concat(tables, ignore_index=True)
    repeated = scores.duplicated(KEY)
    if repeated.any():
        first = scores.loc[repeated.idxmax(), KEY].to_dict()
        raise InputError(
            f"score tables: the score {first} is there twice; give every score file once."
        )
    return scores.sort_values(KEY, ignore_index=True)


def _read_one(path: Path) -> pd.DataFrame:
    try:
        # Everything as text first: a cell type may be called "NA".
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"score table {path} cannot be read ({error}); delete it and run again."
        ) from error
    for column in COLUMNS:
        if column not in table:
            raise InputError(
                f"score table {path}: column {column!r} is missing; the columns are {', '.join(COLUMNS)}."
            )
    for column in table:
        if column not in COLUMNS:
            raise InputError(
                f"score table {path}: column {column!r} is unknown; the columns are {', '.join(COLUMNS)}."
            )
    for column, allowed in (
        ("kind", KINDS),
        ("protocol", PROTOCOLS),
        ("status", STATUSES),
    ):
        _refuse(path, table, column, ~table[column].isin(allowed), f"one of {', '.join(allowed)}")
    failed = table["status"] == "failed"
    _refuse(path, table, "metric", ~failed & (table["metric"] == ""), "a metric where status is ok")
    _refuse(path, table, "reason", failed & (table["reason"] == ""), "a reason where status failed")
    _refuse(path, table, "seed", table["seed"].str.lower().isin(MISSING), "a whole number")
    table["value"] = _numbers(path, table, "value")
    for column in ("seed", *COUNTS):
        numbers = _numbers(path, table, column)
        _refuse(path, table, column, numbers.notna() & (numbers % 1 != 0), "a whole number")
        table[column] = numbers.astype("Int64")
    table["seed"] = table["seed"].astype(np.int64)
    return table[list(COLUMNS)]


def _numbers(path: Path, table: pd.DataFrame, column: str) -> pd.Series:
    numbers = pd.to_numeric(table[column], errors="coerce")
    not_a_number = numbers.isna() & ~table[column].str.lower().isin(MISSING)
    _refuse(path, table, column, not_a_number, "a number or empty")
    return numbers


def _refuse(path: Path, table: pd.DataFrame, column: str, wrong: pd.Series, wanted: str) -> None:
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"score table {path}, line {row + 2}: column {column!r} holds {table[column].iloc[row]!r} instead of "
            f"{wanted}; delete the file and run again."
        )


def write_tsv(table: pd.DataFrame, path: str | Path, sort: bool = True) -> None:
    """Write a table so that the same content gives the same bytes, whatever order it was computed in.

    Rows are sorted by their columns from left to right, those of fractions last (`sort=False` keeps an order that
    already is one, such as that of a printed table). Fractions have six significant digits, whole numbers all of
    theirs; missing values are empty; line ends are those of Unix.
    """
    fractions = [c for c in table if pd.api.types.is_float_dtype(table[c])]
    others = [c for c in table if c not in fractions]
    text = [c for c in others if not pd.api.types.is_numeric_dtype(table[c])]
    # A line break in an error message must not become a row.
    table = table.assign(
        **{
            c: table[c]
            .astype(object)
            .fillna("")
            .astype(str)
            .str.replace(r"[\t\r\n]+", " ", regex=True)
            for c in text
        }
    )
    if sort:
        table = table.sort_values([*others, *fractions], kind="stable")
    table = table.assign(**{c: table[c].map(_number_text) for c in fractions})
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")


def _number_text(value: float) -> str:
    if np.isnan(value):
        return ""
    # A column of counts with gaps arrives as float, and %.6g would round a count of cells.
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.6g}"


def choose(scores: pd.DataFrame, dataset: str, target: str, protocol: str) -> pd.DataFrame:
    """The rows of one data set, target and protocol.

    Raises:
        InputError: there are none.
    """
    wanted = {"dataset": dataset, "target": target, "protocol": protocol}
    chosen = scores[np.logical_and.reduce([scores[c] == value for c, value in wanted.items()])]
    if chosen.empty:
        present = scores[list(wanted)].drop_duplicates().itertuples(index=False)
        raise InputError(
            f"score table: it has no rows for dataset {dataset!r}, target {target!r} and protocol {protocol!r}; there "
            f"are {', '.join(' / '.join(row) for row in present)}."
        )
    return chosen


def spread_failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Count a fit that failed, which has no variant, for every variant that the method has in other folds.

    A method that failed in every fold keeps its rows with variant `-`.
    """
    lost = (scores["status"] == "failed") & (scores["variant"] == "-")
    group = [*EXPERIMENT, "method"]
    variants = scores.loc[~lost, [*group, "variant"]].drop_duplicates()
    spread = scores[lost].merge(variants, on=group, how="left", suffixes=("_lost", ""))
    spread["variant"] = spread["variant"].fillna(spread["variant_lost"])
    table = pd.concat([scores[~lost], spread[scores.columns]]).drop_duplicates()
    return table.sort_values(KEY, ignore_index=True)


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every metric of every method.

    Values are first averaged over seeds within a fold; then

    - `mean` is the mean over folds, `std_pooled` their sample standard deviation (the published tables pool slides
      and types like this), `std_slides` the one of the slides' means, and `std_seeds` the mean over folds of the
      standard deviation over seeds;
    - `n_folds`, `n_seeds`: folds and seeds with a value; `n_undefined`: scores that exist but have no value, such as
      a correlation with a prediction that changes nothing; `n_failed`, `reason`: failed runs and why.

    A method that failed everywhere keeps its rows, with no mean.
    """
    scores = spread_failures(scores)
    rows = []
    for experiment, of_experiment in scores.groupby(EXPERIMENT):
        metrics = sorted(set(of_experiment["metric"]) - {""}) or [""]
        for method, own in of_experiment.groupby(["method", "variant"]):
            failures = _failures(own)
            for metric in metrics:
                present = own[(own["metric"] == metric) & (own["status"] == "ok")]
                defined = present.dropna(subset="value")
                folds = defined.groupby(FOLD)["value"]
                means = folds.mean()
                spread = {
                    "mean": means.mean(),
                    "std_pooled": means.std(),
                    "std_slides": means.groupby("slide").mean().std(),
                    "std_seeds": folds.std().mean(),
                    "n_folds": len(means),
                    "n_seeds": defined["seed"].nunique(),
                    "n_undefined": len(present) - len(defined),
                }
                rows.append((*experiment, *method, metric, *spread.values(), *failures))
    columns = [*EXPERIMENT, "method", "variant", "metric", "mean", "std_pooled", "std_slides"]
    columns += ["std_seeds", "n_folds", "n_seeds", "n_undefined", "n_failed", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _failures(rows: pd.DataFrame) -> tuple[int, str]:
    """Number of runs (method x fold x seed) that failed, and their reasons."""
    failed = rows[rows["status"] == "failed"].drop_duplicates([*FOLD, "method", "seed", "reason"])
    return len(failed), "; ".join(sorted(set(failed["reason"])))


def learned_methods(scores: pd.DataFrame) -> list[str]:
    """Methods that have a twin, or would have one had they not failed; sorted by name."""
    registered = {name for name, method in METHODS.items() if method.learned}
    return sorted(
        {*scores.loc[scores["variant"] == TWIN, "method"]} | (registered & {*scores["method"]})
    )


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Every counterfactual of a learned method against its twin and against each control, pair by pair.

    The twin comes from the same fitted model, so it pairs by fold and seed. Controls pair by fold and seed too;
    where a control was not run with that seed, its mean over seeds in the fold stands in.

    Left out are metrics without a better end and those that contain a comparison
    with the twin already.

    Returns:
        `difference` = counterfactual - reference, and `gain`, the same with its sign turned where lower is better,
        so that a positive gain always is an improvement; `reference` names the twin (`no_intervention`) or control.
    """
    defined = scores[(scores["status"] == "ok") & scores["metric"].isin(_comparable())]
    defined = defined.dropna(subset="value")
    pair_key = [*EXPERIMENT, *FOLD, "seed", "metric"]
    learned = defined["method"].isin(learned_methods(scores))
    is_twin = defined["variant"] == TWIN
    counterfactuals = defined.loc[learned & ~is_twin, [*pair_key, "method", "variant", "value"]]
    twins = defined.loc[learned & is_twin, [*pair_key, "method", "value"]]
    pairs = [
        counterfactuals.merge(twins, on=[*pair_key, "method"], suffixes=("", "_reference")).assign(
            reference=TWIN
        )
    ]
    for name in CONTROLS:
        control = defined[defined["method"] == name]
        fold_key = [*EXPERIMENT, *FOLD, "metric"]
        fold_means = control.groupby(fold_key, as_index=False)["value"].mean()
        paired = counterfactuals.merge(
            control[[*pair_key, "value"]], on=pair_key, how="left", suffixes=("", "_reference")
        ).merge(fold_means, on=fold_key, suffixes=("", "_fold"))
        paired["value_reference"] = paired["value_reference"].fillna(paired["value_fold"])
        pairs.append(paired.drop(columns="value_fold").assign(reference=name))
    table = pd.concat(pairs, ignore_index=True)
    direction = table["metric"].map({name: m.direction for name, m in METRICS.items()})
    difference = table["value"] - table["value_reference"]
    table = table.assign(
        direction=direction,
        difference=difference,
        gain=difference.where(direction == "higher", -difference),
    )
    order = [*EXPERIMENT, *FOLD, "method", "variant", "reference", "seed", "metric", "direction"]
    table = table[[*order, "value", "value_reference", "difference", "gain"]]
    return table.sort_values(order, ignore_index=True)


def _comparable() -> set[str]:
    return {name for name, m in METRICS.items() if m.needs <= GIVEN and m.direction != "none"}


def gains(scores: pd.DataFrame) -> pd.DataFrame:
    """Paired gain of every counterfactual over its twin and over each control.

    Gains are averaged over seeds within a fold, because seeds of one fold are no independent evidence; the fold is
    the unit of everything else.

    Returns:
        Per experiment x method x variant x reference x metric: `direction` of the metric; `mean` and `std` (ddof 1) of
        the gain over folds, positive = better; `mean_difference`, counterfactual - reference as it is; `n` folds,
        `n_improved` of them with a positive gain; `p_value` of the two-sided Wilcoxon signed-rank test where n >= 6
        (not adjusted for the number of comparisons); `n_failed` and `reason` of failed runs on either side. Where
        nothing could be paired, n is 0 and the row stays.
    """
    pairs = paired_differences(scores)
    scores = spread_failures(scores)
    group = [*EXPERIMENT, "method", "variant", "reference", "metric"]
    by_group = dict(iter(pairs.groupby(group)))
    learned = learned_methods(scores)
    rows = []
    for experiment, of_experiment in scores.groupby(EXPERIMENT):
        metrics = sorted(set(of_experiment["metric"]) & _comparable()) or [""]
        counterfactuals = of_experiment[
            of_experiment["method"].isin(learned) & (of_experiment["variant"] != TWIN)
        ]
        references = [c for c in CONTROLS if (of_experiment["method"] == c).any()]
        for (method, variant), own in counterfactuals.groupby(["method", "variant"]):
            for reference in (TWIN, *references):
                other = (
                    of_experiment[
                        (of_experiment["method"] == method) & (of_experiment["variant"] == TWIN)
                    ]
                    if reference == TWIN
                    else of_experiment[of_experiment["method"] == reference]
                )
                failures = _failures(pd.concat([own, other]))
                for metric in metrics:
                    key = (*experiment, method, variant, reference, metric)
                    rows.append((*key, *_fold_gains(by_group.get(key), metric), *failures))
    columns = [*group, "direction", "mean", "std", "mean_difference", "n", "n_improved", "p_value"]
    return pd.DataFrame(rows, columns=[*columns, "n_failed", "reason"])


def _fold_gains(pairs: pd.DataFrame | None, metric: str) -> tuple:
    from scipy.stats import wilcoxon  # slow to import, and most jobs make no table

    direction = METRICS[metric].direction if metric else ""
    if pairs is None:
        return direction, np.nan, np.nan, np.nan, 0, 0, np.nan
    folds = pairs.groupby(FOLD)[["gain", "difference"]].mean()
    gain = folds["gain"]
    testable = len(gain) >= MIN_WILCOXON_PAIRS and (gain != 0).any()
    p_value = float(wilcoxon(gain).pvalue) if testable else np.nan
    mean_difference = folds["difference"].mean()
    n_improved = int((gain > 0).sum())
    return direction, gain.mean(), gain.std(), mean_difference, len(gain), n_improved, p_value
