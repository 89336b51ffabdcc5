"""Writes simulated lesions in the layout of GSE193460: the files of each Visium section, gzipped as GEO has them."""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.simulate.lesions import NORMAL, array_spots

# 49.0 pixels of the full-resolution image are the 100 micrometres between two spots.
PIXELS_PER_UM = 0.49
ACCESSIONS = {"KP_1": "GSM5808054", "KP_2": "GSM5808055", "KP_3": "GSM5808056", "KP_4": "GSM5808057"}
SUFFIXES = {
    "matrix": "filtered_feature_bc_matrix.h5",
    "positions": "tissue_positions_list.csv.gz",
    "scalefactors": "scalefactors_json.json.gz",
    "annotation": "spot_annotation.csv.gz",
    "off_tissue": "off_tissue.csv.gz",
}


def write_perturbmap(
    slide: AnnData,
    folder: Path,
    n_off_tissue: int = 3,
    doubled_symbols: int = 0,
    off_tissue_header: bool = True,
) -> dict[str, dict[str, Path]]:
    """Write each section of a slide from `simulate_lesions` into `folder`.

    As in the real files, the matrix also holds `n_off_tissue` spots that off_tissue.csv.gz lists and the annotation
    lacks, barcodes are in alphabetical order, the table of positions has every spot of the array, and normal tissue
    is annotated NA.

    Args:
        doubled_symbols: how many of the first genes get a second feature, empty, with the same symbol.
        off_tissue_header: whether the list of barcodes begins with a header.
    Returns:
        section -> role (keys of SUFFIXES) -> path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = slide.obs["sample"].astype(str)
    paths = {}
    for section in sorted(set(sections)):
        prefix = f"{ACCESSIONS[section]}_{section}_"
        paths[section] = {role: folder / f"{prefix}{suffix}" for role, suffix in SUFFIXES.items()}
        own = slide[(sections == section).to_numpy()]
        _write_section(paths[section], own, section, n_off_tissue, doubled_symbols, off_tissue_header)
    return paths


def _write_section(paths, slide, section, n_off_tissue, doubled_symbols, off_tissue_header) -> None:
    array = array_spots()
    on_tissue = slide.obs_names.str.removeprefix(f"{section}_")
    off_tissue = array.index.difference(on_tissue)[:n_off_tissue]
    barcodes = np.concatenate([on_tissue, off_tissue])
    # What a spot beside the tissue catches: the counts of some spot on it, thinned.
    stray = sparse.csr_matrix(slide.X[: len(off_tissue)].toarray() // 8)
    counts = sparse.vstack([slide.X, stray], format="csr")
    order = np.argsort(barcodes)
    _write_matrix(paths["matrix"], counts[order], barcodes[order], slide.var_names, doubled_symbols)

    pixels = array[["y_um", "x_um"]].to_numpy() * PIXELS_PER_UM
    positions = pd.DataFrame(
        {
            "barcode": array.index,
            "in_tissue": array.index.isin(barcodes).astype(int),
            "array_row": array["array_row"].to_numpy(),
            "array_col": array["array_col"].to_numpy(),
            "pxl_row_in_fullres": np.rint(pixels[:, 0]).astype(int),
            "pxl_col_in_fullres": np.rint(pixels[:, 1]).astype(int),
        }
    )
    positions.to_csv(paths["positions"], header=False, index=False)

    order = np.argsort(on_tissue)
    annotation = pd.DataFrame(
        {
            "barcode": on_tissue[order],
            "nCount_Spatial": np.asarray(slide.X.sum(axis=1)).ravel().astype(int)[order],
            "nFeature_Spatial": slide.X.getnnz(axis=1)[order],
            "kmeans": np.where(slide.obs["cell_type"] == "tumour", "tumor", "normal")[order],
            "leiden_clusters": slide.obs["domain"].cat.codes.to_numpy()[order],
            "phenotypes": slide.obs["domain"].astype(object).replace(NORMAL, np.nan).to_numpy()[order],
        }
    )  # fmt: skip
    annotation.to_csv(paths["annotation"], index=False, na_rep="NA")
    pd.DataFrame({"barcode": off_tissue}).to_csv(paths["off_tissue"], index=False, header=off_tissue_header)
    with gzip.open(paths["scalefactors"], "wt") as stream:
        scales = {
            "spot_diameter_fullres": 32.3,
            "tissue_hires_scalef": 0.55,
            "fiducial_diameter_fullres": 52.2,
            "tissue_lowres_scalef": 0.165,
        }
        json.dump(scales, stream)


def _write_matrix(path, counts, barcodes, symbols, doubled_symbols) -> None:
    """The h5 of Cell Ranger 3 and later: genes x barcodes, compressed by columns."""
    counts = sparse.csr_matrix(counts)
    names = [*symbols, *symbols[:doubled_symbols]]
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "matrix"
        matrix = file.create_group("matrix")
        matrix["barcodes"] = barcodes.astype("S")
        # Barcodes as rows compressed by rows are genes x barcodes compressed by columns.
        matrix["data"] = counts.data.astype(np.int32)
        matrix["indices"] = counts.indices.astype(np.int64)
        matrix["indptr"] = counts.indptr.astype(np.int64)
        matrix["shape"] = np.array([len(names), len(barcodes)], dtype=np.int32)
        features = matrix.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["id"] = np.array([f"ENSMUSG{i:011d}" for i in range(len(names))], dtype="S")
        features["name"] = np.array(names, dtype="S")
        features["feature_type"] = np.array([b"Gene Expression"] * len(names))
        features["genome"] = np.array([b"mm10"] * len(names))
