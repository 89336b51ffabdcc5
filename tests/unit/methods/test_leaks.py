"""Held-out cells reach no prediction: replace their counts on disk, and every method must answer the same."""

import numpy as np
import pytest
from scipy import sparse

from slides import small_slide
from tasks import FOLD, SEES_THE_ANSWER, Question
from tissue_counterfactuals.methods import CORE, METHODS, applicable
from tissue_counterfactuals.question.folds import cells_of

# Guests in environments of their own: tests/guests.
METHODS_OF_A_REAL_SLIDE = [m.name for m in applicable(METHODS, simulated=False) if m.environment == CORE]


def poisoned(slide):
    """The slide with other counts in its held-out cells: the genes in reverse order, and five times as many."""
    held_out = cells_of(slide, FOLD.cell_type, FOLD.targets[0])
    counts = slide.X.toarray()
    counts[held_out] = counts[held_out][:, ::-1] * 5 + 1
    other = slide.copy()
    other.X = sparse.csr_matrix(counts)
    return other


@pytest.fixture(scope="module", params=["corrected", "as_run"])
def both(request, tmp_path_factory):
    """All predictions on a slide and on the poisoned one."""
    slide = small_slide(n_cells=500)
    asked = {"donor_rules": ("published", "any_type", "matched"), "node": {"shifts": ["node"]}}
    return [
        Question(tmp_path_factory.mktemp("q"), s, protocol=request.param, **asked).predict(*METHODS_OF_A_REAL_SLIDE)
        for s in (slide, poisoned(slide))
    ]


def test_no_prediction_depends_on_the_counts_of_held_out_cells(both):
    clean, dirty = both
    assert clean.keys() == dirty.keys()
    assert {key[0] for key in clean} == set(METHODS_OF_A_REAL_SLIDE)
    changed = {key[0] for key in clean if not np.array_equal(clean[key], dirty[key])}
    # Those that are given the answer must notice, or the poison would be none.
    assert changed == SEES_THE_ANSWER & set(METHODS_OF_A_REAL_SLIDE)


def test_the_twin_is_among_what_was_compared(both):
    for method in METHODS_OF_A_REAL_SLIDE:
        if METHODS[method].learned:
            assert (method, "right", "no_intervention") in both[0]
