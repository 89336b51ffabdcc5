"""What jobs of a recorded run took, and what that says of others."""

import pytest

from tissue_counterfactuals import estimates
from tissue_counterfactuals.methods import METHODS

BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tcpu_time\n{seconds}\t0:00:09\t{memory}\t0\t0.1\n"


@pytest.fixture
def table(monkeypatch):
    rows = [
        estimates.Recorded("fit", "cellina", 10.0, 64.0, 800.0, 6),
        estimates.Recorded("tabulate", "", 0.0, 3.0, 200.0, 1),
    ]
    known = {(row.rule, row.method): row for row in rows}
    monkeypatch.setattr(estimates, "recorded", lambda: known)


def test_work_grows_with_the_slide_and_the_start_does_not(table):
    assert estimates.seconds("fit", 10.0, "cellina") == 64.0
    assert estimates.seconds("fit", 100.0, "cellina") == 604.0
    assert estimates.seconds("tabulate", 100.0) == 3.0
    assert estimates.seconds("fit", 10.0, "unheard_of") is None


def test_a_cluster_is_asked_for_three_times_as_long_and_never_for_less_than_ten_minutes(table):
    assert estimates.minutes("tabulate", 1.0) == 10
    assert estimates.minutes("fit", 100.0, "cellina") == 31
    assert estimates.minutes("fit", 10.0, "unheard_of") == 60


def test_a_finished_run_is_recorded_by_step_and_method(tmp_path):
    slide = tmp_path / "slides/d/s.h5ad"
    slide.parent.mkdir(parents=True)
    slide.write_bytes(bytes(2_500_000))
    jobs = {
        "fit/d/s/f/cellina/corrected.seed0": (700, 60),
        "fit/d/s/f/cellina/corrected.seed1": (900, 70),
        "fit/d/s/f/ridge/corrected.seed0": (300, 5),
        "build_graph/d/s": (250, 8),
        "tabulate/d": (200, 3),
    }
    for name, (memory, seconds) in jobs.items():
        path = tmp_path / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BENCHMARK.format(memory=memory, seconds=seconds))
    unmeasured = tmp_path / "benchmarks/tabulate/e.tsv"
    unmeasured.write_text(BENCHMARK.format(memory="-", seconds="0"))
    assert estimates.record(tmp_path) == [
        estimates.Recorded("build_graph", "", 2.5, 8.0, 250.0, 1),
        estimates.Recorded("fit", "cellina", 2.5, 65.0, 800.0, 2),
        estimates.Recorded("fit", "ridge", 2.5, 5.0, 300.0, 1),
        estimates.Recorded("tabulate", "", 0.0, 3.0, 200.0, 1),
    ]


def test_a_dry_run_says_what_a_run_will_take(table):
    block = "rule fit:\n    output: x\n    wildcards: dataset=d, fold=f, method={}, seed=0\n"
    screen = "".join(map(block.format, ("cellina", "cellina", "ridge")))
    screen += "localrule tabulate:\n    wildcards: dataset=d\ncheckpoint write_folds:\n"
    jobs = estimates.planned(screen)
    fits = {("fit", "cellina"): 2, ("fit", "ridge"): 1}
    assert jobs == fits | {("tabulate", ""): 1, ("write_folds", ""): 1}
    said = estimates.table(jobs).splitlines()
    assert said[1].split() == ["2", "64.0", "800", "fit", "cellina"]
    assert said[2].split() == ["1", "?", "?", "fit", "ridge"]
    # 2 x 64 s + 3 s
    assert said[-1].startswith(
        "In all 0.04 hours of single jobs beside the steps with a question mark"
    )


def test_every_recorded_method_is_one_of_the_table():
    assert {row.method for row in estimates.recorded().values()} <= {"", *METHODS}
