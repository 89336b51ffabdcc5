"""Writes the feature matrices of 10x, as HDF5 and as a folder of Matrix Market."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp


def write_10x_h5(path: Path, counts: np.ndarray, barcodes: list[str], names: list[str], types: list[str]) -> None:
    """Counts (barcodes, features) as Cell Ranger 3 and later writes them: features x barcodes, by columns."""
    matrix = sp.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes, "S")
        group["data"] = matrix.data.astype(np.int32)
        group["indices"] = matrix.indices.astype(np.int64)
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["shape"] = np.array([len(names), len(barcodes)], dtype=np.int32)
        features = group.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(len(names))], "S")
        features["name"] = np.array(names, "S")
        features["feature_type"] = np.array(types, "S")
        features["genome"] = np.array(["Unknown"] * len(names), "S")


def write_10x_folder(folder: Path, counts: np.ndarray, barcodes: list[str], names: list[str], types: list[str]) -> None:
    """The same as matrix.mtx.gz, barcodes.tsv.gz and features.tsv.gz."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as stream:
        scipy.io.mmwrite(stream, sp.coo_matrix(counts.T), field="integer")
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as stream:
        stream.writelines(f"{barcode}\n" for barcode in barcodes)
    with gzip.open(folder / "features.tsv.gz", "wt") as stream:
        for i, (name, kind) in enumerate(zip(names, types, strict=True)):
            stream.write(f"ENSG{i:011d}\t{name}\t{kind}\n")
