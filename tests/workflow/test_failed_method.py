"""A method that fails is a result: shown with its reason, and no obstacle to the others."""

from runs import tiny
from tissue_counterfactuals.results.tables import read_scores

REASON = "it did not end within its time limit of 0.001 minutes"


def test_a_training_that_does_not_end_is_shown_as_failed(finished, tmp_path):
    config = tiny(seeds=[0], cellina={"epochs": 1000, "time_limit_minutes": 0.001})
    run = finished.copy_to(tmp_path / "run").configure(config)
    outcome = run.snakemake("table1")
    assert outcome.code == 0, outcome.screen

    scores = read_scores([run.folder / "results/tables/tiny/scores.tsv"])
    failed = scores[scores["status"] == "failed"]
    assert failed["method"].tolist() == ["cellina"]
    assert failed["reason"].item() == f"fit: {REASON}"
    others = scores.loc[scores["status"] == "ok", "method"]
    assert set(others) == set(config["methods"]) - {"cellina"}

    table = run.read("results/tables/tiny/table_1.domain_1.corrected.md")
    row = next(line for line in table.splitlines() if line.startswith("| Cellina"))
    assert "failed" in row
    assert REASON in table
    log = run.read("results/logs/fit/tiny/slide_0/type_0/cellina/corrected.seed0.log")
    assert REASON in log
