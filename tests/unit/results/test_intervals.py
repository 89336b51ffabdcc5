"""The figure of intervals: what it shows of each fold, and what it says where there are none."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, panel, png_size, texts
from slides import small_slide
from synthetic_scores import CELL_TYPES, SLIDES, synthetic_scores
from tasks import Question
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.results.figures import intervals, style
from tissue_counterfactuals.results.tables import FOLD, write_tsv
from tissue_counterfactuals.slide import write_slide

CHOICE = ("demo", "tumour", "corrected")


@pytest.fixture(scope="module")
def scores():
    """Cellina with intervals under two donor rules, of which one is published."""
    scores = synthetic_scores()
    some = scores.query("method == 'cellina' and variant in ['published', 'any_type']")
    some = some[some["metric"] == "rmse_lfc"]
    rng, tables = np.random.default_rng(0), [scores]
    for metric in (
        "coverage",
        *intervals.LEVELS,
        "interval_width",
        "abstained",
        "rmse_lfc_answered",
    ):
        value = rng.uniform(0.7, 1, len(some)) * np.where(some["variant"] == "published", 1, 0.1)
        tables.append(some.assign(metric=metric, value=value))
    return pd.concat(tables, ignore_index=True)


def composed(scores):
    return intervals.compose(scores, *CHOICE, PROVENANCE, intervals.per_fold(scores, *CHOICE), "demo")


def test_a_row_is_a_fold_under_the_published_donors_with_its_seeds_averaged(scores):
    table = intervals.per_fold(scores, *CHOICE).set_index(["method", *FOLD])
    assert len(table) == len(SLIDES) * len(CELL_TYPES)
    one = scores.query("method == 'cellina' and variant == 'published' and metric == 'coverage'")
    one = one[(one["slide"] == SLIDES[0]) & (one["cell_type"] == CELL_TYPES[0])]
    key = ("cellina", SLIDES[0], CELL_TYPES[0])
    assert table.loc[key, "coverage"] == pytest.approx(one["value"].mean())
    assert table.loc[key, "n_seeds"] == len(one)


def test_it_draws_every_fold_in_every_panel(scores, tmp_path):
    figure = composed(scores)
    table = intervals.per_fold(scores, *CHOICE)
    drawn = panel(figure, "By fold").collections[0].get_offsets()
    np.testing.assert_allclose(sorted(drawn[:, 0]), sorted(table["coverage"]))
    levels = panel(figure, "By expression level").collections
    for dots, level in zip(levels, intervals.LEVELS, strict=True):
        np.testing.assert_allclose(sorted(dots.get_offsets()[:, 1]), sorted(table[level]))
    lines = panel(figure, "Error of what is answered").lines
    ends = sorted(tuple(line.get_ydata()) for line in lines)
    np.testing.assert_allclose(ends, sorted(zip(table["rmse_lfc"], table["rmse_lfc_answered"], strict=True)))
    assert any("demo [simulated]" in text for text in texts(figure))
    style.save(figure, tmp_path / "a.png")
    assert png_size(tmp_path / "a.png")[0] == 1800


def test_without_intervals_it_says_so():
    figure = composed(synthetic_scores())
    assert "No method gave intervals here." in texts(figure)


def test_a_single_fold_is_drawn_too(scores):
    one = scores[(scores["slide"] == SLIDES[0]) & (scores["cell_type"] == CELL_TYPES[0])]
    figure = composed(one)
    assert len(panel(figure, "By expression level").collections[0].get_offsets()) == 1


def finished(root, slide, folds):
    """What a run of ridge with three seeds leaves: inputs of the figure, and the record of the data set."""
    tables, inputs = [], {"slides": [root / "s.h5ad"], "questions": [], "predictions": []}
    write_slide(slide, root / "s.h5ad")
    for fold in folds:
        for seed in range(3):
            question = Question(root / f"{fold.label}{seed}", slide, fold, seed=seed, n_donors=5)
            question.predict("ridge")
            if not tables:
                tables.append(question.score().assign(cell_type=fold.cell_type))
            run = root / "{}" / "d" / "s" / fold.label / f"corrected.seed{seed}"
            for kind, suffix, file in (
                ("questions", ".npz", question.file),
                ("predictions", "/core.h5ad", question.folder / "predictions.h5ad"),
            ):
                path = Path(str(run).format(kind) + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                inputs[kind].append(file.rename(path))
    config = {"datasets": {"d": {"target_domains": ["right"]}}, "switches": {}}
    record = {
        "dataset": "d",
        "label": "d",
        "kind": "simulated",
        "n_cells": 9,
        "seeds": [0, 1, 2],
        "commit": "a",
        "config_hash": "b",
        "config": config,
    }
    inputs |= {"manifest": root / "manifest.json", "scores": root / "scores.tsv"}
    inputs["manifest"].write_text(json.dumps(record))
    write_tsv(pd.concat(tables), inputs["scores"])
    return inputs, record


@pytest.fixture(scope="module")
def run_files(tmp_path_factory):
    """Four types."""
    slide = small_slide(n_cells=240, types=tuple("ABCD"))
    return finished(tmp_path_factory.mktemp("run"), slide, [Fold(label, "left", ("right",)) for label in "ABCD"])


def test_patients_of_a_joint_model_are_folds_of_their_own(tmp_path):
    slide = small_slide(n_cells=300, samples=("one", "two"))
    folds = [Fold("A", "left", ("right",), name, (name,)) for name in ("one", "two")]
    inputs, _ = finished(tmp_path, slide, folds)
    output = {"tsv": tmp_path / "t.tsv", "png": tmp_path / "t.svg"}
    intervals.draw_files(inputs, output, "right", "corrected")
    table = pd.read_csv(output["tsv"], sep="\t").query("interval == 'ensemble'")
    assert table["slide"].tolist() == ["one", "two"]
    assert table["cell_type"].tolist() == ["A", "A"]


def test_a_method_without_intervals_gets_them_from_its_seeds_and_from_other_types(run_files, tmp_path):
    output = {"tsv": tmp_path / "t.tsv", "png": tmp_path / "t.svg"}
    intervals.draw_files(run_files[0], output, "right", "corrected")
    table = pd.read_csv(output["tsv"], sep="\t")
    assert set(table["method"]) == {"ridge"}
    assert table.groupby("interval").size().to_dict() == {"conformal": 4, "ensemble": 4}
    assert (table["n_seeds"] == 3).all()
    assert set(table.loc[table["interval"] == "conformal", "n_types"]) == {3}
    assert table["coverage"].between(0.6, 1).all()
    assert (table.loc[table["interval"] == "ensemble", "interval_width"] > 0).all()
    drawn = output["png"].read_text()
    assert "from its seeds" in drawn
    assert "from its errors for other types" in drawn
    assert "own" not in set(table["interval"])


def test_with_one_seed_and_few_types_no_prediction_is_read(run_files):
    inputs, record = run_files
    few = inputs | {"questions": [p for p in inputs["questions"] if p.parts[-2] in "ABC"], "predictions": ["missing"]}
    assert intervals.derived(few, record | {"seeds": [0]}, "right", "corrected") == []
    with pytest.raises(OSError, match="missing"):
        intervals.derived(few | {"predictions": [Path("d/s/A/corrected.seed0/missing")]}, record, "right", "corrected")
