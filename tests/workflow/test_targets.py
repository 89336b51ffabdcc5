"""The Snakefile itself: no finding of the linter, and every named target resolves."""

import pytest

from runs import Run, tiny


def test_the_linter_finds_nothing(tmp_path):
    outcome = Run(tmp_path).configure(tiny()).snakemake("--lint")
    assert outcome.code == 0, outcome.screen
    assert "Congratulations, your workflow is in a good condition!" in outcome.screen


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("demo", {"table_cellina_1", "figure_cellina_2"}),
        ("table1", {"table_cellina_1"}),
        ("figures", {"figure_cellina_a2", "figure_cellina_2", "learning_curves", "intervals"}),
        ("report", {"table_cellina_1", "figure_cellina_a2", "figure_cellina_2", "learning_curves"}),
        ("all", {"table_cellina_1", "figure_cellina_a2", "figure_cellina_2", "learning_curves"}),
        ("tiny", {"table_cellina_1", "figure_cellina_a2", "figure_cellina_2", "learning_curves"}),
    ],
)
def test_a_target_resolves(tmp_path, target, rules):
    outcome = Run(tmp_path).configure(tiny()).snakemake("--dry-run", target)
    assert outcome.code == 0, outcome.screen
    assert rules | {"prepare", "tabulate"} <= outcome.planned().keys()
