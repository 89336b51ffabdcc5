"""Files that were damaged: named in one sentence, and made again by the same command."""

import subprocess
import sys

from runs import ROOT


def test_damaged_files_are_named_and_made_again(finished, tmp_path):
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


def test_a_damaged_table_or_figure_is_not_shown(finished, tmp_path):
    """No job reads them."""
    run = finished.copy_to(tmp_path / "run")
    figure = run.folder / "results/figures/tiny/map.slide_0.png"
    command = [sys.executable, ROOT / "workflow/scripts/show_results.py", "results", "report.html"]
    shown = subprocess.run(command, cwd=run.folder, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "map.slide_0.png" in shown.stdout
    figure.write_bytes(figure.read_bytes()[:-1])
    shown = subprocess.run(command, cwd=run.folder, capture_output=True, text=True)
    assert shown.returncode != 0
    (sentence,) = shown.stderr.splitlines()
    assert sentence.startswith("error: file results/figures/tiny/map.slide_0.png: it is not what was written there")
    # The figure lies aside now; a report is made of nothing that was damaged either.
    table = run.folder / "results/tables/tiny/summary.tsv"
    table.write_bytes(table.read_bytes().replace(b"0", b"1", 1))
    outcome = run.snakemake("--report", "report.html")
    assert outcome.code != 0
    assert "file results/tables/tiny/summary.tsv: it is not what was written there" in outcome.screen
    assert not (run.folder / "report.html").exists()
    assert "name it as the target of a run" in outcome.screen
    outcome = run.snakemake("-n", "results/tables/tiny/summary.tsv", str(figure.relative_to(run.folder)))
    assert outcome.code == 0, outcome.screen
    assert outcome.planned().keys() == {"tabulate", "figure_cellina_2"}
