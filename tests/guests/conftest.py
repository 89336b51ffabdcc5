"""The interpreters that guests run in; their tests are skipped, by name, where nobody has built them (`make
guests`).
"""

import json
from pathlib import Path

import pytest

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
def interpreter(root) -> Path:
    """Of the environment `scvi`."""
    return _interpreter(root, "scvi")


@pytest.fixture(scope="session")
def interpreter_of_mintflow(root) -> Path:
    """Of the environment `mintflow`."""
    return _interpreter(root, "mintflow")
