"""Held-out cells reach no prediction: replace their counts on disk, and every method must answer the same."""

import numpy as np
import pytest

from slides import poisoned, small_slide
from tasks import SEES_THE_ANSWER, Question
from tissue_counterfactuals.methods import CORE, METHODS, applicable

# Guests in environments of their own: tests/guests.
METHODS_OF_A_REAL_SLIDE = [m.name for m in applicable(METHODS, simulated=False) if m.environment == CORE]


@pytest.fixture(scope="module", params=["corrected", "as_run"])
def both(request, tmp_path_factory):
    """The questions, and all predictions, on a slide and on the poisoned one."""
    slide = small_slide(n_cells=500)
    asked = {"donor_rules": ("published", "any_type", "matched"), "node": {"shifts": ["node"]}}
    questions = [
        Question(tmp_path_factory.mktemp("q"), s, protocol=request.param, **asked) for s in (slide, poisoned(slide))
    ]
    return questions, [question.predict(*METHODS_OF_A_REAL_SLIDE) for question in questions]


def test_no_prediction_depends_on_the_counts_of_held_out_cells(both):
    _, (clean, dirty) = both
    assert clean.keys() == dirty.keys()
    assert {key[0] for key in clean} == set(METHODS_OF_A_REAL_SLIDE)
    changed = {key[0] for key in clean if not np.array_equal(clean[key], dirty[key])}
    # Those that are given the answer must notice, or the poison would be none.
    assert changed == SEES_THE_ANSWER & set(METHODS_OF_A_REAL_SLIDE)


def test_the_twin_is_among_what_was_compared(both):
    _, (made, _) = both
    for method in METHODS_OF_A_REAL_SLIDE:
        if METHODS[method].learned:
            assert (method, "right", "no_intervention") in made


def test_every_prediction_is_scored(both):
    (question, _), (made, _) = both
    scores = question.score()
    assert set(scores["status"]) == {"ok"}
    errors = scores[scores["metric"] == "rmse_lfc"].set_index(["method", "variant"])["value"].astype(float)
    assert set(errors.index) == {(method, variant) for method, _, variant in made}
    assert (errors > 0).all()
