"""What the papers say in words: each statement with what would have to be true, a test, and its result on a run's data.

A statement about the benchmark is tested on paired differences of two methods over independent units (patients where
there are four or more, else held-out types, which speak for their own slides alone) by the 95 % interval of their mean
(see `results/patients.py`). It holds if the interval of one metric, Pearson or the error of log-fold changes, lies
above 0 and that of the other not below; it does not hold in the mirror image; anything else is "not resolvable". By
chance alone either happens once in twenty.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from tissue_counterfactuals import protocols
from tissue_counterfactuals.compare import Tables, kind_of, label_of
from tissue_counterfactuals.compare.numbers import NOT_RUN, counterfactual, failures
from tissue_counterfactuals.experiments.celcomen_perturbmap import reach
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics import METRICS
from tissue_counterfactuals.models.settings import PUBLISHED_BATCH, CellinaGATSettings, CellinaSettings
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.patients import FEWEST_PATIENTS, estimate, patients_of_slides
from tissue_counterfactuals.results.tables import CONTROLS, FOLD, TWIN

HOLDS, DOES_NOT_HOLD, NOT_RESOLVABLE = "holds", "does not hold", "not resolvable"
COLUMNS = [
    *("line", "paper", "place", "statement", "would_be_true", "test", "dataset", "kind", "target", "protocol"),
    *("unit", "n", "metric", "estimate", "low", "high", "p_value", "result", "verdict", "reason"),
]  # fmt: skip
NUMBERS = ("n", "estimate", "low", "high", "p_value")
JUDGED_BY = ("pearson", "rmse_lfc")
FEWEST = FEWEST_PATIENTS
ALPHA = 0.05
# Why there is no interval although there are units enough.
_SAME = "the same in every unit, so that there is no interval"
_AS_PUBLISHED = {
    "cellina": CellinaSettings(batch_size=PUBLISHED_BATCH).model_dump(),
    "cellina_gat": CellinaGATSettings().model_dump(),
}


@dataclass(frozen=True)
class Result:
    """What a test found on one data set.

    `result` says it in a few words; `estimate`, `low`, `high`, `p_value` are those of the difference that was tested,
    and of two metrics those of `metric`: one that decided, the last of `JUDGED_BY` if several did or none.
    """

    verdict: str
    result: str = ""
    reason: str = ""
    unit: str = ""
    n: int | None = None
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p_value: float = np.nan
    target: str = ""
    metric: str = ""


@dataclass(frozen=True)
class Statement:
    """One row of the table of statements.

    Attributes:
        line: what the report's first table calls it; statements may share a line.
        says: the statement, in our words.
        would_be_true: what the data would have to show.
        test: how that is tested.
        function: (tables, data set, protocol, arguments) to results; none where this run cannot say.
    """

    line: str
    paper: str
    place: str
    experiment: str
    says: str
    would_be_true: str
    test: str
    function: Callable[..., Iterator[Result]]
    arguments: dict = field(default_factory=dict)


def build(tables: Tables) -> pd.DataFrame:
    """The table of statements, of COLUMNS: a row per statement, data set, target and protocol, or one that says `not
    run`.
    """
    rows = []
    for statement in STATEMENTS:
        common = {key: getattr(statement, key) for key in COLUMNS[:3]}
        common |= {"statement": statement.says, "would_be_true": statement.would_be_true}
        common["test"] = statement.test
        found = [common | row for row in _rows(tables, statement)]
        rows += found or [common | {"verdict": NOT_RUN, "reason": "not part of this run"}]
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["n"] = table["n"].astype("Int64")
    return table.fillna({c: "" for c in COLUMNS if c not in NUMBERS})


def _rows(tables: Tables, statement: Statement) -> Iterator[dict]:
    without_slides = statement.experiment in ("celcomen_recovery", "celcomen_simulation")
    data = [("", None)] if without_slides else tables.datasets(statement.experiment)
    for name, entry in data:
        for protocol in tables.config["protocols"]:
            for found in statement.function(tables, name, protocol, **statement.arguments):
                yield {
                    "dataset": label_of(name, entry) if entry else "",
                    "kind": kind_of(entry) if entry else "simulated",
                    "protocol": protocol,
                    **vars(found),
                }


# ---- The benchmark


def units(gains: pd.Series | pd.DataFrame, patients: dict[str, str]) -> tuple[str, pd.Series | pd.DataFrame]:
    """Differences averaged within what is independent: patients if there are enough, else held-out types on their
    slides.

    Args:
        gains: by slide and held-out type.
        patients: slide -> patient; a slide that is not named is a patient of its own.
    """
    slides = gains.index.get_level_values("slide")
    patient = np.array([patients.get(str(slide), str(slide)) for slide in slides])
    if len(set(patient)) >= FEWEST:
        return "patients", gains.groupby(patient).mean()
    return "folds", gains


def _answers(scores: pd.DataFrame, method: str, form: str) -> pd.DataFrame:
    own = scores[(scores["method"] == method) & (scores["status"] == "ok")]
    return own[own["variant"] == TWIN] if form == TWIN else counterfactual(own, form)


def _absent(scores: pd.DataFrame, *sides: tuple[str, str]) -> str:
    """Which answers are not there, and why: each method's own recorded reasons; "" if all are."""
    why = {}
    for method, form in sides:
        if _answers(scores, method, form).empty:
            own = failures(scores[scores["method"] == method], form)["reason"].unique()
            why[_told((method, form))] = f"failed ({'; '.join(own)})" if len(own) else "not asked"
    return "; ".join(f"{side}: {reason}" for side, reason in why.items())


def gain(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> pd.Series:
    """How much better the first is, by fold, each side averaged over seeds; positive is better.

    Args:
        first, second: rows of a score table, of one method and variant each.

    Returns:
        A value for each slide and held-out type that both have, in the unit of the metric.
    """
    means = [
        rows[rows["metric"] == metric].dropna(subset="value").groupby(FOLD)["value"].mean() for rows in (first, second)
    ]
    difference = (means[0] - means[1]).dropna()
    return difference if METRICS[metric].direction == "higher" else -difference


def better(tables: Tables, name: str, protocol: str, *, first: tuple, second: tuple) -> Iterator[Result]:
    """Whether one answer is better than another; both are (method, `edge`, `node` or twin)."""
    patients = patients_of_slides(tables.config["datasets"][name])
    scores = tables.of("cellina", "scores", dataset=name)
    scores = scores[scores["protocol"] == protocol]
    for target, of_target in scores.groupby("target"):
        sides = [_answers(of_target, *side) for side in (first, second)]
        if reason := _absent(of_target, first, second):
            yield Result(NOT_RUN, reason=reason, target=target)
            continue
        by_metric = {m: gain(*sides, m) for m in JUDGED_BY}
        found = _judged(by_metric, patients, target)
        trained = _trained(tables.config, protocol, first[0], second[0])
        yield replace(found, result="; ".join(filter(None, (found.result, trained))))


def _trained(config: dict, protocol: str, *methods: str) -> str:
    """With what budget each of two methods was trained; "" where one takes no steps, or both have the same settings."""
    sections = [METHODS[name].settings for name in methods]
    if protocols.resolve(protocol, config["switches"])["hyperparameters"] == "published":
        config = config | _AS_PUBLISHED
    own = [config.get(section, {}) for section in sections]
    epochs = [settings.get("epochs", settings.get("max_epochs")) for settings in own]
    if len(set(sections)) < len(sections) or None in epochs:
        return ""
    if config["budget"] == "equal":
        return f"each trained for about {config['equal_steps']:,} steps"
    told = []
    for name, n, settings in zip(methods, epochs, own, strict=True):
        size = settings.get("batch_size")
        batches = f"batches of {size:,}" if isinstance(size, int) else f"batch_size {size}"
        told.append(f"{_told((name, 'edge'))} at most {n:,} epochs, {batches}")
    return f"trained: {'; '.join(told)}"


def _judged(by_metric: dict[str, pd.Series], patients: dict[str, str], target: str) -> Result:
    signs, words, found, same = {}, [], {}, []
    for metric, gains in by_metric.items():
        label = METRICS[metric].label
        if gains.empty:
            words.append(f"{label}: undefined")
            continue
        unit, values = units(gains, patients)
        mean, interval = values.mean(), estimate(values.to_numpy())
        found[metric] = {"unit": unit, "n": len(values), "estimate": mean, "metric": metric}
        found[metric] |= {"low": interval.low, "high": interval.high, "p_value": interval.p_value}
        better_in = f"{(values > 0).sum()} of {len(values)} {unit} better"
        if len(values) < FEWEST:
            words.append(f"{label}: {better_in}, mean gain {mean:+.3g}")
            continue
        signs[metric] = 1 if interval.low > 0 else -1 if interval.high < 0 else 0
        if np.isnan(interval.low):
            words.append(f"{label}: gain {mean:+.3g} in each of {len(values)} {unit}")
            # No difference at all is known to be none; of another one nothing says how far chance would move it.
            same += [label] * bool(mean)
        else:
            words.append(f"{label}: gain {mean:+.3g} [{interval.low:.3g}, {interval.high:.3g}], {better_in}")
    reason, verdict, sign = "", NOT_RESOLVABLE, None
    if not found:
        reason = "no fold has a value"
    elif not signs:
        reason = f"fewer than {FEWEST} independent units"
    elif same:
        reason = f"{' and '.join(same)}: {_SAME}"
    elif {*signs.values()} >= {1, -1}:
        reason = "metrics disagree"
    elif sign := max(signs.values(), key=abs):
        verdict = HOLDS if sign > 0 else DOES_NOT_HOLD
    else:
        reason = "the interval holds 0"
    deciding = [own for metric, own in found.items() if not sign or signs.get(metric) == sign]
    return Result(verdict, "; ".join(words), reason, target=target, **(deciding[-1] if deciding else {}))


def equal(tables: Tables, name: str, protocol: str, *, first: tuple, second: tuple) -> Iterator[Result]:
    """Whether two answers are as good as each other: apart by less than half of what the first gains over the twin.

    Two one-sided tests: half of the gain, less and plus the difference of errors, are both above 0. Each is one value
    per unit, so that the error of the margin counts: taken as known, it let a third of answers at its edge pass.
    """
    patients = patients_of_slides(tables.config["datasets"][name])
    scores = tables.of("cellina", "scores", dataset=name)
    scores = scores[scores["protocol"] == protocol]
    for target, of_target in scores.groupby("target"):
        sides = [_answers(of_target, *side) for side in (first, second)]
        twin = _answers(of_target, first[0], TWIN)
        if reason := _absent(of_target, first, second, (first[0], TWIN)):
            yield Result(NOT_RUN, reason=reason, target=target)
            continue
        by_fold = {"difference": gain(*sides, "rmse_lfc"), "margin": gain(sides[0], twin, "rmse_lfc") / 2}
        # Folds that have all three answers.
        unit, values = units(pd.DataFrame(by_fold).dropna(), patients)
        difference, margin = values["difference"], values["margin"]
        common = {"unit": unit, "n": len(values), "target": target, "metric": "rmse_lfc"}
        words = f"difference of errors {difference.mean():+.3g}" if len(values) else ""
        if len(values) < FEWEST:
            yield Result(NOT_RESOLVABLE, words, f"fewer than {FEWEST} independent units", **common)
            continue
        if margin.mean() <= 0:
            reason = "new neighbours gain nothing over the twin, so that there is no margin"
            yield Result(NOT_RESOLVABLE, words, reason, **common)
            continue
        low, high, *_ = estimate(difference.to_numpy(), level=1 - 2 * ALPHA)
        less, plus = (estimate((margin + s * difference).to_numpy(), level=1 - 2 * ALPHA) for s in (-1, 1))
        verdict, reason = NOT_RESOLVABLE, "the difference may reach beyond the margin"
        if not difference.any():
            # The same answer twice has no spread, and needs none to be equal.
            low, high, verdict = 0.0, 0.0, HOLDS
        elif less.low > 0 and plus.low > 0:
            verdict = HOLDS
        elif less.high < 0 or plus.high < 0:
            verdict = DOES_NOT_HOLD
        elif np.isnan(less.low) or np.isnan(plus.low):
            reason = _SAME
        words += f" [{low:.3g}, {high:.3g}]" * (not np.isnan(low)) + f", margin {margin.mean():.3g}"
        if not np.isnan([less.low, plus.low]).any():
            words += f"; margin less difference [{less.low:.3g}, {less.high:.3g}]"
            words += f", plus difference [{plus.low:.3g}, {plus.high:.3g}]"
        reason = reason if verdict == NOT_RESOLVABLE else ""
        yield Result(verdict, words, reason, estimate=difference.mean(), low=low, high=high, **common)


# ---- Celcomen


def told_apart(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether estimated forces follow the truth of their own kind more closely than that of the other kind."""
    table = tables.table("results/celcomen/recovery/recovery.tsv")
    if table is None:
        return
    methods = {"as_run": "as_run", "corrected": "gaussian"}
    own = table[(table["method"] == methods[protocol]) & (table["data"] == "field")]
    tissue = own.groupby(["n_genes", "n_cells", "seed", "tissue", "forces"])[["recovery", "cross_talk"]].mean()
    # An estimator that refused the cells has found nothing. The weaker of the two kinds of forces counts.
    differences = (tissue["recovery"] - tissue["cross_talk"].abs()).fillna(0)
    differences = differences.groupby(["n_genes", "n_cells", "seed", "tissue"]).min()
    # Tissues of all sizes have one draw of forces in common, so that draws are what is independent.
    differences = differences.groupby(["seed", "tissue"]).mean()
    n, mean, found = len(differences), float(differences.mean()), estimate(differences.to_numpy())
    words = f"correlation with own truth minus |that with the other kind's|, weaker kind: {mean:+.2f}"
    verdict, reason = NOT_RESOLVABLE, "the interval holds 0"
    if n < FEWEST:
        reason = f"fewer than {FEWEST} independent units"
    elif np.isnan(found.low):
        reason = _SAME
    else:
        words += f" [{found.low:.2f}, {found.high:.2f}]"
        if found.low > 0 or found.high < 0:
            verdict, reason = HOLDS if found.low > 0 else DOES_NOT_HOLD, ""
    yield Result(verdict, words, reason, "draws of forces", n, mean, *found[:3])


def found_again(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether inferred forces follow the true ones more closely than pure noise does, each pair of genes once."""
    table = tables.table(f"results/celcomen/simulation/correlations.{protocol}.tsv")
    if table is None:
        return
    own = table[(table["panel"] == "paper") & (table["entries"] == "upper_triangle")]
    wide = own.pivot_table(index=["quantity", "seed"], columns="source", values="spearman", dropna=False)
    # An inference that ends at one value has found nothing.
    difference = (wide["estimate"].fillna(0) - wide["noise"].fillna(0)).unstack("quantity")
    p_values = {kind: float(wilcoxon(difference[kind], alternative="greater").pvalue) for kind in ("inter", "intra")}
    medians = {kind: float(difference[kind].median()) for kind in p_values}
    words = ", ".join(f"{kind}: median gain {medians[kind]:+.2f}, p = {p:.2g}" for kind, p in p_values.items())
    # No p value, where no simulation gains or loses, is no small one.
    worst = float(np.max([*p_values.values()]))
    verdict = HOLDS if worst <= ALPHA else NOT_RESOLVABLE
    reason = "" if verdict == HOLDS else "one kind of forces is not above noise"
    yield Result(verdict, words, reason, "simulations", len(difference), min(medians.values()), p_value=worst)


def samples_agree(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether forces of one sample and of the rest agree beyond permuted genes, and beyond what no force explains."""
    table = tables.of("celcomen_spleen", "agreement", dataset=name, protocol=protocol)
    if table is None:
        return
    leaks = protocol == "as_run"
    observed = "fixed_slides" if leaks else "observed"
    for force in ("inter", "intra"):
        own = table[table["force"] == force].copy()
        own["spearman"] = pd.to_numeric(own["spearman"]).fillna(0)
        by = own.pivot_table(index=["seed", "hold_out"], columns="variant", values="spearman")
        if observed not in by:
            continue
        chosen = own[own["variant"] == observed]
        n, n_seeds = chosen["hold_out"].nunique(), chosen["seed"].nunique()
        p = float(pd.to_numeric(chosen["p_value"]).fillna(1).max())
        rho = float(by[observed].mean())
        # What is left given mean expression, in the hold-out with least, against what permuted genes reach.
        partial = pd.to_numeric(chosen["partial_spearman"]).fillna(0)
        limit = float(pd.to_numeric(chosen["random_high"]).max())
        seeds = f" and {n_seeds} seeds" if n_seeds > 1 else ""
        words = f"{force}: rho {rho:.2f} over {n} hold-outs{seeds}, {partial.mean():.2f} given mean expression"
        verdict, reason = HOLDS, ""
        if (chosen["constant"].astype(str) == "True").any():
            verdict, reason = NOT_RESOLVABLE, "forces of a hold-out all have one value"
        elif p > ALPHA:
            verdict, reason = DOES_NOT_HOLD, "permuted genes agree as well"
        elif partial.min() <= limit:
            verdict, reason = NOT_RESOLVABLE, "mean expression explains the agreement"
        elif force == "inter" and "shuffled_space" in by and by["shuffled_space"].mean() >= rho:
            verdict, reason = NOT_RESOLVABLE, "cells shuffled in space agree as well"
        yield Result(verdict, words, reason, "hold-outs", n, rho, p_value=p)


def know_proteins(tables: Tables, name: str, protocol: str, *, statistic: str) -> Iterator[Result]:
    """Whether forces between cells outweigh those within cells for secreted genes more than for cytoplasmic ones.

    Args:
        statistic: `genes`, over all partners of a gene, or `tails`, among the strongest pairs alone.
    """
    table = tables.of("celcomen_glioblastoma", "localization_tests", dataset=name, protocol=protocol)
    if table is None:
        return
    # Each gene once, also where the published test took all entries for independent.
    chosen = (table["statistic"] == statistic) & (table["first"] == "secreted") & (table["second"] == "cytoplasmic")
    own = table[chosen].dropna(subset=["difference", "p_value"])
    if own.empty:
        return
    difference, p = float(own["difference"].mean()), float(own["p_value"].max())
    n = int(own["n_first"].iloc[0] + own["n_second"].iloc[0])
    words = f"secreted minus cytoplasmic genes: {difference:+.3g}, p = {p:.2g}"
    verdict = NOT_RESOLVABLE if p > ALPHA else HOLDS if difference > 0 else DOES_NOT_HOLD
    reason = "genes of other classes differ as much" if verdict == NOT_RESOLVABLE else ""
    yield Result(verdict, words, reason, "genes", n, difference, p_value=p)


def clusters_between(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether what cells say to each other is more enriched in clusters of forces between cells than within them."""
    table = tables.of("celcomen_glioblastoma", "cluster_terms", dataset=name, protocol=protocol)
    if table is None:
        return
    said = table[table["term"].astype(str).str.contains("cytokine(?!sis)|chemotaxis", case=False)]
    best = {force: said[said["force"] == force].nsmallest(1, "p_value") for force in ("inter", "intra")}
    if best["inter"].empty and best["intra"].empty:
        yield Result(NOT_RESOLVABLE, reason="no cluster has a gene of such a process among its first terms")
        return
    p, q = ({f: float(own[c].iloc[0]) if len(own) else 1.0 for f, own in best.items()} for c in ("p_value", "q_value"))
    n = int(table.groupby("force")["cluster"].nunique().sum())
    words = ", ".join(f"{force}: best p = {p[force]:.2g} (q = {q[force]:.2g})" for force in best)
    verdict, reason = NOT_RESOLVABLE, "clusters of neither kind are enriched"
    # Each cluster has q values of its own.
    if n * min(q.values()) <= ALPHA:
        verdict, reason = (HOLDS, "") if p["inter"] < p["intra"] else (DOES_NOT_HOLD, "those within cells hold more")
    yield Result(verdict, words, reason, "clusters", n, p_value=p["inter"])


def reaches_neighbours(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether cells beside a knocked-out one lose its signature, more than they do for other genes and their
    signatures.
    """
    table = tables.of("celcomen_glioblastoma", "placebo", dataset=name, protocol=protocol)
    if table is None or "rank" not in table:
        return
    own = table[(table["role"] == "gene") & (table["group"] == "neighbours_0")]
    if own.empty:
        return
    rank, n = pd.to_numeric(own["rank"]), int(own["n_ranked"].iloc[0])
    p, effect = float(rank.max() / n), float(pd.to_numeric(own["effect"]).mean())
    words = f"{own['gene'].iloc[0]}: signature {effect:+.3g} in direct neighbours, rank {rank.max():.0f} of {n} genes"
    verdict, reason = NOT_RESOLVABLE, "other genes do as much"
    if p <= ALPHA and effect < 0:
        verdict, reason = HOLDS, ""
    elif effect >= 0:
        verdict, reason = DOES_NOT_HOLD, "neighbours do not lose the signature"
    elif n * ALPHA < 1:
        reason = f"with {n - 1} other genes no p value can be small"
    yield Result(verdict, words, reason, "genes", n, effect, p_value=p)


# The controls of a knock-out that keep their level where nothing happens, by the prediction they are for.
_HONEST_CONTROLS = {"field": ("random_gene",), "generation": ()}


def lesions_agree(tables: Tables, name: str, protocol: str) -> Iterator[Result]:
    """Whether predicted knock-outs agree with lesions more than every control that keeps its level."""
    table = tables.of("celcomen_perturbmap", "summary", dataset=name, protocol=protocol)
    if table is None:
        return
    predictor = "field" if (table["predictor"] == "field").any() else "generation"
    for gene, own in table[table["predictor"] == predictor].groupby("knockout"):
        drawn = own[pd.to_numeric(own["n_draws"]).fillna(0) > 0]
        if drawn.empty:
            continue
        rho = float(pd.to_numeric(own["median"]).mean())
        null = float(reach(drawn).max())
        honest = drawn[drawn["control"].isin(_HONEST_CONTROLS[predictor])]
        p = pd.to_numeric(honest["p_value"]).max() if len(honest) else np.nan
        smallest = pd.to_numeric(honest["smallest_p"]).max() if len(honest) else np.nan
        words = f"{gene}: median rho {rho:.2f}, best control up to {null:.2f}"
        words += f", largest p = {p:.2g}" if np.isfinite(p) else ""
        verdict, reason = NOT_RESOLVABLE, "a control agrees as well by chance"
        if honest.empty:
            reason = "no control of this prediction gives a valid p value"
        elif not np.isfinite(p) or smallest > ALPHA:
            reason = "too few lesions: no p value can be small"
        elif p <= ALPHA and rho > null:
            verdict, reason = HOLDS, ""
        elif rho <= null:
            verdict, reason = DOES_NOT_HOLD, "a control that knows nothing agrees better"
        n = int(pd.to_numeric(own["n_lesions"]).max())
        yield Result(verdict, words, reason, "lesions", n, rho - null, p_value=float(p))


_BY_UNITS = "paired differences over patients, or held-out types of few patients: 95 % interval of the mean"
_CELLINA = ("cellina", "edge")
_SEES_NOTHING = {
    "no_change": "no change at all",
    "mean_shift": "one mean shift for all types",
    "mean_shift_by_type": "the mean shift of other types",
}


def _told(side: tuple[str, str]) -> str:
    """A method and what it was asked, in words."""
    forms = {"edge": "", "node": " (altered neighbours)", TWIN: " without intervention"}
    return style.method_style(side[0]).label + forms[side[1]]


def _compared(line: str, place: str, says: str, first: tuple, second: tuple, paper="Cellina") -> Statement:
    would = (
        f"{_told(first)} has the higher Pearson correlation or the smaller error of log-fold changes than "
        f"{_told(second)}, and the other is not worse"
    )
    return Statement(line, paper, place, "cellina", says, would, _BY_UNITS, better, {"first": first, "second": second})


STATEMENTS = (
    _compared(
        "Cellina beats its twin and every control",
        "ours",
        "New neighbours add something to what the fitted model says without them.",
        _CELLINA,
        ("cellina", TWIN),
        "ours",
    ),
    *(
        _compared(
            "Cellina beats its twin and every control",
            "Table 1" if control == "mean_shift" else "ours",
            f"A model of neighbours says more than {_SEES_NOTHING[control]}.",
            _CELLINA,
            (control, "edge"),
            "Cellina" if control == "mean_shift" else "ours",
        )
        for control in CONTROLS
    ),
    _compared(
        "Supervision helps",
        "Table 1",
        "A classifier and an adversary on the latent variables make counterfactuals better.",
        _CELLINA,
        ("cellina_ablated", "edge"),
    ),
    _compared(
        "GAT beats Cellina",
        "Table 1",
        "Attention over neighbours makes counterfactuals better than their mean does.",
        ("cellina_gat", "edge"),
        _CELLINA,
    ),
    *(
        _compared(
            "Cellina beats published baselines",
            "Table 1",
            f"Cellina predicts the effect of other neighbours better than {label}.",
            _CELLINA,
            (method, "edge"),
        )
        for method, label in (("cpa", "CPA"), ("scgen", "scGen"), ("mintflow", "MintFlow"))
    ),
    _compared(
        "Cellina beats published baselines",
        "Table 1",
        "Cellina predicts the effect of altered neighbours better than SpatialProp.",
        ("cellina", "node"),
        ("spatialprop", "node"),
    ),
    Statement(
        "Altered neighbours do as well as new ones",
        "Cellina",
        "Table 1",
        "cellina",
        "Altering the expression of neighbours predicts as well as giving other neighbours.",
        "the errors of the two differ by less than half of what new neighbours gain over the twin",
        "two one-sided tests, 5 % each: half of the gain less the difference, and plus it, over patients, or held-out "
        "types of few patients",
        equal,
        {"first": _CELLINA, "second": ("cellina", "node")},
    ),
    Statement(
        "Forces are found again and told apart",
        "Celcomen",
        "Fig. 2c",
        "celcomen_simulation",
        "Forces between and within cells are inferred from a simulated tissue better than from noise.",
        "both kinds of inferred forces correlate with the true ones more than noise does, each pair of genes counted "
        "once",
        "one-sided Wilcoxon test over simulations; the larger of the two p values",
        found_again,
    ),
    Statement(
        "Forces are found again and told apart",
        "Celcomen",
        "Fig. 2c",
        "celcomen_recovery",
        "What acts between cells is told apart from what acts within them.",
        "forces correlate with the truth of their own kind more than with that of the other kind, where both are "
        "independent",
        "95 % interval of the mean difference over draws of forces (a mean over sizes of tissue), for the weaker kind",
        told_apart,
    ),
    Statement(
        "Forces agree between samples",
        "Celcomen",
        "Fig. 6",
        "celcomen_spleen",
        "Forces fitted to one sample agree with those fitted to the rest.",
        "they agree beyond permuted genes, beyond mean expression, and between cells beyond shuffled places (slides "
        "kept apart)",
        "permutation of genes in each hold-out, the largest p value; partial correlation given mean expression above "
        "what permuted genes reach",
        samples_agree,
    ),
    Statement(
        "Forces know where proteins are",
        "Celcomen",
        "Fig. 3b",
        "celcomen_glioblastoma",
        "Forces between cells weigh more for genes of secreted proteins, those within cells for cytoplasmic ones.",
        "inter outweighs intra for secreted genes more than for cytoplasmic ones of like mean expression",
        "genes exchanged between classes among those of like mean expression, each gene once",
        know_proteins,
        {"statistic": "genes"},
    ),
    Statement(
        "Forces know where proteins are",
        "Celcomen",
        "Fig. 3b",
        "celcomen_glioblastoma",
        "Pairs in the tails of the distribution, between cells far more than within or the reverse, are of such genes.",
        "of the pairs of a secreted gene more lie in the upper twentieth of inter minus intra and fewer in the lower "
        "one than of a cytoplasmic gene's",
        "genes exchanged between classes among those of like mean expression, each gene once",
        know_proteins,
        {"statistic": "tails"},
    ),
    Statement(
        "Forces know where proteins are",
        "Celcomen",
        "Fig. 7",
        "celcomen_glioblastoma",
        "Clusters of forces between cells hold more of cytokines and chemotaxis than those of forces within cells.",
        "the clusters of inter hold a larger excess of genes of such processes than the clusters of intra",
        "the most enriched of their terms in any cluster: q times the number of clusters at most .05, and which kind "
        "of force has the smaller p",
        clusters_between,
    ),
    Statement(
        "A knock-out reaches neighbouring cells",
        "Celcomen",
        "Fig. 3d",
        "celcomen_glioblastoma",
        "Cells beside a cell that has lost a gene lose the genes that go with it.",
        "direct neighbours lose the gene's signature more than those of other genes of like mean expression lose "
        "theirs",
        "rank of the gene among other genes, each knocked out in cells of its own and scored on a signature of its own",
        reaches_neighbours,
    ),
    Statement(
        "Predicted knock-outs agree with lesions",
        "Celcomen",
        "Fig. 4",
        "celcomen_perturbmap",
        "A gene knocked out in the model changes the tissue as lesions are changed that have lost it.",
        "predicted and observed changes correlate more than under every control that knows nothing of the gene",
        "another gene in place of the one that was lost, the larger p value of seeds; the 95 % range of every other "
        "control must be exceeded too",
        lesions_agree,
    ),
)  # fmt: skip
