"""What latents hold of cell type and domain (Cellina, Fig. A5), for every method that has latents.

All methods are trained on all cells of the data set and looked at on the same random cells, and no score is scaled to
the methods at hand. Beside scIB's bio-conservation stand two measures that the paper lacks: a linear probe on cells
that it was not fitted on, and mutual information. Domains differ in their cell types, so that what tells types apart
tells domains apart too: `f1_within_type` is the probe for the domain among cells of one type.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.experiments import preparation
from tissue_counterfactuals.metrics.latents import PROBED, conservation, mutual_information, probe_f1
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.streams import stream

LABELS = ("cell_type", "domain")
COLUMNS = ["method", "latent", "label", "metric", "value", "n_cells", "status", "reason"]
# Cells of which distances between all pairs are taken.
_MOST_PAIRED = 5000
# Cells that a type needs for a probe of its own.
_MIN_OF_TYPE = 50


def run(
    slide: Path,
    latents: list[Path],
    entry: dict,
    protocol: str,
    seed: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Scores (TSV) of every latent of every method for both labels, and where they come from (JSON).

    A method without latents is a row with its reason.

    Args:
        latents: what `methods/run.py latents` left in each environment.
        settings: section cellina_experiments.disentanglement of the configuration.
    """
    cells, seed = read_slide(slide, check=False), int(seed)
    found, failures = read_latents(latents)
    order = stream(seed, "cells_with_latents").permutation(cells.n_obs)
    chosen = np.sort(order[: settings["n_cells"]])
    labels = {name: cells.obs[name].astype(str).to_numpy()[chosen] for name in LABELS}
    batch = cells.obs["sample"].astype(str).to_numpy()[chosen]
    rows = []
    for method in settings["methods"]:
        if method in failures:
            rows.append({"method": method, "status": "failed", "reason": failures[method]})
            continue
        for latent, values in found[method].items():
            print(f"{method}: {latent}")
            names = {"method": method, "latent": latent, "n_cells": len(chosen), "status": "ok"}
            for row in scores(values[chosen], labels, batch, seed):
                rows.append(names | row)
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, [seed], settings | {"switches": switches}
    )
    table = preparation.keyed(pd.DataFrame(rows).reindex(columns=COLUMNS), record, seed)
    write_tsv(table, outputs["scores"], sort=False)


def read_latents(paths: list[Path]) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Method -> latent -> (n, d), and method -> why it has none."""
    found, failures = {}, {}
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            failures |= json.loads(str(file["failures"]))
            for name in file.files:
                method, _, latent = name.partition("/")
                if latent:
                    found.setdefault(method, {})[latent] = file[name]
    return found, failures


def scores(latent: np.ndarray, labels: dict[str, np.ndarray], batch: np.ndarray, seed: int) -> list[dict]:
    """A row (label, metric, value) for each measure of one latent (n, d); labels by name and batch are (n,) text."""
    latent = np.asarray(latent, np.float64)
    shuffled = stream(seed, "cells_of_probe").permutation(len(latent))
    train, test = np.split(shuffled, [round(0.8 * len(latent))])
    some = shuffled[:_MOST_PAIRED]
    rows = []

    def add(label: str, **values: float) -> None:
        rows.extend({"label": label, "metric": m, "value": v} for m, v in values.items())

    for label, names in labels.items():
        add(label, **conservation(latent, names, batch, seed))
        add(label, **probe_f1(latent, names, train, test, seed))
        _, counts = np.unique(names[some], return_counts=True)
        share = counts / counts.sum()
        information = mutual_information(latent[some], names[some])
        add(label, mutual_information=information, entropy=-(share * np.log(share)).sum())
    add("domain", **_within_types(latent, labels, train, test, seed))
    return rows


def _within_types(latent, labels, train, test, seed) -> dict[str, float]:
    """Means over cell types of a probe for the domain among their cells, and of its chance."""
    found = []
    for name in np.unique(labels["cell_type"]):
        fit, tried = (part[labels["cell_type"][part] == name] for part in (train, test))
        if len(fit) + len(tried) < _MIN_OF_TYPE or len(np.unique(labels["domain"][tried])) < 2:
            continue
        found.append(probe_f1(latent, labels["domain"], fit, tried, seed))
    return {f"{m}_within_type": float(np.mean([f[m] for f in found])) if found else np.nan for m in PROBED}
