"""A score table with plausible numbers for tests of tables and figures: no model is run."""

import numpy as np
import pandas as pd

from drawings import PROVENANCE
from tissue_counterfactuals import protocols
from tissue_counterfactuals.results.figures import figure_cellina_a2, table_cellina_1
from tissue_counterfactuals.results.tables import COLUMNS, KEY, choose, spread_failures

CELL_TYPES = ("B cell", "Endothelial", "Epithelial", "Fibroblast", "T cell")
SLIDES = ("slide_0", "slide_1")
SEEDS = (0, 1, 2)
DONOR_RULES = ("published", "any_type", "matched")
TWIN = "no_intervention"
FAILURE = "fit: FloatingPointError: the loss is not finite at epoch 3"

# Typical pearson, spearman, signed precision, E-distance, RMSE counts, RMSE LFC.
METRICS = ("pearson", "spearman", "signed_precision", "e_distance", "rmse_counts", "rmse_lfc")
LEVELS = {
    ("no_change", "-"): (np.nan, np.nan, 0.0, 6.2, 0.62, 0.74),
    ("mean_shift", "-"): (0.41, 0.36, 0.16, 24.0, 0.81, 0.92),
    ("mean_shift_by_type", "-"): (0.58, 0.55, 0.27, 9.5, 0.55, 0.60),
    ("target_mean", "-"): (0.99, 0.98, 0.92, 11.0, 0.10, 0.05),
    ("ceiling", "-"): (0.95, 0.94, 0.83, 0.05, 0.12, 0.15),
    ("truth", "published"): (0.78, 0.74, 0.52, 1.1, 0.33, 0.38),
    ("truth", "any_type"): (0.86, 0.83, 0.60, 0.9, 0.28, 0.30),
    ("truth", "matched"): (0.92, 0.90, 0.72, 0.6, 0.20, 0.22),
    ("truth_in_place", "-"): (0.96, 0.95, 0.84, 0.3, 0.13, 0.14),
    ("cellina", "published"): (0.84, 0.80, 0.49, 3.4, 0.36, 0.42),
    ("cellina", "any_type"): (0.85, 0.82, 0.50, 3.3, 0.35, 0.40),
    ("cellina", "matched"): (0.88, 0.85, 0.55, 3.1, 0.31, 0.37),
    ("cellina", TWIN): (0.77, 0.71, 0.38, 4.6, 0.47, 0.55),
    ("cellina_ablated", "published"): (0.70, 0.66, 0.33, 4.0, 0.50, 0.58),
    ("cellina_ablated", "any_type"): (0.70, 0.67, 0.33, 4.0, 0.50, 0.57),
    ("cellina_ablated", "matched"): (0.71, 0.67, 0.34, 3.9, 0.49, 0.57),
    ("cellina_ablated", TWIN): (0.69, 0.66, 0.32, 4.1, 0.50, 0.58),
}


def synthetic_scores(
    cell_types=CELL_TYPES,
    slides=SLIDES,
    seeds=SEEDS,
    failed_method="scgen",
    failed_fold=("cellina_ablated", "Fibroblast"),
    protocol="corrected",
):
    """Scores of all methods on all folds.

    `failed_method` failed in every fold, so it has only rows without variant; `failed_fold` (method, cell type)
    failed on the first slide with every seed. `no_change` has no correlation, as in earnest.
    """
    rng = np.random.default_rng(5)
    common = {"dataset": "demo", "kind": "simulated", "target": "tumour", "protocol": protocol}
    rows = []
    for slide in slides:
        for cell_type in cell_types:
            ease = rng.normal(0, 0.06)
            counts = {"n_control": 410, "n_target": 1_234_567, "n_predicted": 410}
            for (method, variant), levels in LEVELS.items():
                shift = rng.normal(0, 0.015, len(METRICS))
                for seed in seeds:
                    fold = {"slide": slide, "cell_type": cell_type, "method": method, "seed": seed}
                    if (method, cell_type) == failed_fold and slide == slides[0]:
                        continue
                    extra = {"pearson_split": levels[0] - 0.05}
                    if method.startswith("cellina") and variant != TWIN:
                        extra["pearson_twin"] = levels[0] - 0.3
                    for metric, value in extra.items():
                        rows.append(
                            common | fold | counts
                            | {"variant": variant, "metric": metric, "value": value, "status": "ok"}
                        )  # fmt: skip
                    for metric, level, s in zip(METRICS, levels, shift, strict=True):
                        noise = s + rng.normal(0, 0.008) + ease
                        higher = METRICS.index(metric) < 3
                        value = min(level + noise, 1.0) if higher else max(level * (1 - 2 * noise), 0)
                        rows.append(
                            common | fold | counts
                            | {"variant": variant, "metric": metric, "value": value, "status": "ok"}
                        )  # fmt: skip
            lost = [failed_method] if failed_method else []
            if failed_fold and cell_type == failed_fold[1] and slide == slides[0]:
                lost.append(failed_fold[0])
            for method in lost:
                for seed in seeds:
                    fold = {"slide": slide, "cell_type": cell_type, "method": method, "seed": seed}
                    rows.append(
                        common | fold
                        | {"variant": "-", "metric": "", "status": "failed", "reason": FAILURE}
                    )  # fmt: skip
    scores = pd.DataFrame(rows).reindex(columns=COLUMNS)
    scores["reason"] = scores["reason"].fillna("")
    for column in ("n_control", "n_target", "n_predicted"):
        scores[column] = scores[column].astype("Int64")
    return scores.sort_values(KEY, ignore_index=True)


def table_1(scores: pd.DataFrame, dataset: str, target: str, protocol: str) -> pd.DataFrame:
    """Table 1, and which of its methods see the answer: what `draw_table` reads of a configuration."""
    table = table_cellina_1.build(scores, dataset, target, protocol)
    table.attrs["switches"] = protocols.resolve(protocol)
    return table


def bar_figure(scores: pd.DataFrame, protocol: str = "corrected", label: str = "demo"):
    """Fig. A2 of these scores."""
    chosen = spread_failures(choose(scores, "demo", "tumour", protocol))
    return figure_cellina_a2.compose(chosen, figure_cellina_a2.heights(chosen), PROVENANCE, label)
