"""Stores that the package `spatialdata` wrote, and the centres of its elements as it finds them itself."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tissue_counterfactuals.sources import READERS

HERE = Path(__file__).resolve().parent
MADE = HERE.parents[1] / ".venv/spatialdata/bin/python"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A store and the centres by table; skipped by name where the package is not installed.

    $TC_SPATIALDATA_PYTHON, or the environment .venv/spatialdata; TC_REQUIRE_PEERS=1 turns the skip into a failure.
    """
    named = os.environ.get("TC_SPATIALDATA_PYTHON") or (str(MADE) if MADE.exists() else None)
    if named is None:
        reason = "the package spatialdata is not installed: set TC_SPATIALDATA_PYTHON"
        if os.environ.get("TC_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("spatialdata")
    store, centres = folder / "store.zarr", folder / "centres.npz"
    run = subprocess.run(
        [named, str(HERE / "write_spatialdata.py"), str(store), str(centres)],
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
    slide = reader.open(files, {"path": str(store), "columns": {}}, None)
    assert list(slide.obs_names) == [f"{region}_{i}" for i in range(len(slide))]
    np.testing.assert_array_equal(slide.X.toarray(), centres[f"counts_of_{region}"])
    np.testing.assert_allclose(slide.obsm["spatial"], centres[f"of_{region}"], rtol=0, atol=1e-6)
    assert set(slide.obs["sample"]) == {region}
