"""Are forces within and between cells told apart where the truth of both is known and different?

The published simulation gives both kinds of forces one matrix, so it cannot say. Here they are drawn independently, the
tissue comes from the Gaussian field (`simulate/field.py`), and five estimators see the same cells. Recovery is the
correlation of an estimate with its own truth over the pairs of genes, cross-talk that with the truth of the other kind.
Chains 1-2, 2-3 without a force 1-3 (Fig. 1C-D of the paper) ask who reports the force that is not there.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.force_statistics import correlation, entries
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import NORM_WEIGHT, partial_correlations
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.field import draw_counts, draw_forces, scale_forces
from tissue_counterfactuals.simulate.settings import N_NEIGHBORS
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream, stream_seed

FORCES = ("inter", "intra")
# Kind of data -> what the estimators are given.
DATA = {
    "field": "the field itself, of mean 0",
    "log_counts": "log(1 + counts) of counts with noise",
    "normalized": "log(1 + counts per 10,000) of the same counts",
}
# Method -> the protocol that its table rows bear.
METHODS = {
    "as_run": "as_run",
    "mean_field": "corrected",
    "gaussian": "corrected",
    "coexpression": "none",
    "spatial_coexpression": "none",
}
CHAIN_GENES = 6

RECOVERY_COLUMNS = [
    *("kind", "protocol", "method", "data", "forces", "n_genes", "n_cells", "seed", "tissue"),
    *("recovery", "cross_talk", "constant", "at_bound", "covered", "status", "reason"),
]
CHAIN_COLUMNS = [
    *("kind", "protocol", "method", "data", "forces", "n_genes", "n_cells", "seed", "tissue"),
    *("force_12", "force_23", "force_13", "real_found", "spurious", "above_unconnected", "covered"),
    *("status", "reason"),
]


def run(settings: dict, switches: dict[str, str], seeds: list[int], outputs: dict[str, Path]) -> None:
    """Both tables of the experiment, `recovery` and `chains` (TSV), and where they come from, `provenance` (JSON).

    Where a method refused the cells, `status` is `failed`, `reason` says why, and its numbers are blank.

    Args:
        settings: section celcomen.recovery of the configuration.
        switches: values of the inference switches for the corrected estimators, but for log_partition, which says which
            of them it is.
        seeds: each gives `tissues` tissues for each number of genes and cells.
    """
    rows, links = [], []
    for seed in seeds:
        for tissue in range(settings["tissues"]):
            for n_genes in settings["n_genes"]:
                for n_cells in settings["n_cells"]:
                    print(f"seed {seed}, tissue {tissue}: {n_genes} genes, {n_cells} cells")
                    rows += _recover(settings, switches, n_genes, n_cells, seed, tissue)
            for forces in FORCES:
                links += _chain(settings, switches, forces, seed, tissue)
    write_tsv(pd.DataFrame(links, columns=CHAIN_COLUMNS), outputs["chains"])
    write_tsv(pd.DataFrame(rows, columns=RECOVERY_COLUMNS), outputs["recovery"])
    n_cells = settings["tissues"] * len(seeds) * len(settings["n_genes"]) * sum(settings["n_cells"])
    provenance.write_simulated(outputs["provenance"], "Recovery of known forces", n_cells, seeds, settings, switches)


def chain_forces(forces: str, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Inter and intra forces (6, 6): genes 1-2 and 2-3 push each other up in one kind; three genes have no force."""
    chain = np.zeros((CHAIN_GENES, CHAIN_GENES))
    for one, other in ((0, 1), (1, 2)):
        chain[one, other] = chain[other, one] = 1.0
    none = np.zeros_like(chain)
    inter, intra = (chain, none) if forces == "inter" else (none, chain)
    return scale_forces(inter, intra, strength, strength)


def simulate_expression(
    inter: np.ndarray, intra: np.ndarray, n_cells: int, settings: dict, seed: list[int]
) -> tuple[dict[str, np.ndarray | sparse.csr_matrix], sparse.csr_array]:
    """One tissue as each kind of data (see DATA), each (n, g), and its directed graph of the six nearest cells."""
    place = stream(seed[0], "recovery_places", *seed[1:]).random((n_cells, 2))
    graph = knn_graph(place, N_NEIGHBORS)
    field = GaussianField(interaction_weights(graph, "symmetric"), inter, intra)
    s = field.sample(stream(seed[0], "recovery_field", *seed[1:]))
    means = stream(seed[0], "recovery_means", *seed[1:]).normal(0, 1, len(inter))
    counts = draw_counts(
        means + settings["log_rate_sd"] * s,
        stream(seed[0], "recovery_counts", *seed[1:]),
        settings["counts_per_gene"] * len(inter),
        *(settings[knob] for knob in ("depth_noise", "noise", "dropout")),
    )
    return {"field": s, "log_counts": counts.log1p(), "normalized": log_normalize(counts)}, graph


def estimate(
    method: str,
    expression: np.ndarray | sparse.csr_matrix,
    graph: sparse.csr_array,
    settings: dict,
    switches: dict[str, str],
) -> dict:
    """What a method says of one tissue; `settings` and `switches` as in `run`.

    Returns:
        `inter` and `intra` (g, g); for the Gaussian field in units free of the genes' scales (`partial_correlations`);
        `at_bound`, share of the pairs at a bound of their range, (inter, intra); and `error`, standard errors in the
        same units, for the Gaussian field only.

    Raises:
        InputError: the method cannot tell anything of these cells.
    """
    if method == "gaussian":
        # The true forces are those of the cells as they are.
        as_they_are = {"log_partition": "gaussian", "scale": "none"}
        fit = fit_interactions([(expression, graph)], switches=switches | as_they_are)
        inter, intra = partial_correlations(fit)
        # The same factor for forces and errors: that of the diagonal is known far better than a force.
        scale = NORM_WEIGHT - 2 * np.diag(fit.intra)
        unit = 2 / np.sqrt(np.outer(scale, scale))
        error = {"inter": fit.inter_error * unit, "intra": fit.intra_error * unit}
        return {"inter": inter, "intra": intra, "at_bound": (0.0, 0.0), "error": error}
    if method in ("as_run", "mean_field"):
        if method == "as_run":
            values = protocols.of_step(protocols.resolve("as_run"), "inference")
        else:
            values = switches | {"log_partition": "vmf"}
        fit = fit_interactions(
            [(expression, graph)],
            protocol=METHODS[method],
            switches=values,
            epochs=settings["epochs"],
            learning_rate=settings["learning_rate"],
        )
        bound = tuple(fit.diagnostics[f"{forces}_at_bound"] for forces in FORCES)
        return {"inter": fit.inter, "intra": fit.intra, "at_bound": bound}
    cells = expression.toarray() if sparse.issparse(expression) else expression
    spread = cells.std(axis=0)
    if not spread.all():
        raise InputError(
            f"{(spread == 0).sum()} of {len(spread)} genes are the same in all cells: simulate deeper counts."
        )
    standard = (cells - cells.mean(axis=0)) / spread
    if method == "coexpression":
        both = standard.T @ standard / len(standard)
    else:
        weights = interaction_weights(graph, "symmetric")
        both = standard.T @ (weights @ standard) / len(standard)
        both = (both + both.T) / 2
    return {"inter": both, "intra": both, "at_bound": (0.0, 0.0)}


def agreement(found: np.ndarray, own: np.ndarray, other: np.ndarray) -> tuple[float, float, bool]:
    """Recovery, cross-talk, and whether the estimate is constant, over the pairs of different genes.

    Recovery is Pearson with the own truth. Cross-talk is Pearson with what of the other truth the own one does not have
    (semipartial), so that what the two share by chance does not count. A constant estimate scores 0 in both.
    """
    found, own, other = entries(found), entries(own), entries(other)
    if np.ptp(found) == 0:
        return 0.0, 0.0, True
    by = own - own.mean()
    foreign = other - by * (by @ other / (by @ by)) if by.any() else other
    return correlation(found, own), correlation(found, foreign), False


def _recover(settings: dict, switches: dict, n_genes: int, n_cells: int, seed: int, tissue: int) -> list[dict]:
    names = {"kind": "simulated", "n_genes": n_genes, "n_cells": n_cells, "seed": seed, "tissue": tissue}
    inter, intra, _ = draw_forces(
        n_genes,
        stream_seed(seed, "recovery_forces", tissue),
        settings["inter_strength"],
        settings["intra_strength"],
        settings["n_partners"],
    )
    # In the units that estimates are in: as the field's own partial correlations.
    truths = {"inter": 2 * inter, "intra": 2 * intra}
    data, graph = simulate_expression(inter, intra, n_cells, settings, [seed, tissue, n_genes, n_cells])
    rows = []
    for kind, expression in data.items():
        for told, found in _each_method(expression, graph, settings, switches):
            for place, (forces, other) in enumerate((FORCES, FORCES[::-1])):
                row = names | told | {"data": kind, "forces": forces}
                if found is not None:
                    recovery, cross_talk, constant = agreement(found[forces], truths[forces], truths[other])
                    row |= {"recovery": recovery, "cross_talk": cross_talk, "constant": constant}
                    row |= {"at_bound": found["at_bound"][place], "covered": _covered(found, forces, truths[forces])}
                rows.append(row)
    return rows


def _chain(settings: dict, switches: dict, forces: str, seed: int, tissue: int) -> list[dict]:
    n_cells = settings["chain_cells"]
    names = {"kind": "simulated", "n_genes": CHAIN_GENES, "n_cells": n_cells, "seed": seed, "tissue": tissue}
    inter, intra = chain_forces(forces, settings["chain_strength"])
    data, graph = simulate_expression(
        inter, intra, n_cells, settings, [seed, tissue, CHAIN_GENES, n_cells, FORCES.index(forces)]
    )
    unconnected = np.ones((CHAIN_GENES, CHAIN_GENES), dtype=bool)
    unconnected[:3, :3] = False
    rows = []
    for kind, expression in data.items():
        for told, found in _each_method(expression, graph, settings, switches):
            rows.append(names | told | {"data": kind, "forces": forces})
            if found is None:
                continue
            matrix = found[forces]
            links = {"force_12": matrix[0, 1], "force_23": matrix[1, 2], "force_13": matrix[0, 2]}
            real = np.abs([links["force_12"], links["force_23"]])
            others = np.abs(entries(matrix)[entries(unconnected)]).max()
            seen = bool(real.min() > others)
            rows[-1] |= (
                links
                # Of a chain that an estimator does not see, the third link says nothing.
                | {"real_found": seen, "spurious": links["force_13"] / real.mean() if seen else np.nan}
                | {"above_unconnected": bool(abs(links["force_13"]) > others)}
                | {"covered": _covered(found, forces, np.zeros_like(matrix), (0, 2))}
            )
    return rows


def _each_method(expression, graph, settings, switches) -> Iterator[tuple[dict, dict | None]]:
    """What the tables say of each method, and its estimate or None where it refused."""
    for method, protocol in METHODS.items():
        found, told = None, {"method": method, "protocol": protocol, "status": "ok", "reason": ""}
        try:
            found = estimate(method, expression, graph, settings, switches)
        except InputError as error:
            told |= {"status": "failed", "reason": str(error)}
        yield told, found


def _covered(found: dict, forces: str, truth: np.ndarray, pair: tuple[int, int] | None = None) -> float:
    """Share of the pairs of genes, or whether the one pair, whose 95 % interval holds the truth; NaN without errors."""
    if "error" not in found:
        return np.nan
    inside = np.abs(found[forces] - truth) <= 1.959964 * found["error"][forces]
    return float(inside[pair] if pair else entries(inside).mean())
