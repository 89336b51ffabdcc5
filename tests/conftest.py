"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Files of minutes; then all others that run a workflow or a guest, then the rest. What is long and comes last would be
# waited for by workers that have nothing to do.
LONG = (
    "test_slurm",
    "test_five_data_sets",
    "test_cellina_whole",
    "test_report_in_browser",
    "test_scvi_tools",
    "test_own_slide",
)


def pytest_collection_modifyitems(items):
    """Long files first; the test command tells xdist to keep this order."""

    def turn(item) -> tuple[int, bool]:
        path = item.path
        return LONG.index(path.stem) if path.stem in LONG else len(LONG), path.parent.name not in ("workflow", "guests")

    items.sort(key=turn)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


def real_data_folder() -> Path | None:
    """Folder of the real slides: $TC_REAL_DATA, or `shared/data` beside or inside the checkout; None if absent."""
    named = os.environ.get("TC_REAL_DATA")
    candidates = [Path(named)] if named else [ROOT.parent / "shared/data", ROOT / "shared/data"]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real slides; tests that ask for it are skipped, by name, where nobody provides them."""
    folder = real_data_folder()
    if folder is None:
        pytest.skip("real slides are not part of the repository: set TC_REAL_DATA to their folder")
    return folder
