"""One question to the methods, asked through the steps of the workflow, from files to files.

The only place in which tests put a question together: what a step needs changes here.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.slide import write_slide

FOLD = Fold("A", "left", ("right",))
CELLINA = {"epochs": 3, "batch_size": 64, "n_hidden": 8, "n_latent": 3, "validation_fraction": 0.1}
NAMES = {"dataset": "d", "kind": "simulated", "slide": "s", "protocol": "corrected", "seed": 0}
# What is given to the methods on purpose: nobody may be surprised that they know the held-out cells.
SEES_THE_ANSWER = {"target_mean", "ceiling", "truth_in_place"}


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
    ):
        self.folder, self.fold, self.protocol, self.seed = Path(folder), fold, protocol, seed
        self.switches = switches or {}
        self.settings = {
            "graph": {"max_neighbors": 20} | (graph or {}),
            "cellina": CELLINA | (cellina or {}),
            "device": "cpu",
            "counterfactual": {"donor_rules": donor_rules, "n_donors": n_donors},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._slide, self._graph, self._folds = (
            self.folder / name for name in ("s.h5ad", "s.npz", "folds.tsv")
        )
        write_slide(slide, self._slide)
        steps.build_graph(self._slide, self.settings["graph"], self._graph)
        held_out = {"cell_types": [fold.cell_type]}
        dataset = {
            "control_domain": fold.control,
            "target_domains": list(fold.targets),
            "holdout": held_out,
        }
        steps.write_folds(self._slide, "s", dataset, self._folds)

    @property
    def task(self):
        """The question as a step reads it."""
        switches = {"switches": protocols.resolve(self.protocol, self.switches)}
        files = self._slide, self._graph, self._folds
        return steps.load_task(
            *files, self.fold.cell_type, self.seed, self.settings | switches, lambda line: None
        )

    def fit(self, method: str) -> Path:
        """Train a learned method; the folder that is left."""
        folder = self.folder / method
        steps.fit(method, self.task, folder, self.folder / "checkpoint.pt")
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
        steps.predict(folders, self.task, self.folder / "predictions.h5ad")
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
        predictions = self.folder / "predictions.h5ad"
        steps.score(predictions, self.task, NAMES, n_deg, output, notes)
        return pd.read_csv(output, sep="\t", keep_default_na=False)
