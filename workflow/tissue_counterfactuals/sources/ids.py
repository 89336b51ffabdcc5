"""What identifies a cell in a table: columns known by their names, ids as exact text, and never the number of a row."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError

# Columns that name cells or spots, the surest first; capitals and separators do not count.
_NAMES = (
    *("cellid", "barcode", "entityid", "cell", "barcodes", "cellbarcode", "cellname", "objectid"),
    *("spotid", "spot"),
)
# CosMx numbers the cells of each field of view anew, 0 being what lies outside of cells.
_COSMX = ("fov", "cell_ID")
# The column in which newer exports also name the slide: c_SLIDE_FOV_CELL.
COSMX_CELL = "cell"
# What pandas, R and others call the column that they put before those of a table.
_UNNAMED = re.compile(r"|x|v1|index|level_0|row[ ._]?names?|unnamed: ?\d+|\.\.\.1|__index_level_\d+__", re.IGNORECASE)
# Longest whole number that every floating-point number of its size tells from its neighbours.
_EXACT_DIGITS = 15


def id_columns(names: list[str], path: Path) -> tuple[str, ...]:
    """The columns that name the cells of a table, by their own names; one that has none comes last.

    Raises:
        InputError: there is none.
    """
    if set(_COSMX) <= set(names):
        return _COSMX
    plain = {plain_name(name): name for name in reversed(names)}
    for name in _NAMES:
        if name in plain:
            return (plain[name],)
    if names and is_unnamed(names[0]):
        return (names[0],)
    shown = ", ".join(repr(name) for name in names[:12])
    raise InputError(
        f"file {path}: no column says by its name that it holds the ids of the cells (it has {shown}"
        f"{', ...' * (len(names) > 12)}); call that column cell_id."
    )


def is_unnamed(name: str) -> bool:
    """Whether a column is called as tools call one that has no name: the numbers or names of rows."""
    return _UNNAMED.fullmatch(name) is not None


def plain_name(name: str) -> str:
    """A column's name without capitals and separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def name_cells(columns: pd.DataFrame, path: Path) -> pd.Index:
    """Id of each row (n,), from the columns of `id_columns` as text; missing for rows that are no cells.

    Cells of CosMx are called by field of view and number, "12_345", also where the file says c_1_12_345.

    Raises:
        InputError: an id was saved as a floating-point number, so that it is no longer whole.
    """
    texts = [_exact(columns[name], path) for name in columns]
    if len(texts) == 2:
        fov, cell = texts
        return pd.Index((fov + "_" + cell).where(cell != "0"))
    ids = texts[0].where(~texts[0].str.fullmatch(r"c_\d+_\d+_0", na=False))
    return pd.Index(ids.str.replace(r"^c_\d+_(\d+_\d+)$", r"\1", regex=True), name=columns.columns[0])


def slide_numbers(ids: pd.Series) -> set[str]:
    """The numbers of slides in ids of CosMx that name one (c_SLIDE_FOV_CELL)."""
    return set(ids.str.extract(r"^c_(\d+)_\d+_\d+$")[0].dropna())


def _exact(ids: pd.Series, path: Path) -> pd.Series:
    ids = ids.str.strip()
    rounded = ids.str.fullmatch(r"-?\d+(\.\d+)?[eE]\+\d+", na=False)
    whole = ids.str.fullmatch(r"\d+\.0+", na=False)
    rounded |= whole & (ids.str.find(".") > _EXACT_DIGITS)
    if rounded.any():
        raise InputError(
            f"file {path}: the id {ids[rounded].iloc[0]!r} was saved as a floating-point number, which lost its last "
            "digits; save the ids as text."
        )
    return ids.where(~whole, ids.str.split(".").str[0])


def check_ids(ids: pd.Index, where: str) -> None:
    """Refuse ids by which cells would be matched wrongly; the name of the index is that of their column.

    Raises:
        InputError: an id is missing or not unique, or they only count the rows.
    """
    if ids.hasnans:
        raise InputError(f"{where}: {ids.isna().sum()} rows have no id; use the file as the instrument wrote it.")
    doubled = ids.duplicated()
    if doubled.any():
        first = ids[doubled.argmax()]
        raise InputError(
            f"{where}: the cell id {first!r} occurs {(ids == first).sum()} times ({doubled.sum()} duplicates in all); "
            "use the file as it was published, or make the ids unique."
        )
    if ids.name is not None and is_unnamed(ids.name) and _count_rows(ids):
        raise InputError(
            f"{where}: the column {ids.name!r} only counts the rows ({ids[0]}, {ids[1]}, ...), and no other says by "
            "its name that it holds the ids of the cells; save the file with them in a column called cell_id."
        )


def _count_rows(ids: pd.Index) -> bool:
    """Whether the ids are the numbers from 0 or 1 on, in any order."""
    if len(ids) < 2 or not all(text.isdigit() and len(text) <= len(str(len(ids))) for text in ids):
        return False
    numbers = np.sort(ids.astype(np.int64))
    return numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())
