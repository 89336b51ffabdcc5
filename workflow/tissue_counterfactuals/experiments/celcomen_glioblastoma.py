"""Experiment 3 of the Celcomen paper: forces in a tumour, where genes act (Fig. 3b), and their clusters (Fig. 7).

The knock-out of Fig. 3c-e is in `celcomen_knockout.py`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals import gene_sets, neighbors
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import force_statistics, preparation
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_interactions import Interactions
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.sources import expected


def prepare(slide: AnnData, settings: dict, switches: dict[str, str]) -> AnnData:
    """Log expression of the cells in the crop, in the authors' order of steps; all genes.

    Args:
        settings: min_counts_per_cell, target_sum, crop_um ([x_low, x_high, y_low, y_high] or None); min_cells_per_gene,
            read for the gaussian log Z only.
    Raises:
        InputError: no cell has the counts, none is in the crop, or there are several samples.
    """
    counts = np.asarray(slide.X.sum(axis=1)).ravel()
    kept = counts >= settings["min_counts_per_cell"]
    if not kept.any():
        raise InputError(
            f"slide: no cell has {settings['min_counts_per_cell']} counts, the richest has {counts.max():g}; lower "
            "celcomen.glioblastoma.min_counts_per_cell."
        )
    if settings["crop_um"] is not None:
        x_low, x_high, y_low, y_high = settings["crop_um"]
        x, y = slide.obsm["spatial"].T
        inside = (x_low < x) & (x < x_high) & (y_low < y) & (y < y_high)
        if not (kept & inside).any():
            raise InputError(
                f"slide: the crop {x_low:g} < x < {x_high:g}, {y_low:g} < y < {y_high:g} holds no cell; cells lie at x "
                f"{x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g} micrometres: change "
                "celcomen.glioblastoma.crop_um, or set it to null."
            )
        kept &= inside
    samples = slide.obs["sample"][kept].astype(str).unique()
    if len(samples) > 1:
        raise InputError(
            f"slide: the cells are of {len(samples)} samples ({', '.join(sorted(samples)[:3])}, ...), and a knock-out "
            "is looked at in one; name it under samples of the data set."
        )
    # A cell is normalised by its own counts alone, so the order of crop and normalisation does not matter.
    log = preparation.log_slide(slide[kept].copy(), settings["target_sum"])
    if switches["log_partition"] == "gaussian":
        log = preparation.seen_genes(log, settings["min_cells_per_gene"])
    return log


def contacts(slide: AnnData, settings: dict) -> sparse.csr_array:
    """Cells nearer to each other than the radius, (n, n) of ones, symmetric."""
    return neighbors.sample_graph(slide, lambda coords: neighbors.radius_graph(coords, settings["radius_um"]))


def fit(slide: AnnData, graph: sparse.csr_array, settings: dict, switches: dict[str, str], seed: int) -> Interactions:
    """Forces of the crop.

    Args:
        slide: from `prepare`. graph: (n, n), from `contacts`.
        settings: epochs, learning_rate; ridge.

    Raises:
        InputError: as `fit_interactions`.
    """
    return fit_interactions(
        [(sparse.csr_array(slide.X), graph)],
        epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        seed=seed,
        switches=switches,
        ridge=settings["ridge"],
        errors=False,
    )


def run(
    slide: Path,
    entry: dict,
    protocol: str,
    seeds: list[int],
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Fit the forces of a slide and write forces (npz), diagnostics (TSV), shapes (TSV) and manifest (JSON).

    Args:
        entry: name, kind, label, source and files of the data set.
        settings: section celcomen.glioblastoma of the configuration.
        switches: of the steps inference and comparison.
    """
    cells = prepare(read_slide(slide, check=False), settings, switches)
    graph = contacts(cells, settings)
    manifest = preparation.write_manifest(
        outputs["manifest"],
        entry,
        cells,
        protocol,
        seeds,
        settings | {"switches": switches, "n_contacts": int(graph.nnz)},
    )
    write_tsv(compare_crop(entry, cells, graph), outputs["shapes"])
    fits = [fit(cells, graph, settings, switches, seed) for seed in seeds]
    labels = cells.var.get("localization")
    labels = np.array([] if labels is None else labels, dtype=str)
    preparation.write_fits(fits, cells, manifest, outputs, localization=labels)


def compare_crop(entry: dict, cells: AnnData, graph: sparse.csr_array) -> pd.DataFrame:
    """Cells, genes and directed contacts of the crop beside the published ones; those that differ are printed.

    Args:
        entry: kind, source and files of the data set.
        graph: (n, n), each contact in both directions.
    """
    found = {"cells": cells.n_obs, "genes": cells.n_vars, "edges": graph.nnz}
    everywhere = {"sample": "", "step": "crop", "cell_type": "", "domain": ""}
    return expected.compare_numbers(
        entry, [everywhere | {"quantity": name, "found": int(n)} for name, n in found.items()]
    )


def localization(
    forces: Path, manifest: Path, settings: dict, switches: dict[str, str], outputs: dict[str, Path]
) -> None:
    """Do secreted genes act between cells more than others do? Both tests, under either protocol (Fig. 3b).

    Args:
        settings: n_bins, n_permutations.
        switches: of the steps inference, comparison and celcomen_glioblastoma.
        outputs: `classes` has a row for each seed, class and statistic: genes, mean, 95 % interval (not of `entries`,
            which share genes). `entries`: z scores of inter minus intra over all entries of the class's rows, as run;
            `genes`: z scores over genes of strength between minus strength within cells; `genes_signed`: the same of
            the forces with their signs; `tails`: the same of the strongest pairs alone, see `gene_tails`. `tests` has a
            row for each seed, statistic and pair of classes: `entries` by Mann-Whitney, the others by exchanging labels
            among genes of like mean expression. `chosen` marks the statistic of the protocol (switch
            localization_test).
    """
    fitted, record = preparation.read_forces(forces), json.loads(Path(manifest).read_text())
    genes = pd.Index(fitted["genes"])
    labels = pd.Series(fitted["localization"]) if len(fitted["localization"]) else None
    classes, source = gene_sets.localize(genes, labels)
    chosen, means, tests = switches["localization_test"], [], []
    for place, seed in enumerate(fitted["seeds"].tolist()):
        inter, intra = preparation.comparable_forces(fitted["inter"][place], fitted["intra"][place], switches)
        per_gene = {
            "genes": force_statistics.gene_differences(inter, intra),
            "genes_signed": force_statistics.gene_differences(inter, intra, signed=True),
            "tails": force_statistics.gene_tails(inter, intra),
        }
        by_statistic = {"entries": force_statistics.entry_differences(inter, intra)} | per_gene
        found = {"entries": force_statistics.localization_of_entries(by_statistic["entries"], classes)}
        for name, values in per_gene.items():
            found[name] = force_statistics.localization_of_genes(
                values, classes, fitted["mean_expression"], settings["n_bins"], settings["n_permutations"], seed
            )
        for statistic, values in by_statistic.items():
            own = pd.DataFrame(class_means(values, classes))
            for table, tables in ((own, means), (found[statistic], tests)):
                table.insert(0, "statistic", statistic)
                table["chosen"] = statistic == chosen
                table["classes_from"] = source
                tables.append(preparation.keyed(table, record, seed))
    write_tsv(pd.concat(means, ignore_index=True), outputs["classes"], sort=False)
    write_tsv(pd.concat(tests, ignore_index=True), outputs["tests"], sort=False)


def class_means(values: np.ndarray, classes: pd.DataFrame) -> list[dict]:
    """Mean of each class; `values` is (g,) or (g, g), rows being genes.

    A 95 % interval over genes (`mean_interval`) where each gene has one value; entries of a matrix share their genes,
    and an interval that takes them for independent covers nothing near 95 %.
    """
    rows = []
    for name in gene_sets.LOCALIZATIONS:
        own = values[classes[name].to_numpy()].ravel()
        low = high = np.nan
        if values.ndim == 1:
            low, high = force_statistics.mean_interval(own)
        rows.append(
            {
                "class": name,
                "n_genes": int(classes[name].sum()),
                "n_values": len(own),
                "mean": own.mean() if len(own) else np.nan,
                "low": low,
                "high": high,
            }
        )
    return rows
