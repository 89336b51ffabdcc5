"""Who is held out, who trains, who validates."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.named import FEWEST_CELLS
from tissue_counterfactuals.streams import stream

FOLD_COLUMNS = ["cell_type", "control", "target", "patient", "samples", "n_control", "n_target", "left_out"]


@dataclass(frozen=True)
class Fold:
    """One leave-one-cell-type-out question: `cell_type` is never seen in any of the `targets`.

    Attributes:
        patient, samples: a patient whose samples are left out whole as well, so that the question is about cells of
            somebody never seen; empty where one slide trains and is asked.
    """

    cell_type: str
    control: str
    targets: tuple[str, ...]
    patient: str = ""
    samples: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What tells the fold from others of the slide; paths are made of it."""
        return f"{self.cell_type}.without.{self.patient}" if self.patient else self.cell_type

    def answers(self, slide: AnnData) -> np.ndarray:
        """Mask (n,) of the type in the targets, in every sample: cells that nobody may see."""
        obs = slide.obs
        return ((obs["cell_type"] == self.cell_type) & obs["domain"].isin(self.targets)).to_numpy()

    def asked_about(self, slide: AnnData) -> np.ndarray:
        """Mask (n,) of the cells that the question is about: those of the patient, or all."""
        if not self.samples:
            return np.ones(slide.n_obs, bool)
        return slide.obs["sample"].isin(self.samples).to_numpy()

    def held_out(self, slide: AnnData) -> np.ndarray:
        """Mask (n,) of the cells that no method is trained on."""
        answers = self.answers(slide)
        return answers | self.asked_about(slide) if self.samples else answers

    def cells(self, slide: AnnData, domain: str) -> np.ndarray:
        """Indices of the cells of the type in a domain, among those that the question is about."""
        found = cells_of(slide, self.cell_type, domain)
        return found[self.asked_about(slide)[found]]


@dataclass(frozen=True)
class Split:
    """Boolean masks over the cells of a slide, each of shape (n,); together they cover every cell once."""

    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


def group_sizes(obs: pd.DataFrame, control: str, targets: list[str]) -> pd.DataFrame:
    """Number of cells of every type (rows) in the control and target domains (columns)."""
    sizes = pd.crosstab(obs["cell_type"].astype(str), obs["domain"].astype(str))
    return sizes.reindex(columns=[control, *targets], fill_value=0)


def patients_of(samples: Iterable[str], named: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Patient -> samples, in sorted order; a sample that is not among those of `named` is a patient of its own.

    Raises:
        InputError: a sample that is not there, or that two patients have, or a patient called like another's sample.
    """
    samples = sorted(set(samples))
    owner: dict[str, str] = {}
    for patient, own in named.items():
        for sample in map(str, own):
            if sample not in samples:
                raise InputError(
                    f"patients: {patient!r} has the sample {sample!r}, which no cell has; the samples are "
                    f"{', '.join(samples)}."
                )
            if owner.setdefault(sample, patient) != patient:
                raise InputError(
                    f"patients: sample {sample!r} is said to be of {owner[sample]!r} and of {patient!r}: keep one."
                )
    for sample in samples:
        if sample not in owner and sample in named:
            raise InputError(f"patients: {sample!r} names a patient and a sample of another one; rename the patient.")
        owner.setdefault(sample, sample)
    return {patient: tuple(s for s in samples if owner[s] == patient) for patient in sorted(set(owner.values()))}


def list_folds(
    slide: AnnData,
    name: str,
    control: str,
    targets: list[str],
    cell_types: str | list[str] = "auto",
    min_cells: int = 100,
    patients: dict[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """The folds of a slide: one row per held-out cell type and target domain, for every patient who is left out.

    `auto` takes every type with at least `min_cells` cells in the control domain and in each target. Domains are
    compared as whole strings (the authors' code searched for substrings in one place). What cannot be asked on this
    slide is left out with the reason and costs the other types, and other slides, nothing; `check_folds` refuses names
    that no slide has.

    Args:
        patients: patient -> samples, each to be left out in turn; None leaves out nobody.

    Returns:
        Columns cell_type, control, target, patient and samples (a JSON list; both empty where nobody is left out),
        n_control, n_target and left_out: empty, or the sentence why this type (or, with an empty cell_type, the slide)
        is left out.

    Raises:
        InputError: one patient only.
    """
    if patients is not None and len(patients) < 2:
        raise InputError(
            f"slide {name}: all cells are of one patient, so that nobody is left to learn from: set fit to per_sample "
            "or pooled, or correct `patients`."
        )
    parts = []
    for patient, samples in (patients or {"": ()}).items():
        obs = slide.obs[slide.obs["sample"].isin(samples)] if samples else slide.obs
        of_whom = f"{name}, patient {patient}" if patient else name
        part = _folds_of(obs, of_whom, control, targets, cell_types, min_cells)
        parts.append(part.assign(patient=patient, samples=json.dumps(samples) if samples else ""))
    return pd.concat(parts, ignore_index=True)[FOLD_COLUMNS]


def _folds_of(obs, name, control, targets, cell_types, min_cells) -> pd.DataFrame:
    present = sorted(obs["domain"].astype(str).unique())
    sizes = group_sizes(obs, control, targets)
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
                f"no cell type has {min_cells} cells (holdout.min_cells) in {control!r} and in every target domain; "
                f"the largest is {best.index[0]!r} with {best.iloc[0]}",
            )
    for cell_type in chosen:
        if cell_type not in sizes.index:
            leave_out(cell_type, f"no cell has the type {cell_type!r}; the types are {', '.join(sizes.index)}")
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
        rows += [(cell_type, control, t, *map(int, sizes.loc[cell_type, [control, t]]), "") for t in targets]
    columns = ["cell_type", "control", "target", "n_control", "n_target", "left_out"]
    return pd.DataFrame(rows, columns=columns)


def read_folds(path: str | Path) -> pd.DataFrame:
    """A table of folds as text; `fold` is the form of the type that paths are made of, empty for what is left out."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def fold_of(rows: pd.DataFrame) -> Fold:
    """The fold of some rows of a table, which differ in their targets alone."""
    first = rows.iloc[0]
    samples = tuple(json.loads(first["samples"] or "[]"))
    return Fold(first["cell_type"], first["control"], tuple(rows["target"]), first["patient"], samples)


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


def split_cells(slide: AnnData, fold: Fold, seed: int = 0, validation_fraction: float = 0.1) -> Split:
    """Split the cells: what the fold holds out, then a random share of the rest for validation.

    As run in the authors' code (test = type in the target domains, validation = 10 % of the others).

    Raises:
        InputError: nothing would be held out in one of the targets.
    """
    held_out = fold.held_out(slide)
    for target in fold.targets:
        if not len(fold.cells(slide, target)):
            raise InputError(
                f"fold {fold.cell_type!r}: the slide has no cell of this type in the target domain {target!r}, so "
                "that nothing would be held out there; run the folds again, or correct the labels of the slide."
            )
    rest = np.flatnonzero(~held_out)
    chosen = stream(seed, "validation_cells").choice(rest, int(len(rest) * validation_fraction), replace=False)
    validation = np.zeros(slide.n_obs, dtype=bool)
    validation[chosen] = True
    return Split(train=~held_out & ~validation, validation=validation, held_out=held_out)


def cells_of(slide: AnnData, cell_type: str, domain: str) -> np.ndarray:
    """Indices of the cells of a type in a domain, ascending."""
    obs = slide.obs
    return np.flatnonzero((obs["cell_type"] == cell_type) & (obs["domain"] == domain))
