"""Run by the Python of the environment of scib-metrics: its bio-conservation scores of a latent, npz to npz.

    python run_scib.py GIVEN.npz FOUND.npz

Given: latent (n, d), labels and batch (n,) as text, and the 90 nearest cells of each, itself first: indices and
distances (n, 90).
"""

import sys

import numpy as np
import scib_metrics
from scib_metrics.nearest_neighbors import NeighborsResults

given = dict(np.load(sys.argv[1]))
latent, labels, batch = given["latent"], given["labels"], given["batch"]
clusters = scib_metrics.nmi_ari_cluster_labels_kmeans(latent, labels)
np.savez(
    sys.argv[2],
    isolated_labels=scib_metrics.isolated_labels(latent, labels, batch),
    silhouette=scib_metrics.silhouette_label(latent, labels),
    clisi=scib_metrics.clisi_knn(NeighborsResults(given["indices"], given["distances"]), labels),
    nmi_kmeans=clusters["nmi"],
    ari_kmeans=clusters["ari"],
)
