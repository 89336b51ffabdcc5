"""Who is held out, and what is refused."""

import numpy as np
import pytest

from slides import small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.folds import Fold, cells_of, list_folds, split_cells


def test_auto_takes_every_type_with_enough_cells_in_both_domains():
    slide = small_slide(n_cells=600)
    folds = list_folds(slide, "s", "left", ["right"], "auto", min_cells=50)
    assert folds["cell_type"].tolist() == ["A", "B", "C"]
    for row in folds.itertuples():
        obs = slide.obs[slide.obs["cell_type"] == row.cell_type]
        assert row.n_control == (obs["domain"] == "left").sum()
        assert row.n_target == (obs["domain"] == "right").sum()


def test_one_model_serves_all_targets_of_a_type():
    slide = small_slide(n_cells=900, domains=("left", "middle", "right"))
    folds = list_folds(slide, "s", "left", ["middle", "right"], ["B"])
    assert folds[["cell_type", "target"]].values.tolist() == [["B", "middle"], ["B", "right"]]
    split = split_cells(slide, Fold("B", "left", ("middle", "right")))
    expected = np.union1d(cells_of(slide, "B", "middle"), cells_of(slide, "B", "right"))
    assert np.array_equal(np.flatnonzero(split.held_out), expected)


def test_split_covers_every_cell_once_and_follows_the_seed():
    slide = small_slide()
    fold = Fold("A", "left", ("right",))
    split = split_cells(slide, fold, seed=3, validation_fraction=0.1)
    assert np.array_equal(
        split.train.astype(int) + split.validation + split.held_out, np.ones(slide.n_obs)
    )
    assert split.validation.sum() == int((~split.held_out).sum() * 0.1)
    again, other = split_cells(slide, fold, seed=3), split_cells(slide, fold, seed=4)
    assert np.array_equal(split.validation, again.validation)
    assert not np.array_equal(split.validation, other.validation)


@pytest.mark.parametrize(
    "fold", [Fold("A\r", "left", ("right",)), Fold("A", "left", ("right", "x"))]
)
def test_a_fold_that_holds_nothing_out_is_refused(fold):
    with pytest.raises(
        InputError, match=r"^fold 'A.*no cell of this type in the target domain '(right|x)'"
    ):
        split_cells(small_slide(), fold)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone", ["right"]), "slide s: control_domain names 'gone', which no cell has; the domains are left, right"),
        (("left", ["rigt"]), "slide s: target_domains names 'rigt'"),
        (("left", ["right"], ["D"]), "holdout.cell_types names 'D', which no cell has; the types are A, B, C"),
        (("left", ["right"], "auto", 10_000), "no cell type has 10000 cells"),
    ],
)  # fmt: skip
def test_names_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        list_folds(small_slide(), "s", *arguments)


def test_a_held_out_type_absent_from_a_domain_or_with_one_cell_there_is_refused():
    slide = small_slide()
    right = cells_of(slide, "A", "right")
    without = slide[np.setdiff1d(np.arange(slide.n_obs), right)].copy()
    with pytest.raises(InputError, match="held-out type 'A' has 0 cells in domain 'right'"):
        list_folds(without, "s", "left", ["right"], ["A"])
    single = slide[np.setdiff1d(np.arange(slide.n_obs), right[1:])].copy()
    with pytest.raises(InputError, match="held-out type 'A' has 1 cell in domain 'right'"):
        list_folds(single, "s", "left", ["right"], ["A"])
