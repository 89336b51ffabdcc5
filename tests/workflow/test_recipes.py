"""The recipes of CONTRIBUTING.md, followed in a copy of the checkout: what they name is all that is needed."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from runs import ROOT, Run, tiny

METRIC = '''

def _toy(comparison) -> float:
    """Mean of the predicted change over all genes."""
    return comparison.change.mean()


METRICS["toy"] = Metric("toy", "Toy", "higher", 1, "mean predicted change", _toy)
'''
ROW = """

FIGURES += (
    Figure(
        "toy_figure",
        "cellina",
        "toys",
        _SCORES,
        f"{_FIGURES}/toy.{{protocol}}.png",
        takes=("protocol",),
    ),
)
"""
MODULE = '''"""Toy scores of each method."""

from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import read_scores


def draw_files(inputs, output, protocol):
    """Draw from the scores of a data set."""
    scores = read_scores([inputs["scores"]])
    toys = scores[(scores["metric"] == "toy") & (scores["protocol"] == protocol)]
    with style.context():
        figure = style.new_figure(4, 3)
        figure.subplots().bar(toys["method"], toys["value"])
        style.save(figure, output)
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a run needs of the checkout."""
    copy = tmp_path_factory.mktemp("recipes") / "checkout"
    for part in ("workflow", "config", "resources", "envs", "profiles"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", copy)
    return copy


def append(path, text):
    path.write_text(path.read_text() + text)


def test_a_metric_is_a_registered_function_and_a_figure_a_row_a_module_and_a_caption(
    finished, checkout, tmp_path
):
    package = checkout / "workflow/tissue_counterfactuals"
    append(package / "metrics/__init__.py", METRIC)
    append(package / "results/figures/__init__.py", ROW)
    (package / "results/figures/toy_figure.py").write_text(MODULE)
    (checkout / "workflow/report/toy_figure.rst").write_text("Toys of {{ snakemake.wildcards.protocol }}.\n")  # fmt: skip
    run = Run(finished.copy_to(tmp_path / "run").folder, checkout)
    picture = "results/figures/tiny/toy.corrected.png"
    outcome = run.snakemake(picture, "--forcerun", "score")
    assert outcome.code == 0, outcome.screen
    assert outcome.planned() == {"score": 2, "tabulate": 1, "toy_figure": 1}
    with Image.open(run.folder / picture) as drawn:
        assert drawn.size == (600, 450)
    scores = pd.read_csv(run.folder / "results/tables/tiny/scores.tsv", sep="\t")
    assert scores.loc[scores["metric"] == "toy", "value"].notna().all()
    assert set(scores.loc[scores["metric"] == "toy", "method"]) == set(tiny()["methods"])
    # It is among the results of the data set, without another word.
    assert "toy_figure" in run.snakemake("--dry-run", "--forcerun", "toy_figure", "tiny").planned()
