"""`budget: equal`: every method takes the same optimiser steps, whatever its batches and its own patience."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from slides import small_slide
from tasks import CELLINA, SECTIONS, make_task
from tissue_counterfactuals.methods import METHODS, cpa, mintflow, scgen, scvi, scvi_tools, scviva
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
    # To the nearest whole epoch.
    assert max(steps.values()) == pytest.approx(STEPS, abs=max(steps.values()) / n_epochs)
    own = tmp_path / "own"
    own.mkdir()
    METHODS[name].adapter.fit(task, own)
    assert len(pd.read_csv(own / "history.tsv", sep="\t")) < n_epochs


def test_stages_share_the_budget():
    told = []
    task = make_task(small_slide(n_cells=300), report=told.append)
    assert task.epochs(100, n_batches=4) == 100
    equal = replace(task, steps=120)
    assert [equal.epochs(100, n_batches=4, stages=n) for n in (1, 2, 3)] == [30, 15, 10]
    assert equal.epochs(100, n_batches=500) == 1
    assert told[-2:] == ["epochs: 10 of 4 steps, for a share of 40", "epochs: 1 of 500 steps, for a share of 120"]
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


class Package:
    """In place of a model of a guest: writes down how long it is told to train."""

    trained = []

    def __init__(self, cells, **options):
        self.cells, self.history, self.epoch_history = cells, {}, pd.DataFrame()

    @classmethod
    def from_scvi_model(cls, model, **options):
        return cls(model.cells)

    @staticmethod
    def setup_anndata(*arguments, **options):
        pass

    preprocessing_anndata = setup_anndata

    def train(self, **options):
        self.trained.append(options)

    def save(self, *arguments, **options):
        pass

    def get_latent_representation(self):
        return np.zeros((self.cells.n_obs, 1))


@pytest.fixture
def trained(monkeypatch):
    """The arguments of every training that a guest begins, without a guest."""
    monkeypatch.setattr(Package, "trained", [])
    monkeypatch.setitem(sys.modules, "scvi.model", SimpleNamespace(SCVI=Package, SCANVI=Package))
    monkeypatch.setitem(sys.modules, "scvi.external", SimpleNamespace(SCVIVA=Package))
    monkeypatch.setattr(scgen, "_package", lambda: SimpleNamespace(SCGEN=Package))
    monkeypatch.setattr(cpa, "_package", lambda device: SimpleNamespace(CPA=Package))
    for module in (scvi, scviva, scgen, cpa, scvi_tools):
        monkeypatch.setattr(module, "seed_everything", lambda *arguments: None)
    return Package.trained


@pytest.mark.parametrize(
    ("name", "stages", "warms_up"),
    [("scvi", 1, True), ("scanvi", 2, True), ("scviva", 3, True), ("scgen", 1, False), ("cpa", 1, False)],
)
def test_a_guest_is_told_to_take_the_steps_of_the_budget(name, stages, warms_up, trained, tmp_path):
    section = METHODS[name].settings
    task = make_task(small_slide(n_cells=300), settings=SECTIONS[section] | {"batch_size": 64})
    n_batches = -(-int(task.split.train.sum()) // 64)
    METHODS[name].adapter.fit(task, tmp_path)
    own = trained.copy()
    trained.clear()
    METHODS[name].adapter.fit(replace(task, steps=60 * n_batches), tmp_path)
    assert len(own) == len(trained) == stages
    for usual, equal in zip(own, trained, strict=True):
        assert usual["max_epochs"] == task.settings["max_epochs"]
        assert equal["max_epochs"] == 60 // stages
        assert equal["batch_size"] == usual["batch_size"] == 64
        # Patience ends nothing: none, or as many epochs as there are.
        assert usual["early_stopping_patience"] == task.settings["early_stopping_patience"]
        assert equal.get("early_stopping_patience", 60) == 60
        assert equal.get("early_stopping", False) is False
        share = 60 / stages / task.settings["max_epochs"]
        phases = equal.get("plan_kwargs", {})
        if name == "cpa":
            for phase, key in {"n_epochs_pretrain_ae": "pretrain", "n_epochs_adv_warmup": "adversary_warmup"}.items():
                assert usual["plan_kwargs"][phase] == task.settings[f"{key}_epochs"] > 0
                assert phases[phase] == round(share * task.settings[f"{key}_epochs"]) > 0
        else:
            assert phases == ({"n_epochs_kl_warmup": round(400 * share)} if warms_up else {})


def test_mintflow_anneals_over_the_epochs_of_the_budget(monkeypatch, tmp_path):
    """Its phases are shares of the epochs that it is told of before its model is made."""
    told, taken = [], []
    sections = [SimpleNamespace(pyg_dl_train=range(n)) for n in (4, 6)]
    configuration = {"config_training": {"numsteps_accumgrad": 2}}
    package = SimpleNamespace(
        setup_data=lambda *_, **__: {"train_list_tissue_section": SimpleNamespace(list_slice=sections)},
        setup_model=lambda dict_all4_configs, **_: told.append(
            dict_all4_configs["config_training"]["num_training_epochs"]
        ),
        Trainer=lambda **_: SimpleNamespace(train_one_epoch=lambda: taken.append(1)),
        dump_checkpoint=lambda **_: None,
    )
    monkeypatch.setattr(mintflow, "_package", lambda: package)
    monkeypatch.setattr(mintflow, "_configuration", lambda *_: configuration)
    monkeypatch.setattr(mintflow, "seed_everything", lambda seed: None)
    task = make_task(small_slide(n_cells=200), settings=SECTIONS["mintflow"], report=lambda line: None)
    mintflow.fit(task, tmp_path)
    assert told == [len(taken)] == [task.settings["epochs"]]
    taken.clear()
    # 2 x 6 turns and one more before the longer section runs out: six steps.
    mintflow.fit(replace(task, steps=30), tmp_path)
    assert told[1:] == [len(taken)] == [5]


def test_mintflows_steps_are_counted_as_it_takes_them():
    assert mintflow.steps_of_epoch([6], 2) == 3
    # One batch is no step: it would be left untrained.
    with pytest.raises(ValueError, match="make 1 in an epoch. Make mintflow.window_um smaller"):
        mintflow.steps_of_epoch([1], 2)
    assert [mintflow.steps_of_epoch(n, 1) for n in ([4, 4], [5, 4], [4, 5])] == [9, 10, 11]
