"""One patient and one type left out: who trains, who is asked, and that nothing of the patient is learnt from."""

import json

import numpy as np
import pytest
from scipy import sparse

from slides import small_slide
from tasks import Question
from tissue_counterfactuals import steps
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question.folds import Fold, list_folds, patients_of, read_folds
from tissue_counterfactuals.question.question import read_question
from tissue_counterfactuals.slide import read_slide

SAMPLES = ("one", "two", "three", "four")
# Two sections are of one patient.
NAMED = {"P": ["two", "three"]}
DATASET = {
    "control_domain": "left",
    "target_domains": ["right"],
    "holdout": {"cell_types": ["A"], "min_cells": 2},
    "fit": "leave_patient_out",
    "patients": NAMED,
}
FOLD = Fold("A", "left", ("right",), "P", ("three", "two"))
LEARNED = ("cellina", "hierarchical", "ridge", "celcomen", "spatialprop")
FIXED = ("no_change", "mean_shift", "mean_shift_by_type", "nearest_neighbor", "ceiling")


def test_a_sample_without_a_patient_is_one_and_names_are_checked():
    assert patients_of(SAMPLES, NAMED) == {"P": ("three", "two"), "four": ("four",), "one": ("one",)}
    for named, message in (
        ({"P": ["five"]}, "'P' has the sample 'five', which no cell has"),
        ({"P": ["one"], "Q": ["one"]}, "sample 'one' is said to be of 'P' and of 'Q'"),
        ({"one": ["two"]}, "'one' names a patient and a sample of another one"),
    ):
        with pytest.raises(InputError, match=message):
            patients_of(SAMPLES, named)
    with pytest.raises(InputError, match="all cells are of one patient"):
        list_folds(small_slide(), "s", "left", ["right"], patients={"P": ("one",)})


def left_out(folder, slide):
    """The fold of patient P and type A of a slide, in files."""
    return Question(folder, slide, FOLD, donor_rules=("published", "any_type", "matched"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    slide = small_slide(n_cells=1200, types=("A", "B", "C", "D", "E"), samples=SAMPLES)
    return left_out(tmp_path_factory.mktemp("clean"), slide)


def test_the_table_has_a_fold_for_each_patient(asked):
    table = read_folds(asked.folds)
    assert table["fold"].tolist() == ["A.without.P", "A.without.four", "A.without.one"]
    assert json.loads(table["samples"][0]) == ["three", "two"]
    obs = read_slide(asked.slide).obs
    own = (obs["cell_type"] == "A") & obs["sample"].isin(["two", "three"])
    assert table["n_target"].astype(int)[0] == (own & (obs["domain"] == "right")).sum()


def test_who_trains_and_who_is_asked(asked):
    task = asked.task
    obs, split = task.slide.obs, task.split
    patient = obs["sample"].isin(["two", "three"]).to_numpy()
    answers = ((obs["cell_type"] == "A") & (obs["domain"] == "right")).to_numpy()
    assert np.array_equal(split.held_out, patient | answers)
    assert np.array_equal(task.focal, np.flatnonzero(patient & (obs["cell_type"] == "A") & (obs["domain"] == "left")))
    assert np.array_equal(task.target_cells("right"), np.flatnonzero(patient & answers))
    for rule in ("published", "any_type", "matched"):
        donors = np.unique(task.question.donors("right")[rule])
        # Cells of the patient, and none that is the answer.
        assert patient[donors].all()
        assert not answers[donors].any()
    graph = task.masked_graph
    assert not np.diff(graph.indptr)[answers].any()
    # The twin stands among the patient's own cells.
    assert np.diff(graph.indptr)[task.focal].all()
    again = read_question(asked.file).fold
    assert (again.patient, again.samples, again.label) == ("P", ("three", "two"), "A.without.P")


def test_nothing_of_the_patient_is_learnt_from(asked, tmp_path):
    """Other counts in all the patient's cells: every model that is trained is the same."""
    slide = read_slide(asked.slide)
    counts = slide.X.toarray()
    patient = asked.task.split.held_out
    counts[patient] = counts[patient][:, ::-1] * 5 + 1
    slide.X = sparse.csr_matrix(counts)
    poisoned = left_out(tmp_path, slide)
    for method in LEARNED:
        clean, dirty = (question.fit(method) for question in (asked, poisoned))
        files = [f for f in sorted(clean.iterdir()) if f.suffix in (".npz", ".pt")]
        assert files, method
        for file in files:
            assert file.read_bytes() == (dirty / file.name).read_bytes(), (method, file.name)


def test_every_method_answers_and_scores_bear_the_patient(asked):
    made = asked.predict(*LEARNED, *FIXED)
    task = asked.task
    for (method, target, variant), values in made.items():
        assert np.isfinite(values).all(), (method, variant)
        if method != "ceiling":
            assert len(values) == len(task.focal), (target, method)
    # New neighbours matter to a model that reads them, also in a sample that it never saw.
    assert not np.array_equal(made["ridge", "right", "any_type"], made["ridge", "right", "no_intervention"])
    scores = asked.score()
    assert set(scores["slide"]) == {"P"}
    assert set(scores["method"]) == {*LEARNED, *FIXED}


def test_the_twin_listens_to_neighbours_of_the_patients_own(asked, tmp_path):
    """Other counts in the patient's cells of other types, which nothing is learnt from, and in the answers."""
    slide, task = read_slide(asked.slide), asked.task
    counts, answers = slide.X.toarray(), task.target_cells("right")
    neighbours = np.flatnonzero(slide.obs["sample"].isin(FOLD.samples) & (slide.obs["cell_type"] != "A"))
    own = asked.predict("spatialprop", "cellina")
    for changed in (neighbours, answers):
        other = counts.copy()
        other[changed] = counts[changed][:, ::-1] * 5 + 1
        slide.X = sparse.csr_matrix(other)
        made = left_out(tmp_path / str(changed[0]), slide).predict("spatialprop", "cellina")
        for method in ("spatialprop", "cellina"):
            key = method, "right", "no_intervention"
            differs = (made[key] != own[key]).any(axis=1)
            assert differs.mean() > 0.9 if changed is neighbours else not differs.any(), method


def test_a_method_that_knows_only_the_cells_it_was_trained_on_says_nothing_of_others(asked, tmp_path):
    concert, sentence = METHODS["concert"].adapter, "CONCERT has no vector for cells that it was not trained on"
    with pytest.raises(ValueError, match=sentence):
        concert.fit(asked.task, tmp_path)
    with pytest.raises(ValueError, match=sentence):
        concert.predict(asked.task, tmp_path, "right")


def test_genes_are_chosen_without_the_patient():
    slide = small_slide(n_cells=300, samples=SAMPLES)
    masks = steps.held_out_masks(DATASET | {"experiments": ["cellina"]})(slide)
    assert set(masks) == {"A.without.P", "A.without.four", "A.without.one"}
    patient = slide.obs["sample"].isin(["two", "three"]).to_numpy()
    assert masks["A.without.P"][patient].all()
    assert masks["A.without.P"].sum() > patient.sum()
