"""The figure of intervals: what it shows of each fold, and what it says where there are none."""

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, panel, png_size, texts
from synthetic_scores import CELL_TYPES, SLIDES, synthetic_scores
from tissue_counterfactuals.results.figures import intervals, style

CHOICE = ("demo", "tumour", "corrected")


@pytest.fixture(scope="module")
def scores():
    """Cellina with intervals under two donor rules, of which one is published."""
    scores = synthetic_scores()
    some = scores.query("method == 'cellina' and variant in ['published', 'any_type']")
    some = some[some["metric"] == "rmse_lfc"]
    rng, tables = np.random.default_rng(0), [scores]
    for metric in ("coverage", *intervals.LEVELS, "abstained", "rmse_lfc_answered"):
        value = rng.uniform(0.7, 1, len(some)) * np.where(some["variant"] == "published", 1, 0.1)
        tables.append(some.assign(metric=metric, value=value))
    return pd.concat(tables, ignore_index=True)


def test_a_row_is_a_fold_under_the_published_donors_with_its_seeds_averaged(scores):
    table = intervals.per_fold(scores, *CHOICE)
    assert len(table) == len(SLIDES) * len(CELL_TYPES)
    one = scores.query("method == 'cellina' and variant == 'published' and metric == 'coverage'")
    one = one[(one["slide"] == SLIDES[0]) & (one["cell_type"] == CELL_TYPES[0])]
    key = ("cellina", SLIDES[0], CELL_TYPES[0])
    assert table.loc[key, "coverage"] == pytest.approx(one["value"].mean())


def test_it_draws_every_fold_in_every_panel(scores, tmp_path):
    figure = intervals.compose(scores, *CHOICE, PROVENANCE)
    table = intervals.per_fold(scores, *CHOICE).loc["cellina"]
    drawn = panel(figure, "By fold").collections[0].get_offsets()
    np.testing.assert_allclose(sorted(drawn[:, 0]), sorted(table["coverage"]))
    levels = panel(figure, "By expression level").collections
    for dots, level in zip(levels, intervals.LEVELS, strict=True):
        np.testing.assert_allclose(sorted(dots.get_offsets()[:, 1]), sorted(table[level]))
    lines = panel(figure, "Error of what is answered").lines
    ends = sorted(tuple(line.get_ydata()) for line in lines)
    np.testing.assert_allclose(ends, sorted(zip(table["rmse_lfc"], table["rmse_lfc_answered"], strict=True)))  # fmt: skip
    assert any("demo [simulated]" in text for text in texts(figure))
    style.save(figure, tmp_path / "a.png")
    assert png_size(tmp_path / "a.png")[0] == 1500


def test_without_intervals_it_says_so():
    figure = intervals.compose(synthetic_scores(), *CHOICE, PROVENANCE)
    assert "No method gave intervals here." in texts(figure)


def test_a_single_fold_is_drawn_too(scores):
    one = scores[(scores["slide"] == SLIDES[0]) & (scores["cell_type"] == CELL_TYPES[0])]
    figure = intervals.compose(one, *CHOICE, PROVENANCE)
    assert len(panel(figure, "By expression level").collections[0].get_offsets()) == 1
