"""Who is held out, and what is refused."""

import numpy as np
import pytest

from slides import small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.folds import (
    Fold,
    cells_of,
    check_folds,
    list_folds,
    split_cells,
)


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
    assert np.array_equal(split.train.astype(int) + split.validation + split.held_out, np.ones(slide.n_obs))
    assert split.validation.sum() == int((~split.held_out).sum() * 0.1)
    again, other = split_cells(slide, fold, seed=3), split_cells(slide, fold, seed=4)
    assert np.array_equal(split.validation, again.validation)
    assert not np.array_equal(split.validation, other.validation)


@pytest.mark.parametrize("fold", [Fold("A\r", "left", ("right",)), Fold("A", "left", ("right", "x"))])
def test_a_fold_that_holds_nothing_out_is_refused(fold):
    with pytest.raises(InputError, match=r"^fold 'A.*no cell of this type in the target domain '(right|x)'"):
        split_cells(small_slide(), fold)


def only(slide, kept):
    """The slide with only so many of its cells of type A in domain right."""
    right = cells_of(slide, "A", "right")
    return slide[np.setdiff1d(np.arange(slide.n_obs), right[kept:])].copy()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone", ["right"]), "slide s: no cell has the domain 'gone'; the domains are left, right"),
        (("left", ["rigt"]), "slide s: no cell has the domain 'rigt'"),
        (("left", ["right"], ["D"]), "slide s: no cell has the type 'D'; the types are A, B, C"),
        (("left", ["right"], "auto", 10_000), "slide s: no cell type has 10000 cells"),
    ],
)  # fmt: skip
def test_a_slide_that_cannot_be_asked_says_why_and_stops_no_other(arguments, message):
    slide = small_slide()
    empty = list_folds(slide, "s", *arguments)
    assert empty["left_out"].str.startswith(message).all()
    good = list_folds(slide, "t", "left", ["right"], "auto", 50)
    types = arguments[2] if len(arguments) > 2 else "auto"
    if types == "auto":
        check_folds("d", {"s": empty, "t": good}, types)
    with pytest.raises(InputError, match=f"data set d: there is nothing to hold out. {message}"):
        check_folds("d", {"s": empty}, types)


def test_a_name_that_no_slide_can_hold_out_is_refused():
    slide = small_slide()
    tables = {"s": list_folds(slide, "s", "left", ["right"], ["A", "D"])}
    with pytest.raises(InputError, match=r"names 'D', which can be held out on no slide \(slide s: no cell"):
        check_folds("d", tables, ["A", "D"])
    check_folds("d", tables, ["A"])


@pytest.mark.parametrize("n", [0, 1, 3, 4])
def test_a_type_with_too_few_cells_to_be_halved_costs_the_other_types_nothing(n):
    slide = only(small_slide(), n)
    folds = list_folds(slide, "s", "left", ["right"], ["A", "B"])
    asked = folds[folds["left_out"] == ""]
    if n == 4:
        assert asked["cell_type"].tolist() == ["A", "B"]
        return
    assert asked["cell_type"].tolist() == ["B"]
    assert f"type 'A' has {n} cell{'s' * (n != 1)} in domain 'right'" in folds["left_out"].iloc[0]
    with pytest.raises(InputError, match="names 'A', which can be held out on no slide"):
        check_folds("d", {"s": folds}, ["A", "B"])
    # On another slide it has enough.
    other = list_folds(small_slide(), "t", "left", ["right"], ["A", "B"])
    check_folds("d", {"s": folds, "t": other}, ["A", "B"])


def test_auto_never_takes_what_cannot_be_halved():
    folds = list_folds(only(small_slide(), 3), "s", "left", ["right"], "auto", min_cells=2)
    asked = folds.loc[folds["left_out"] == "", "cell_type"]
    assert asked.tolist() == ["B", "C"]
