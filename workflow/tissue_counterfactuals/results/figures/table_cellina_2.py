"""Table 2 of Cellina: the average over target domains, for each of which Table 1 (A2 in the paper) stands by itself."""

from pathlib import Path

import pandas as pd

from tissue_counterfactuals.results.figures import table_cellina_1 as single
from tissue_counterfactuals.results.tables import EXPERIMENT, few_target_cells, read_scores, spread_failures

NAME = "Table 2 of Cellina"
NOTE = (
    "Average over {}: of their means, and of their standard deviations, as published; folds and failures are summed. "
    "What has no value in one of them has none here. Each target by itself: table_1.*."
)


def draw_files(inputs: dict[str, Path], output: dict[str, Path], protocol: str) -> None:
    """Table 2 of the Cellina paper, as numbers (`tsv`), as text (`md`) and as a picture (`png`); `inputs` as Table
    1's.
    """
    single.draw_table(inputs, output, protocol, build)


def build(inputs: dict[str, Path], record: dict, patients: dict, protocol: str) -> pd.DataFrame:
    """The average of the tables of all target domains of a data set, see `average`."""
    # What failed throughout a target fails there in each variant that it has in others.
    dataset, scores = record["dataset"], spread_failures(read_scores([inputs["scores"]]))
    targets = record["config"]["datasets"][dataset]["target_domains"]
    table = average([single.build(scores, dataset, name, protocol, patients) for name in targets])
    table.attrs["few_cells"] = few_target_cells(
        scores[(scores["dataset"] == dataset) & (scores["protocol"] == protocol)]
    )
    return table


def average(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several targets as one: means of `_mean`, `_std` and `_gain` columns, sums of numbers.

    A method without a value in one of the targets has none here.
    """
    key = [c for c in (*EXPERIMENT, "group", "method", "variant") if c != "target"]
    order = pd.concat(tables)[key].drop_duplicates()
    stacked = pd.concat([order.merge(t, how="left", on=key) for t in tables])
    is_count = [c for c in stacked if c.endswith(("_n", "_undefined", "_improved", "n_failed", "n_folds"))]
    groups = stacked.groupby(key, sort=False)
    result = groups[is_count].sum().astype(int)
    result["n_seeds"] = groups["n_seeds"].max().fillna(0).astype(int)
    result["reason"] = groups["reason"].agg(lambda own: "; ".join(sorted({*own.dropna()} - {""})))
    # Not pandas' mean of a group, which leaves out what is missing.
    others = [c for c in stacked if c not in {*key, *is_count, "target", "n_seeds", "reason"}]
    result[others] = groups[others].agg(lambda own: own.mean(skipna=False))
    for metric in (*single.METRICS, *single.UNBIASED):
        lost = result[f"{metric}_mean"].isna()
        # Where a target failed, it is that which is told, and not that others have no value.
        missing = stacked[f"{metric}_n"].fillna(0) + stacked[f"{metric}_undefined"].fillna(0) == 0
        whole = lost & ~missing.groupby([stacked[k] for k in key], sort=False).any()
        result.loc[whole, f"{metric}_undefined"] += result.loc[whole, f"{metric}_n"]
        result.loc[lost & ~whole, f"{metric}_undefined"] = 0
        result.loc[lost, f"{metric}_n"] = 0
    for metric in single.GAIN_METRICS:
        lost = result[f"{metric}_gain"].isna()
        result.loc[lost, [f"{metric}_gain_n", f"{metric}_gain_improved"]] = 0
    targets = " and ".join(table["target"].iloc[0] for table in tables)
    table = result.reset_index().assign(target=f"average over {targets}")
    table = table[list(tables[0].columns)]
    table.attrs |= {"name": NAME, "note": NOTE.format(targets), "runs": f"{single.RUNS} × target"}
    return table
