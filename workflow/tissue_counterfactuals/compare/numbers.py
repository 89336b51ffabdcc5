"""Every published number beside ours, with a tolerance and a verdict; one row per number and data set of the run."""

from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp, wilcoxon

from tissue_counterfactuals import protocols
from tissue_counterfactuals.compare import Tables, kind_of, label_of, published
from tissue_counterfactuals.compare.tolerance import Tolerance, of_folds, of_replicates, rounding
from tissue_counterfactuals.experiments.celcomen_simulation import paired_tests
from tissue_counterfactuals.files import slugs
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results.tables import FOLD, TWIN
from tissue_counterfactuals.sources import published_as
from tissue_counterfactuals.sources.expected import expected_shapes
from tissue_counterfactuals.streams import stream

MET, NOT_MET, NOT_COMPARABLE, NOT_RUN = "met", "not met", "not comparable", "not run"
VERDICTS = (MET, NOT_MET, NOT_COMPARABLE, NOT_RUN)
COLUMNS = [
    *("paper", "place", "quantity", "method", "intervention", "target", "published_on", "dataset", "kind", "protocol"),
    *("published", "published_spread", "newer", "newer_spread", "newer_run", "ours", "ours_spread", "n_folds",
    "n_seeds"),
    *("tolerance", "tolerance_from", "verdict", "reason", "source"),
]  # fmt: skip
NUMBERS = ("published_spread", "newer_spread", "ours_spread", "tolerance", "n_folds", "n_seeds")
N_RESAMPLES = 200
# Newer runs that are compared fold by fold -> where they were not `as_run` with a model for each sample.
RULES_OF_RUNS = {
    "cellina112_loo (1.1.2, seed 0)": "donor_features=log1p",
    "node perturbation v2 (after June 2026)": "gat_altered_inputs=as_trained",
    "leave one slide and one type out (joint model)": "donor_features=log1p fit=leave_patient_out",
}
# Places of the two runs of the authors' package that differ by what the switch `donor_features` chooses.
DONORS_SCALE = "package"
# Between two methods of a number that is a margin of one over the other.
MINUS = " - "
# Methods and experiments whose published runs are not repeated, on any data set ("") or one, and why: what ours gives
# is no second draw of the same.
_NOT_REPEATED = {
    ("scgen", "crc_cosmx"): "two of six slides were thinned before genes were chosen, and not where they were scored",
    ("mintflow", ""): "its squares of tissue were 2,048 pixels wide, in an older version of the package",
    ("spatialprop", ""): "it was given logarithms to normalise again, and scored on genes of its own",
    ("cpa", "brain_merfish"): "its control domain was left at REF, which is one of another data set",
    ("cellina_gene_range", ""): "it had 3,000 genes, batches of 512 and other formulas of the scores",
}
# Experiment, or intervention -> keys of a data set (`data`) and of the configuration that published numbers depend on.
_SETTINGS = {
    "cellina": (
        *("data.control_domain", "data.target_domains", "data.samples", "data.holdout.cell_types", "data.preprocess"),
        *("data.holdout.validation_fraction", "data.graph", "metrics.n_deg", "counterfactual.n_donors", "budget"),
    ),
    "node": tuple(f"counterfactual.node.{key}" for key in ("n_genes", "cells", "share", "scale")),
} | {
    f"celcomen_{name}": (*of_data, *(f"celcomen.{name}.{key}" for key in keys.split()))
    for name, of_data, keys in (
        ("simulation", (), "n_simulations n_genes n_cells epochs learning_rate"),
        ("spleen", ("data.samples", "data.preprocess"), "target_sum n_top_genes n_neighbors epochs learning_rate"),
        (
            *("glioblastoma", ("data.preprocess",)),
            "min_counts_per_cell target_sum crop_um radius_um epochs learning_rate knockout.gene knockout.epochs "
            "knockout.learning_rate",
        ),
        (
            *("perturbmap", ("data.preprocess",)),
            "section boxes_um trim_um min_spots max_genes epochs learning_rate generation_epochs "
            "generation_learning_rate",
        ),
    )
}
# Of these a run may have fewer than were published: the tolerance holds what is missing.
_MAY_BE_FEWER = ("data.samples", "data.holdout.cell_types")


class Ours(NamedTuple):
    """Our number for a published one: a number or text, its spread, how far apart is too far, and whether it is met."""

    value: float | str
    spread: float = np.nan
    n_folds: int | None = None
    n_seeds: int | None = None
    tolerance: Tolerance = Tolerance(np.nan, "")
    met: bool | None = None


def build(tables: Tables) -> pd.DataFrame:
    """The table of numbers, of COLUMNS.

    The verdict is `met` or `not met` only where the data are those that were published and the protocol does what was
    run for them; `not comparable` where ours was computed on other data or by other rules; `not run` where it was not.
    """
    rows = []
    for number in published.numbers().itertuples():
        common = {
            **{column: getattr(number, column) for column in COLUMNS if hasattr(number, column)},
            "published_on": number.dataset,
            "dataset": "",
            "published_spread": number.spread,
        }
        found = [common | row for row in _rows(tables, number)]
        rows += found or [common | {"verdict": NOT_RUN, "reason": _why_not(tables, number)}]
    rows += _shapes(tables)
    rows += _folds(tables)
    rows += _in_vivo(tables)
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("ours_spread", "tolerance"):
        table[column] = table[column].astype(float)
    for column in ("n_folds", "n_seeds"):
        table[column] = table[column].astype("Int64")
    return table.fillna({c: "" for c in COLUMNS if c not in NUMBERS})


def _why_not(tables: Tables, number) -> str:
    if not number.experiment:
        return "the workflow does not run this form"
    if number.experiment == "cellina" and any(
        published_as(entry) == number.dataset for _, entry in tables.datasets("cellina")
    ):
        return "the method, or this form of it, was not asked"
    return "not part of this run"


def donors_scale(numbers: pd.DataFrame) -> pd.DataFrame:
    """What the scale of the donors' counts does: the authors' two runs beside ours with raw and with logarithmic
    counts.

    Ours are `as_run` and `corrected`, which differ in more than that on most configurations; `verdict` of the table of
    numbers, which is `numbers` here, says where they do not.
    """
    own = numbers[numbers["place"].str.startswith(DONORS_SCALE)]
    rows = []
    for quantity, of_metric in own.groupby("quantity", sort=False):
        raw, log = (of_metric[of_metric["place"].str.contains(version)] for version in ("1.1.1", "1.1.2"))
        theirs = [raw["published"].iloc[0], log["published"].iloc[0]]
        # Of a run with one of the two protocols the other row has no data set.
        for dataset in dict.fromkeys(filter(None, of_metric["dataset"])) or [""]:
            ours = [", ".join(filter(None, side.loc[side["dataset"] == dataset, "ours"])) for side in (raw, log)]
            rows.append((quantity, *theirs, dataset, *ours))
    columns = ["metric", "authors: raw counts", "authors: logarithms", "dataset", "ours: as_run", "ours: corrected"]
    return pd.DataFrame(rows, columns=columns).fillna("")


def _rows(tables: Tables, number) -> Iterator[dict]:
    """Ours for one published number, for each data set and protocol that has one, or where the method failed."""
    if not number.experiment:
        return
    for name, entry in _data(tables, number):
        for protocol in tables.config["protocols"]:
            if number.experiment == "cellina":
                ours = _of_scores(tables, number, name, protocol)
            elif number.experiment == "cellina_gene_range":
                ours = _of_gene_range(tables, number, name, protocol)
            else:
                kind, _, detail = number.quantity.partition(" ")
                read, reading = _CELCOMEN[kind]
                table = tables.of(number.experiment, read, dataset=name, protocol=protocol)
                ours = None if table is None else reading(table, number, detail)
            if number.place.startswith(DONORS_SCALE) and (number.switches == "") != (protocol == "as_run"):
                continue
            where = {
                "dataset": label_of(name, entry) if entry else "",
                "kind": kind_of(entry) if entry else "simulated",
                "protocol": protocol,
            }
            if ours is not None:
                why_not = _not_comparable(tables.config, number, number.method, entry, protocol)
                yield where | _shown(ours) | _judged(number, ours, why_not)
            elif number.experiment == "cellina":
                own = _scores_of(tables, number, name, protocol)
                reasons = failures(own, number.intervention)["reason"].unique()
                if len(reasons):
                    yield where | {"verdict": NOT_RUN, "reason": f"failed: {'; '.join(reasons)}"}


def _data(tables: Tables, number) -> list[tuple[str, dict]]:
    """The data sets that a number is put beside: those it was published on, or else whatever the run has."""
    if number.dataset == "simulated":
        return [("", {})]
    found = tables.datasets(number.experiment)
    own = [(name, entry) for name, entry in found if published_as(entry) == number.dataset]
    # Of the tables of the benchmark only the first two are shown beside other data; the rest would say no more.
    shown = number.place.startswith(("Table 1", "Table 2", DONORS_SCALE))
    others = number.experiment != "cellina" or shown
    return own or (found if others else [])


def _shown(ours: Ours) -> dict:
    value = ours.value
    if not isinstance(value, str):
        value = "undefined" if np.isnan(value) else f"{value:.4g}"
    return {"ours": value, "ours_spread": ours.spread, "n_folds": ours.n_folds, "n_seeds": ours.n_seeds}


def _judged(number, ours: Ours, why_not: str) -> dict:
    if why_not := why_not or "undefined" * (_shown(ours)["ours"] == "undefined"):
        return {"verdict": NOT_COMPARABLE, "reason": why_not}
    tolerance, met, reason = ours.tolerance, ours.met, ""
    if met is None:
        if not np.isfinite(tolerance.value):
            return {"verdict": NOT_COMPARABLE, "reason": tolerance.origin or "no spread to compare by"}
        theirs = number.published or number.newer
        difference = float(ours.value) - float(theirs)
        tolerance = Tolerance(tolerance.value + rounding(theirs), f"{tolerance.origin}; rounding")
        if number.source.startswith("read by eye"):
            # No better than a twentieth.
            tolerance = Tolerance(tolerance.value + 0.05, f"{tolerance.origin}; read by eye to .05")
        met, reason = abs(difference) <= tolerance.value, f"ours - published: {difference:+.3g}"
    return {
        "tolerance": tolerance.value,
        "tolerance_from": tolerance.origin,
        "verdict": MET if met else NOT_MET,
        "reason": reason,
    }


def _not_comparable(config: dict, number, method: str, entry: dict, protocol: str) -> str:
    """Why no verdict on a method's published number can come from this data set and protocol; "" if one can."""
    if entry and published_as(entry) != number.dataset:
        return {"simulated": "simulated data", "stand-in": "stand-in data"}.get(entry["kind"], "data of another source")
    paper = number.experiment.partition("_")[0]
    other = dict(pair.split("=") for pair in number.switches.split())
    fit = other.pop("fit", "per_sample")
    if entry and number.experiment == "cellina" and entry["fit"] != fit:
        return f"fitted otherwise: {entry['fit']}, published {fit}"
    several = [patient for patient, slides in entry["patients"].items() if len(slides) > 1] if entry else []
    if fit == "leave_patient_out" and several:
        # The authors' joint models left out a slide.
        return f"another hold-out: of patient {', '.join(several)} all slides at once, where theirs kept all but one"
    for name in [number.experiment, *method.split(MINUS)]:
        for dataset in ("", number.dataset):
            if (name, dataset) in _NOT_REPEATED:
                return f"the published run of {name} is not repeated: {_NOT_REPEATED[name, dataset]}"
    wanted = protocols.resolve("as_run") | other
    here = protocols.resolve(protocol, config["switches"])
    # No other method reads the switches of Cellina-GAT.
    names = [s.name for s in protocols.PAPERS[paper].SWITCHES if "gat" in method or not s.name.startswith("gat_")]
    if differ := [name for name in names if here[name] != wanted[name]]:
        return f"other rules than the published run: {_first(differ)}"
    if differ := _own_settings(config, number, method, entry, fit):
        return f"settings of its own: {_first(differ)}"
    return ""


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _own_settings(config: dict, number, method: str, entry: dict, fit: str) -> list[str]:
    """Keys in which a run differs from config/paper.yaml, among those that the number depends on."""
    printed = published.configuration()
    theirs = [own for own in printed["datasets"].values() if (own["files"], own["fit"]) == (number.dataset, fit)]
    here, there = ({"data": data} | of for data, of in ((entry, config), ((theirs or [{}])[0], printed)))
    # As run, what the sections of Cellina say is not read.
    sections = {METHODS[name].settings for name in method.split(MINUS) if name} - {None, "cellina", "cellina_gat"}
    keys = [*_SETTINGS[number.experiment], *_SETTINGS.get(number.intervention, ())]
    keys += [f"{section}.{key}" for section in sections for key in config[section] if key != "time_limit_minutes"]
    differ = []
    for key in keys:
        own, wanted = (reduce(getitem, key.split("."), of) for of in (here, there))
        fewer = number.experiment == "cellina" and key in _MAY_BE_FEWER and own and {*own} <= {*wanted}
        differ += [key.removeprefix("data.")] * (own != wanted and not fewer)
    return differ


# ---- Cellina: means over folds


def failures(rows: pd.DataFrame, intervention: str = "edge") -> pd.DataFrame:
    """Of one method's scores (rows of a score table) the failed ones of its answer or of its twin: those of its
    training, and those of that form, `edge`, `node` or the name of a variant."""
    forms = {"edge": ["published"], "node": ["node"]}.get(intervention, [intervention])
    return rows[(rows["status"] == "failed") & rows["variant"].isin(["-", *forms])]


def counterfactual(rows: pd.DataFrame, intervention: str = "edge") -> pd.DataFrame:
    """Of one method's scores (rows of a score table) those of its answer: `node` perturbation, or new neighbours as
    published (`edge`)."""
    variants = set(rows["variant"]) - {TWIN}
    wanted = ["node"] if intervention == "node" else ["published", "-"]
    chosen = next((variant for variant in wanted if variant in variants), None)
    return rows[rows["variant"] == chosen]


def _scores_of(tables: Tables, number, name: str, protocol: str) -> pd.DataFrame:
    """All scores of the method, or the two of a margin, and target of a number."""
    scores = tables.of("cellina", "scores", dataset=name)
    own = scores[scores["method"].isin(number.method.split(MINUS)) & (scores["protocol"] == protocol)]
    if published_as(tables.config["datasets"][name]) == number.dataset and number.target:
        own = own[own["target"] == number.target]
    return own


def _of_scores(tables: Tables, number, name: str, protocol: str) -> Ours | None:
    """Mean over folds of a method's scores, or of what it has over another, fold by fold and seed by seed."""
    own = _scores_of(tables, number, name, protocol)
    own = own[(own["metric"] == number.quantity) & (own["status"] == "ok")].dropna(subset="value")
    if own.empty:
        return None
    own = own.assign(fold=own[[*FOLD, "target"]].astype(str).agg("/".join, axis=1))
    sides = [
        counterfactual(own[own["method"] == method], number.intervention).set_index(["fold", "seed"])["value"]
        for method in number.method.split(MINUS)
    ]
    values = (sides[0] if len(sides) == 1 else sides[0] - sides[1]).dropna().reset_index()
    if values.empty:
        return None
    means = values.groupby("fold")["value"].mean()
    tolerance = of_folds(values, int(number.folds or number.newer_folds))
    if not number.target and own["target"].nunique() < len(tables.config["datasets"][name]["target_domains"]):
        tolerance = Tolerance(np.nan, "a mean over all targets, of which some have no score here")
    spread = means.std()
    if number.place == "Table 2":
        # Printed is the average over targets of their standard deviations, in which no difference of targets is left.
        targets = own.drop_duplicates("fold").set_index("fold")["target"]
        spread = means.groupby(targets).std().mean()
    return Ours(means.mean(), spread, len(means), values["seed"].nunique(), tolerance)


def _of_gene_range(tables: Tables, number, name: str, protocol: str) -> Ours | None:
    """Mean over types and slides of a score in Fig. A7, as published against the model's own reconstructions."""
    metric, shift, n_genes = number.quantity.split()
    entry = tables.config["datasets"][name]
    own = published_as(entry) == number.dataset
    target = number.target if own else next(iter(slugs(entry["target_domains"], "target_domains")))
    table = tables.of("cellina_gene_range", "figure_cellina_a7", dataset=name, protocol=protocol, target=target)
    if table is None:
        return None
    own = table[(table["truth"] == "reconstruction") & (table["shift"] == shift) & (table["metric"] == metric)]
    own = own[own["n_genes"] == int(n_genes)] if n_genes != "all" else own
    if own.empty:
        return None
    (row,) = own.itertuples()
    return Ours(row.value, row.sd)


# ---- Celcomen: each kind of number has its own reading


def _simulations(table: pd.DataFrame, detail: str) -> pd.DataFrame:
    """Estimate and noise of each simulation, all entries compared as published: a column each."""
    own = table[(table["panel"] == "paper") & (table["entries"] == "all") & (table["quantity"] == detail)]
    wide = own.pivot_table(index="seed", columns="source", values=["spearman", "p_value"], dropna=False)
    return wide.dropna()


def _test_of_simulations(table: pd.DataFrame, number, detail: str) -> Ours:
    statistic, test = detail.split()
    pairs = _simulations(table, number.quantity.split()[0])
    values = pairs["spearman"] if statistic == "rho" else -np.log10(pairs["p_value"] + 0.0001)
    values = values[["estimate", "noise"]].to_numpy()
    differences = values[:, 0] - values[:, 1]
    # The run's own test, exact for few pairs; resamples have ties, for which no exact p is to be had.
    found = float(np.log10(max(paired_tests(*values.T)[test], 1e-300)))
    rng = stream(0, "compare.simulations", number.quantity)
    draws = rng.choice(differences, (N_RESAMPLES, len(differences)))
    tolerance = of_replicates(_log_p(draws, test), f"log10 p of {N_RESAMPLES} resamples")
    met = None
    if np.isfinite(tolerance.value):
        met = bool(abs(found - np.log10(float(number.published))) <= tolerance.value)
    return Ours(10.0**found, np.nan, len(values), None, tolerance, met)


def _log_p(differences: np.ndarray, test: str) -> np.ndarray:
    """log10 p values of paired tests, one for each row of differences."""
    if test == "wilcoxon_p":
        p = wilcoxon(differences, axis=1, method="asymptotic").pvalue
    else:
        p = ttest_1samp(differences, 0, axis=1).pvalue
    return np.log10(np.maximum(p, 1e-300))


def _median_of_simulations(table: pd.DataFrame, _, detail: str) -> Ours:
    pairs = _simulations(table, "inter" if detail == "noise" else detail)
    values = pairs["spearman"]["noise" if detail == "noise" else "estimate"].to_numpy()
    rng = stream(0, "compare.medians", detail)
    draws = np.median(rng.choice(values, (N_RESAMPLES, len(values))), axis=1)
    tolerance = of_replicates(draws, f"{N_RESAMPLES} resamples of simulations")
    return Ours(float(np.median(values)), float(values.std(ddof=1)), len(values), None, tolerance)


def _agreement(table: pd.DataFrame, number, detail: str) -> Ours:
    """Mean agreement of forces over hold-outs and seeds."""
    own = table[(table["variant"] == "observed") & (table["force"] == detail.split()[-1])]
    values = own.set_index(["seed", "hold_out"])["spearman"].astype(float)
    by_seed = values.groupby("seed").mean()
    folds = pd.DataFrame({"fold": values.index.get_level_values("hold_out"), "value": values.to_numpy()})
    tolerance = of_folds(folds, folds["fold"].nunique())
    mean = float(values.mean())
    met = None
    if " to " in number.published:
        low, high = map(float, number.published.split(" to "))
        tolerance = tolerance._replace(value=tolerance.value + rounding(number.published[:3]))
        met = bool(low - tolerance.value <= mean <= high + tolerance.value)
        if not np.isfinite(tolerance.value):
            met = None if not low <= mean <= high else True
    return Ours(mean, float(values.std()), folds["fold"].nunique(), len(by_seed), tolerance, met)


def _mann_whitney(table: pd.DataFrame, _, detail: str) -> Ours | None:
    """The test of the paper on the hold-outs: all above their random draws or not, which is all that it can say."""
    own = table[(table["variant"] == "observed") & (table["force"] == detail)]
    values = own["published_mann_whitney_p"].astype(float).dropna()
    exact = Tolerance(0.0, "exact: the smallest value that the test can take")
    n_folds = int(own["n_hold_outs"].max())
    return Ours(float(values.max()), np.nan, n_folds, len(values), exact) if len(values) else None


def _signature(table: pd.DataFrame, number, _) -> Ours:
    wanted, genes = set(number.published.split()), list(dict.fromkeys(table["gene"]))
    shared = [gene for gene in genes if gene in wanted]
    exact = Tolerance(0.0, "exact: a list of genes")
    text = f"{len(shared)} of {len(wanted)} the same: {' '.join(genes)}"
    return Ours(text, tolerance=exact, met=set(genes) == wanted)


def _processes(table: pd.DataFrame, number, detail: str) -> Ours:
    """Named processes found among the enriched terms (q <= .05) of the clusters of one kind of force."""
    q = pd.to_numeric(table["q_value"], errors="coerce")
    return _named(number, table, (table["force"] == detail) & (q <= 0.05), "terms with q <= .05")


def _tails(table: pd.DataFrame, number, detail: str) -> Ours | None:
    """Which of two classes of genes the pairs that act most between cells are of, against those most within them."""
    first, second = detail.split()
    own = table[(table["statistic"] == "tails") & (table["first"] == first) & (table["second"] == second)]
    own = own.dropna(subset=["difference", "p_value"])
    if own.empty:
        return None
    p, difference = own["p_value"].max(), own["difference"].mean()
    found = "neither" if p > 0.05 else first if difference > 0 else second
    rule = Tolerance(np.nan, "genes exchanged between classes: p <= .05 in every seed")
    text = f"{found}: difference {difference:+.2g}, p = {p:.2g}"
    return Ours(text, n_seeds=own["seed"].nunique(), tolerance=rule, met=found == number.published)


def _falls(table: pd.DataFrame, number, detail: str) -> Ours:
    """Named programmes among the gene sets that fall (q <= .05) in a group of cells after the knock-out."""
    score, q = (pd.to_numeric(table[c], errors="coerce") for c in ("normalized_enrichment", "q_value"))
    if q.isna().all():
        return Ours("no q value", tolerance=Tolerance(np.nan, "no other knock-outs say how rare an enrichment is"))
    down = (table["group"] == detail) & (score < 0) & (q <= 0.05)
    return _named(number, table, down, "gene sets that fall with q <= .05")


def _named(number, table: pd.DataFrame, chosen: pd.Series, what: str) -> Ours:
    """How many of the processes that a paper names are among the chosen terms in every seed; all must be."""
    terms = table.loc[chosen, "term"].astype(str).str.lower().str.replace("_", " ")
    wanted, seeds = [process.strip() for process in number.published.split(";")], {*table["seed"]}
    found = [p for p in wanted if {*table.loc[terms.index[terms.str.contains(p)], "seed"]} == seeds]
    text = f"{len(found)} of {len(wanted)}: {', '.join(found) or 'none'}; {terms.nunique()} {what}"
    rule = Tolerance(np.nan, "every process that is named must be there in every seed")
    return Ours(text, n_seeds=len(seeds), tolerance=rule, met=len(found) == len(wanted))


def _lesions(table: pd.DataFrame, number, detail: str) -> Ours | None:
    """Lowest or highest correlation of any lesion over both knock-outs, in the mean over seeds; or the largest p of the
    rank test of one.
    """
    kind = number.quantity.split()[0]
    # Published is one run: its counterpart is a run of one seed, and that in the mean over seeds.
    own = table[(table["control"] == "permuted") & (table["predictor"] == "generation")]
    if kind == "rank_test_p":
        own = own[own["knockout"] == detail]
    values = pd.to_numeric(own[kind]).dropna()
    if values.empty:
        return None
    if kind == "rank_test_p":
        exact = Tolerance(0.0, "exact: the smallest value that the test can take")
        return Ours(float(values.max()), np.nan, None, own["seed"].nunique(), exact)
    by_seed = values.groupby(own["seed"]).agg("min" if kind == "lowest" else "max")
    tolerance = of_replicates(by_seed.to_numpy(), f"{len(by_seed)} seeds")
    return Ours(float(by_seed.mean()), np.nan, None, len(by_seed), tolerance)


# Kind of number -> the table of its experiment that it is read from, and how.
_CELCOMEN: dict[str, tuple[str, Callable[..., Ours | None]]] = {
    **dict.fromkeys(("inter", "intra", "expression"), ("correlations", _test_of_simulations)),
    "median": ("correlations", _median_of_simulations),
    **dict.fromkeys(("agreement", "mean"), ("agreement", _agreement)),
    "mann_whitney_p": ("summary", _mann_whitney),
    "signature": ("signature", _signature),
    "processes": ("cluster_terms", _processes),
    "tails": ("localization_tests", _tails),
    "falls": ("knockout_terms", _falls),
    **dict.fromkeys(("lowest", "highest", "rank_test_p"), ("summary", _lesions)),
}


# ---- Cells, genes and edges of the published files: exact


def _shapes(tables: Tables) -> Iterator[dict]:
    """Sizes of the published slides, which the preparation has compared already."""
    here = [tables.table(path) for path in sorted(tables.paths) if path.endswith("shapes.tsv")]
    key = ["dataset", "sample", "step", "quantity", "cell_type", "domain"]
    columns = [*key, "found", "verdict"]
    joined = pd.concat([t.reindex(columns=columns) for t in here] or [pd.DataFrame(columns=columns)])
    joined[key] = joined[key].fillna("").astype(str)
    joined = joined.drop_duplicates(key)
    both = expected_shapes().merge(joined, on=key, how="left")
    for row in both.itertuples():
        what = " ".join(filter(None, [row.cell_type, row.quantity, row.domain and f"in {row.domain}"]))
        run = isinstance(row.verdict, str)
        yield {
            "paper": "Cellina" if row.dataset in ("crc_cosmx", "brain_merfish", "perturb_fish") else "Celcomen",
            "place": "sizes of the data",
            "quantity": " ".join(filter(None, [row.sample, what, f"({row.step})"])),
            "published_on": row.dataset,
            "kind": "real" if run else "",
            "published": str(row.expected),
            "ours": f"{row.found:.0f}" if run else "",
            "tolerance": 0.0 if run else np.nan,
            "tolerance_from": "exact: a count" if run else "",
            "verdict": {"same": MET, "differs": NOT_MET}.get(row.verdict, NOT_RUN),
            "reason": "" if run else "not part of this run",
            "source": row.published_in,
        }


# ---- The authors' newer runs, fold by fold


def _folds(tables: Tables) -> Iterator[dict]:
    """Mean difference to the newer runs over the folds that both have, where this run has their data."""
    for key, theirs in published.new_folds().groupby(["dataset", "target", "run", "method", "intervention", "form"]):
        dataset, target, run, method, intervention, form = key
        for name, entry in tables.datasets("cellina"):
            if published_as(entry) != dataset or form or run not in RULES_OF_RUNS:
                continue
            scores = tables.of("cellina", "scores", dataset=name)
            for protocol in tables.config["protocols"]:
                own = scores[
                    (scores["method"] == method) & (scores["protocol"] == protocol) & (scores["target"] == target)
                ]
                own = counterfactual(own, intervention)
                yield from _paired(tables, name, entry, protocol, key, own, theirs)


def _paired(tables, name, entry, protocol, key, own, theirs) -> Iterator[dict]:
    dataset, target, run, method, intervention, _ = key
    for metric in theirs.columns[theirs.columns.get_loc("cell_type") + 1 :]:
        ours = own[own["metric"] == metric].groupby(FOLD)["value"].mean()
        pairs = pd.DataFrame({"ours": ours, "theirs": theirs.set_index(FOLD)[metric]}).dropna()
        if pairs.empty:
            continue
        difference = pairs["ours"] - pairs["theirs"]
        values = pd.DataFrame({"fold": range(len(pairs)), "value": difference})
        # A paired difference: its own standard error, not that of two runs.
        tolerance = of_folds(values, 10**9)._replace(origin=f"paired over {len(pairs)} folds")
        number = published_row(dataset, RULES_OF_RUNS[run], intervention)
        why_not = _not_comparable(tables.config, number, method, entry, protocol)
        mean = float(difference.mean())
        met = bool(abs(mean) <= tolerance.value) if np.isfinite(tolerance.value) else None
        yield {
            **{"paper": "Cellina", "place": "newer runs, fold by fold", "quantity": metric},
            **{"method": method, "intervention": intervention, "target": target},
            **{"published_on": dataset, "dataset": label_of(name, entry), "kind": "real"},
            **{"protocol": protocol, "newer": f"{pairs['theirs'].mean():.4g}", "newer_run": run},
            **_shown(Ours(pairs["ours"].mean(), difference.std(), len(pairs))),
            **_judged(number, Ours(mean, tolerance=tolerance, met=met), why_not),
            "source": "table of the authors' newer runs",
        }


# ---- The authors' runs on a screen in tissue


def _in_vivo(tables: Tables) -> Iterator[dict]:
    """Scores of the authors' models on Perturb-FISH: in the mean over lost genes, and for each where this run has a
    screen.
    """
    theirs = published.in_vivo()
    common = {
        "paper": "Cellina",
        "place": "newer runs, Perturb-FISH",
        "published_on": "perturb_fish",
        "source": "table of the authors' newer runs",
    }
    made = [
        (entry, name, protocol, table)
        for name, entry in tables.datasets("cellina_in_vivo")
        for protocol in tables.config["protocols"]
        # The protocol with controls asks something else.
        if protocol == "as_run"
        and (table := tables.of("cellina_in_vivo", "compared", dataset=name, protocol=protocol)) is not None
    ]  # fmt: skip
    own = theirs[theirs["knockout"] == "mean"].assign(verdict=NOT_RUN, reason="not part of this run")
    for entry, name, protocol, table in made or [(None, "", "", own)]:
        for row in table.itertuples():
            yield (
                common
                | {
                    "quantity": f"{row.metric} ({row.truth.replace('_', '-')})",
                    "method": row.model,
                    "intervention": "all neighbours exchanged",
                    "target": "mean over lost genes" if row.knockout == "mean" else row.knockout,
                    "dataset": label_of(name, entry) if entry else "",
                    "kind": kind_of(entry) if entry else "",
                    "protocol": protocol,
                    "published": str(row.published),
                    "published_spread": float(row.spread),
                    "verdict": row.verdict,
                    "reason": row.reason,
                }
                | (_beside(row) if row.verdict != NOT_RUN else {})
            )


def _beside(row) -> dict:
    """Our number, as the experiment has put it beside a published one."""
    shown = {"ours": f"{row.ours:.4g}", "n_seeds": int(row.n_seeds)}
    if row.verdict == NOT_COMPARABLE:
        return shown
    origin = f"spread of their {row.seeds} seeds"
    return shown | {"tolerance": row.tolerance, "tolerance_from": origin}


def published_row(dataset: str, switches: str, intervention: str):
    """As much of a published number as says what it can be compared with."""
    own = {"dataset": dataset, "switches": switches, "intervention": intervention}
    return pd.Series(own | {"experiment": "cellina", "published": "0", "newer": ""})
