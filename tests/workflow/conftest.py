"""One finished run, shared by the tests that only look at it or start from a copy of it."""

import pytest

from runs import Outcome, Run, tiny


@pytest.fixture(scope="session")
def first_outcome(tmp_path_factory) -> tuple[Run, Outcome]:
    """The tiny benchmark, run with two cores, and how snakemake ended."""
    run = Run(tmp_path_factory.mktemp("finished") / "run").configure(tiny())
    return run, run.snakemake()


@pytest.fixture(scope="session")
def finished(first_outcome) -> Run:
    """The tiny benchmark, finished; tests must not change its files."""
    run, outcome = first_outcome
    assert outcome.code == 0, outcome.screen
    return run
