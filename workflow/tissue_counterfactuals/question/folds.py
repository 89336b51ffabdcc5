"""Who is held out, who trains, who validates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.streams import stream


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
    compared as whole strings (the authors' code searched for substrings in one place).

    Returns:
        Columns cell_type, control, target, n_control, n_target.

    Raises:
        InputError: an absent domain, a named type that is absent or too small somewhere, or no type at all.
    """
    domains = sorted(slide.obs["domain"].astype(str).unique())
    for key, domain in [("control_domain", control), *(("target_domains", t) for t in targets)]:
        if domain not in domains:
            raise InputError(
                f"slide {name}: {key} names {domain!r}, which no cell has; the domains are {', '.join(domains)}."
            )
    sizes = group_sizes(slide, control, targets)
    if cell_types == "auto":
        chosen = [t for t in sizes.index if (sizes.loc[t] >= min_cells).all()]
        if not chosen:
            best = sizes.min(axis=1).sort_values(ascending=False)
            raise InputError(
                f"slide {name}: no cell type has {min_cells} cells (holdout.min_cells) in {control!r} and in every "
                f"target domain; the largest is {best.index[0]!r} with {best.iloc[0]}: lower holdout.min_cells or "
                "choose other domains."
            )
    else:
        chosen = list(cell_types)
        for cell_type in chosen:
            if cell_type not in sizes.index:
                raise InputError(
                    f"slide {name}: holdout.cell_types names {cell_type!r}, which no cell has; the types are "
                    f"{', '.join(sizes.index)}."
                )
            for domain, size in sizes.loc[cell_type].items():
                if size < 2:
                    raise InputError(
                        f"slide {name}: held-out type {cell_type!r} has {size} cell{'s' * (size != 1)} in domain "
                        f"{domain!r}, and a comparison needs at least 2: remove it from holdout.cell_types or "
                        "choose another domain."
                    )
    rows = [
        (t, control, target, int(sizes.loc[t, control]), int(sizes.loc[t, target]))
        for t in chosen
        for target in targets
    ]
    return pd.DataFrame(rows, columns=["cell_type", "control", "target", "n_control", "n_target"])


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
