"""Small slides for tests, made without the simulator so that its faults cannot hide others; and readers for tests."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.config.dataset import Dataset
from tissue_counterfactuals.slide import make_slide
from tissue_counterfactuals.sources import h5ad
from tissue_counterfactuals.sources.stored import StoredSlide


def small_slide(
    n_cells: int = 400,
    n_genes: int = 20,
    types: tuple[str, ...] = ("A", "B", "C"),
    domains: tuple[str, ...] = ("left", "right"),
    samples: tuple[str, ...] = ("one",),
    seed: int = 0,
) -> AnnData:
    """Cells at random places; the domain is where a cell stands along x, the type is random."""
    rng = np.random.default_rng(seed)
    spatial = rng.uniform(0, 600, size=(n_cells, 2))
    domain = np.array(domains)[(spatial[:, 0] / 600 * len(domains)).astype(int)]
    cell_type = rng.choice(types, n_cells)
    rate = 0.5 + rng.gamma(1.0, 2.0, size=(len(types), n_genes))
    # The last domain doubles every other gene.
    shift = np.where((domain == domains[-1])[:, None] & (np.arange(n_genes) % 2 == 0), 2.0, 1.0)
    counts = rng.poisson(rate[[types.index(t) for t in cell_type]] * shift)
    labels = pd.DataFrame(
        {"cell_type": cell_type, "domain": domain, "sample": rng.choice(samples, n_cells)},
        index=[f"cell_{i}" for i in range(n_cells)],
    )
    genes = pd.Index([f"gene_{i}" for i in range(n_genes)])
    return make_slide(sparse.csr_matrix(counts), labels, genes, spatial, {"source": "test"})


def poisoned(slide: AnnData, cell_type: str = "A", domain: str = "right") -> AnnData:
    """The slide with other counts in its held-out cells: the genes in reverse order, and five times as many."""
    held_out = ((slide.obs["cell_type"] == cell_type) & (slide.obs["domain"] == domain)).to_numpy()
    counts = slide.X.toarray()
    counts[held_out] = counts[held_out][:, ::-1] * 5 + 1
    other = slide.copy()
    other.X = sparse.csr_matrix(counts)
    return other


def true_forces(slide: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Inter and intra forces (g, g) float64 of a simulated field, among the genes that the slide still has, in its
    order.
    """
    columns = pd.Index(slide.uns["simulation"]["genes"].astype(str)).get_indexer(slide.var_names)
    return tuple(np.asarray(slide.varm[f"simulation_{kind}"])[:, columns] for kind in ("inter", "intra"))


def open_h5ad(file: str | Path, samples: list[str] | None = None, **keys) -> StoredSlide:
    """A user's file as a slide with its counts still there, by some keys of a data set; others have their defaults."""
    defaults = {key: Dataset.model_fields[key].default for key in ("layer", "spatial", "unit_um", "sha256", "path")}
    dataset = defaults | {"keep_columns": None} | keys
    dataset["columns"] = {"cell_type": "cell_type", "domain": "domain", "sample": None} | keys.get("columns", {})
    return h5ad.stored({"h5ad": Path(file)}, dataset, samples)


def read_h5ad(file: str | Path, samples: list[str] | None = None, **keys) -> AnnData:
    """The same, with its counts."""
    return open_h5ad(file, samples, **keys).load()


def list_filters(slide: AnnData) -> pd.DataFrame:
    """The filters that a slide went through, in order, one row each."""
    columns = ["filter", "cells_before", "cells_after", "genes_before", "genes_after"]
    return pd.DataFrame(json.loads(slide.uns["provenance"]["filters"]), columns=columns)
