"""One finished run, shared by the tests that only look at it or start from a copy of it."""

import json
import os
from dataclasses import asdict

import pytest
from filelock import FileLock

from runs import Outcome, Run, tiny


@pytest.fixture(scope="session")
def first_outcome(tmp_path_factory) -> tuple[Run, Outcome]:
    """The tiny benchmark, run with two cores, and how snakemake ended: made once, a copy for each worker."""
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    made, told = Run(top / "made_once"), top / "made_once.json"
    with FileLock(top / "made_once.lock"):
        if not told.is_file():
            told.write_text(json.dumps(asdict(made.configure(tiny()).snakemake())))
    return made.copy_to(tmp_path_factory.mktemp("finished") / "run"), Outcome(**json.loads(told.read_text()))


@pytest.fixture(scope="session")
def finished(first_outcome) -> Run:
    """The tiny benchmark, finished; tests must not change its files."""
    run, outcome = first_outcome
    assert outcome.code == 0, outcome.screen
    return run
