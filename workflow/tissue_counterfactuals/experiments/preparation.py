"""What experiments on one slide of Celcomen share: log expression, forces on disk, and where results come from."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.models.celcomen_gaussian import partial_correlations
from tissue_counterfactuals.models.celcomen_interactions import Interactions
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import log_normalize

# First columns of every table of an experiment.
KEY = ("dataset", "kind", "protocol", "seed")


def log_slide(slide: AnnData, target_sum: float) -> AnnData:
    """A copy whose X is log(1 + counts scaled to `target_sum` per cell), CSR float32; natural logarithm."""
    return AnnData(
        log_normalize(slide.X, target_sum),
        obs=slide.obs,
        var=slide.var,
        obsm={"spatial": slide.obsm["spatial"]},
        uns={"provenance": slide.uns["provenance"]},
    )


def seen_genes(slide: AnnData, min_cells: int) -> AnnData:
    """The genes with a value above 0 in at least `min_cells` cells of every sample.

    The gaussian optimum needs them: of a gene that is the same in all cells nothing is known.

    Raises:
        InputError: fewer than two genes are left.
    """
    seen = np.ones(slide.n_vars, bool)
    for members in slide.obs.groupby("sample", observed=True).indices.values():
        seen &= np.asarray((slide.X[members] > 0).sum(axis=0)).ravel() >= min_cells
    if seen.sum() < 2:
        raise InputError(
            f"slide: only {seen.sum()} of its {slide.n_vars} genes are seen in {min_cells} cells of every sample; "
            "lower min_cells_per_gene, or take more cells."
        )
    return slide[:, seen].copy()


def variable_genes(slide: AnnData, n_top_genes: int) -> AnnData:
    """The most variable genes of a log slide (Scanpy, flavour seurat), all samples pooled, in the slide's order.

    Raises:
        InputError: fewer than two genes vary.
    """
    if n_top_genes >= slide.n_vars:
        return slide
    with warnings.catch_warnings():
        # Genes without counts give logarithms of 0, which Scanpy itself replaces.
        warnings.simplefilter("ignore")
        table = sc.pp.highly_variable_genes(slide, flavor="seurat", n_top_genes=n_top_genes, inplace=False)
    chosen = table["highly_variable"].to_numpy()
    if chosen.sum() < 2:
        raise InputError(
            f"slide: only {chosen.sum()} of its {slide.n_vars} genes vary; raise n_top_genes or give another slide."
        )
    return slide[:, chosen].copy()


def write_forces(path: str | Path, **arrays: np.ndarray) -> None:
    """Write named arrays to an npz file; the same arrays give the same bytes."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def write_fits(
    fits: list[Interactions], cells: AnnData, manifest: dict, outputs: dict[str, Path], **more: np.ndarray
) -> None:
    """Write what was fitted to a log slide, a fit for each seed of the manifest: `diagnostics` (TSV), and `forces`
    (npz): genes, seeds, inter and intra (seeds, g, g), mean_expression (g,), and more arrays by name.
    """
    seeds = manifest["seeds"]
    notes = [
        keyed(pd.DataFrame(fit.diagnostics.items(), columns=["name", "value"]), manifest, seed)
        for fit, seed in zip(fits, seeds, strict=True)
    ]
    write_tsv(pd.concat(notes, ignore_index=True), outputs["diagnostics"])
    write_forces(
        outputs["forces"],
        genes=cells.var_names.to_numpy(dtype=str),
        seeds=np.array(seeds),
        inter=np.stack([fit.inter for fit in fits]),
        intra=np.stack([fit.intra for fit in fits]),
        mean_expression=np.asarray(cells.X.mean(axis=0), dtype=np.float64).ravel(),
        **more,
    )


def read_forces(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of `write_forces` by name; for those of fits see `write_fits`."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def comparable_forces(inter: np.ndarray, intra: np.ndarray, switches: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Inter and intra forces, each (g, g), in the units of the switch `force_units`; forces of the mean field stay as
    they are.
    """
    if switches["log_partition"] != "gaussian" or switches["force_units"] == "raw":
        return inter, intra
    return partial_correlations(Interactions(inter, intra, []))


def write_manifest(
    path: str | Path, entry: dict, slide: AnnData, protocol: str, seeds: list[int], settings: dict
) -> dict:
    """Write, and return, what stands under every figure of an experiment.

    Args:
        entry: name, kind and label of the data set.
        slide: as analysed, after filters; `uns["provenance"]` is that of the file.
        settings: everything the experiment took from the configuration, switches included.
    """
    record = {
        "dataset": entry["name"],
        "label": entry["label"],
        "kind": entry["kind"],
        "protocol": protocol,
        "n_cells": slide.n_obs,
        "n_genes": slide.n_vars,
        "samples": sorted(slide.obs["sample"].astype(str).unique()),
        "slide": {k: str(v) for k, v in slide.uns["provenance"].items()},
        "seeds": seeds,
        "settings": settings,
        "commit": provenance.commit(),
        "config_hash": provenance.config_hash(settings),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    return record


def keyed(table: pd.DataFrame, manifest: dict, seed: int) -> pd.DataFrame:
    """A table with the columns of KEY in front; it is changed in place."""
    values = (manifest["dataset"], manifest["kind"], manifest["protocol"], seed)
    for place, (name, value) in enumerate(zip(KEY, values, strict=True)):
        table.insert(place, name, value)
    return table
