"""What each weight of the loss does to the latents (Cellina, Fig. A1): one is varied, the others are held.

A random tenth of the cells is kept from training. On them: macro-F1 of a linear probe for cell type and domain, from z
and from s, and the marginal log likelihood. Published is the probe on z alone, in all panels, with the other weights at
1e-7, which is none; that form stands beside the others at 1, as Cellina is used.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.experiments import cellina_slides, preparation
from tissue_counterfactuals.metrics.latents import probe_f1
from tissue_counterfactuals.results.tables import write_tsv

# What is varied -> the setting that is its weight.
SWEEPS = {"classifier": "lambda_classifier", "adversary": "lambda_adversary"}
LABELS = ("cell_type", "domain")
LATENTS = ("z", "s")


def run(
    slide: Path,
    graph: Path,
    entry: dict,
    protocol: str,
    seed: str,
    swept: str,
    weight: str,
    model: dict,
    device: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """A row (TSV) for each weight of the others, measure, latent and label, and where they come from (JSON).

    Measures: f1 and guess_f1 (that of naming the most frequent label) by latent and label; kl by latent, nats per cell;
    log_likelihood, nats per cell, and effective_samples, out of `n_samples`, both medians over cells but for the first,
    which is the mean.

    Args:
        swept, weight: the key of SWEEPS, and its weight.
        settings: section cellina_experiments.weights of the configuration.
    """
    cells, graph, seed = *cellina_slides.read_inputs(slide, graph), int(seed)
    split = cellina_slides.split_slide(cells.n_obs, seed, settings["test_share"])
    labels = {name: cells.obs[name].astype(str).to_numpy() for name in LABELS}
    everyone = np.arange(cells.n_obs)
    features = cellina_slides.own_features(cells, graph, everyone)
    test, rest = np.flatnonzero(split.held_out), np.flatnonzero(~split.held_out)
    rows = []
    for others in settings["others"]:
        weights = dict.fromkeys(SWEEPS.values(), others) | {SWEEPS[swept]: float(weight)}
        fitted = cellina_slides.fit(cells, graph, split, model, switches, seed, device, **weights)
        drawn = fitted.latents(cells, everyone, features, switches["latent"], seed)
        names = {"swept": swept, "weight": float(weight), "others": others}
        for latent, values in zip(LATENTS, drawn, strict=True):
            for label in LABELS:
                f1, guess = probe_f1(values, labels[label], rest, test)
                both = names | {"latent": latent, "label": label}
                rows += [both | {"measure": "f1", "value": f1}]
                rows += [both | {"measure": "guess_f1", "value": guess}]
        own = features[test]
        for latent, value in zip(LATENTS, fitted.kl_per_cell(cells, test, own), strict=True):
            rows.append(names | {"latent": latent, "measure": "kl", "value": value})
        likelihood, effective = fitted.marginal_log_likelihood(
            cells, test, own, settings["n_samples"], seed
        )
        rows.append(names | {"measure": "log_likelihood", "value": likelihood.mean()})
        rows.append(names | {"measure": "effective_samples", "value": np.median(effective)})
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, [seed],
        settings | {"switches": switches, "cellina": model},
    )  # fmt: skip
    columns = ["swept", "weight", "others", "measure", "latent", "label", "value"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table = preparation.keyed(table, record, seed)
    table.insert(2, "slide", Path(slide).stem)
    write_tsv(table, outputs["scores"], sort=False)
