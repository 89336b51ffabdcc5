"""The Python of the environment with the published package, and its runner as a function."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
RUNNER = HERE / "run_celcomen.py"


@pytest.fixture(scope="session")
def celcomen_python() -> str:
    """$TC_CELCOMEN_PYTHON, or the one that `make peers` leaves; TC_REQUIRE_PEERS=1 turns the skip into a failure."""
    made = HERE.parents[1] / ".venv/celcomen/bin/python"
    named = os.environ.get("TC_CELCOMEN_PYTHON") or (str(made) if made.exists() else None)
    if named is None:
        missing = (
            "the published package is not installed: run `make peers`, or set TC_CELCOMEN_PYTHON"
        )
        if os.environ.get("TC_REQUIRE_PEERS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return named


@pytest.fixture(scope="session")
def run_celcomen(celcomen_python, tmp_path_factory):
    """Runs tasks of run_celcomen.py in one process: [(task, arrays), ...] -> [arrays, ...]."""

    def run(tasks: list[tuple[str, dict]]) -> list[dict]:
        folder = tmp_path_factory.mktemp("celcomen")
        arguments = []
        for place, (task, arrays) in enumerate(tasks):
            given = folder / f"{place}.npz"
            np.savez(given, **arrays)
            arguments += [task, given, folder / f"{place}.out.npz"]
        done = subprocess.run(
            [celcomen_python, RUNNER, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [dict(np.load(output)) for output in arguments[2::3]]

    return run
