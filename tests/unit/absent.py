"""What a test needs and a machine may lack: programs, Pythons with published packages."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]


def absent(reason: str, required: str) -> NoReturn:
    """Skip the test with the reason, or fail it where the variable `required` is 1, as it is in CI."""
    if os.environ.get(required) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def peer(name: str) -> Path:
    """The Python of a published package: $TC_NAME_PYTHON, or .venv/NAME, which `make peers` makes."""
    variable = f"TC_{name.upper()}_PYTHON"
    python = Path(os.environ.get(variable) or ROOT / f".venv/{name}/bin/python")
    if not python.exists():
        absent(f"{name} is not installed: run `make peers`, or set {variable}", "TC_REQUIRE_PEERS")
    return python
