"""How often each control of the Perturb-map experiment gives p <= 0.05 where nothing happens.

Lesions in which no gene but the lost one changes (`knockout_effect` 0), the corrected protocol, the exact
counterfactual. A row per simulation and lost gene goes to a TSV, so that a run can be cut short and continued; the
rates are printed.

    python tests/bench/calibrate_perturbmap.py OUT.tsv FIRST_SEED N_SIMULATIONS [DEPTH]
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from tissue_counterfactuals import config, protocols
from tissue_counterfactuals.experiments import celcomen_perturbmap as experiment
from tissue_counterfactuals.experiments import perturbmap_lesions as lesions
from tissue_counterfactuals.experiments.force_statistics import empirical_p
from tissue_counterfactuals.experiments.perturbmap_question import ask, fit
from tissue_counterfactuals.simulate.lesions import simulate_lesions

CONTROLS = ("wild_type_lesion", "random_gene", "permuted", "shuffled_forces")
KEY = {"dataset": "null", "kind": "simulated", "protocol": "corrected"}
# Draws of a control that needs new eigenvectors for each.
FEW = 19


def settings() -> dict:
    """Those of the null test, all four sections and 99 draws."""
    source = {"source": "simulated_lesions", "experiments": ["celcomen_perturbmap"]}
    values = config.load_config({"datasets": {"a": source}})["celcomen"]["perturbmap"]
    return values | {"max_genes": values["null_test"]["n_modelled_genes"], "draws": 99}


def simulate(seed: int, depth: float) -> list[dict]:
    """One simulation: a row per lost gene with the p value of each control."""
    chosen = settings()
    n_genes = chosen["null_test"]["n_genes"]
    slide = simulate_lesions(
        n_genes=n_genes,
        seed=seed,
        n_sections=4,
        knockout_effect=0.0,
        library_size=depth,
        normal_tissue=0.0,
    )
    slide = lesions.remove_reporters(slide)
    expression, switches = lesions.log_cpm(slide), protocols.resolve("corrected")
    rows = []
    for knockout in chosen["knockouts"]:
        asked = ask(slide, expression, knockout, switches, chosen, "null")
        forces = fit(asked, seed)
        found = experiment.answer(asked, forces.inter, forces.intra, seed, CONTROLS[:3], ("field",))
        few = replace(asked, settings=chosen | {"draws": FEW})
        rest = experiment.answer(few, forces.inter, forces.intra, seed, CONTROLS[3:], ("field",))
        found += [row for row in rest if row["control"] != experiment.OBSERVED]
        table = pd.DataFrame([KEY | {"seed": seed} | row for row in found])
        table = experiment.filled(table)
        own = table.loc[table["control"] == "observed", "rho"].median()
        row = {"seed": seed, "depth": depth, "knockout": knockout, "median": own}
        for control in CONTROLS:
            null = table[table["control"] == control]
            medians = null.groupby("draw")["rho"].median().to_numpy()
            row[control] = empirical_p(own, medians)
            row[f"n_{control}"] = len(medians)
        rows.append(row)
    return rows


def main() -> None:
    warnings.simplefilter("ignore")
    out, first, n = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    depth = float(sys.argv[4]) if len(sys.argv) > 4 else 8000.0
    for seed in range(first, first + n):
        pd.DataFrame(simulate(seed, depth)).to_csv(out, sep="\t", index=False, mode="a", header=not out.exists())
    table = pd.read_csv(out, sep="\t")
    for knockout, own in table.groupby("knockout"):
        for control in CONTROLS:
            k, total = int((own[control] <= 0.05).sum()), len(own)
            low, high = binomtest(k, total).proportion_ci(method="exact")
            print(
                f"{knockout} {control}: {k} of {total} = {k / total:.3f} (95 %: {low:.3f} to {high:.3f}); smallest p "
                f"{1 / (1 + own[f'n_{control}'].max()):.3f}; mean p {own[control].mean():.2f}"
            )


if __name__ == "__main__":
    main()
