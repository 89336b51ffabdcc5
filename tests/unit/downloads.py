"""Small files in the true formats, and a table of data sets that points at a local server."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import h5py
import numpy as np

from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.sources.downloads.table import COLUMNS


def hdf5(n_bytes: int = 300_000, seed: int = 0) -> bytes:
    """A whole HDF5 file of about this size that does not compress."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["values"] = np.frombuffer(np.random.default_rng(seed).bytes(n_bytes), np.uint8)
    return stream.getvalue()


def gzipped(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return stream.getvalue()


def write_table(path: Path, *rows: dict) -> Path:
    """A table of data sets; a row says only what differs from an h5ad file of data set `set`."""
    common = {
        "dataset": "set",
        "role": "h5ad",
        "verified": "no",
        "by_hand": "Click Download on the page",
    }
    with open(path, "w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, restval="", delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(common | row for row in rows)
    return path


def settings(folder: Path, **changes) -> dict:
    """The block `downloads` of a configuration, all in one folder; it gives up soon."""
    own = {
        "folder": str(folder / "downloads"),
        "lock": str(folder / "lock.tsv"),
        "attempts": 3,
        "timeout_s": 2,
        "backoff_s": 0.01,
    }
    simulated = {"source": "simulated", "experiments": ["celcomen_spleen"]}
    return load_config({"datasets": {"x": simulated}, "downloads": own | changes})["downloads"]
