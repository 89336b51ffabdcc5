"""A real intervention (Perturb-FISH): is what a method says of a lost gene's neighbours what their neighbours show?

The question is put to every method as data: T cells in the domain `perturbed` are held out, and the lost genes are rules by
which donors are given. `as_run` inserts all carriers of a target around recipients far from any guide, against the same
with random tumour cells; `corrected` keeps the real edges of recipients near control guides and exchanges their control
carriers for those of the target, so that the change is against the same cells near a control guide. What is observed, its
null, its ceiling and the verdicts are those of `intervention_statistics`; they ask no method.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments import preparation
from tissue_counterfactuals.experiments import screen_question as question_of
from tissue_counterfactuals.experiments.screen_question import Screen
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question.folds import Fold, split_cells
from tissue_counterfactuals.question.question import DONORS, Question, fingerprint
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.screen import RECIPIENT
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.sources import RESOURCES
from tissue_counterfactuals.streams import stream

CONTROL_DOMAIN, TARGET_DOMAIN = "control", "perturbed"
# How a called gene stands in obs, by who called it.
CALLINGS = ("target_raw", "target_published")
PUBLISHED = RESOURCES / "published" / "cellina_in_vivo.tsv"
# Model of the published table -> method here; its random donors are rows of their own.
MODELS = {"Cellina": "cellina", "Cellina-GAT": "cellina_gat", "SpatialProp": "spatialprop", "Mean shift": "mean_shift_near"}  # fmt: skip
_N_NEIGHBOURS, _RANDOM_DONORS, _RANDOM_DRAWS, _MOST_FOCAL = 30, 300, 5, 6000
# Counts per 10,000 of a float32.
_ROUNDING = 1e-5


def run(
    slide: Path,
    entry: dict,
    protocol: str,
    seeds: list[int],
    methods: dict[str, dict],
    device: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Observed effects, and the scores of the methods against them.

    Args:
        methods: method -> its section of the configuration.
        settings: section cellina_experiments.in_vivo of the configuration.
        outputs: `effects`, a row per calling and target (`assess`, and what the carriers themselves show); `scores`, a row
            per calling, seed, method (as run: truth, donors and target too); `compared`, ours beside the published
            numbers (as run); `manifest` (JSON).

    Raises:
        InputError: there is no screen on the slide, or no target that can be asked about.
    """
    cells = read_slide(slide, check=False)
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, seeds, settings | {"switches": switches, "methods": methods}
    )  # fmt: skip
    effects, scores = [], []
    for calling in [c for c in CALLINGS if c in cells.obs] or CALLINGS[:1]:
        screen = question_of.read_screen(
            cells, calling, settings["radius_um"], settings["far_um"], settings["min_mean_counts"]
        )
        kept = cells[:, screen.genes].copy()
        tested, table = observe(screen, settings, seeds[0])
        table.insert(0, "calling", calling)
        effects.append(preparation.keyed(table, record, seeds[0]))
        codes = chosen_targets(screen, table, settings)
        for seed in seeds:
            ask = ask_as_run if protocol == "as_run" else ask_corrected
            asked = ask(kept, screen, codes, seed, switches, settings)
            made = answers(kept, asked, screen, methods, device, codes, protocol)
            score = _score_as_run if protocol == "as_run" else _score_corrected
            rows = pd.DataFrame(score(screen, tested, codes, asked, made, settings, seed))
            rows.insert(0, "calling", calling)
            scores.append(preparation.keyed(rows, record, seed))
    scores = pd.concat(scores, ignore_index=True)
    write_tsv(pd.concat(effects, ignore_index=True), outputs["effects"])
    write_tsv(scores, outputs["scores"])
    write_tsv(compare(scores, entry["kind"], protocol), outputs["compared"])


def observe(
    screen: Screen, settings: dict, seed: int
) -> tuple[dict[int, statistics.Tested], pd.DataFrame]:
    """Effect of every target on recipients, its nulls and verdict; and on the carriers themselves (positive control, K10).

    Returns:
        target -> what was found; a row per target: what `assess` says, p_shift and p_dose where tested, `n_far` effect's
        recipients against far ones, and `own_size`, `p_own` of the carriers.
    """
    codes = range(1, len(screen.names) + 1)
    draws = settings["draws"]
    tested = {k: statistics.assess(screen.arena, k, draws, seed, settings["splits"]) for k in codes}
    table = statistics.rows_of(list(tested.values()), settings["relevant_effect"])
    carriers = screen.arena_of(screen.carriers)
    shifts = statistics.shifted_sizes(
        screen.place, screen.carriers, screen.code[screen.carriers], np.flatnonzero(screen.recipient), screen.counts,
        screen.names, settings["shifts"], seed, screen.radius_um,
        None if screen.guide is None else screen.guide[screen.carriers],
    )  # fmt: skip
    for place, k in enumerate(codes):
        own = statistics.assess(carriers, k, draws, seed, 2).row
        table.loc[place, ["own_size", "p_own"]] = own.get("size", np.nan), own.get("p_clones", np.nan)  # fmt: skip
        table.loc[place, "n_near"] = len(screen.near(k))
        if table["status"][place] != "tested":
            continue
        table.loc[place, "p_shift"] = statistics.empirical_p(table["size"][place], shifts[:, place])
        dose = statistics.dose_slope(screen.arena, k, draws, seed)
        table.loc[place, ["dose_correlation", "p_dose"]] = dose["dose_correlation"], dose["p_dose"]
    return tested, table


def chosen_targets(screen: Screen, table: pd.DataFrame, settings: dict) -> list[int]:
    """The targets that are asked about: those named, or all that can be tested and have recipients enough.

    Raises:
        InputError: fewer than four, over which no score can be compared.
    """
    usable = table["status"].eq("tested") & (table["n_near"] >= settings["min_recipients"])
    names = table.loc[usable, "target"]
    if settings["targets"] is not None:
        names = [name for name in settings["targets"] if name in set(names)]
    if len(names) < 4:
        raise InputError(
            f"slide: {len(names)} targets ({', '.join(names) or 'none'}) can be tested with "
            f"{settings['min_recipients']} recipients of their own, and 4 are needed to compare predictions over "
            "targets; lower cellina_experiments.in_vivo.min_recipients, or take a larger section."
        )
    return [1 + screen.names.index(name) for name in names]


# --- the question ----------------------------------------------------------------------------------------------------


def _question(slide: AnnData, focal, donors: dict, seed: int, protocol: str, switches, settings) -> Question:  # fmt: skip
    fold = Fold(RECIPIENT, CONTROL_DOMAIN, (TARGET_DOMAIN,))
    return Question(
        fold,
        split_cells(slide, fold, seed),
        focal,
        {(DONORS, TARGET_DOMAIN, rule): d for rule, d in donors.items()},
        protocol,
        seed,
        switches,
        settings["graph"],
        fingerprint(slide),
    )


def ask_as_run(
    slide: AnnData, screen: Screen, codes: list[int], seed: int, switches: dict, settings: dict
) -> Question:
    """All carriers of a target around far recipients (redrawn with the seed), and five draws of random tumour cells."""
    rng = stream(seed, "in_vivo_focal")
    focal = np.sort(rng.permutation(screen.far)[:_MOST_FOCAL])
    tumour = np.flatnonzero(screen.tumour)
    pools = {screen.names[k - 1]: screen.carriers[screen.code[screen.carriers] == k] for k in codes}
    pools |= {
        f"random_{draw}": rng.choice(tumour, min(_RANDOM_DONORS, len(tumour)), replace=False)
        for draw in range(_RANDOM_DRAWS)
    }
    donors = {name: np.tile(pool, (len(focal), 1)) for name, pool in pools.items()}
    return _question(slide, focal, donors, seed, "as_run", switches, settings)


def ask_corrected(
    slide: AnnData, screen: Screen, codes: list[int], seed: int, switches: dict, settings: dict
) -> Question:
    """Recipients near control guides, the same for all seeds, in their own neighbourhoods.

    Rules: `control`, control carriers exchanged for other control carriers; each target, for its carriers; and
    `control_for_TARGET`, for as few control carriers as the target has (K3b). All share the draw of neighbours.
    """
    focal = screen.near(statistics.CONTROL)[: settings["max_focal"]]
    around = slide_graph(slide, **settings["graph"])[focal]
    rng = stream(seed, "in_vivo_neighbours")
    own = np.stack([
        rng.choice(around.indices[a:b], _N_NEIGHBOURS, p=around.data[a:b] / around.data[a:b].sum())
        for a, b in zip(around.indptr[:-1], around.indptr[1:], strict=True)
    ])  # fmt: skip
    code = np.where(screen.tumour, screen.code, statistics.NONE)
    place = code[own] == statistics.CONTROL
    draw = rng.random(place.sum())

    def exchanged(pool: np.ndarray) -> np.ndarray:
        donors = own.copy()
        donors[place] = pool[(draw * len(pool)).astype(int)]
        return donors

    control = np.flatnonzero(code == statistics.CONTROL)
    donors = {"control": exchanged(control)}
    for k in codes:
        carriers = np.flatnonzero(code == k)
        few = rng.choice(control, min(len(carriers), len(control)), replace=False)
        donors[screen.names[k - 1]] = exchanged(carriers)
        donors[f"control_for_{screen.names[k - 1]}"] = exchanged(few)
    return _question(slide, focal, donors, seed, "corrected", switches, settings)


def answers(
    slide: AnnData,
    asked: Question,
    screen: Screen,
    methods: dict,
    device: str,
    codes: list[int],
    protocol: str,
) -> dict[str, dict[str, np.ndarray] | str]:
    """Method -> rule -> log mean (g,) of what it predicts for the focal cells, or why it failed.

    What a method predicts without being told donors, or in the cells' own neighbourhood, is rule "-" and
    "no_intervention".
    """
    made = {}
    for name, own in methods.items():
        task = Task(slide, asked, own, device)
        try:
            with tempfile.TemporaryDirectory() as folder:
                if METHODS[name].learned:
                    task.checkpoint = Path(folder) / "checkpoint.pt"
                    METHODS[name].adapter.fit(task, Path(folder))
                found = METHODS[name].adapter.predict(task, Path(folder), TARGET_DOMAIN)
        except Exception as error:  # a method that fails is a row that says so
            made[name] = f"{type(error).__name__}: {error}"
            continue
        made[name] = {
            rule: _log_mean(one.values) for rule, one in found.items() if not isinstance(one, str)
        }
    return made


def _log_mean(values: np.ndarray) -> np.ndarray:
    totals = np.maximum(values.sum(axis=1, dtype=np.float64), 1)
    return np.log1p((values / totals[:, None] * 1e4).mean(axis=0))


def _changes(found: dict[str, np.ndarray], rules: list[str], reference: np.ndarray) -> np.ndarray:
    """(rules, g) change against a reference; what a method says that is told no donors is the same for all.

    Rounding is no change: a correlation with it would look like a result.
    """
    change = np.stack([found.get(rule, found.get("-")) for rule in rules]) - reference
    return np.where(np.abs(change) < _ROUNDING, 0, change)


# --- scores ------------------------------------------------------------------------------------------------------------


def _score_as_run(screen, tested, codes, asked, made, settings, seed) -> list[dict]:
    """A row per method, truth, donors and target, as the authors score."""
    focal, names = asked.focal, [screen.names[k - 1] for k in codes]
    reference = question_of.log_mean(screen, focal)
    observed = np.stack([question_of.against_far(screen, screen.near(k), focal) for k in codes])
    near_any = np.flatnonzero((asked.split.held_out) & screen.recipient)
    shift = question_of.log_mean(screen, near_any) - reference
    # The authors' mean shift: all held-out recipients against far ones; it has seen the answers.
    predicted = {"mean_shift_near": (np.tile(shift, (len(codes), 1)), shift[None])}
    rows = []
    for method, found in made.items():
        if isinstance(found, str):
            rows.append({"method": method, "status": found})
            continue
        at_random = _changes(found, [f"random_{draw}" for draw in range(_RANDOM_DRAWS)], reference)
        predicted[method] = _changes(found, names, reference), at_random
    for method, (own, at_random) in predicted.items():
        for row in question_of.score_as_run(observed, own, at_random):
            n = len(screen.near(codes[row["target"]]))
            rows.append({"method": method, "status": "ok"} | row | {"target": names[row["target"]], "n": n})  # fmt: skip
    return rows


def _score_corrected(screen, tested, codes, asked, made, settings, seed) -> list[dict]:
    """A row per method with all controls and the verdict; `all_genes`, and without those that spill shows in (K12)."""
    names = [screen.names[k - 1] for k in codes]
    observed = np.stack([tested[k].change for k in codes])
    ceiling = float(np.median([tested[k].row["ceiling"] for k in codes]))
    null = statistics.joint_null(screen.arena, codes, settings["draws"], seed)
    null = null[np.isfinite(null).all(axis=(1, 2))]
    tiles = np.stack([statistics.tile_bootstrap(screen.arena, k, settings["bootstraps"], seed) for k in codes], axis=1)  # fmt: skip
    spilled = screen.spilled_genes()
    rows = []
    for method, found in made.items():
        if isinstance(found, str):
            rows.append({"method": method, "status": found})
            continue
        untold = question_of.log_mean(screen, asked.focal)
        base = found.get("control", untold)
        own = _changes(found, names, base)
        stay = "no_intervention" if "no_intervention" in found else "-"
        twin = _changes(found, [stay] * len(codes), base)
        few = _changes(found, [f"control_for_{name}" for name in names], base)
        for genes, kept in (("all", ~np.zeros_like(spilled)), ("not_spilled", ~spilled)):
            scored = question_of.score_corrected(
                observed[:, kept], own[:, kept], twin[:, kept], null[..., kept], seed
            )
            control = np.nan_to_num(statistics.row_correlations(few[:, kept], observed[:, kept]))
            over_tiles = [
                np.nan_to_num(statistics.row_correlations(own[:, kept], one[:, kept])).mean()
                for one in tiles
            ]
            low, high = np.nanquantile(over_tiles, [0.025, 0.975])
            rows.append(
                {"method": method, "status": "ok", "genes": genes, "n_targets": len(codes), "n_focal": len(asked.focal)}
                | scored
                | {"control_donors": float(control.mean()), "ceiling": ceiling, "tiles_low": low, "tiles_high": high}
                | {"verdict": statistics.prediction_verdict(scored, ceiling)}
            )  # fmt: skip
    return rows


def compare(scores: pd.DataFrame, kind: str, protocol: str) -> pd.DataFrame:
    """The published numbers of the authors' models, per lost gene and in the mean, beside ours.

    The tolerance is twice the spread over their seeds; numbers of other data are not compared.
    """
    table = pd.read_csv(PUBLISHED, sep="\t")
    donors = table["model"].str.endswith(" random donors")
    table["method"] = table["model"].str.removesuffix(" random donors").map(MODELS)
    table["donors"] = np.where(donors, "random", "target")
    ours = pd.DataFrame(columns=["method", "donors", "truth", "knockout", "metric", "ours"])
    if protocol == "as_run" and "truth" in scores:
        first = scores[scores["calling"] == scores["calling"].iloc[0]].dropna(subset=["truth"])
        metrics = ["pearson", "sign_agreement", "rmse"]
        keys = ["method", "donors", "truth"]
        every = first.melt([*keys, "target"], metrics, "metric", "ours").rename(columns={"target": "knockout"})  # fmt: skip
        parts = [every, every.assign(knockout="mean")]
        ours = pd.concat([p.groupby([*keys, "knockout", "metric"])["ours"].mean().reset_index() for p in parts])  # fmt: skip
        ours["metric"] = ours["metric"].replace("rmse", "rmse_lfc")
    joined = table.merge(ours, how="left")
    joined["tolerance"] = 2 * joined["spread"]
    near = (joined["ours"] - joined["published"]).abs() <= joined["tolerance"]
    joined["verdict"] = np.where(near, "met", "missed")
    joined.loc[joined["ours"].isna(), "verdict"] = "not run"
    if kind != "real":
        joined.loc[joined["ours"].notna(), "verdict"] = f"not comparable: {kind} data"
    return joined
