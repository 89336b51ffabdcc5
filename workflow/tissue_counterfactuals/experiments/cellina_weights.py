"""What each weight of the loss does to the latents (Cellina, Fig. A1): one is varied, the others are held.

A random tenth of the cells is kept from training. On them: macro-F1 of a linear probe for cell type and domain, from z
and from s, and the marginal log likelihood. Published is the probe on z alone, in all panels, with the other weights at
1e-7, which is none; that form stands beside the others at 1, as Cellina is used.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from torch.nn import functional as F

from tissue_counterfactuals.experiments import cellina_slides, preparation
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import cellina_gat
from tissue_counterfactuals.metrics.latents import probe_f1
from tissue_counterfactuals.models.cellina import Cellina, CellinaNetwork, classifier
from tissue_counterfactuals.models.cellina_gat import CellinaGAT
from tissue_counterfactuals.models.settings import under_switches
from tissue_counterfactuals.results.tables import write_tsv

# What is varied -> the setting that is its weight; `domain_classifier` and `contrastive` are losses of s.
SWEEPS = {
    "classifier": "lambda_classifier",
    "adversary": "lambda_adversary",
    "domain_classifier": "lambda_contrastive",
    "contrastive": "lambda_contrastive",
}
LABELS = ("cell_type", "domain")
LATENTS = ("z", "s")
OF_Z = ("lambda_classifier", "lambda_adversary")


class NetworkWithDomain(CellinaNetwork):
    """Cellina's network with the classifier of the domain on s that its authors tried and dropped (appendix E).

    Its shape is that of the classifier on z. The loss has the place that graph attention gives its contrastive loss.
    """

    def __init__(self, n_genes: int, n_types: int, n_domains: int, *sizes, **shape):
        super().__init__(n_genes, n_types, n_domains, *sizes, **shape)
        n_latent = self.s_encoder.mean.out_features
        self.domain_classifier = classifier(n_latent, 128, 1, n_domains)

    def encode_sampled(self, batch):
        """As Cellina's, with the cross entropy of the domain in training."""
        encoded = super().encode_sampled(batch)
        if not self.training:
            return encoded
        loss = F.cross_entropy(self.domain_classifier(encoded.s), batch.domain)
        return encoded._replace(contrastive=loss)


class CellinaWithDomain(Cellina):
    """Cellina with `NetworkWithDomain`; `lambda_contrastive` is the weight of the classifier."""

    network_class = NetworkWithDomain


def run(
    slide: Path,
    graph: Path,
    entry: dict,
    protocol: str,
    seed: str,
    swept: str,
    weight: str,
    model: dict,
    gat: dict,
    neighbors: dict,
    device: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """A row (TSV) for each weight of the others, measure, latent and label, and where they come from (JSON).

    Measures: those of `probe_f1` by latent and label; kl by latent, nats per cell; log_likelihood, nats per cell, a
    mean over cells; effective_samples, out of `n_samples`, a median over cells.

    Args:
        swept, weight: the key of SWEEPS, and its weight.
        model, gat: sections cellina and cellina_gat of the configuration; neighbors: settings of the data set's graph.
        settings: section cellina_experiments.weights of the configuration.
    """
    cells, graph, seed = *cellina_slides.read_inputs(slide, graph), int(seed)
    split = cellina_slides.split_slide(cells.n_obs, seed, settings["test_share"])
    labels = {name: cells.obs[name].astype(str).to_numpy() for name in LABELS}
    everyone = np.arange(cells.n_obs)
    test, rest = np.flatnonzero(split.held_out), np.flatnonzero(~split.held_out)
    rows = []
    for others in settings["others"]:
        weights = dict.fromkeys(OF_Z, others) | {SWEEPS[swept]: float(weight)}
        if swept == "contrastive":
            arguments = cellina_gat.arguments(gat, switches)
            nearest = {"max_neighbors": arguments.pop("max_neighbors")}
            if switches["gat_cutoff"] == "none":
                nearest["cutoff"] = 0.0
            heard = slide_graph(cells, **(neighbors | nearest))
            fitted = CellinaGAT(device=device, **(arguments | weights))
            around = fitted.surroundings(heard, cells.X)
        else:
            form = CellinaWithDomain if swept == "domain_classifier" else Cellina
            arguments = under_switches(model, switches)
            fitted, heard = form(device=device, **(arguments | weights)), graph
            around = cellina_slides.own_features(cells, graph, everyone)
        fitted.fit(cells, heard, split, seed=seed, report=print)
        drawn = fitted.latents(cells, everyone, around, switches["latent"], seed)
        names = {"swept": swept, "weight": float(weight), "others": others}
        for latent, values in zip(LATENTS, drawn, strict=True):
            for label in LABELS:
                both = names | {"latent": latent, "label": label}
                probed = probe_f1(values, labels[label], rest, test, seed)
                rows += [both | {"measure": measure, "value": value} for measure, value in probed.items()]
        own = around if swept == "contrastive" else around[test]
        for latent, value in zip(LATENTS, fitted.kl_per_cell(cells, test, own), strict=True):
            rows.append(names | {"latent": latent, "measure": "kl", "value": value})
        likelihood, effective = fitted.marginal_log_likelihood(cells, test, own, settings["n_samples"], seed)
        rows.append(names | {"measure": "log_likelihood", "value": likelihood.mean()})
        rows.append(names | {"measure": "effective_samples", "value": np.median(effective)})
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, [seed],
        settings | {"switches": switches, "cellina": model, "cellina_gat": gat, "graph": neighbors},
    )  # fmt: skip
    columns = ["swept", "weight", "others", "measure", "latent", "label", "value"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table = preparation.keyed(table, record, seed)
    table.insert(2, "slide", Path(slide).stem)
    write_tsv(table, outputs["scores"], sort=False)
