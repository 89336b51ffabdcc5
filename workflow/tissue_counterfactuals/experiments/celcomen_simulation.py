"""Are known forces found again in a simulated tissue? Figure 2c of the Celcomen paper, as run and mended.

As run: forces are drawn as ones and zeros, the same within and between cells; the tissue is what generation ends at
from noise; inference starts from there. Corrected: both kinds of forces are drawn independently, with signs; the tissue
is an exact draw from the Gaussian field and not a most likely one, whose cells are all but alike; and inference is the
field's own. Recovery is then followed over the number of genes and of cells, measurement noise and dropout.

Every simulation compares the forces between cells (`inter`), those within cells (`intra`), and the correlation of genes
over cells (`expression`) with its truth; the truth of `expression` is that of `intra`. The control of each is the
correlation of genes in pure noise.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from tissue_counterfactuals.experiments.force_statistics import correlation, entries
from tissue_counterfactuals.experiments.simulated_tissues import Simulated, generate_tissues, sample_tissues
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import write_tsv

KNOBS = ("n_genes", "n_cells", "noise", "dropout")
# The panel of the paper, then those that vary one knob each.
PANELS = ("paper", *KNOBS)
QUANTITIES = ("inter", "intra", "expression")
ENTRIES = ("all", "upper_triangle")
KEY = ["kind", "protocol", "panel", *KNOBS, "seed", "quantity", "source", "entries"]
COLUMNS = [*KEY, "headline", "spearman", "p_value", "pearson", "status", "reason"]
# Added to p before the logarithm, as run.
SMALLEST_P = 1e-4


def run(protocol: str, settings: dict, switches: dict[str, str], outputs: dict[str, Path]) -> None:
    """The whole experiment under one protocol.

    Args:
        settings: section celcomen.simulation of the configuration.
        switches: of the steps inference, generation and celcomen_simulation.
        outputs: files `correlations` and `tests` (TSV) and `provenance` (JSON).
    """
    table = simulate(protocol, settings, switches)
    write_tsv(table, outputs["correlations"])
    write_tsv(compare_with_noise(table), outputs["tests"])
    seeds = [f"0 to {settings['n_simulations'] - 1}"]
    provenance.write_simulated(
        outputs["provenance"], "Celcomen simulation", settings["n_cells"], seeds, settings, switches
    )


def simulate(protocol: str, settings: dict, switches: dict[str, str]) -> pd.DataFrame:
    """Every simulation and its comparisons: one row per `KEY`.

    Returns:
        `spearman`, `p_value` and `pearson` of `source` (`estimate`; `noise`, the control; `cross`, the estimate against
        the truth of the other kind of forces) with the truth, over `entries`; `headline` marks the entries that the
        switch `compared_entries` chooses. `status` is `constant` where all forces compared are the same and `failed`,
        with its reason, where inference was refused; `constant_forces` says whether these count as 0 or not at all.
    """
    rows = []
    generated = switches["simulated_tissue"] == "generated"
    for panel, knobs, seeds in _simulations(settings, generated):
        print(f"{panel}: {knobs}, {len(seeds)} simulations", flush=True)
        common = {"kind": "simulated", "protocol": protocol, "panel": panel, **knobs}
        if generated:
            sizes = knobs["n_genes"], knobs["n_cells"]
            found = generate_tissues(*sizes, seeds, settings, switches)
        else:
            found = sample_tissues(**knobs, seeds=seeds, switches=switches)
        for one in found:
            rows += [common | row for row in _comparisons(one, switches)]
    return pd.DataFrame(rows)[COLUMNS]


def _comparisons(one: Simulated, switches: dict[str, str]) -> Iterator[dict]:
    """Rows of one simulation."""
    noise, of_genes = _gene_correlation(one.noise), _gene_correlation(one.tissue)
    truth = one.truth | {"expression": one.truth["intra"]}
    fitted = (one.fitted or dict.fromkeys(one.truth)) | {"expression": of_genes}
    pairs = [(q, "estimate", fitted[q], truth[q]) for q in QUANTITIES]
    pairs += [(q, "noise", noise, truth[q]) for q in QUANTITIES]
    if switches["true_forces"] == "independent":
        pairs += [("inter", "cross", fitted["inter"], truth["intra"])]
        pairs += [("intra", "cross", fitted["intra"], truth["inter"])]
    for quantity, source, estimate, wanted in pairs:
        for which in ENTRIES:
            yield {
                "seed": one.seed,
                "quantity": quantity,
                "source": source,
                "entries": which,
                "headline": which == switches["compared_entries"],
                "reason": one.reason if estimate is None else "",
                **_compare(estimate, wanted, which, switches["constant_forces"]),
            }


def _compare(estimate: np.ndarray | None, truth: np.ndarray, which: str, constants: str) -> dict:
    """Correlations of two matrices, and what becomes of an estimate that says nothing."""
    status = "failed" if estimate is None else "ok"
    if status == "ok":
        a, b = entries(estimate, which), entries(truth, which)
        if np.ptp(a) > 0:
            found = stats.spearmanr(a, b)
            return {
                "spearman": found.statistic,
                "p_value": found.pvalue,
                "pearson": correlation(a, b),
                "status": status,
            }
        status = "constant"
    value, p = (0.0, 1.0) if constants == "failure" else (np.nan, np.nan)
    return {"spearman": value, "p_value": p, "pearson": value, "status": status}


def _gene_correlation(cells: np.ndarray) -> np.ndarray:
    """Spearman correlation of genes (g, g) over cells."""
    with warnings.catch_warnings(action="ignore", category=stats.ConstantInputWarning):
        return np.nan_to_num(stats.spearmanr(cells).statistic)


def compare_with_noise(table: pd.DataFrame) -> pd.DataFrame:
    """The tests of Figure 2c: estimates against noise, paired by simulation, over the simulations of the paper's panel.

    The code tests with Wilcoxon and t on pairs, the paper names Mann-Whitney; all three are given, for the
    correlations (`rho`) and for -log10(p + 0.0001). Pairs with an undefined correlation are left out. `table` has the
    columns COLUMNS.
    """
    rows = []
    paper = table[table["panel"] == "paper"]
    for (protocol, quantity, which), own in paper.groupby(["protocol", "quantity", "entries"]):
        by_source = own.set_index(["source", "seed"])
        for statistic in ("rho", "minus_log10_p"):
            values = by_source["spearman"]
            if statistic == "minus_log10_p":
                values = -np.log10(by_source["p_value"] + SMALLEST_P)
            pairs = pd.DataFrame({s: values[s] for s in ("estimate", "noise")}).dropna()
            rows.append(
                {
                    "kind": "simulated",
                    "protocol": protocol,
                    "quantity": quantity,
                    "entries": which,
                    "headline": bool(own["headline"].iloc[0]),
                    "statistic": statistic,
                    "n_simulations": own["seed"].nunique(),
                    "n_pairs": len(pairs),
                    "n_constant": int((by_source.loc["estimate", "status"] == "constant").sum()),
                    "n_failed": int((by_source.loc["estimate", "status"] == "failed").sum()),
                    "median_estimate": pairs["estimate"].median(),
                    "median_noise": pairs["noise"].median(),
                    **paired_tests(pairs["estimate"].to_numpy(), pairs["noise"].to_numpy()),
                }
            )
    return pd.DataFrame(rows)


def paired_tests(estimate: np.ndarray, noise: np.ndarray) -> dict[str, float]:
    """p values of Wilcoxon's, Student's and Mann-Whitney's test of two sides (n,) that are paired; NaN where the sides
    are the same, or there are fewer than two pairs.
    """
    names = ("wilcoxon_p", "t_p", "mann_whitney_p")
    if len(estimate) < 2 or np.array_equal(estimate, noise):
        return dict.fromkeys(names, np.nan)
    tests = (stats.wilcoxon, stats.ttest_rel, stats.mannwhitneyu)
    return {name: test(estimate, noise).pvalue for name, test in zip(names, tests, strict=True)}


def _simulations(settings: dict, generated: bool) -> Iterator[tuple[str, dict, range]]:
    """Panel, its knobs and its seeds; tissues that are generated have the paper's panel only."""
    clean = {"noise": 0.0, "dropout": 0.0}
    sizes = {"n_genes": settings["n_genes"], "n_cells": settings["n_cells"]}
    yield "paper", sizes | clean, range(settings["n_simulations"])
    if generated:
        return
    grid = settings["grid"]
    usual = {"n_genes": grid["usual_n_genes"], "n_cells": grid["usual_n_cells"]} | clean
    for knob in KNOBS:
        for value in grid[knob]:
            yield knob, usual | {knob: value}, range(grid["n_simulations"])
