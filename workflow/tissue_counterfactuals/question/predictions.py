"""Predictions on disk: an h5ad with a row per method, target, variant and cell, written and read variant by variant.

On a large slide all variants together are more than memory holds, so each goes to the file as soon as it is made and
is read back when it is scored.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from tissue_counterfactuals.files import atomic_path

KEY = ["method", "target", "variant"]
ATTENTION = "attention"
_CHUNK = 1 << 18  # numbers, 1 MB


class PredictionWriter:
    """What `write_predictions` gives; `notes` becomes uns, a list of records under each name."""

    def __init__(self, file: h5py.File, n_genes: int):
        self.notes: dict[str, list[dict]] = {}
        self.attention: dict[str, dict] = {}
        self._labels: list[pd.DataFrame] = []
        self._values = file.create_dataset(
            "X",
            (0, n_genes),
            np.float32,
            maxshape=(None, n_genes),
            chunks=(max(1, _CHUNK // n_genes), n_genes),
        )
        self._values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    def add(self, key: dict[str, str], cells: pd.Index, values: np.ndarray) -> None:
        """Append a variant: `key` names it by KEY, `values` are (cells, genes)."""
        start = len(self._values)
        self._values.resize(start + len(values), axis=0)
        self._values[start:] = values
        self._labels.append(pd.DataFrame(key | {"cell": cells}))

    def add_attention(self, key: dict[str, str], cells, neighbors, weights) -> None:
        """Whom the cells (m,) of a variant listen to: see `Prediction.attention`; all are indices of the slide's
        cells.
        """
        arrays = {"cells": cells.astype(np.int32), "neighbors": neighbors, "weights": weights}
        self.attention[str(len(self.attention))] = {"key": json.dumps(key)} | arrays

    def labels(self) -> pd.DataFrame:
        """A row of obs for each row of X."""
        empty = pd.DataFrame(columns=[*KEY, "cell"], dtype=str)
        obs = pd.concat(self._labels, ignore_index=True) if self._labels else empty
        obs.index = obs.index.astype(str)
        return obs.astype("category")


@contextmanager
def write_predictions(path: str | Path, genes: pd.Index) -> Iterator[PredictionWriter]:
    """Write an h5ad of predictions; the file appears whole or not at all."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        writer = PredictionWriter(file, len(genes))
        yield writer
        write_elem(file, "obs", writer.labels())
        write_elem(file, "var", pd.DataFrame(index=genes))
        notes = {k: json.dumps(v) for k, v in writer.notes.items()}
        write_elem(file, "uns", notes | ({ATTENTION: writer.attention} if writer.attention else {}))


class PredictionReader:
    """What `read_predictions` gives; `notes` is what was written there, `genes` are the columns."""

    def __init__(self, file: h5py.File):
        self._values = file["X"]
        self._keys = read_elem(file["obs"])[KEY].astype(str)
        self.genes: pd.Index = read_elem(file["var"]).index
        self._attention = file["uns"].get(ATTENTION, {})
        names = [name for name in file["uns"] if name != ATTENTION]
        self.notes = {name: json.loads(read_elem(file["uns"][name])) for name in names}

    def questions(self) -> list[tuple[str, str, list[str]]]:
        """Method, target and the variants that there are, in the order of the file."""
        return [
            (method, target, own["variant"].unique().tolist())
            for (method, target), own in self._keys.groupby(KEY[:2], sort=False)
        ]

    def attention(self, method: str, target: str) -> dict[str, tuple[np.ndarray, ...]]:
        """Variant -> cells (m,), neighbours (m, k), weights (m, k, layers), of a method that says whom it listens
        to.
        """
        found = {}
        for entry in self._attention.values():
            key = json.loads(read_elem(entry["key"]))
            if (key["method"], key["target"]) == (method, target):
                arrays = ("cells", "neighbors", "weights")
                found[key["variant"]] = tuple(read_elem(entry[name]) for name in arrays)
        return found

    def values(self, method: str, target: str, variant: str) -> np.ndarray:
        """(cells, genes) float32."""
        wanted = (self._keys == [method, target, variant]).all(axis=1).to_numpy()
        rows = np.flatnonzero(wanted)
        return self._values[rows[0] : rows[-1] + 1]


@contextmanager
def read_predictions(path: str | Path) -> Iterator[PredictionReader]:
    """Open what `write_predictions` wrote."""
    with h5py.File(path, "r") as file:
        yield PredictionReader(file)
