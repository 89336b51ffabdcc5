"""One question to the methods: in memory, or through the steps of the workflow, from files to files.

The only place in which tests put a question together: what a step needs changes here.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS, run
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.question.question import ask
from tissue_counterfactuals.question.settings import NodeSettings
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.slide import write_slide

FOLD = Fold("A", "left", ("right",))
CELLINA = {"epochs": 3, "batch_size": 64, "n_hidden": 8, "n_latent": 3}
# Other methods, as small; what is not said is their default.
OTHERS = {
    "hierarchical": {"n_components": 3, "min_cells": 20},
    "spatialprop": {"n_hidden": 8, "epochs": 3, "cells_per_type": 20},
    "cellina_gat": CELLINA | {"max_neighbors": 10},
    "concert": {"n_basal": 8, "epochs": 3, "batch_size": 64},
}
NAMES = {"dataset": "d", "kind": "simulated", "slide": "s", "protocol": "corrected", "seed": 0}
SECTIONS = {
    name: Config.model_fields[name].default.model_dump(exclude={"time_limit_minutes"}) | OTHERS.get(name, {})
    for name in {method.settings for method in METHODS.values()} - {None}
}
# What is given to the methods on purpose: nobody may be surprised that they know the held-out cells.
SEES_THE_ANSWER = {name for name, method in METHODS.items() if "in_domain" in method.needs}


def make_task(
    slide: AnnData,
    fold: Fold = FOLD,
    protocol: str = "corrected",
    seed: int = 0,
    donor_rules: tuple[str, ...] = ("published",),
    n_donors: int = 50,
    node: dict | None = None,
    **options,
) -> Task:
    """A question in memory; `node` are keys of `NodeSettings`, `options` those of `Task`."""
    graph = {"max_neighbors": 30}
    question = ask(
        slide,
        slide_graph(slide, **graph),
        fold,
        protocol,
        seed,
        protocols.resolve(protocol),
        graph,
        donor_rules,
        n_donors,
        validation_fraction=0.1,
        node=node and NodeSettings.read(node).model_dump(),
    )
    return Task(slide, question, device="cpu", **options)


class Question:
    """A fold of a slide in a folder of its own.

    `protocol` and `switches` can be changed between two steps, which then read the new ones: that is how a switch of
    one step is told from one of another.
    """

    def __init__(
        self,
        folder: Path,
        slide: AnnData,
        fold: Fold = FOLD,
        protocol: str = "corrected",
        switches: dict[str, str] | None = None,
        seed: int = 0,
        cellina: dict | None = None,
        graph: dict | None = None,
        donor_rules: tuple[str, ...] = ("published",),
        n_donors: int = 10,
        validation_fraction: float = 0.1,
        node: dict | None = None,
    ):
        self.folder, self.fold, self.protocol, self.seed = Path(folder), fold, protocol, seed
        self.switches = switches or {}
        self.settings = SECTIONS | {"cellina": CELLINA | (cellina or {})}
        self.drawn_from = {
            "graph": {"max_neighbors": 20} | (graph or {}),
            "donor_rules": donor_rules,
            "n_donors": n_donors,
            "validation_fraction": validation_fraction,
            "node": NodeSettings.read(node or {}).model_dump(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.slide, self.graph, self.folds, self.file = (
            self.folder / name for name in ("s.h5ad", "s.npz", "folds.tsv", "question.npz")
        )
        write_slide(slide, self.slide)
        steps.build_graph(self.slide, self.drawn_from["graph"], self.graph)
        dataset = {
            "control_domain": fold.control,
            "target_domains": list(fold.targets),
            "holdout": {"cell_types": [fold.cell_type], "min_cells": 2},
        }
        if fold.patient:
            dataset |= {"fit": "leave_patient_out", "patients": {fold.patient: list(fold.samples)}}
        steps.write_folds(self.slide, "s", dataset, self.folds)

    @property
    def task(self) -> Task:
        """The question as a step reads it."""
        switches = protocols.resolve(self.protocol, self.switches)
        settings = self.drawn_from | {"protocol": self.protocol, "switches": switches}
        files = self.slide, self.graph, self.folds
        steps.write_question(*files, self.fold.label, self.seed, settings, self.file)
        return run.load_task(self.slide, self.file, "cpu")

    def fit(self, method: str) -> Path:
        """Train a learned method; the folder that is left."""
        folder, task = self.folder / method, self.task
        task.settings = self.settings.get(METHODS[method].settings, {})
        run.fit(method, task, folder, self.folder / "checkpoint.pt")
        status = json.loads((folder / "status.json").read_text())
        assert status["status"] == "ok", status["reason"]
        return folder

    def predict(self, *methods: str) -> dict[tuple[str, str, str], np.ndarray]:
        """Predictions by method, target and variant, as they stand in the file; fit what is not fitted yet."""
        folders = dict.fromkeys(methods)
        for method in methods:
            if METHODS[method].learned:
                folder = self.folder / method
                folders[method] = folder if folder.exists() else self.fit(method)
        settings = {m: self.settings.get(METHODS[m].settings, {}) for m in methods}
        run.predict(folders, self.task, self.folder / "predictions.h5ad", settings)
        with read_predictions(self.folder / "predictions.h5ad") as made:
            assert not made.notes["failures"], made.notes["failures"]
            return {
                (method, target, variant): made.values(method, target, variant)
                for method, target, variants in made.questions()
                for variant in variants
            }

    def score(self, n_deg: int = 10) -> pd.DataFrame:
        """The scores of what was predicted last."""
        output, notes = self.folder / "scores.tsv", self.folder / "scores.diagnostics.tsv"
        predictions = [self.folder / "predictions.h5ad"]
        switches = protocols.of_step(protocols.resolve(self.protocol, self.switches), "metrics")
        steps.score(predictions, self.task, switches, NAMES, n_deg, output, notes)
        return pd.read_csv(output, sep="\t", keep_default_na=False)
