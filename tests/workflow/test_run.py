"""What a run leaves behind, and that nothing is done twice."""

import json
import os
import re
import time

import pandas as pd
import pytest
from PIL import Image

from runs import Run, tiny
from tissue_counterfactuals.metrics import METRICS
from tissue_counterfactuals.results.tables import TWIN, read_scores

TABLES = "results/tables/tiny"
TABLES_DRAWN = [f"{TABLES}/{name}.corrected" for name in ("table_1.domain_1", "costs")]
FIGURES = [
    f"results/figures/tiny/{name}"
    for name in (
        "cell_types.domain_1.corrected",
        "map.slide_0",
        "schematic.corrected",
        "learning_curves.corrected",
        "metrics_under_test.domain_1.corrected",
        "intervals.domain_1.corrected",
    )
]


def test_every_promised_table_and_figure_is_there(finished):
    assert finished.files("results/tables") == [
        f"tiny/{name}"
        for name in sorted(
            [
                *("scores.tsv", "summary.tsv", "gains.tsv", "diagnostics.tsv", "deviations.tsv"),
                *(f"table_1.domain_1.corrected.{kind}" for kind in ("tsv", "md", "png", "svg")),
                *(f"costs.corrected.{kind}" for kind in ("tsv", "png", "svg")),
                *(f"{name}.domain_1.corrected.tsv" for name in ("intervals", "metrics_under_test", "cell_types")),
                *("map.slide_0.tsv", "learning_curves.corrected.tsv"),
                *("manifest.json", "provenance.json"),
            ]
        )
    ]
    # Times stand in the table of costs alone, so that the others are the same bytes in every run.
    tables = [f"results/tables/{name}" for name in finished.files("results/tables") if name.endswith(".tsv")]
    timed = [name for name in tables if "seconds" in finished.read(name).split("\n")[0].split("\t")]
    assert timed == ["results/tables/tiny/costs.corrected.tsv"]
    drawn = [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    assert sorted([*drawn, "results/figures/tiny/manifest.json"]) == [
        f"results/figures/{name}" for name in finished.files("results/figures")
    ]
    # No method of this run gives intervals, and the figure says so.
    assert "No method gave intervals here." in finished.read(f"{FIGURES[-1]}.svg")
    for name in TABLES_DRAWN + FIGURES:
        with Image.open(finished.folder / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 300
            # A blank sheet has one colour.
            assert len(picture.convert("L").getcolors()) > (20 if name == FIGURES[-1] else 50)
        # The map of 1,200 cells, too, stays small.
        assert 1_000 < (finished.folder / f"{name}.svg").stat().st_size < 500_000, name
    assert not finished.files("results/checkpoints")


def test_the_scores_are_tidy_and_complete(finished):
    scores = read_scores([finished.folder / TABLES / "scores.tsv"])
    assert (scores["status"] == "ok").all()
    assert set(scores["kind"]) == {"simulated"}
    assert set(scores["seed"]) == {0, 1}
    cellina = scores[scores["method"] == "cellina"]
    assert set(cellina["variant"]) == {"published", "any_type", "matched", TWIN}
    assert set(scores["method"]) == set(tiny()["methods"])
    # No method of this run gives intervals, and the true target cells were not asked for.
    absent = {"interval", "truth_in_place"}
    assert set(scores["metric"]) == {m.name for m in METRICS.values() if not m.needs & absent}
    # The bars of each type are these numbers.
    bars = pd.read_csv(finished.folder / f"{FIGURES[0].replace('figures', 'tables')}.tsv", sep="\t")
    kept = ["metric", "cell_type", "method", "variant"]
    own = scores[scores["protocol"] == "corrected"].groupby(kept)["value"].mean().reset_index()
    bars = bars[(bars["method"] == "cellina") & bars["mean"].notna()].merge(own, on=kept)
    assert {"published", TWIN} == {*bars["variant"]}
    assert bars["mean"].tolist() == pytest.approx(bars["value"].tolist(), rel=1e-4)
    # The seed reaches the training.
    values = cellina[cellina["metric"] == "rmse_counts"].pivot_table(index="variant", columns="seed", values="value")
    assert (values[0] != values[1]).all()


def test_table_1_and_provenance_say_where_the_numbers_come_from(finished):
    record = json.loads(finished.read(f"{TABLES}/provenance.json"))
    assert (record["dataset"], record["kind"], record["n_cells"]) == ("tiny", "simulated", 900)
    assert record["seeds"] == [0, 1]
    table = finished.read(f"{TABLES}/table_1.domain_1.corrected.md")
    for words in ("Cellina", "No change", "Ceiling", "simulated data", record["config_hash"]):
        assert words in table
    rows = pd.read_csv(finished.folder / f"{TABLES}/table_1.domain_1.corrected.tsv", sep="\t")
    assert len(rows) >= 4 + 4 + 3
    for name in ("summary", "gains", "diagnostics", "deviations"):
        assert len(pd.read_csv(finished.folder / f"{TABLES}/{name}.tsv", sep="\t")) > 0


def test_every_job_has_one_log_and_one_benchmark(first_outcome, finished):
    _, outcome = first_outcome
    logs = [name.removesuffix(".log") for name in finished.files("results/logs")]
    benchmarks = [name.removesuffix(".tsv") for name in finished.files("results/benchmarks")]
    assert logs == benchmarks
    # The target rule `all` is a job for snakemake, and does nothing.
    assert len(logs) == len(re.findall(r"Finished jobid", outcome.screen)) - 1
    for name in benchmarks:
        times = pd.read_csv(finished.folder / f"results/benchmarks/{name}.tsv", sep="\t")
        # To state what a training depends on takes no time.
        assert times["s"].item() > 0 or name.startswith("state_training/")
    fit = finished.read("results/logs/fit/tiny/slide_0/type_0/cellina/corrected.seed0.log")
    assert "epoch 40/40" in fit


def test_a_second_run_does_nothing(finished):
    before = finished.bytes_of(f"{TABLES}/provenance.json")
    outcome = finished.snakemake()
    assert outcome.code == 0
    assert "Nothing to be done" in outcome.screen
    assert finished.bytes_of(f"{TABLES}/provenance.json") == before


def test_a_configuration_that_is_only_newer_changes_nothing(finished, tmp_path):
    run = finished.copy_to(tmp_path / "run")
    later = time.time() + 3600
    os.utime(run.folder / "config.yaml", (later, later))
    outcome = run.snakemake()
    assert outcome.code == 0
    assert "Nothing to be done" in outcome.screen


@pytest.mark.parametrize(
    ("change", "again", "kept"),
    [
        ({"metrics": {"n_deg": 5}}, {"score", "tabulate", "table_cellina_1"}, {"prepare", "fit", "predict"}),
        ({"counterfactual": {"n_donors": 7}}, {"write_question", "predict", "score"}, {"prepare", "fit"}),
        ({"cellina": {"epochs": 3}}, {"fit", "predict", "score"}, {"prepare", "build_graph"}),
        # A training is not passed over because its question is written anew for another reason.
        ({"cellina": {"epochs": 3}, "counterfactual": {"n_donors": 7}}, {"write_question", "fit"}, {"prepare"}),
    ],
)  # fmt: skip
def test_a_change_runs_again_what_depends_on_it_and_no_more(finished, tmp_path, change, again, kept):
    run = finished.copy_to(tmp_path / "run").configure(tiny(**change))
    planned = run.snakemake("--dry-run").planned()
    assert again <= planned.keys()
    assert not kept & planned.keys()


def test_a_method_that_reads_donors_in_training_is_trained_anew_for_others(tmp_path):
    """Its intervals are learnt for what is asked; those of a question before would stay, or be missing."""
    told = {"methods": ["no_change", "ridge", "hierarchical"], "protocols": ["corrected"], "seeds": [0]}
    run = Run(tmp_path / "run").configure(tiny(**told))
    fits = run.snakemake("results/tables/tiny/scores.tsv")
    assert fits.code == 0, fits.screen
    n_folds = fits.screen.count("rule write_question:")
    outcome = run.configure(tiny(**told, counterfactual={"n_donors": 7})).snakemake("results/tables/tiny/scores.tsv")
    assert outcome.code == 0, outcome.screen
    again = re.findall(r"wildcards: .*method=(\w+)", outcome.screen)
    assert again == ["hierarchical"] * n_folds != []
