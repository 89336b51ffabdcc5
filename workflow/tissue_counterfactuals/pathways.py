"""Pathways: how much a change of genes looks like what a pathway does to them, by decoupler, on PROGENy's weights.

PROGENy says of each pathway how strongly genes answer when it is stimulated. The activity of a pathway in a vector over
genes is decoupler's univariate linear model: the t value of the slope of the vector on the weights, genes without a
weight at 0. That t value takes genes for independent; `changes` gives p values that do not.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from tissue_counterfactuals import gene_sets
from tissue_counterfactuals.errors import InputError

COLUMNS = ["source", "target", "weight"]
BUNDLED = gene_sets.WEIGHTS
CHANGES = ["pathway", "n_genes", "activity", "slope", "p_value", "q_value", "status"]


def read_weights(source: str | Path, by_type: bool = False) -> pd.DataFrame:
    """Weights of genes in pathways: columns source (pathway), target (gene symbol), weight.

    Args:
        source: a name of `BUNDLED`, or a table of these columns, separated by tabs or commas, perhaps compressed.
        by_type: a column `cell_type`, if there is one, is read too: a pathway may have other weights in each type.

    Raises:
        InputError: no such file, another table, a gene twice in a pathway, a weight that is no number, or a row without
            a type in a table of types.
    """
    path = Path(BUNDLED.get(str(source), source))
    if not path.is_file():
        raise InputError(
            f"pathway weights {path}: there is no such file; name a table with the columns {', '.join(COLUMNS)}, or "
            f"one of {', '.join(BUNDLED)}."
        )
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"pathway weights {path}: it cannot be read ({error}); give a table of text.") from error
    if missing := [column for column in COLUMNS if column not in table]:
        raise InputError(
            f"pathway weights {path}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}."
        )
    kept = [*COLUMNS, *(["cell_type"] if by_type and "cell_type" in table else [])]
    table = table[kept].assign(weight=pd.to_numeric(table["weight"], errors="coerce"))
    for wrong, what in (
        (~np.isfinite(table["weight"]), "has no number as its weight"),
        (table.duplicated([column for column in kept if column != "weight"]), "is there twice"),
        (table.get("cell_type", pd.Series("all", table.index)) == "", "has no cell type"),
    ):
        if wrong.any():
            row = table[wrong.to_numpy()].iloc[0]
            raise InputError(
                f"pathway weights {path}: gene {row['target']!r} of pathway {row['source']!r} {what}; mend that line."
            )
    return table


def fitting(genes: Iterable[str]) -> str | None:
    """Which of `BUNDLED` has the symbols of these genes: that of the species; None where neither has one."""
    genes = set(genes)
    found = {name: len(genes & {*read_weights(name)["target"]}) for name in BUNDLED}
    best = max(found, key=found.get)
    return best if found[best] else None


def within(weights: pd.DataFrame, genes: Iterable[str], least: int = 5) -> pd.DataFrame:
    """The rows of a table of weights (see `read_weights`) of these genes, of pathways that have at least so many of
    them.
    """
    own = weights[weights["target"].isin(set(genes))]
    return own[own.groupby("source")["target"].transform("size") >= least]


def activities(values: pd.DataFrame, weights: pd.DataFrame, least: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Activity of pathways in vectors over genes: decoupler's univariate linear model.

    Args:
        values: (rows, genes), columns are symbols. weights: of `read_weights`.
        least: genes that a pathway must have among the columns.

    Returns:
        Scores (t values) and p values (adjusted over the pathways of a row, as decoupler does; they take genes for
        independent), each (rows, pathways). No columns where no pathway has enough genes.
    """
    net = within(weights, values.columns, least)
    if net.empty:
        empty = pd.DataFrame(index=values.index)
        return empty, empty.copy()
    import decoupler  # slow to import

    scores, adjusted = decoupler.mt.ulm(data=values.astype(float), net=net, tmin=least)
    # decoupler makes the names of rows text.
    return scores.set_axis(values.index), adjusted.set_axis(values.index)


def slope_test(change: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope of a change on the weights of each pathway, and its p value (two-sided t test), (k,) each.

    The standard error of a slope is the root mean square of the same slope in errors of other predictions, and their
    number the degrees of freedom: errors that genes share count as often as they are shared.

    Args:
        change: (g,). errors: (n, g). weights: (g, k), 0 for genes that are not in a pathway.
    """
    design = weights - weights.mean(axis=0)
    slopes = np.vstack([change, errors]) @ design / (design**2).sum(axis=0)
    error = np.sqrt((slopes[1:] ** 2).mean(axis=0))
    return slopes[0], 2 * stats.t.sf(np.abs(slopes[0]) / np.maximum(error, 1e-12), len(errors))


def changes(
    change: np.ndarray,
    errors: np.ndarray,
    genes: pd.Index,
    weights: pd.DataFrame,
    least: int = 5,
) -> pd.DataFrame:
    """Pathways that a predicted change looks like, tested against how far such predictions are off.

    Genes of a pathway err together, so a test that takes genes for independent finds pathways in noise: see
    `slope_test`.

    Args:
        change: (g,) predicted. errors: (types, g) observed minus predicted change of types whose answer is known.

    Returns:
        pathway, n_genes, activity (decoupler), slope (change per unit of weight), p_value, q_value
        (Benjamini-Hochberg), smallest p value first. Or a row whose `status` says why there is none.
    """
    net = within(weights, genes, least)
    reason = None
    if net.empty:
        reason = f"not applicable: no pathway has {least} of the {len(genes)} genes"
    elif not len(errors):
        reason = "not applicable: no method gave intervals, so nothing says how far off a pathway can be"
    elif np.ptp(change) == 0:
        reason = "not applicable: nothing changes"
    if reason:
        return pd.DataFrame([{"status": reason}]).reindex(columns=CHANGES)
    matrix = net.pivot(index="target", columns="source", values="weight").reindex(genes).fillna(0.0)
    slopes, p_values = slope_test(change, errors, matrix.to_numpy())
    scores, _ = activities(pd.DataFrame([change], columns=genes), net, least)
    table = pd.DataFrame(
        {
            "pathway": matrix.columns,
            "n_genes": net.groupby("source").size()[matrix.columns].to_numpy(),
            "activity": scores.iloc[0][matrix.columns].to_numpy(),
            "slope": slopes,
            "p_value": p_values,
            "q_value": gene_sets.benjamini_hochberg(p_values),
            "status": "ok",
        }
    )
    return table.sort_values(["p_value", "pathway"], ignore_index=True)[CHANGES]
