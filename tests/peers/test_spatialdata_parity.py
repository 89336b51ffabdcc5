"""Stores that the package `spatialdata` wrote, and the centres of its elements as it finds them itself."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from absent import peer
from tissue_counterfactuals.sources import READERS

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A store and the centres by table."""
    python = peer("spatialdata")
    folder = tmp_path_factory.mktemp("spatialdata")
    store, centres = folder / "store.zarr", folder / "centres.npz"
    run = subprocess.run(
        [python, str(HERE / "write_spatialdata.py"), str(store), str(centres)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return store, np.load(centres)


@pytest.mark.parametrize("region", ["circles", "polygons", "multipolygons", "spots"])
def test_counts_and_centres_are_those_of_the_package(written, region):
    store, centres = written
    reader = READERS["spatialdata"]
    files = reader.locate(store / "tables" / f"of_{region}")
    slide = reader.open(files, {"path": str(store), "columns": {}, "unit_um": 1.0}, None)
    assert list(slide.obs_names) == [f"{region}_{i}" for i in range(len(slide))]
    np.testing.assert_array_equal(slide.X.toarray(), centres[f"counts_of_{region}"])
    np.testing.assert_allclose(slide.obsm["spatial"], centres[f"of_{region}"], rtol=0, atol=1e-6)
    assert set(slide.obs["sample"]) == {region}
