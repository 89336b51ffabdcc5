"""What jobs of a recorded run took, and what that says of others."""

from types import SimpleNamespace

import pytest
import yaml

from tissue_counterfactuals import estimates
from tissue_counterfactuals.experiments import EXPERIMENTS
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
    assert estimates.seconds("tabulate", 0.0) == estimates.seconds("tabulate") == 3.0
    # The record says nothing of slides.
    assert estimates.seconds("tabulate", 100.0) is None
    assert estimates.seconds("fit", 10.0, "unheard_of") is None


def test_a_cluster_is_asked_for_three_times_as_long_and_never_for_less_than_ten_minutes(table):
    assert estimates.minutes("tabulate", 0.0) == 10
    assert estimates.minutes("fit", 100.0, "cellina") == 31
    assert estimates.minutes("fit", 10.0, "unheard_of") == 60
    # 3 x (4 s + 100 x 60 s): as the slowest training that is known.
    assert estimates.minutes("fit", 1000.0, "unheard_of") == estimates.minutes("tabulate", 1000.0) == 301


def test_a_finished_run_is_recorded_by_step_and_method(tmp_path):
    slide = tmp_path / "slides/d/s.h5ad"
    slide.parent.mkdir(parents=True)
    slide.write_bytes(bytes(2_500_000))
    slide.with_name("t.h5ad").write_bytes(bytes(1_000_000))
    jobs = {
        "cellina_application/d.corrected.0.s": (300, 9),
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
        estimates.Recorded("cellina_application", "", 2.5, 9.0, 300.0, 1),
        estimates.Recorded("fit", "cellina", 2.5, 65.0, 800.0, 2),
        estimates.Recorded("fit", "ridge", 2.5, 5.0, 300.0, 1),
        # Its name has no slide: it reads all.
        estimates.Recorded("tabulate", "", 3.5, 3.0, 200.0, 1),
    ]
    assert {row.seconds for row in estimates.record(tmp_path, "cpu_time")} == {0.1}


def test_steps_that_were_not_recorded_are_added_to_those_that_were(table, tmp_path, monkeypatch):
    kept = tmp_path / "recorded.tsv"
    kept.write_text("# idle\n")
    monkeypatch.setattr(estimates, "RECORDED", kept)
    for name in ("tabulate/d", "costs/d"):
        path = tmp_path / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True)
        path.write_text(BENCHMARK.format(memory=300, seconds=9))
    monkeypatch.setattr("sys.argv", ["estimates", str(tmp_path), "--machine", "busy", "--add", "--cpu"])
    estimates.main()
    assert kept.read_text().splitlines() == [
        "# idle",
        "# Other steps: busy",
        "rule\tmethod\tslide_mb\tseconds\tmemory_mb\tjobs",
        "costs\t\t0.0\t0.1\t300.0\t1",
        "fit\tcellina\t10.0\t64.0\t800.0\t6",
        "tabulate\t\t0.0\t3.0\t200.0\t1",
    ]


def test_what_a_run_will_take_is_added_up_from_its_jobs(table, tmp_path):
    large = tmp_path / "slides/d/large.h5ad"
    large.parent.mkdir(parents=True)
    large.write_bytes(bytes(20_000_000))

    def job(rule, slide=None, **wildcards):
        files = [slide, tmp_path / "predictions/d/s/p.h5ad"] if slide else []
        return SimpleNamespace(rule=SimpleNamespace(name=rule), wildcards=wildcards, input=files)

    fits = [job("fit", slide, method="cellina") for slide in (large.with_name("none.h5ad"), large)]
    jobs = estimates.planned([*fits, job("fit", method="ridge"), job("tabulate", method="x")])
    assert jobs == {("fit", "cellina"): [None, 20.0], ("fit", "ridge"): [0.0], ("tabulate", ""): [0.0]}
    said = estimates.table(jobs)
    # (64 + 4 + 2 x 60) / 2
    assert said[1].split() == ["2", "94.0", "800", "fit", "cellina"]
    assert said[2].split() == ["1", "?", "?", "fit", "ridge"]
    # 188 s + 3 s
    assert estimates.in_all(jobs, cores=2).startswith("About 3 min of jobs, 2 min on 2 cores; 3 min are")
    # The least where nobody knows how large a slide is; a simulated one is no surprise.
    prepared = [
        SimpleNamespace(rule=SimpleNamespace(name="prepare"), wildcards={"dataset": d}) for d in ("mine", "sim")
    ]
    config = {"datasets": {"mine": {"source": "xenium"}, "sim": {"source": "simulated"}}}
    unknown = estimates.not_prepared([*prepared, *fits], config)
    assert unknown == ["mine"]
    said = estimates.in_all(jobs, 2, unknown)
    assert said.startswith("At least 3 min of jobs, 2 min on 2 cores")
    assert said.endswith(
        "the slides of mine are not prepared, and count as 3,000 cells x 300 genes; ask again when they are (-n)."
    )
    # The sum is not all of it.
    assert estimates.in_all(jobs, cores=2).endswith(" Jobs of which there is no record come on top: 1.")


def test_folds_that_are_not_known_yet_are_counted_from_the_configuration():
    dataset = {"source": "h5ad", "fit": "per_sample", "methods": ["cellina", "ridge", "mean_shift", "scvi"]}
    named = dataset | {"holdout": {"cell_types": ["a", "b", "c"]}}
    config = {"seeds": [0, 1], "protocols": ["corrected"], "datasets": {"named": named}}
    config["datasets"]["auto"] = dataset | {"holdout": {"cell_types": "auto"}}
    left_out = {"fit": "leave_patient_out", "patients": {"p": ["s", "t"]}, "samples": None}
    config["datasets"]["unnamed"] = named | left_out
    config["datasets"]["patients"] = named | left_out | {"samples": ["s", "t", "u", "v"]}

    def folds(name):
        return SimpleNamespace(rule=SimpleNamespace(name="write_folds"), wildcards={"dataset": name})

    counted, all_known = estimates.of_folds_to_come([folds("named")] * 2, config)
    assert all_known
    # 2 slides x 3 types x 2 seeds; two environments
    steps = {("score", ""): 12, ("write_question", ""): 12, ("predict", ""): 24}
    assert counted == steps | {("fit", m): 12 for m in ("cellina", "ridge", "scvi")}
    for name in ("auto", "unnamed"):
        assert estimates.of_folds_to_come([folds(name)], config) == ({}, False)
    # Each type with each of three patients left out: p, u and v.
    assert estimates.of_folds_to_come([folds("patients")], config)[0][("score", "")] == 3 * 6


def test_the_comment_of_the_slurm_profile_names_every_rule_that_asks_for_a_card(root):
    comment = (root / "workflow/profiles/slurm/config.yaml").read_text().split("# set-resources:\n")[1]
    block = yaml.safe_load(comment.replace("# ", ""))
    of_methods = {"fit", "predict", "latents"}
    assert block.keys() == of_methods | {experiment.name for experiment in EXPERIMENTS if experiment.gpu}
    assert all(own == {"gpu": 0, "gres": "'gpu:1'", "slurm_partition": "gpu"} for own in block.values())


def test_every_recorded_method_is_one_of_the_table():
    assert {row.method for row in estimates.recorded().values()} <= {"", *METHODS}
