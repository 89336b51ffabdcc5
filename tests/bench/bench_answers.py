"""Do the intervals of answers to a user's questions hold? Simulated tissues, where the truth of every one is known.

    PYTHONPATH=workflow python tests/bench/bench_answers.py                 # 6 tissues, 4 types each
    PYTHONPATH=workflow python tests/bench/bench_answers.py --seeds 21 22 23 24 25 26   # nothing was chosen by these
    PYTHONPATH=workflow python tests/bench/bench_answers.py --seeds 1 --types 1

Of each tissue some types are asked about, all cells of the type in domain_0: moved to domain_1, among two types in
equal parts, among the types of domain_1 in their shares there, without their commonest neighbours, with others beside
them, and with neighbours that express something else. Printed are, by intervention, over answers: the share of genes
whose true change of the population lies in its 90 % interval (mean, smallest, largest), that share among the genes
that are not abstained from in answers that are not called not identifiable, and how many answers and genes these are.
A move has two truths: the focal cells among their donors, and (`in place`) cells of the type that stand there.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

DOMAIN, OTHER = "domain_0", "domain_1"


def questions(slide, label: str) -> dict[str, dict]:
    """Interventions by name, as keys of `UserQuestion`."""
    labels = slide.obs["cell_type"].astype(str)
    types = [t for t in slide.obs["cell_type"].cat.categories if t != label]
    counts = {d: labels[(slide.obs["domain"] == d).to_numpy()].value_counts() for d in (DOMAIN, OTHER)}
    common, rare = counts[DOMAIN].drop(label).index[[0, -1]]
    ligand = slide.var_names[np.flatnonzero(slide.varm["simulation_ligands"][:, 0])].tolist()
    return {
        "move_to": {"move_to": OTHER},
        "composition of two types": {"composition": {types[0]: 1, types[1]: 1}},
        "composition of the other domain": {"composition": counts[OTHER].to_dict()},
        "remove_sender, the commonest": {"remove_sender": common},
        "add_sender, the rarest, 0.3": {"add_sender": rare, "share": 0.3},
        "add_sender, the rarest, 0.6": {"add_sender": rare, "share": 0.6},
        "shift_towards": {"shift_towards": OTHER},
        "shift_towards, all types alike": {"shift_towards": OTHER, "by_type": False},
        "shift_genes, a signal taken out": {"shift_genes": ligand, "factor": 0},
        "shift_genes, a signal doubled": {"shift_genes": ligand, "factor": 2},
    }


def ask(slide, graph, label: str, seed: int, settings: dict) -> list[dict]:
    """A row per question about one type."""
    from tissue_counterfactuals import protocols
    from tissue_counterfactuals.methods import hierarchical
    from tissue_counterfactuals.question.asked import ask_own
    from tissue_counterfactuals.question.settings import UserQuestion
    from tissue_counterfactuals.question.support import support_of
    from tissue_counterfactuals.question.task import Task
    from tissue_counterfactuals.results.answer import MOST_ABSTAINED, MOST_OUTSIDE
    from tissue_counterfactuals.simulate import true_altered, true_counterfactual, true_expression

    switches, asked = protocols.resolve("corrected"), {}
    for name, keys in questions(slide, label).items():
        given = {"name": "q", "cell_type": label, "domain": DOMAIN} | keys
        told = UserQuestion.read(given).model_dump()
        asked[name] = ask_own(slide, graph, told, "corrected", seed, switches, {}, 50, 0.1)
    # Questions that keep their cells in the domain share a fit.
    stay = {}
    for name, question in asked.items():
        (((kind, target, _), found),) = question.perturbations.items()
        if target == DOMAIN:
            stay[kind, target, name] = found
    first = next(q for q in asked.values() if q.fold.targets == (DOMAIN,))
    rows = []
    for question in (asked["move_to"], replace(first, perturbations=stay)):
        task = Task(slide, question, settings, device="cpu", report=lambda line: None)
        (target,) = question.fold.targets
        with tempfile.TemporaryDirectory() as folder:
            hierarchical.fit(task, Path(folder))
            made = hierarchical.predict(task, Path(folder), target)
        support = support_of(task, target)
        old = true_expression(slide, task.focal)
        twin = log_mean(made.pop("no_intervention").values)
        for name, prediction in made.items():
            node = question.nodes(target).get(name)
            if node is None:
                new = true_counterfactual(slide, task.focal, question.donors(target)[name])
            else:
                new = true_altered(slide, task.focal, task.masked_graph[task.focal], node.shift, node.cells)
            truth = log_mean(new) - log_mean(old)
            row = {"seed": seed, "type": label, "question": "move_to" if target == OTHER else name}
            change = log_mean(prediction.values) - twin
            row |= {"true": rms(truth), "error": rms(truth - change), "inside_support": support[name].inside}
            row["off_axes"] = prediction.diagnostics.get("off_axes", 0.0)
            row["answered"], row["n"] = prediction.interval is not None, len(truth)
            if row["answered"]:
                low, high = np.log1p(prediction.interval) - twin
                inside = (low <= truth) & (truth <= high)
                stated = ~prediction.abstained
                row |= {"coverage": inside.mean(), "half": ((high - low) / 2).mean(), "abstained": 1 - stated.mean()}
                row |= {"stated": stated.sum(), "held": inside[stated].sum()}
                row["identified"] = row["abstained"] <= MOST_ABSTAINED
                row["extrapolates"] = support[name].inside < 1 - MOST_OUTSIDE
                cells, old_share = prediction.per_cell, old / old.sum(axis=1, keepdims=True)
                each = np.log(new / new.sum(axis=1, keepdims=True) / old_share)[:, cells["genes"]]
                row["cells"] = np.mean(np.abs(each - cells["change"]) <= cells["half"]) if "half" in cells else np.nan
            if target == OTHER:
                there = log_mean(true_expression(slide, task.target_cells(OTHER))) - log_mean(old)
                row["coverage_in_place"] = ((low <= there) & (there <= high)).mean()
            rows.append(row)
    return rows


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def log_mean(counts) -> np.ndarray:
    from tissue_counterfactuals.slide import normalize_counts

    return np.log1p(np.asarray(normalize_counts(counts).mean(axis=0)).ravel())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row per intervention."""
    rows = []
    for name, own in table.groupby("question", sort=False):
        told = own[own["answered"] & own["identified"].eq(True)]
        row = {"question": name, "answers": len(own), "true": own["true"].mean(), "error": own["error"].mean()}
        row |= {"half": own["half"].mean(), "coverage": own["coverage"].mean()}
        row |= {"from": own["coverage"].min(), "to": own["coverage"].max(), "abstained": own["abstained"].mean()}
        row |= {"identified": len(told), "stated genes": told["stated"].sum() / own["n"].sum()}
        row["coverage of stated"] = told["held"].sum() / max(told["stated"].sum(), 1)
        row |= {"extrapolates": told["extrapolates"].sum(), "inside": own["inside_support"].mean()}
        row |= {"in place": own["coverage_in_place"].mean(), "cells": told["cells"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--genes", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6])
    parser.add_argument("--types", type=int, default=4)
    parser.add_argument("--output", type=Path, help="a table of all answers")
    options = parser.parse_args()
    from tissue_counterfactuals.config import load_config
    from tissue_counterfactuals.graph import slide_graph
    from tissue_counterfactuals.simulate import simulate_tissue

    entry = {"source": "simulated", "control_domain": DOMAIN, "target_domains": [OTHER]}
    config = load_config({"datasets": {"asked": entry}})
    settings = {k: v for k, v in config["hierarchical"].items() if k != "time_limit_minutes"}
    rows = []
    for seed in options.seeds:
        slide = simulate_tissue(n_cells=options.cells, n_genes=options.genes, n_types=6, seed=seed, n_slides=1)
        graph = slide_graph(slide)
        for label in slide.obs["cell_type"].cat.categories[: options.types]:
            rows += ask(slide, graph, label, seed, settings)
    table = pd.DataFrame(rows)
    if options.output:
        table.to_csv(options.output, sep="\t", index=False)
    print(summary(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
