"""The interpreters that guests run in; their tests are skipped, by name, where nobody has built them (`make guests`)."""

import json
import os
from pathlib import Path

import pytest


def _interpreter(root: Path, environment: str) -> Path:
    record = root / f".venv/guests/{environment}.json"
    if not record.exists():
        if os.environ.get("TC_REQUIRE_GUESTS"):
            pytest.fail(f"environment {environment} of the guests is not there: make guests")
        pytest.skip(f"environment {environment} of the guests is not built: make guests")
    return Path(json.loads(record.read_text())["interpreter"])


@pytest.fixture(scope="session")
def interpreter(root) -> Path:
    """Of the environment `scvi`."""
    return _interpreter(root, "scvi")


@pytest.fixture(scope="session")
def interpreter_of_mintflow(root) -> Path:
    """Of the environment `mintflow`."""
    return _interpreter(root, "mintflow")
