"""A guest: a method in an environment of its own, asked over the command line that the workflow uses."""

import json
import os
import subprocess
from contextlib import contextmanager

import numpy as np
import pandas as pd

from tasks import Question
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.results.figures.table_cellina_1 import METRICS

# Calls the command line once for each line of arguments, in a process of its own, and says how that ended.
_CALLS = """
import importlib, json, os, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
from tissue_counterfactuals.methods.run import main
for line in sys.stdin:
    if not (child := os.fork()):
        try:
            main(json.loads(line))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def calls(interpreter, root, *packages):
    """Call the command line in an interpreter that has loaded what guests build on, longer work than most steps.

    Gives a function of the arguments that returns the exit code. The guests themselves are imported anew in each call.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(root / "workflow")}
    command = [str(interpreter), "-c", _CALLS, *packages]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def call(arguments: list[str]) -> int:
            print(json.dumps(arguments), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield call


class Guest:
    """A fold of a slide, asked in another interpreter."""

    def __init__(self, folder, slide, call, settings, **question):
        self.settings = settings
        self.question = Question(folder, slide, **question)
        assert self.question.task.focal.size  # asking writes the file
        self.folder, self.call = folder, call

    def run(self, step: str, *arguments) -> None:
        """One step on the command line."""
        words = [
            *(step, "--slide", self.question.slide, "--question", self.question.file),
            *("--settings", json.dumps(self.settings), "--device", "cpu"),
            *("--threads", "1", "--log", self.folder / f"{step}.log", *arguments),
        ]
        assert self.call([str(word) for word in words]) == 0, (self.folder / f"{step}.log").read_text()

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
