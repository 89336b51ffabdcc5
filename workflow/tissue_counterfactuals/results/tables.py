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
from tissue_counterfactuals.question.donors import DONOR_RULES
from tissue_counterfactuals.results.patients import FEWEST_PATIENTS, Estimate, estimate, holm

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
CEILING = "ceiling"
# Whichever other method does best: the reference that a claim of being best must beat.
BEST = "best_competitor"
# Scores against fewer target cells than this are told apart under every table and figure of scores: the mean of so few
# cells is itself uncertain by a fifth of their spread or more.
FEW_CELLS = 25
_FOLDS_NAMED = 6
# Columns of names, which come from data and may be "01" or "NA".
_NAMES = (
    *("dataset", "slide", "section", "sample", "hold_out", "cell", "cell_type", "domain", "target"),
    *("gene", "knockout", "term", "pathway", "label", "status", "reason"),
)


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
        raise InputError(f"score tables: the score {first} is there twice; give every score file once.")
    return scores.sort_values(KEY, ignore_index=True)


def _read_one(path: Path) -> pd.DataFrame:
    try:
        # Everything as text first: a cell type may be called "NA".
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"score table {path} cannot be read ({error}); delete it and run again.") from error
    for column in COLUMNS:
        if column not in table:
            raise InputError(f"score table {path}: column {column!r} is missing; the columns are {', '.join(COLUMNS)}.")
    for column in table:
        if column not in COLUMNS:
            raise InputError(f"score table {path}: column {column!r} is unknown; the columns are {', '.join(COLUMNS)}.")
    for column, allowed in (("kind", KINDS), ("protocol", PROTOCOLS), ("status", STATUSES)):
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


def read_table(path: str | Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """A table of an experiment; names stay as they are, those too that look like numbers or like nothing ("NA").

    Raises:
        InputError: a column is missing.
    """
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""], dtype=dict.fromkeys(_NAMES, str))
    for column in columns:
        if column not in table:
            raise InputError(f"table {path}: column {column!r} is missing; run the experiment again.")
    return table


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
        **{c: table[c].astype(object).fillna("").astype(str).str.replace(r"[\t\r\n]+", " ", regex=True) for c in text}
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
    """The rows of a score table of one data set, target and protocol.

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


def few_target_cells(scores: pd.DataFrame) -> str:
    """A sentence that names the folds of a score table with fewer than `FEW_CELLS` target cells; empty where there is
    none.
    """
    # A ceiling keeps half of the cells for itself.
    sizes = scores.groupby([*FOLD, "target"])["n_target"].max().dropna()
    few = sizes[sizes < FEW_CELLS].sort_values(kind="stable")
    if few.empty:
        return ""
    several = scores["target"].nunique() > 1
    named = [
        f"{cell_type} on {slide}{f' in {target}' if several else ''} ({n})"
        for (slide, cell_type, target), n in few.head(_FOLDS_NAMED).items()
    ]
    more = f" and {len(few) - _FOLDS_NAMED} more" if len(few) > _FOLDS_NAMED else ""
    return (
        f"Fewer than {FEW_CELLS} target cells, so that these scores are mostly the noise of sampling: "
        f"{', '.join(named)}{more}."
    )


def spread_failures(scores: pd.DataFrame) -> pd.DataFrame:
    """A score table in which a fit that failed, which has no variant, counts for every variant that the method has in
    other folds, of other targets too.

    A method that failed in every fold keeps its rows with variant `-`.
    """
    lost = (scores["status"] == "failed") & (scores["variant"] == "-")
    group = [*(key for key in EXPERIMENT if key != "target"), "method"]
    variants = scores.loc[~lost, [*group, "variant"]].drop_duplicates()
    spread = scores[lost].merge(variants, on=group, how="left", suffixes=("_lost", ""))
    spread["variant"] = spread["variant"].fillna(spread["variant_lost"])
    table = pd.concat([scores[~lost], spread[scores.columns]]).drop_duplicates()
    return table.sort_values(KEY, ignore_index=True)


def summarize(scores: pd.DataFrame, patients: dict[str, str] | None = None) -> pd.DataFrame:
    """Mean and spread of every metric of every method, from a score table.

    `patients` is slide -> patient; a slide that is not in it is a patient of its own. Values are first averaged over
    seeds within a fold; then

    - `mean` is the mean over folds, `std_pooled` their sample standard deviation (the published tables pool slides
      and types like this), `std_slides` the one of the slides' means, `std_patients` that of the patients' means, and
      `std_seeds` the mean over folds of the standard deviation over seeds;
    - `n_folds`, `n_seeds`: folds and seeds with a value; `n_undefined`: scores that exist but have no value, such as
      a correlation with a prediction that changes nothing; `n_failed`, `reason`: failed runs and why.

    A method that failed everywhere keeps its rows, with no mean.
    """
    scores = spread_failures(scores)
    group = [*EXPERIMENT, "method", "variant", "metric"]
    present = scores[scores["status"] == "ok"].groupby(group)
    defined = scores[scores["status"] == "ok"].dropna(subset="value")
    folds = defined.groupby([*group, *FOLD])["value"].agg(["mean", "std"])
    means, by_slide = folds["mean"].groupby(group), folds["mean"].groupby([*group, "slide"]).mean()
    spread = pd.DataFrame(
        {
            "mean": means.mean(),
            "std_pooled": means.std(),
            "std_slides": by_slide.groupby(group).std(),
            "std_patients": _by_patient(folds["mean"], group, patients).groupby(group).std(),
            "std_seeds": folds["std"].groupby(group).mean(),
            "n_folds": means.size(),
            "n_seeds": defined.groupby(group)["seed"].nunique(),
        }
    )
    rows = []
    for experiment, of_experiment in scores.groupby(EXPERIMENT):
        metrics = sorted(set(of_experiment["metric"]) - {""}) or [""]
        for method, own in of_experiment.groupby(["method", "variant"]):
            failures = _failures(own)
            rows += [(*experiment, *method, metric, *failures) for metric in metrics]
    table = pd.DataFrame(rows, columns=[*group, "n_failed", "reason"]).set_index(group)
    numbers = spread.reindex(table.index)
    counts = {name: numbers[name].fillna(0).astype(int) for name in ("n_folds", "n_seeds")}
    n_scores = present.size().reindex(table.index, fill_value=0)
    n_defined = defined.groupby(group).size().reindex(table.index, fill_value=0)
    numbers = numbers.assign(**counts, n_undefined=n_scores - n_defined)
    return numbers.join(table).reset_index()


def _by_patient(folds: pd.Series, group: list[str], patients: dict[str, str] | None) -> pd.Series:
    """Mean of each patient over its folds: of values by the levels `group` and `slide` those by `group` and patient."""
    patient = folds.index.get_level_values("slide").map(lambda slide: (patients or {}).get(slide, slide))
    return folds.groupby([*(folds.index.get_level_values(name) for name in group), patient.rename("patient")]).mean()


def _of_variant(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    """A method's rows of a variant and of fits that failed; all where it has no such variant, and another stands in."""
    own = rows["variant"] == variant
    return rows[own | (rows["variant"] == "-")] if own.any() else rows


def _failures(rows: pd.DataFrame) -> tuple[int, str]:
    """Number of runs (method x fold x seed) that failed, and their reasons."""
    failed = rows[rows["status"] == "failed"].drop_duplicates([*FOLD, "method", "seed", "reason"])
    return len(failed), "; ".join(sorted(set(failed["reason"])))


def learned_methods(scores: pd.DataFrame) -> list[str]:
    """Methods of a score table that have a twin, or would have one had they not failed; sorted by name."""
    registered = {name for name, method in METHODS.items() if method.learned}
    return sorted({*scores.loc[scores["variant"] == TWIN, "method"]} | (registered & {*scores["method"]}))


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Every counterfactual of a learned method against its twin, the controls, every other method and the ceiling.

    The twin comes from the same fitted model, so it pairs by fold and seed. Others pair by fold and seed too; where one
    was not run with that seed, its mean over seeds in the fold stands in. Another method is compared under the same
    donor rule, or, where it has none, with the one counterfactual that it has.

    Left out are metrics without a better end and those that contain a comparison with the twin already.

    Returns:
        `difference` = counterfactual - reference, and `gain`, the same with its sign turned where lower is better,
        so that a positive gain always is an improvement; `reference` names the twin (`no_intervention`), the control,
        the other method or `ceiling`.
    """
    defined = scores[(scores["status"] == "ok") & scores["metric"].isin(_comparable())]
    defined = defined.dropna(subset="value")
    pair_key = [*EXPERIMENT, *FOLD, "seed", "metric"]
    learned = learned_methods(scores)
    is_twin = defined["variant"] == TWIN
    columns = [*pair_key, "method", "variant", "value"]
    counterfactuals = defined.loc[defined["method"].isin(learned) & ~is_twin, columns]
    twins = defined.loc[defined["method"].isin(learned) & is_twin, [*pair_key, "method", "value"]]
    pairs = [counterfactuals.merge(twins, on=[*pair_key, "method"], suffixes=("", "_reference")).assign(reference=TWIN)]
    for name in (*CONTROLS, *learned, CEILING):
        others = counterfactuals[counterfactuals["method"] != name]
        found = _paired(others, defined.loc[(defined["method"] == name) & ~is_twin, columns])
        pairs.append(found.assign(reference=name))
    table = pd.concat(pairs, ignore_index=True)
    direction = table["metric"].map({name: m.direction for name, m in METRICS.items()})
    difference = table["value"] - table["value_reference"]
    table = table.assign(
        direction=direction, difference=difference, gain=difference.where(direction == "higher", -difference)
    )
    order = [*EXPERIMENT, *FOLD, "method", "variant", "reference", "seed", "metric", "direction"]
    table = table[[*order, "value", "value_reference", "difference", "gain"]]
    return table.sort_values(order, ignore_index=True)


def _paired(counterfactuals: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The counterfactuals with `value_reference`, of the same variant of the reference where it has that."""
    if counterfactuals.empty or reference.empty:
        return counterfactuals.iloc[:0].assign(value_reference=np.empty(0))
    there = [v for v in (*DONOR_RULES, *sorted(set(reference["variant"]))) if v in {*reference["variant"]}]
    wanted = {v: v if v in there else next(iter(there), v) for v in counterfactuals["variant"]}
    table = counterfactuals.assign(of=counterfactuals["variant"].map(wanted))
    reference = reference.drop(columns="method").rename(columns={"variant": "of"})
    fold = [*EXPERIMENT, *FOLD, "metric", "of"]
    means = reference.groupby(fold, as_index=False)["value"].mean()
    own = table.merge(reference, on=[*fold, "seed"], how="left", suffixes=("", "_reference"))
    table = own.merge(means, on=fold, suffixes=("", "_fold"))
    table["value_reference"] = table["value_reference"].fillna(table["value_fold"])
    return table.drop(columns=["value_fold", "of"])


def _comparable() -> set[str]:
    return {name for name, m in METRICS.items() if m.needs <= GIVEN and m.direction != "none"}


def gains(
    scores: pd.DataFrame, patients: dict[str, str] | None = None, sighted: dict[str, set[str]] | None = None
) -> pd.DataFrame:
    """Paired gain of every counterfactual over its twin, each control, each other method, and the ceiling.

    Methods that see the answer (`sighted`: protocol -> names) are neither judged nor competitors.

    Gains are averaged over seeds within a fold, because seeds of one fold are no independent evidence. Folds of one
    patient are none either: intervals and tests are over patients (slide -> patient; a slide that is not named is a
    patient of its own).

    Returns:
        Per experiment x method x variant x reference x metric: `direction` of the metric; `mean` and `std` (ddof 1) of
        the gain over folds, positive = better; `mean_difference`, counterfactual - reference as it is; `n` folds,
        `n_improved` of them with a positive gain; `n_patients`, the mean over patients of their means (`patient_mean`)
        with its 95 % interval (`low`, `high`) and two-sided p value (bootstrap of the t statistic, from four patients
        on), and `p_adjusted`, corrected for the references of this method, variant and metric (Holm); `n_failed` and
        `reason` of failed runs on either side. Where nothing could be paired, n is 0 and the row stays.

        The reference `best_competitor` is the other method, named by `competitor`, that gains least is over. Choosing
        it favours it, so that its `p_value` is that of the claim to be better than every other method: the largest of
        the one-sided p values, which needs no correction, with the smallest of the lower limits and no upper one.
    """
    pairs = paired_differences(scores)
    scores = spread_failures(scores)
    group = [*EXPERIMENT, "method", "variant", "reference", "metric"]
    paired = _gains_of_pairs(pairs, group, patients)
    learned = learned_methods(scores)
    rows = []
    for experiment, of_experiment in scores.groupby(EXPERIMENT):
        metrics = sorted(set(of_experiment["metric"]) & _comparable()) or [""]
        seeing = (sighted or {}).get(experiment[EXPERIMENT.index("protocol")], set())
        judged = [name for name in learned if name not in seeing]
        counterfactuals = of_experiment[of_experiment["method"].isin(judged) & (of_experiment["variant"] != TWIN)]
        rows_of = dict(iter(of_experiment.groupby("method")))
        for (method, variant), own in counterfactuals.groupby(["method", "variant"]):
            others = [name for name in judged if name in rows_of and name != method]
            known = [name for name in (*CONTROLS, CEILING) if name in rows_of]
            failures = {TWIN: _failures(pd.concat([own, _of_variant(rows_of[method], TWIN)]))}
            failures |= {
                name: _failures(pd.concat([own, _of_variant(rows_of[name], variant)])) for name in (*known, *others)
            }
            for metric in metrics:
                key = (*experiment, method, variant)
                nothing = _NOTHING_PAIRED | {"direction": METRICS[metric].direction if metric else ""}
                found = {name: paired.get((*key, name, metric), nothing) for name in failures}
                adjusted = holm([gain["p_value"] for gain in found.values()])
                for (name, gain), p in zip(found.items(), adjusted, strict=True):
                    row = dict(zip(group, (*key, name, metric), strict=True)) | gain
                    n_failed, reason = failures[name]
                    rows.append(row | {"p_adjusted": p, "n_failed": n_failed, "reason": reason})
                if best := _over_the_best({name: found[name] for name in others}):
                    n_failed, reason = failures[best["competitor"]]
                    row = dict(zip(group, (*key, BEST, metric), strict=True)) | best
                    rows.append(row | {"n_failed": n_failed, "reason": reason})
    columns = [*group, "direction", "mean", "std", "mean_difference", "n", "n_improved"]
    columns += ["n_patients", "patient_mean", "low", "high", "p_value", "p_adjusted", "competitor"]
    table = pd.DataFrame(rows, columns=[*columns, "p_greater", "n_failed", "reason"])
    return table.drop(columns="p_greater").assign(competitor=table["competitor"].fillna(""))


_NOTHING_PAIRED = {"n": 0, "n_improved": 0, "n_patients": 0, "p_value": np.nan, "p_greater": np.nan}


def _gains_of_pairs(pairs: pd.DataFrame, group: list[str], patients: dict[str, str] | None) -> dict[tuple, dict]:
    """The numbers of the rows of `gains` for which there are pairs, by their keys; all at once, as there are many."""
    folds = pairs.groupby([*group, *FOLD])[["gain", "difference"]].mean()
    gain, by_patient = folds["gain"].groupby(group), _by_patient(folds["gain"], group, patients)
    of_patients = by_patient.groupby(group)
    table = pd.DataFrame(
        {
            "mean": gain.mean(),
            "std": gain.std(),
            "mean_difference": folds["difference"].groupby(group).mean(),
            "n": gain.size(),
            "n_improved": (folds["gain"] > 0).groupby(group).sum(),
            "n_patients": of_patients.size(),
            "patient_mean": of_patients.mean(),
        }
    )
    enough = table["n_patients"] >= FEWEST_PATIENTS
    estimates = {key: estimate(own.to_numpy()) for key, own in of_patients if enough[key]}
    nothing = Estimate()
    return {
        key: row | {"direction": METRICS[key[-1]].direction} | estimates.get(key, nothing)._asdict()
        for key, row in zip(table.index, table.to_dict("records"), strict=True)
    }


def _over_the_best(gains_over: dict[str, dict]) -> dict | None:
    """The row over the best competitor: of those over each, the smallest gain; None where there is none."""
    paired = {name: gain for name, gain in gains_over.items() if gain["n"]}
    if not paired:
        return None
    name = min(paired, key=lambda name: paired[name]["patient_mean"])
    # NaN, an interval that could not be had, is none of the whole either.
    p = np.max([gain["p_greater"] for gain in paired.values()])
    low = np.min([gain["low"] for gain in paired.values()])
    best = {"competitor": name, "p_value": p, "p_adjusted": p, "low": low, "high": np.nan}
    return paired[name] | best
