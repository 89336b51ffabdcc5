"""The interpreter that guests run in; their tests are skipped, by name, where nobody has built it (`make guests`)."""

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def interpreter(root) -> Path:
    """Of the environment `scvi`."""
    record = root / ".venv/guests/scvi.json"
    if not record.exists():
        if os.environ.get("TC_REQUIRE_GUESTS"):
            pytest.fail("the environment of the guests is not there: make guests")
        pytest.skip("the environment of the guests is not built: make guests")
    return Path(json.loads(record.read_text())["interpreter"])
