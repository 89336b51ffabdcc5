"""The interpreters that guests run in; their tests are skipped, by name, where nobody has built them (`make
guests`).
"""

import json
from pathlib import Path

import pytest
from guest import calls

from absent import absent


def _interpreter(root: Path, environment: str) -> Path:
    record = root / f".venv/guests/{environment}.json"
    if not record.exists():
        absent(
            f"environment {environment} of the guests is not built: run `make guests`",
            "TC_REQUIRE_GUESTS",
        )
    return Path(json.loads(record.read_text())["interpreter"])


@pytest.fixture(scope="session")
def scvi(root):
    """Calls in the environment `scvi`."""
    with calls(_interpreter(root, "scvi"), root, "lightning.pytorch", "anndata") as call:
        yield call


@pytest.fixture(scope="session")
def mintflow(root):
    """Calls in the environment `mintflow`."""
    with calls(_interpreter(root, "mintflow"), root, "squidpy", "torch_geometric") as call:
        yield call
