"""What every job does first loads nothing that is slow to load and that it does not use."""

import subprocess
import sys

import pytest

PLANNING = ("config", "experiments", "methods", "results.figures", "sources.downloads.planned")
SLOW = ("torch", "scanpy", "numba", "anndata", "sklearn", "matplotlib", "pandas")


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        (PLANNING, SLOW),
        # Jobs get their part of the configuration checked: its classes take a quarter of the time that steps take.
        (("steps",), ("pydantic", "torch", "numba", "sklearn", "scipy.stats", "matplotlib")),
        (("results.figures.figure_cellina_1",), ("torch", "numba", "sklearn", "scipy.stats")),
        (("results.figures.metrics_under_test",), ("torch", "numba", "sklearn", "scipy.stats")),
    ],
    ids=["planning a run", "steps", "schematic of Cellina", "metrics under test"],
)
def test_nothing_slow_is_loaded_without_need(root, modules, without):
    names = ", ".join(f"tissue_counterfactuals.{module}" for module in modules)
    code = f"import sys, {names}; print([name for name in {without} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root / "workflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
