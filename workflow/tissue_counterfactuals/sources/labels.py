"""What a label is, for every layout: how it is cleaned, when it is missing, when it is none; and benchmark labels.

Planning a run reads labels, so that nothing slow to import may stand at the top.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import RESOURCES

if TYPE_CHECKING:
    import pandas as pd

# How tools write a missing label as text, in small letters: pandas, R, Excel, JSON, databases.
MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def is_missing(text: object) -> bool:
    """Whether a label says that there is none."""
    return not isinstance(text, str) or clean_label(text).lower() in MISSING


def clean_label(text: str) -> str:
    """A label on one line: line breaks, tabs and other control characters become a space, and none stands at an end."""
    return _CONTROL.sub(" ", text).strip()


def tidy_labels(
    codes: np.ndarray, categories: list[str], what: str = "label", notes: list[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Labels cleaned, those that say that there is none taken for missing, those that are equal then merged.

    Args:
        codes: (n,), -1 where the label is missing; categories in any order, each maybe more than once.
        what: what sentences call the labels.
        notes: where a sentence goes about every label that was changed or taken for missing.
    Returns:
        codes (n,) int32 and categories, in the order in which they stood.
    """
    place, kept = np.full(len(categories) + 1, -1, dtype=np.int32), {}
    sizes = np.bincount(codes[codes >= 0], minlength=len(categories))
    for i, stored in enumerate(categories):
        label, sentence = clean_label(stored), ""
        if is_missing(label):
            sentence = f"{sizes[i]} cells have the {what} {stored!r}, which was taken for missing"
        else:
            place[i] = kept.setdefault(label, len(kept))
            if label != stored:
                sentence = f"the {what} {stored!r} was read as {label!r} ({sizes[i]} cells)"
        if sentence and sizes[i] and notes is not None:
            notes.append(sentence)
    return place[codes], list(kept)


def are_ids(labels: int, cells: int) -> bool:
    """Whether labels name single cells: more than 20 of them, with fewer than 3 cells each on average."""
    return labels > 20 and 3 * labels > cells


def refuse_ids(labels: int, cells: int, what: str, where: str) -> None:
    """Raise where labels are ids (`are_ids`): nothing can be grouped by them.

    Raises:
        InputError: they are.
    """
    if are_ids(labels, cells):
        raise InputError(
            f"{where}: {what} has {labels:,} different values in {cells:,} cells, so that it names single cells and no "
            "groups of cells; name another column."
        )


def map_labels(column: pd.Categorical, name: str, table: str, where: str) -> tuple[pd.Categorical, dict[str, int]]:
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
    import pandas as pd

    rules = pd.read_csv(RESOURCES / table, sep="\t", dtype=str, keep_default_na=False)
    rules = rules[rules["column"] == name]
    new = list(dict.fromkeys(rules["label"]))
    place = np.full(len(column.categories) + 1, -1)
    for i, stored in enumerate(column.categories):
        fits = (new.index(row.label) for row in rules.itertuples() if fnmatchcase(stored, row.stored))
        place[i] = next(fits, -1)
    codes = place[column.codes]
    sizes = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
    unknown = {stored: int(sizes[i]) for i, stored in enumerate(column.categories) if place[i] < 0 and sizes[i]}
    if not (codes >= 0).any():
        raise InputError(
            f"{where}: no label of the obs column {name!r} stands in resources/{table} (the column has "
            f"{tell(unknown) or 'no labels at all'}); add them to the table or use the published file."
        )
    return pd.Categorical.from_codes(codes, new), unknown


def tell(unknown: dict[str, int]) -> str:
    """Labels with their numbers of cells as text, the eight most frequent ones first."""
    ordered = sorted(unknown.items(), key=lambda item: -item[1])
    shown = [f"{label} ({n:,})" for label, n in ordered[:8]]
    return ", ".join(shown) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")
