"""Bio-conservation of a latent against the package `scib-metrics`.

It is given the nearest cells, which its benchmark finds by approximation. Clusters of k-means depend on the centres
that are drawn: they are the same where labels lie apart, and nearly where they overlap.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from absent import peer
from tissue_counterfactuals.metrics.latents import conservation

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(("apart", "of_clusters"), [(1.0, 0.05), (8.0, 1e-6)])
def test_scores_are_those_of_the_package(apart, of_clusters, tmp_path):
    rng = np.random.default_rng(0)
    code = rng.choice(4, 600, p=[0.4, 0.3, 0.2, 0.1])
    labels = np.array(["a", "b", "c", "d"])[code]
    # The fewest batches have c and d.
    batch = np.where(code < 2, rng.choice(["x", "y", "z"], 600), rng.choice(["x", "y"], 600))
    latent = rng.normal(size=(600, 5)) + rng.normal(0, apart, (4, 5))[code]
    distances, indices = NearestNeighbors(n_neighbors=90).fit(latent).kneighbors(latent)
    given = {"latent": latent, "labels": labels, "batch": batch, "indices": indices, "distances": distances}
    np.savez(tmp_path / "given.npz", **given)
    command = [peer("scib"), HERE / "run_scib.py", tmp_path / "given.npz", tmp_path / "found.npz"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = dict(np.load(tmp_path / "found.npz"))
    scores = conservation(latent, labels, batch, seed=0)
    for name in ("isolated_labels", "silhouette", "clisi"):
        assert scores[name] == pytest.approx(float(found[name]), abs=1e-5), name
    for name in ("nmi_kmeans", "ari_kmeans"):
        assert scores[name] == pytest.approx(float(found[name]), abs=of_clusters), name
