"""The recipes of CONTRIBUTING.md, followed in a copy of the checkout: what they name is all that is needed."""

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from runs import ROOT, Run, examples, tiny

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
EXPERIMENT = """

EXPERIMENTS += (
    Experiment(
        "toy",
        "toy.count",
        "celcomen.toy",
        switches=(),
        inputs={},
        outputs={"numbers": "results/celcomen/toy/numbers.tsv"},
        memory_mb=500,
        parallel=False,
    ),
)
WITHOUT_SLIDES += ("toy",)
"""
SETTINGS = """class ToySettings(Settings):
    \"\"\"A toy.\"\"\"

    up_to: int = Field(3, ge=1)
    \"\"\"The last number.\"\"\"


class CelcomenSettings(Settings):"""
FUNCTION = '''"""Counts."""

from tissue_counterfactuals.files import atomic_path


def count(settings, outputs):
    """Numbers up to the setting."""
    with atomic_path(outputs["numbers"]) as path:
        path.write_text("".join(f"{n}\\n" for n in range(settings["up_to"])))
'''
OF_TOY = """

FIGURES += (
    Figure(
        "toy_numbers",
        "toy",
        "toy numbers",
        {"numbers": "results/celcomen/toy/numbers.tsv"},
        "results/figures/celcomen/toy_numbers.png",
    ),
)
"""
OF_NUMBERS = '''"""The numbers."""

from tissue_counterfactuals.results.figures import style


def draw_files(inputs, output):
    """Draw the numbers."""
    numbers = [int(line) for line in open(inputs["numbers"])]
    with style.context():
        figure = style.new_figure(4, 3)
        figure.subplots().plot(numbers)
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


def test_a_metric_is_a_registered_function_and_a_figure_a_row_a_module_and_a_caption(finished, checkout, tmp_path):
    package = checkout / "workflow/tissue_counterfactuals"
    append(package / "metrics/__init__.py", METRIC)
    append(package / "results/figures/__init__.py", ROW)
    (package / "results/figures/toy_figure.py").write_text(MODULE)
    (checkout / "workflow/report/toy_figure.rst").write_text("Toys of {{ snakemake.wildcards.protocol }}.\n")
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


def test_a_layout_is_a_row_and_a_module(checkout, tmp_path):
    row, module, entry = examples("A layout that slides are read from")
    package = checkout / "workflow/tissue_counterfactuals"
    table = (package / "sources/__init__.py").read_text()
    (package / "sources/__init__.py").write_text(
        table.replace("    [\n        Reader(", f"    [\n        {row.strip()},\n        Reader(")
    )
    (package / "sources/two_tables.py").write_text(module)
    draw = np.random.default_rng(0)
    names = [f"cell_{i}" for i in range(60)]
    mine = tmp_path / "run/mine"
    for sample in ("one", "two"):
        (mine / sample).mkdir(parents=True)
        counts = draw.poisson(3, size=(60, 5))
        pd.DataFrame(counts, names, [f"G{i}" for i in range(5)]).to_csv(mine / sample / "counts.csv")
        x, y = draw.uniform(0, 100, size=(2, 60))
        labels = {"kind": ["a", "b"] * 30, "place": ["left"] * 30 + ["right"] * 30}
        pd.DataFrame({"x": x, "y": y, **labels}, names).sample(frac=1).to_csv(mine / sample / "cells.csv")
    run = Run(tmp_path / "run", checkout).configure(yaml.safe_load(entry))
    outcome = run.snakemake("results/slides/my_tissue/pooled.h5ad")
    assert outcome.code == 0, outcome.screen
    slide = anndata.read_h5ad(run.folder / "results/slides/my_tissue/pooled.h5ad")
    assert slide.shape == (120, 5)
    assert slide.obs.groupby("sample", observed=True).size().to_dict() == {"one": 60, "two": 60}
    counts = pd.read_csv(mine / "two/counts.csv", index_col=0)
    own = slide[slide.obs["sample"] == "two"]
    # Each cell has the counts and the labels of its own rows.
    ids = own.obs_names.str.removeprefix("two_")
    assert (own.X.toarray() == counts.loc[ids, own.var_names]).all(axis=None)
    assert list(own.obs["domain"]) == ["left" if name in names[:30] else "right" for name in ids]


def test_an_experiment_is_settings_a_row_and_a_function(checkout, tmp_path):
    package = checkout / "workflow/tissue_counterfactuals"
    append(package / "experiments/__init__.py", EXPERIMENT)
    append(package / "results/figures/__init__.py", OF_TOY)
    settings = package / "experiments/settings.py"
    text = settings.read_text().replace("class CelcomenSettings(Settings):", SETTINGS)
    first = "    simulation: SimulationSettings = SimulationSettings()\n"
    settings.write_text(text.replace(first, f"    toy: ToySettings = ToySettings()\n{first}"))
    (package / "experiments/toy.py").write_text(FUNCTION)
    (package / "results/figures/toy_numbers.py").write_text(OF_NUMBERS)
    (checkout / "workflow/report/toy_numbers.rst").write_text("Numbers.\n")
    celcomen = {"celcomen": {"without_slides": ["toy"], "toy": {"up_to": 4}}}
    run = Run(tmp_path / "run", checkout).configure(tiny() | celcomen)
    # What the target asks for are its figures.
    outcome = run.snakemake("celcomen")
    assert outcome.code == 0, outcome.screen
    assert outcome.planned() | {"toy": 1, "toy_numbers": 1} == outcome.planned()
    assert run.read("results/celcomen/toy/numbers.tsv").split() == ["0", "1", "2", "3"]
    refused = run.configure(tiny() | {"celcomen": {"toy": {"up_to": 0}}}).snakemake("celcomen")
    assert "celcomen.toy.up_to" in refused.screen
