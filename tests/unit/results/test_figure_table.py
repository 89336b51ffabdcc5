"""The tables of figures and of experiments: every row has its module and caption, and makes what another reads."""

import inspect
import re

import pytest

from tissue_counterfactuals.config import Config, load_config
from tissue_counterfactuals.experiments import (
    EXPERIMENTS,
    ON_EACH_SLIDE,
    ON_SLIDES,
    WITHOUT_SLIDES,
)
from tissue_counterfactuals.protocols import SWITCHES
from tissue_counterfactuals.results.figures import FIGURES


def wildcards(*paths):
    return {name for path in paths for name in re.findall(r"{(\w+)}", path)}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_has_a_module_and_a_caption(root, figure):
    module = __import__(f"tissue_counterfactuals.results.figures.{figure.name}", fromlist=["draw"])
    parameters = list(inspect.signature(module.draw_files).parameters)
    assert parameters[2:] == list(figure.takes)
    assert set(figure.takes) <= wildcards(*figure.outputs)
    assert (root / f"workflow/report/{figure.name}.rst").is_file()


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_an_experiment_has_a_function_that_takes_what_it_is_given(root, experiment):
    module, name = experiment.function.split(".")
    module = __import__(f"tissue_counterfactuals.experiments.{module}", fromlist=[name])
    given = {*experiment.inputs, *experiment.takes, "settings", "outputs"}
    given |= {"switches"} if experiment.switches else set()
    assert set(inspect.signature(getattr(module, name)).parameters) == given
    assert set(experiment.shown) <= set(experiment.outputs)
    if experiment.shown:
        assert (root / f"workflow/report/{experiment.caption}.rst").is_file()
    settings = Config.model_construct().model_dump()
    for key in experiment.section.split("."):
        settings = settings[key]
    assert set(experiment.unread) <= set(settings)
    known = {*SWITCHES, *(switch.step for switch in SWITCHES.values())}
    assert set(experiment.switches) <= known


def test_what_a_figure_reads_some_step_makes():
    made = {path for experiment in EXPERIMENTS for path in experiment.outputs.values()}
    for row in (*EXPERIMENTS, *(f for f in FIGURES if f.of != "cellina")):
        for path in row.inputs.values():
            of_slide = path.startswith(
                (
                    "results/slides/",
                    "results/graphs/",
                    "results/latents/",
                    "results/models/",
                    "results/benchmarks/",
                )
            )
            assert path in made or of_slide, (row.name, path)


def test_no_two_rows_have_the_same_name():
    # Each becomes a rule.
    names = [row.name for row in (*EXPERIMENTS, *FIGURES)]
    assert len(set(names)) == len(names)


def test_no_two_rows_make_the_same_file():
    paths = [path for e in EXPERIMENTS for path in e.outputs.values()]
    paths += [path for figure in FIGURES for path in figure.outputs]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_every_picture_is_promised_as_png_and_as_svg(figure):
    stem, _, shown = figure.outputs[-1].rpartition(".")
    pictures = {path for path in figure.outputs if path.endswith((".png", ".svg"))}
    assert pictures == {f"{stem}.png", f"{stem}.svg"}
    assert figure.beside in pictures - {f"{stem}.{shown}"}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_what_a_picture_shows_is_a_table_too(figure):
    """Its own, or the tables of the experiment that it draws as they are; a drawing of the settings shows no data."""
    tables = [path for path in figure.outputs if path.endswith(".tsv")]
    if figure.of != "cellina":
        tables += [path for path in figure.inputs.values() if path.endswith(".tsv")]
    assert bool(tables) == (figure.name != "figure_cellina_1")


def test_every_experiment_that_can_be_asked_for_ends_in_a_figure():
    drawn = {figure.of for figure in FIGURES}
    assert drawn == {"cellina", *ON_EACH_SLIDE, *ON_SLIDES, *WITHOUT_SLIDES}
    experiments = [*ON_EACH_SLIDE, *ON_SLIDES]
    entry = {"source": "h5ad", "path": "https://example.org/a.h5ad", "experiments": experiments}
    entry |= {"control_domain": "a", "target_domains": ["b"]}
    asked = {"datasets": {"a": entry}, "celcomen": {"without_slides": list(WITHOUT_SLIDES)}}
    assert load_config(asked)["datasets"]["a"]["experiments"] == experiments


def test_the_schematic_is_drawn_for_either_form_of_cellina_and_attention_for_the_one_that_has_it():
    drawn = {figure.name: figure.has_methods for figure in FIGURES}
    for run, schematic, attention in (
        (["cellina"], True, False),
        (["no_change", "cellina_gat"], True, True),
        (["no_change"], False, False),
    ):
        assert drawn["figure_cellina_1"](run) is schematic
        assert drawn["attention"](run) is attention
        assert drawn["figure_cellina_2"](run)
