"""The question as a file: drawn once, read by everybody, in any interpreter."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from slides import small_slide
from tasks import FOLD, Question, make_task
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.donors import DONOR_RULES, edge_perturbation
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.question.question import fingerprint, read_question, write_question

TARGETS = Fold("A", "left", ("middle", "right"))


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=900, domains=("left", "middle", "right"))


@pytest.fixture(scope="module")
def asked(slide):
    rules = ("published", "any_type", "matched")
    return make_task(slide, TARGETS, seed=3, donor_rules=rules, n_donors=60).question


def test_it_holds_the_split_and_the_donors_that_the_rules_draw(slide, asked):
    split = split_cells(slide, TARGETS, 3)
    for name in ("train", "validation", "held_out"):
        assert np.array_equal(getattr(asked.split, name), getattr(split, name))
    graph = make_task(slide, replace(TARGETS, targets=())).masked_graph
    focal = cells_of(slide, "A", "left")
    assert np.array_equal(asked.focal, focal)
    for target in TARGETS.targets:
        donors = asked.donors(target)
        assert tuple(donors) == DONOR_RULES
        for rule, drawn in donors.items():
            expected = edge_perturbation(slide, graph, split, "A", target, focal, rule, n_donors=60, seed=3)
            assert np.array_equal(drawn, expected.donors)


def test_what_is_read_is_what_was_written_and_the_same_bytes(asked, tmp_path):
    for name in ("a", "b"):
        write_question(asked, tmp_path / name / "q.npz")
    assert (tmp_path / "a/q.npz").read_bytes() == (tmp_path / "b/q.npz").read_bytes()
    found = read_question(tmp_path / "a/q.npz")
    for key in ("fold", "protocol", "seed", "switches", "graph", "fingerprint"):
        assert getattr(found, key) == getattr(asked, key)
    assert np.array_equal(found.focal, asked.focal)
    assert np.array_equal(found.split.validation, asked.split.validation)
    assert found.perturbations.keys() == asked.perturbations.keys()
    for key, donors in asked.perturbations.items():
        assert np.array_equal(found.perturbations[key], donors)


def test_a_rule_without_donors_leaves_its_reason_and_other_perturbations_have_room(asked, tmp_path):
    effects = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    more = {
        ("donors", "right", "published"): "there are too few",
        ("effects", "right", "by_type"): effects,
    }
    write_question(replace(asked, perturbations=more), tmp_path / "q.npz")
    found = read_question(tmp_path / "q.npz")
    assert found.donors("right") == {"published": "there are too few"}
    assert found.donors("middle") == {}
    assert np.array_equal(found.perturbations["effects", "right", "by_type"], effects)


@pytest.mark.parametrize("change", ["cell", "gene", "label", "place", "order", "counts"])
def test_the_slide_is_known_by_everything_but_its_counts(slide, asked, change):
    other = slide.copy()
    if change == "cell":
        other.obs_names = ["other", *slide.obs_names[1:]]
    elif change == "gene":
        other.var_names = ["other", *slide.var_names[1:]]
    elif change == "label":
        labels = slide.obs["cell_type"].astype(str).to_numpy()
        labels[0] = "B" if labels[0] != "B" else "C"
        other.obs["cell_type"] = pd.Categorical(labels)
    elif change == "place":
        other.obsm["spatial"][5, 1] += 0.5
    elif change == "order":
        other = slide[::-1].copy()
    else:
        other.X = slide.X * 2
    assert (fingerprint(other) == asked.fingerprint) is (change == "counts")
    if change != "counts":
        with pytest.raises(InputError, match="question q: it was asked about another slide"):
            asked.check(other, "q")


def test_reading_and_predicting_needs_numpy_scipy_and_anndata_alone(tmp_path):
    """An interpreter in which nothing else can be imported reads the question and writes predictions."""
    question = Question(tmp_path, small_slide(n_cells=400))
    assert question.task.fold == FOLD
    code = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numba", "pydantic", "jsonschema", "scanpy", "sklearn", "filelock"):
            raise ImportError(name)
sys.meta_path.insert(0, Guard())
from pathlib import Path
from tissue_counterfactuals.methods import run
folder = Path(sys.argv[1])
task = run.load_task(folder / "s.h5ad", folder / "question.npz", "cpu")
run.predict({"no_change": None, "mean_shift": None}, task, folder / "predictions.h5ad")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(question.score()["method"]) == {"no_change", "mean_shift"}
