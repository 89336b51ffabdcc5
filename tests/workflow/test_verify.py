"""A run leaves a manifest, and `verify` says whether the results are still those of the run."""

import json


def test_verify_holds_after_a_run_and_names_what_was_changed_since(finished, tmp_path):
    run = finished.copy_to(tmp_path / "run")
    manifest = json.loads(run.read("results/manifest.json"))
    table = "tables/tiny/scores.tsv"
    assert manifest["steps"]["fit"]["jobs"] == 2
    assert json.loads(run.read("results/ro-crate-metadata.json"))["@graph"]
    outcome = run.snakemake("verify")
    assert outcome.code == 0, outcome.screen

    (run.folder / "results" / table).write_text(run.read(f"results/{table}") + "\n")
    outcome = run.snakemake("verify")
    assert outcome.code == 1
    assert f"file results/{table}: it is not what the run wrote" in outcome.screen
