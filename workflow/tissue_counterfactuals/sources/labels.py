"""Labels of a data set to the labels of its benchmark, by a table in resources/."""

from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import RESOURCES


def map_labels(
    column: pd.Categorical, name: str, table: str, where: str
) -> tuple[pd.Categorical, dict[str, int]]:
    """New labels of a column, and how many cells each label has that the table does not know.

    The table's rows are tried from top to bottom; `stored` may hold * and ? (capitals count).

    Args:
        column: stored labels, missing where a cell has none.
        name: the column as the table and messages call it.
        table: file in resources/ with the columns column, stored, label.
    Returns:
        Labels, missing where the stored one is missing or unknown; unknown label -> cells.
    Raises:
        InputError: no cell has a label that the table knows.
    """
    rules = pd.read_csv(RESOURCES / table, sep="\t", dtype=str, keep_default_na=False)
    rules = rules[rules["column"] == name]
    new = list(dict.fromkeys(rules["label"]))
    place = np.full(len(column.categories) + 1, -1)
    for i, stored in enumerate(column.categories):
        fits = [
            label
            for pattern, label in zip(rules["stored"], rules["label"], strict=True)
            if fnmatchcase(stored, pattern)
        ]
        if fits:
            place[i] = new.index(fits[0])
    codes = place[column.codes]
    sizes = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
    unknown = {
        stored: int(sizes[i])
        for i, stored in enumerate(column.categories)
        if place[i] < 0 and sizes[i]
    }
    if not (codes >= 0).any():
        raise InputError(
            f"{where}: no label of the obs column {name!r} stands in resources/{table} (the column has "
            f"{tell(unknown) or 'no labels at all'}); add them to the table or use the published file."
        )
    return pd.Categorical.from_codes(codes, new), unknown


def tell(unknown: dict[str, int], most: int = 8) -> str:
    """Labels with their numbers of cells as text, the frequent ones first."""
    ordered = sorted(unknown.items(), key=lambda item: -item[1])
    shown = [f"{label} ({n:,})" for label, n in ordered[:most]]
    return ", ".join(shown) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
