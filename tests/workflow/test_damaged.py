"""Intermediate files that were damaged: named in one sentence, and made again by the same command."""


def test_damaged_intermediates_are_named_and_made_again(finished, tmp_path):
    run = finished.copy_to(tmp_path / "run")
    table = "results/tables/tiny/scores.tsv"
    (run.folder / table).unlink()
    # Cut at the end of a line: a table of no folds, which would be planned without a word.
    folds = run.folder / "results/folds/tiny/slide_0.tsv"
    folds.write_text(folds.read_text().splitlines(keepends=True)[0])
    score = run.folder / "results/scores/tiny/slide_0/type_0/corrected.seed0.tsv"
    score.write_bytes(score.read_bytes()[: score.stat().st_size // 2])
    for damaged in (folds, score):
        outcome = run.snakemake(table)
        assert outcome.code != 0
        path = damaged.relative_to(run.folder)
        assert f"file {path}: it is not what was written there" in outcome.screen
        assert "Traceback" not in outcome.screen
        assert damaged.with_name(f"{damaged.name}.damaged").exists()
    outcome = run.snakemake(table)
    assert outcome.code == 0, outcome.screen
    assert outcome.planned().keys() == {"score", "tabulate"}
    assert run.bytes_of(table) == finished.bytes_of(table)
