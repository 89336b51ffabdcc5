"""Planning a run, which every job does again, loads nothing that is slow to load."""

import subprocess
import sys

SLOW = ("torch", "scanpy", "numba", "anndata", "sklearn", "matplotlib", "pandas")


def test_planning_a_run_loads_nothing_slow(root):
    modules = ("config", "experiments", "methods", "results.figures", "sources.downloads.planned")
    names = ", ".join(f"tissue_counterfactuals.{module}" for module in modules)
    code = f"import sys, {names}; print([name for name in {SLOW} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root / "workflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
