"""The Perturb-map experiment where the answer is known to be nothing, and which defect makes it look like something.

Lesions are simulated in which no gene but the lost one changes (`knockout_effect` 0). Whatever correlation a protocol
then reports is an artefact. Between `as_run` and `corrected` the switches are turned one at a time: each alone,
starting as run, and one after the other.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals import protocols
from tissue_counterfactuals.experiments.celcomen_perturbmap import CALIBRATED, answer, summarize
from tissue_counterfactuals.experiments.perturbmap_lesions import (
    log_cpm,
    means_as_lost,
    observed_differences,
    remove_reporters,
)
from tissue_counterfactuals.experiments.perturbmap_question import Model, Question, ask, correlate, fit
from tissue_counterfactuals.experiments.settings import PerturbmapSettings
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.lesions import simulate_lesions

KNOCKOUT = "Tgfbr2"
STEPS = ("inference", "generation", "celcomen_perturbmap")
_CONTROLS = ("wild_type_lesion", "minus_baseline", "permuted", "random_gene")
# In the order in which they are turned one after the other: first what is compared, then how it is generated, then
# what is taken, then the estimator, whose switches belong together.
TURNS = (
    ("experimental_scale",),
    ("wild_type",),
    ("angles",),
    ("last_gene",),
    ("chart",),
    ("generation_log_partition",),
    ("knocked_out_gene",),
    ("knockout_effect",),
    ("knockout_spots",),
    ("lesion_outlines",),
    ("lesion_sections",),
    tuple(s.name for s in protocols.SWITCHES.values() if s.step == "inference"),
)


def null_test(settings: dict, overrides: dict[str, str], outputs: dict[str, Path]) -> None:
    """Run both protocols, and all between them, on lesions without an effect.

    Args:
        settings: section celcomen.perturbmap of the configuration.
        overrides: switches that the configuration sets for `corrected`.
        outputs: `correlations` as in `celcomen_perturbmap.run`, `dataset` being null_DEPTH and `seed` that of the
            simulation; `summary`, see `over_simulations`; `switches`, a row per depth, seed and turn.
    """
    as_run = _switches("as_run", {})
    corrected = _switches("corrected", overrides)
    null = settings["null_test"]
    # Where lesions lie is known of the user's slide, and not of the simulated ones.
    where = PerturbmapSettings().model_dump(include={"section", "boxes_um", "trim_um", "min_spots"})
    settings = settings | where | {"max_genes": null["n_modelled_genes"], "draws": null["draws"]}
    rows, turns = [], []
    for depth in null["depths"]:
        for seed in range(null["seeds"]):
            bench = _Bench(settings, depth, seed)
            for protocol, switches in (("as_run", as_run), ("corrected", corrected)):
                key = {"dataset": f"null_{depth:g}", "kind": "simulated", "protocol": protocol, "seed": seed}
                question = bench.question(switches)
                forces = bench.forces(question)
                found = answer(question, forces.inter, forces.intra, seed, _CONTROLS)
                rows += [key | row for row in found]
            for row in bench.turns(as_run, corrected):
                turns.append({"depth": depth, "seed": seed} | row)
            print(f"null test: depth {depth:g}, simulation {seed} done")
    correlations = pd.DataFrame(rows)
    write_tsv(correlations, outputs["correlations"])
    write_tsv(over_simulations(correlations), outputs["summary"])
    write_tsv(pd.DataFrame(turns), outputs["switches"], sort=False)


def _switches(protocol: str, overrides: dict[str, str]) -> dict[str, str]:
    values = protocols.resolve(protocol, overrides)
    return {name: v for step in STEPS for name, v in protocols.of_step(values, step).items()}


class _Bench:
    """One simulation without an effect; questions and forces that several settings share are made once."""

    def __init__(self, settings: dict, depth: float, seed: int):
        self.settings, self.seed = settings, seed
        null = settings["null_test"]
        slide = simulate_lesions(
            n_genes=null["n_genes"],
            seed=seed,
            n_sections=null["n_sections"],
            knockout_effect=0.0,
            library_size=depth,
            normal_tissue=0.0,
        )
        self.slide = remove_reporters(slide)
        self.expression = log_cpm(self.slide)
        self._questions, self._forces = {}, {}

    def question(self, switches: dict[str, str]) -> Question:
        """Lesions and genes follow from two switches; what was observed is cheap and made each time."""
        key = (switches["lesion_outlines"], switches["lesion_sections"])
        if key not in self._questions:
            self._questions[key] = ask(self.slide, self.expression, KNOCKOUT, switches, self.settings, "null test")
        made = self._questions[key]
        lesions = [tissue.lesion for tissue in made.tissues]
        genes = self.slide.var_names.get_indexer(made.genes)
        observed = observed_differences(self.slide, self.expression, lesions, genes, KNOCKOUT, switches)
        as_lost = means_as_lost(self.slide, self.expression, lesions, genes, switches)
        return replace(made, observed=observed, as_lost=as_lost, switches=switches)

    def forces(self, question: Question):
        lesions = tuple(t.lesion.spots.tobytes() for t in question.tissues)
        key = (lesions, *protocols.of_step(question.switches, "inference").items())
        if key not in self._forces:
            self._forces[key] = fit(question, self.seed)
        return self._forces[key]

    def turns(self, as_run: dict[str, str], corrected: dict[str, str]):
        """Rows of the table of switches: as run, each switch turned alone, and all turned in sequence."""
        yield {"path": "alone", "turn": 0, "switch": "as_run"} | self._median(as_run)
        for turn, names in enumerate(TURNS, start=1):
            own = as_run | {name: corrected[name] for name in names}
            yield {"path": "alone", "turn": turn, "switch": _title(names)} | self._median(own)
        switches = dict(as_run)
        yield {"path": "sequence", "turn": 0, "switch": "as_run"} | self._median(switches)
        for turn, names in enumerate(TURNS, start=1):
            switches |= {name: corrected[name] for name in names}
            found = self._median(switches)
            yield {"path": "sequence", "turn": turn, "switch": _title(names)} | found
        question = self.question(switches)
        if question.predictors[0] == "field":
            found = self._median(switches, "field")
            yield {"path": "sequence", "turn": len(TURNS) + 1, "switch": "field"} | found

    def _median(self, switches: dict[str, str], predictor: str = "generation") -> dict[str, float]:
        """Median correlation over the lesions, and the share of the knocked-out spots that collapsed."""
        question = self.question(switches)
        forces = self.forces(question)
        model = Model(question, forces.inter, forces.intra, predictor)
        found, collapsed, total = [], 0, 0
        for place in range(len(question.tissues)):
            spots = question.chosen_spots(question.expressing(place), self.seed)
            if len(spots) == 0:
                continue
            baseline = question.scaled[place].mean(axis=0)
            left_out = [len(question.genes) - 1]
            predicted = model.predict(place, spots)
            found.append(correlate(predicted, question.observed[place], baseline, left_out))
            collapsed += model.collapsed(place, spots)[1]
            total += len(spots)
        # A prediction that changes no gene counts as 0, as in the tables of the experiment.
        table = pd.DataFrame(found).fillna({"rho": 0.0, "partial_rho": 0.0})
        return {
            "predictor": predictor,
            "rho": table["rho"].median(),
            "partial_rho": table["partial_rho"].median(),
            "collapsed_share": collapsed / total,
            "n_lesions": len(table),
        }


def _title(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else "inference"


def over_simulations(correlations: pd.DataFrame) -> pd.DataFrame:
    """What a protocol reports where nothing happened.

    Returns:
        A row per data set (depth), protocol and predictor: over the simulations the median, lowest and highest of the
        median rho over lesions, and `n_positive` of `n_simulations` above 0; the same for the trivial prediction minus
        mean expression; `n_significant_published`, simulations with p < 0.05 by the published test (lesions against one
        permutation each, Mann-Whitney); `n_significant_CONTROL` for each calibrated control, what a test should give in
        5 of 100, NaN where a simulation has no p value, and `smallest_p_CONTROL`, below which it cannot go;
        `collapsed_share` of the knocked-out spots whose expression was gone after the generation.
    """
    medians = summarize(correlations)
    rows = []
    for names, group in medians.groupby(["dataset", "kind", "protocol", "predictor"], sort=False):
        by_control = dict(iter(group.groupby("control")))
        observed = by_control["permuted"]["median"].to_numpy()
        trivial = by_control["minus_baseline"]["null_median"].to_numpy()
        own = (correlations[["dataset", "protocol", "predictor"]] == [names[0], *names[2:]]).all(axis=1)
        spots = correlations.loc[own, ["n_knocked_out_collapsed", "n_knocked_out"]].sum()
        rows.append(
            dict(zip(["dataset", "kind", "protocol", "predictor"], names, strict=True))
            | {
                "n_simulations": len(observed),
                "n_lesions": int(by_control["permuted"]["n_lesions"].median()),
                "median": np.median(observed),
                "lowest": observed.min(),
                "highest": observed.max(),
                "n_positive": int((observed > 0).sum()),
                "lowest_lesion": by_control["permuted"]["lowest"].min(),
                "highest_lesion": by_control["permuted"]["highest"].max(),
                "minus_baseline_median": np.median(trivial),
                "partial_median": by_control["permuted"]["partial_median"].median(),
                "n_significant_published": int((by_control["permuted"]["rank_test_p"] < 0.05).sum()),
                **{f"n_significant_{c}": _significant(by_control[c]["p_value"]) for c in CALIBRATED},
                **{f"smallest_p_{c}": by_control[c]["smallest_p"].min() for c in CALIBRATED},
                "n_draws": int(by_control["random_gene"]["n_draws"].median()),
                "collapsed_share": spots["n_knocked_out_collapsed"] / spots["n_knocked_out"],
            }
        )
    return pd.DataFrame(rows)


def _significant(p: pd.Series) -> float:
    """How many p values are at most 0.05; what was not tested everywhere is no count of those without effect."""
    return np.nan if p.isna().any() else int((p <= 0.05).sum())
