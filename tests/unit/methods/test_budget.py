"""`budget: equal`: every method takes the same optimiser steps, whatever its batches and its own patience."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from slides import small_slide
from tasks import CELLINA, SECTIONS, make_task
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.models import concert, spatialprop, training

STEPS = 24
SMALL = {
    "cellina": SECTIONS["cellina"] | CELLINA | {"epochs": 2, "patience": 1, "learning_rate": 1e-12},
    "cellina_ablated": SECTIONS["cellina"] | CELLINA | {"epochs": 2, "patience": 1, "learning_rate": 1e-12},
    "cellina_gat": SECTIONS["cellina_gat"] | {"epochs": 2, "patience": 1, "learning_rate": 1e-12},
    "spatialprop": SECTIONS["spatialprop"] | {"epochs": 2, "batch_size": 40},
    "concert": SECTIONS["concert"] | {"epochs": 2, "patience": 1, "learning_rate": 1e-12},
}


@pytest.fixture
def steps(monkeypatch):
    """Counts what optimisers do; of two that take turns, the one that does most."""
    taken = {}
    step = torch.optim.Adam.step

    def counted(self, *arguments, **options):
        taken[id(self)] = taken.get(id(self), 0) + 1
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    return taken


@pytest.mark.parametrize("name", SMALL)
def test_a_method_takes_the_steps_of_the_budget(name, steps, tmp_path):
    task = make_task(small_slide(n_cells=400), settings=SMALL[name], report=lambda line: None)
    METHODS[name].adapter.fit(replace(task, steps=STEPS), tmp_path)
    n_epochs = len(pd.read_csv(tmp_path / "history.tsv", sep="\t"))
    # To the next whole epoch.
    assert max(steps.values()) == pytest.approx(STEPS, abs=max(steps.values()) / n_epochs)
    own = tmp_path / "own"
    own.mkdir()
    METHODS[name].adapter.fit(task, own)
    assert len(pd.read_csv(own / "history.tsv", sep="\t")) < n_epochs


def test_stages_share_the_budget():
    task = make_task(small_slide(n_cells=300))
    assert task.epochs(100, n_batches=4) == 100
    equal = replace(task, steps=120)
    assert [equal.epochs(100, n_batches=4, stages=n) for n in (1, 2, 3)] == [30, 15, 10]
    assert equal.epochs(100, n_batches=500) == 1
    assert (task.patience(5, 30), equal.patience(5, 30), equal.patience(None, 30)) == (5, 30, None)


def test_the_weight_of_cellinas_kl_rises_as_far_as_without_a_budget(tmp_path):
    settings = SMALL["cellina_ablated"] | {"epochs": 100, "learning_rate": 1e-3}
    task = make_task(small_slide(n_cells=400), settings=settings, report=lambda line: None)
    METHODS["cellina_ablated"].adapter.fit(replace(task, steps=60), tmp_path)
    history = pd.read_csv(tmp_path / "history.tsv", sep="\t")
    own = training.TrainingSettings(epochs=100).beta(100)
    last = history["beta"].iloc[-1] * len(history) / (len(history) - 1)
    assert last == pytest.approx(own, rel=0.05)


def test_batches_are_counted_as_they_are_made():
    assert [concert.n_batches(n, 64) for n in (10, 90, 100, 640)] == [1, 1, 2, 10]
    assert [spatialprop.n_batches(n, 40) for n in (10, 60, 61)] == [1, 2, 2]
