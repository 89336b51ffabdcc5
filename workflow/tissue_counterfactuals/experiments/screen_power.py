"""How many recipients must a spatial screen have? False positives and power where the answer is known.

Screens are simulated (`simulate/screen.py`) without and with spill-over; each is judged by every control of
`intervention_statistics`, by the rule that joins them, and by the authors' protocol (`screen_question`). The prediction
that is judged is a ridge regression of recipients on their tumour neighbours, learnt far from any guide.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import binomtest

from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments.intervention_statistics import CONTROL, LEVEL
from tissue_counterfactuals.experiments.screen_question import (
    Screen,
    against_far,
    authors_test,
    read_screen,
    score_as_run,
    score_corrected,
)
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.screen import simulate_screen
from tissue_counterfactuals.streams import stream

_PENALTY = 100.0
_RANDOM_DONORS, _RANDOM_DRAWS = 300, 5
# Test -> what it is called in tables; per target first, then per screen.
PER_TARGET = {
    "p_clones": "permuted clones (K5)",
    "p_shift": "shifted carriers (K5, second null)",
    "p_pseudo": "pseudo-targets of control guides (K1)",
    "p_dose": "dose (K8)",
    "p_cells": "cells taken for independent",
    "p_joint": "K5 and K6 together (joint p)",
}
PER_SCREEN = {
    "any_effect": "any target's verdict is an effect",
    "p_wrong_target": "wrong target (K3c)",
    "p_prediction": "prediction against permuted clones (K5)",
    "over_others": "beats the other targets' mean (K2)",
    "p_over_others": "the same, against permuted clones (K2)",
    "over_twin": "beats its twin (K4)",
    "p_over_twin": "the same, against permuted clones (K4)",
    "predicted": "verdict: predicted",
    "p_joint_prediction": "K2, K3c, K4 and K5 together (joint p)",
    "authors_full": "authors' test, full effect",
    "authors_specific": "authors' test, KO-specific effect",
}


def run(settings: dict, outputs: dict[str, Path]) -> None:
    """Both tables: `rates` (TSV), see `rates`, and `screens`, a row per simulated screen; `provenance` (JSON)."""
    targets, screens = [], []
    for scenario, knobs in scenarios(settings):
        for number in range(settings["n_simulations"]):
            slow = is_slow(scenario, settings)
            one, several = judge(knobs, number, settings, slow)
            screens.append(scenario | one)
            targets += [scenario | row for row in several]
        print(f"{settings['n_simulations']} screens: {scenario}")
    write_tsv(rates(pd.DataFrame(targets), pd.DataFrame(screens)), outputs["rates"])
    write_tsv(pd.DataFrame(screens), outputs["screens"])
    n_cells = sum(row["n_cells"] for row in screens)
    seeds = list(range(settings["n_simulations"]))
    provenance.write_simulated(outputs["provenance"], "Simulated screens", n_cells, seeds, settings, {})


def scenarios(settings: dict) -> list[tuple[dict, dict]]:
    """What is varied, and the knobs of the simulation: a grid of sizes and effects, then traps without spill-over."""
    usual = {"clones_per_target": settings["usual_clones"], "spillover": 0.0}
    varied = [
        ("grid", {"clones_per_target": clones, "spillover": effect})
        for effect in settings["spillovers"]
        for clones in settings["clones_per_target"]
    ]
    varied += [
        ("clone_size", usual | {"clone_size": 6.0}),
        ("missed", usual | {"missed": 0.8}),
        ("spill", usual | {"spill": 0.1}),
        ("depth", usual | {"depth": 25.0}),
        ("region", usual | {"region_effect": 0.8}),
        ("region_and_clone_size", usual | {"region_effect": 0.8, "clone_size": 6.0}),
        # An effect, but none by which a target could be told from another.
        ("shared", usual | {"shared": 1.0, "spillover": max(settings["spillovers"])}),
    ]
    made = []
    for trap, knobs in varied:
        # Twice the room that the clones need, as much tissue for each of them in every scenario.
        size = knobs.get("clone_size", 3.0)
        clones = knobs["clones_per_target"] * settings["n_targets"] * 2
        knobs = knobs | {
            "n_targets": settings["n_targets"],
            "n_genes": settings["n_genes"],
            "n_cells": int(max(1500, clones * size * 9)),
        }
        keys = ("clones_per_target", "spillover")
        made.append(({"scenario": trap} | {k: knobs[k] for k in keys}, knobs))
    return made


def is_slow(scenario: dict, settings: dict) -> bool:
    """Whether screens are tested for a dose and against shifted carriers too: where nothing but the effect varies."""
    usual = scenario["clones_per_target"] == settings["usual_clones"]
    return usual and scenario["scenario"] == "grid"


def judge(knobs: dict, number: int, settings: dict, slow: bool) -> tuple[dict, list[dict]]:
    """One simulated screen: a row of what is decided once, and a row for each target; `slow`: dose and shifts too."""
    slide = simulate_screen(**knobs, seed=number)
    screen = read_screen(slide)
    arena, draws = screen.arena, settings["draws"]
    codes = range(1, len(screen.names) + 1)
    tested = [statistics.assess(arena, k, draws, number, splits=20) for k in codes]
    table = statistics.rows_of(tested, settings["relevant_effect"])
    truth = slide.obsm["simulation_change"]
    slow = slow and number < settings["slow_simulations"]
    shifts = slow and screen.shifted_sizes(settings["shifts"], number)
    for place, k in enumerate(codes):
        near = screen.near(k)
        change = truth[near]
        table.loc[place, "true_change"] = np.sqrt((change**2).mean()) if len(near) else np.nan
        if table["status"][place] != "tested":
            continue
        table.loc[place, "p_cells"] = _cells_as_units(arena, k, draws, number)
        if slow:
            table.loc[place, "p_dose"] = statistics.dose_slope(arena, k, draws, number)["p_dose"]
            table.loc[place, "p_shift"] = statistics.empirical_p(table["size"][place], shifts[:, place])
    row = {"number": number, "n_cells": len(screen.place), "recipients": float(table["n"].mean())}
    row |= {
        "true_change": float(table["true_change"].mean()),
        "any_effect": bool((table["verdict"] == "effect").any()),
        "resolved": float((~table["verdict"].str.startswith("not ")).mean()),
        "ceiling": float(table["ceiling"].median()) if "ceiling" in table else np.nan,
        # Of a screen with too few targets that can be tested nothing is said, and so no prediction either.
        "predicted": False,
    }
    usable = [k for k, one in zip(codes, tested, strict=True) if one.row["status"] == "tested"]
    if len(usable) >= 4:
        row |= _judge_prediction(screen, tested, usable, row["ceiling"], number, draws)
    return row, table.assign(number=number).to_dict("records")


def _cells_as_units(arena, target: int, draws: int, seed: int) -> float:
    """p of the effect where the labels of single members change places, as if no two cells shared a clone."""
    own = arena.only(CONTROL, target)
    exposure = own.exposure()
    order = np.argsort(stream(seed, "cells_as_units", target).random((draws, exposure.shape[1])), axis=1)
    null = statistics.effects(own, exposure[0][order], target).size
    return statistics.empirical_p(statistics.effects(own, exposure, target).size[0], null)


def _judge_prediction(screen, tested, usable, ceiling, seed, draws) -> dict:
    weights, base, profiles, pool = ridge_by_neighbours(screen)
    observed = np.stack([tested[k - 1].change for k in usable])
    kept = np.isfinite(observed).all(axis=0)
    change = np.stack([(profiles(screen.code == k) - profiles(screen.code == CONTROL)) @ weights for k in usable])
    null = statistics.joint_null(screen.arena, usable, draws, seed)
    scored = score_corrected(observed, change, np.zeros_like(change), null, seed, draws=999)
    # The authors' way: all neighbours at once, against far recipients.
    far, rng = screen.far, stream(seed, "screen_random_donors")
    reference = log_mean(screen.counts[far])
    inserted = np.stack([_inserted(profiles(screen.code == k), weights, base) for k in usable])
    drawn = []
    for _ in range(_RANDOM_DRAWS):
        some = np.zeros(len(screen.place), bool)
        some[rng.choice(pool, min(_RANDOM_DONORS, len(pool)), replace=False)] = True
        drawn.append(_inserted(profiles(some), weights, base))
    truth = np.stack([against_far(screen, screen.near(k), far) for k in usable])
    rows = score_as_run(truth, inserted - reference, np.stack(drawn) - reference)
    result = {
        "pearson": scored["pearson"],
        "p_wrong_target": scored["p_wrong_target"],
        "p_prediction": scored["p_clones"],
        "over_others": scored["over_others_low"] > 0,
        "over_twin": scored["over_twin_low"] > 0,
        "p_over_others": scored["p_over_others"],
        "p_over_twin": scored["p_over_twin"],
        "predicted": statistics.prediction_verdict(scored, ceiling) == "predicted",
        "p_joint_prediction": scored["p_joint"],
        "n_genes_used": int(kept.sum()),
    }
    for name, truth_name in (("full", "full"), ("specific", "ko_specific")):
        own, other, p = authors_test(rows, truth_name)
        result |= {f"authors_{name}": p <= LEVEL, f"pearson_{name}": own, f"pearson_{name}_random": other}
    return result


def ridge_by_neighbours(screen: Screen) -> tuple:
    """A ridge of recipients' log expression on the mean of their tumour neighbours, learnt on far recipients.

    Returns:
        weights (g, g), the intercept (g,) at mean features 0, a function from a mask of cells to their mean log profile
        (g,), centred as the features are, and the tumour cells that random donors are drawn from.
    """
    log = np.log1p(statistics.scaled(screen.counts, screen.totals))
    far = screen.far
    tumour = np.flatnonzero(screen.tumour)
    around = cKDTree(screen.place[far]).query_ball_tree(cKDTree(screen.place[tumour]), screen.far_um)
    features = np.stack([log[tumour[a]].mean(axis=0) for a in around])
    centre, base = features.mean(axis=0), log[far].mean(axis=0)
    f, y = features - centre, log[far] - base
    # In the units of the features' own spread, with as many pseudo-cells as the penalty says.
    spread = f.std(axis=0) + 1e-9
    f = f / spread
    weights = np.linalg.solve(f.T @ f + _PENALTY * np.eye(f.shape[1]), f.T @ y) / spread[:, None]

    def profile(cells: np.ndarray) -> np.ndarray:
        return log[cells & screen.tumour].mean(axis=0) - centre

    return weights, base, profile, tumour


def _inserted(features: np.ndarray, weights: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.log1p(np.clip(np.expm1(base + features @ weights), 0, None))


def rates(targets: pd.DataFrame, screens: pd.DataFrame) -> pd.DataFrame:
    """How often each test decides for an effect, with its 95 % interval (Clopper-Pearson, taken as independent).

    A row per scenario and test: `recipients` and `true_change` (root mean square over recipients and genes) are means
    over targets; n counts targets where a test is made for each of them (`per` target), else screens. A verdict counts
    targets that cannot be tested, a p value leaves them out.
    """
    key = ["scenario", "clones_per_target", "spillover"]
    rows = []
    for names, group in screens.groupby(key, sort=False):
        own = targets[(targets[key] == list(names)).all(axis=1)]
        made = [(test, "target", own[test].dropna() <= LEVEL) for test in PER_TARGET if test in own]
        made.append(("effect", "target", own["verdict"] == "effect"))
        for test in PER_SCREEN:
            if test in group:
                known = group[test].dropna()
                made.append((test, "screen", known <= LEVEL if test.startswith("p_") else known.astype(bool)))
        for test, per, decided in made:
            n, k = len(decided), int(decided.sum())
            if n:
                low, high = binomtest(k, n).proportion_ci(method="exact")
                rows.append(
                    dict(zip(key, names, strict=True))
                    | {
                        "recipients": group["recipients"].mean(),
                        "true_change": group["true_change"].mean(),
                        **{"test": test, "per": per, "n": n, "rate": k / n, "low": low, "high": high},
                    }
                )
    return pd.DataFrame(rows)
