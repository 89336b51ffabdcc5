"""Who is held out, who trains, who validates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.streams import stream

# Ceilings and some scores halve a group, and a comparison needs two cells.
FEWEST_CELLS = 4
FOLD_COLUMNS = ["cell_type", "control", "target", "n_control", "n_target", "left_out"]


@dataclass(frozen=True)
class Fold:
    """One leave-one-cell-type-out question: `cell_type` is never seen in any of the `targets`."""

    cell_type: str
    control: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Boolean masks over the cells of a slide, each of shape (n,); together they cover every cell once."""

    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


def group_sizes(slide: AnnData, control: str, targets: list[str]) -> pd.DataFrame:
    """Number of cells of every type (rows) in the control and target domains (columns)."""
    sizes = pd.crosstab(slide.obs["cell_type"].astype(str), slide.obs["domain"].astype(str))
    return sizes.reindex(columns=[control, *targets], fill_value=0)


def list_folds(
    slide: AnnData,
    name: str,
    control: str,
    targets: list[str],
    cell_types: str | list[str] = "auto",
    min_cells: int = 100,
) -> pd.DataFrame:
    """The folds of a slide: one row per held-out cell type and target domain.

    `auto` takes every type with at least `min_cells` cells in the control domain and in each target. Domains are
    compared as whole strings (the authors' code searched for substrings in one place). What cannot be asked on this
    slide is left out with the reason and costs the other types, and other slides, nothing; `check_folds` refuses names
    that no slide has.

    Returns:
        Columns cell_type, control, target, n_control, n_target and left_out: empty, or the sentence why this type (or,
        with an empty cell_type, the slide) is left out.
    """
    obs = slide.obs
    present = sorted(obs["domain"].astype(str).unique())
    sizes = group_sizes(slide, control, targets)
    rows = []

    def leave_out(cell_type: str, reason: str) -> None:
        rows.append((cell_type, control, "", 0, 0, f"slide {name}: {reason}"))

    absent = [domain for domain in (control, *targets) if domain not in present]
    chosen = list(sizes.index) if cell_types == "auto" else cell_types
    if absent:
        leave_out("", f"no cell has the domain {absent[0]!r}; the domains are {', '.join(present)}")
        chosen = []
    elif cell_types == "auto":
        chosen = [t for t in chosen if (sizes.loc[t] >= min_cells).all()]
        if not chosen:
            best = sizes.min(axis=1).sort_values(ascending=False)
            leave_out(
                "",
                f"no cell type has {min_cells} cells (holdout.min_cells) in {control!r} and in every target domain; the "
                f"largest is {best.index[0]!r} with {best.iloc[0]}",
            )
    for cell_type in chosen:
        if cell_type not in sizes.index:
            leave_out(cell_type, f"no cell has the type {cell_type!r}; the types are {', '.join(sizes.index)}")  # fmt: skip
            continue
        few = [d for d in (control, *targets) if sizes.loc[cell_type, d] < FEWEST_CELLS]
        if few:
            size = int(sizes.loc[cell_type, few[0]])
            leave_out(
                cell_type,
                f"held-out type {cell_type!r} has {size} cell{'s' * (size != 1)} in domain {few[0]!r}, and at least "
                f"{FEWEST_CELLS} are needed, because scores compare halves of them",
            )
            continue
        rows += [
            (cell_type, control, t, *map(int, sizes.loc[cell_type, [control, t]]), "")
            for t in targets
        ]
    return pd.DataFrame(rows, columns=FOLD_COLUMNS)


def read_folds(path: str | Path) -> pd.DataFrame:
    """A table of folds as text; `fold` is the form of the type that paths are made of, empty for what is left out."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def check_folds(dataset: str, tables: dict[str, pd.DataFrame], cell_types: str | list[str]) -> None:
    """Refuse a data set without any fold, and named types that no slide has: before anything is trained.

    Args:
        tables: slide -> its table from `list_folds`.
        cell_types: setting holdout.cell_types.

    Raises:
        InputError: as said.
    """
    every = pd.concat(tables.values())
    reasons = ". ".join(every["left_out"][every["left_out"] != ""].drop_duplicates())
    if (every["left_out"] != "").all():
        raise InputError(
            f"data set {dataset}: there is nothing to hold out. {reasons}. Correct control_domain, target_domains or "
            "holdout."
        )
    if cell_types == "auto":
        return
    asked = set(every.loc[every["left_out"] == "", "cell_type"])
    for cell_type in cell_types:
        if cell_type not in asked:
            own = every.loc[every["cell_type"] == cell_type, "left_out"].drop_duplicates()
            why = f" ({'; '.join(own)})" if len(own) else ""
            raise InputError(
                f"data set {dataset}: holdout.cell_types names {cell_type!r}, which can be held out on no slide{why}: "
                "correct the name or remove it."
            )


def split_cells(
    slide: AnnData, fold: Fold, seed: int = 0, validation_fraction: float = 0.1
) -> Split:
    """Split the cells: the held-out type in every target domain, then a random share of the rest for validation.

    As run in the authors' code (test = type in the target domains, validation = 10 % of the others).

    Raises:
        InputError: nothing would be held out in one of the targets.
    """
    cell_type = slide.obs["cell_type"].astype(str).to_numpy()
    domain = slide.obs["domain"].astype(str).to_numpy()
    held_out = (cell_type == fold.cell_type) & np.isin(domain, fold.targets)
    for target in fold.targets:
        if not held_out[domain == target].any():
            raise InputError(
                f"fold {fold.cell_type!r}: the slide has no cell of this type in the target domain {target!r}, so "
                "that nothing would be held out there; run the folds again, or correct the labels of the slide."
            )
    rest = np.flatnonzero(~held_out)
    chosen = stream(seed, "validation_cells").choice(
        rest, int(len(rest) * validation_fraction), replace=False
    )
    validation = np.zeros(slide.n_obs, dtype=bool)
    validation[chosen] = True
    return Split(train=~held_out & ~validation, validation=validation, held_out=held_out)


def cells_of(slide: AnnData, cell_type: str, domain: str) -> np.ndarray:
    """Indices of the cells of a type in a domain, ascending."""
    obs = slide.obs
    return np.flatnonzero((obs["cell_type"] == cell_type) & (obs["domain"] == domain))
