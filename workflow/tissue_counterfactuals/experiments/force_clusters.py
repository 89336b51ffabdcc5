"""Modules of genes in a matrix of forces, and what they are enriched for (Figs. 7 and 8 of the Celcomen paper).

The paper gives no code for these figures: linkage, number of clusters, test and background are ours. Rows of the matrix
(diagonal set to 0) are joined by Ward's method on Euclidean distances, the tree is cut into a configured number of
clusters, and these are numbered from the top of the heatmap. Each is tested for over-representation against the
model's own genes.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist

from tissue_counterfactuals import gene_sets
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import preparation
from tissue_counterfactuals.results.tables import write_tsv

FORCES = ("intra", "inter")
# q of a term that is called significant; a table keeps all of these, and of the others so many that it has this number.
SIGNIFICANT = 0.05
N_TERMS = 20


def cluster_genes(matrix: np.ndarray, n_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Order of the genes on the heatmap, (g,), and the cluster of each gene, (g,), numbered from 1 along that order.

    Genes with equal rows cannot be parted, so a constant matrix gives one cluster.

    Raises:
        InputError: fewer genes than clusters.
    """
    n = len(matrix)
    if n < max(n_clusters, 2):
        raise InputError(f"force clusters: {n} genes cannot make {n_clusters} clusters; lower clusters.n_clusters.")
    rows = matrix - np.diag(np.diag(matrix))
    distances = pdist(rows)
    tree = linkage(distances, method="ward")
    # Distances between rows that are all equal leave nothing to order by.
    tree = optimal_leaf_ordering(tree, distances) if tree[-1, 2] > 0 else tree
    labels = fcluster(tree, n_clusters, criterion="maxclust")
    order = leaves_list(tree)
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels[order]), start=1)}
    return order, np.array([numbers[label] for label in labels])


def describe_clusters(
    forces: dict[str, np.ndarray],
    genes: pd.Index,
    mean_expression: np.ndarray,
    settings: dict,
    sets: dict[str, list[str]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clusters of each kind of force, and their gene sets.

    Args:
        forces: intra and inter, each symmetric (g, g).
        mean_expression: (g,); clusters that are bins of it say nothing else.
        settings: n_clusters; min_size, max_size of a gene set.
    Returns:
        A row for each force and gene: force, gene, position (on the heatmap), cluster.
        A row for each force, cluster and term: force, cluster, n_genes, mean_force (over the pairs within, NaN for one
        gene), mean_expression (of its genes) and the columns of `gene_sets.over_representation`.
    """
    members, terms = [], []
    for force in FORCES:
        matrix = forces[force]
        order, labels = cluster_genes(matrix, settings["n_clusters"])
        position = np.empty(len(order), dtype=int)
        position[order] = np.arange(len(order))
        members.append(pd.DataFrame({"force": force, "gene": genes, "position": position, "cluster": labels}))
        for cluster in np.unique(labels):
            chosen = labels == cluster
            within = matrix[np.ix_(chosen, chosen)]
            n_genes = int(chosen.sum())
            n_pairs = n_genes * (n_genes - 1)
            total = within.sum() - np.trace(within)
            found = gene_sets.over_representation(
                genes[chosen], genes, sets, settings["min_size"], settings["max_size"]
            )
            found = found[(found["q_value"] <= SIGNIFICANT) | (found.index < N_TERMS)]
            own = {"force": force, "cluster": cluster, "n_genes": n_genes}
            own["mean_force"] = total / n_pairs if n_pairs else np.nan
            own["mean_expression"] = mean_expression[chosen].mean()
            terms.append(found.assign(**own)[[*own, *found]])
    return pd.concat(members, ignore_index=True), pd.concat(terms, ignore_index=True)


def run(forces: Path, manifest: Path, settings: dict, switches: dict[str, str], outputs: dict[str, Path]) -> None:
    """Clusters of the fitted forces of the first seed: members, enrichment (TSV) and the matrices as drawn (npz).

    Args:
        forces: file of an experiment, with genes, mean_expression, inter and intra.
        settings: n_clusters, gene_sets, min_size, max_size.
        switches: of the steps inference and comparison.
    """
    fitted, record = preparation.read_forces(forces), json.loads(Path(manifest).read_text())
    inter, intra = preparation.comparable_forces(fitted["inter"][0], fitted["intra"][0], switches)
    by_force = {"inter": inter, "intra": intra}
    genes = pd.Index(fitted["genes"])
    sets = gene_sets.collect(settings["gene_sets"], genes)
    tables = describe_clusters(by_force, genes, fitted["mean_expression"], settings, sets)
    for table, name in zip(tables, ("members", "enrichment"), strict=True):
        write_tsv(preparation.keyed(table, record, record["seeds"][0]), outputs[name], sort=False)
    preparation.write_forces(outputs["matrices"], **{name: m.astype(np.float32) for name, m in by_force.items()})
