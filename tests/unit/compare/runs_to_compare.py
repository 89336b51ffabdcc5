"""Score tables of small runs, with chosen numbers, in the places where the workflow puts them."""

import numpy as np
import pandas as pd
import yaml

from tissue_counterfactuals.compare import Tables, published
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.results.tables import COLUMNS, gains, read_scores, summarize, write_tsv

SLIDES = ("120", "210", "221", "231", "232", "242")
TYPES = ("Endothelial", "Epithelial", "Fibroblast", "Myeloid", "T_cell")
# The data sets as they were published.
PAPER = yaml.safe_load(published.SETTINGS.read_text())["datasets"]
PUBLISHED = ("pearson", "signed_precision", "e_distance", "rmse_lfc")


def config(kind="real", of="crc", entry=None, **changes):
    """One data set called `crc`: that of Table 1 (or another of config/paper.yaml), changed, or one in its place."""
    if kind == "simulated":
        # Domains are held against those that the simulation makes.
        entry = {
            "source": "simulated",
            "control_domain": "domain_0",
            "target_domains": ["domain_1"],
        }
    else:
        named = {"kind": kind, "label": "Bowel <i>", "experiments": ["cellina"], "methods": ["cellina"]}
        entry = PAPER[of] | named | (entry or {})
    return load_config({"datasets": {"crc": entry}, "protocols": ["corrected", "as_run"]} | changes)


def scores(answers, kind="real", protocol="as_run", seeds=(0, 1, 2), slides=SLIDES, types=TYPES):
    """Rows of a score table.

    Args:
        answers: (method, variant, metric) -> function of slide, type and seed, or a number.
    """
    rows = []
    for (method, variant, metric), value in answers.items():
        for slide in slides:
            for cell_type in types:
                for seed in seeds:
                    number = value(slide, cell_type, seed) if callable(value) else value
                    rows.append(
                        {"dataset": "crc", "kind": kind, "target": "CRC", "protocol": protocol}
                        | {"slide": slide, "cell_type": cell_type, "seed": seed, "status": "ok"}
                        | {"method": method, "variant": variant, "metric": metric}
                        | {"value": number, "reason": "", "n_control": 9, "n_target": 9}
                    )
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def failed(method, reason, variant="-", protocol="as_run", slides=SLIDES, types=TYPES, seeds=(0,)):
    """Rows of a method that gave nothing, as the scoring step writes them: one for each fold and seed."""
    rows = scores({(method, variant, ""): np.nan}, protocol=protocol, seeds=seeds, slides=slides, types=types)
    return rows.assign(status="failed", reason=reason)


def tables(folder, rows, config, everything=False):
    """The scores of a run below the current folder; `everything` also has the tables that are made of them."""
    place = folder / "results/tables/crc"
    write_tsv(rows, place / "scores.tsv")
    names = ["scores"]
    if everything:
        table = read_scores([place / "scores.tsv"])
        write_tsv(summarize(table), place / "summary.tsv")
        write_tsv(gains(table), place / "gains.tsv")
        names += ["summary", "gains"]
    return Tables(config, [f"results/tables/crc/{name}.tsv" for name in names])


def noisy(mean, spread=0.02, seed=0):
    """Scores that stray from a mean, the same ones for the same fold and seed."""
    rng = np.random.default_rng(seed)
    strays = {}

    def value(*fold):
        return mean + strays.setdefault(fold, rng.normal(0, spread))

    return value
