"""The Python of the environment with the published package, and its runner as a function."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from absent import peer

HERE = Path(__file__).resolve().parent
RUNNER = HERE / "run_celcomen.py"


@pytest.fixture(scope="session")
def celcomen_python() -> Path:
    return peer("celcomen")


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
        done = subprocess.run([celcomen_python, RUNNER, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [dict(np.load(output)) for output in arguments[2::3]]

    return run
