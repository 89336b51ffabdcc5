"""A guest: a method in an environment of its own, asked over the command line that the workflow uses."""

import json
import os
import subprocess

import numpy as np
import pandas as pd

from tasks import Question
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.results.figures.table_cellina_1 import METRICS


class Guest:
    """A fold of a slide, asked in another interpreter."""

    def __init__(self, folder, slide, interpreter, root, settings, **question):
        self.settings = settings
        self.question = Question(folder, slide, **question)
        assert self.question.task.focal.size  # asking writes the file
        self.folder, self.interpreter, self.root = folder, interpreter, root

    def run(self, step: str, *arguments) -> None:
        """One step on the command line."""
        command = [
            *(self.interpreter, "-m", "tissue_counterfactuals.methods.run", step),
            *("--slide", self.question.slide, "--question", self.question.file),
            *("--settings", json.dumps(self.settings), "--device", "cpu"),
            *("--threads", "1", "--log", self.folder / f"{step}.log", *arguments),
        ]
        environment = os.environ | {"PYTHONPATH": str(self.root / "workflow")}
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + (self.folder / f"{step}.log").read_text()

    def fit(self, method: str, *arguments):
        """The folder that a training leaves."""
        folder = self.folder / method / "corrected.seed0"
        places = ("--output", folder, "--checkpoint", self.folder / "c.pt")
        self.run("fit", "--method", method, *places, *arguments)
        status = json.loads((folder / "status.json").read_text())
        assert status["status"] == "ok", status["reason"]
        return folder

    def scored(self) -> set[tuple[str, str]]:
        """Methods and variants of the last predictions that have a finite score by every metric of the table."""
        scores = self.question.score()
        assert set(scores["status"]) == {"ok"}, set(scores["reason"])
        values = pd.to_numeric(scores["value"]).groupby([scores["method"], scores["variant"], scores["metric"]]).first()
        shown = values.unstack("metric")[list(METRICS)]
        return set(shown.index[np.isfinite(shown).all(axis=1)])

    def predict(self, *methods: str) -> dict:
        """Method and variant -> predicted counts."""
        output = self.folder / "predictions.h5ad"
        models = [self.folder / method / "corrected.seed0" for method in methods]
        self.run("predict", "--controls", "--models", *models, "--output", output)
        with read_predictions(output) as made:
            assert made.notes["failures"] == []
            return {
                (method, variant): made.values(method, target, variant)
                for method, target, variants in made.questions()
                for variant in variants
            }
