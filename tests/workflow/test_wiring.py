"""What rules hand to their jobs beside files: settings of the job's own protocol, cards, minutes and megabytes."""

import json

import pytest

from runs import ROOT, Run, tiny
from tissue_counterfactuals import estimates, protocols

SIZE_MB = 200
PROBE = """
import json
from snakemake.iocontainers import Wildcards

include: "{snakefile}"

rule nothing:
    output: "nothing"


class Files(list):
    environment = ""


SLIDE = "results/slides/tiny/slide_0.h5ad"


def told(name, protocol="as_run", method="cellina", slide="slide_0", files=(SLIDE,)):
    known = dict(dataset="tiny", slide=slide, fold="type_0", protocol=protocol, seed="0", method=method)
    wildcards = Wildcards(fromdict=known | dict(environment="core"))
    of_rule, given, found = workflow.get_rule(name), dict(input=Files(files), attempt=2), dict()
    for key, value in of_rule.params.items():
        if callable(value):
            names = value.__code__.co_varnames[1 : value.__code__.co_argcount]
            value = value(wildcards, **dict((n, given[n]) for n in names))
        found[key] = value
    for key in ("mem_mb", "runtime", "gpu"):
        value = of_rule.resources.get(key) or 0
        found[key] = value.evaluate(wildcards, **given).value if hasattr(value, "evaluate") else value
    return found


ASKED = dict(
    score=told("score"),
    score_corrected=told("score", "corrected"),
    question=told("write_question"),
    cellina=told("fit"),
    ridge=told("fit", method="ridge"),
    alike=told("fit", method="cpa", slide="slide_0+random+300"),
    predict=told("predict"),
    # One after another, so that the largest counts.
    tabulate=told("tabulate", files=3 * [SLIDE]),
    figure_cellina_a2=told("figure_cellina_a2", files=3 * [SLIDE]),
)
print("PROBE", json.dumps(ASKED, default=str))
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("wiring"))
    lengths = {"cellina_experiments": {"scalability": {"epochs": 7, "batch_size": 33}}}
    run.configure(tiny(device="cuda", protocols=["corrected", "as_run"]) | lengths)
    slide = run.folder / "results/slides/tiny/slide_0.h5ad"
    slide.parent.mkdir(parents=True)
    with open(slide, "wb") as file:
        file.truncate(SIZE_MB << 20)
    (run.folder / "Probe").write_text(PROBE.format(snakefile=ROOT / "Snakefile"))
    outcome = run.snakemake("--dry-run", "--snakefile", str(run.folder / "Probe"), "nothing")
    (line,) = [line for line in outcome.screen.splitlines() if line.startswith("PROBE ")]
    return json.loads(line.removeprefix("PROBE "))


def test_a_job_has_the_switches_of_its_own_protocol(asked):
    for name, protocol in (("score", "as_run"), ("score_corrected", "corrected")):
        assert asked[name]["switches"] == protocols.of_step(protocols.resolve(protocol), "metrics")
    assert asked["score"]["switches"] != asked["score_corrected"]["switches"]
    settings = asked["question"]["settings"]
    every, others = map(protocols.resolve, ("as_run", "corrected"))
    assert settings["protocol"] == "as_run"
    assert settings["switches"].items() <= every.items()
    assert settings["switches"]["donor_domain"] == every["donor_domain"] != others["donor_domain"]


def test_a_card_is_asked_for_where_one_is_used(asked):
    found = {name: told["gpu"] or 0 for name, told in asked.items()}
    assert found == {
        "cellina": 1, "predict": 1, "ridge": 0, "alike": 1,
        "score": 0, "score_corrected": 0, "question": 0, "tabulate": 0, "figure_cellina_a2": 0,
    }  # fmt: skip


def test_a_job_asks_for_the_minutes_of_its_method_and_for_more_when_it_is_sent_again(asked):
    for method in ("cellina", "ridge"):
        assert asked[method]["runtime"] == 2 * estimates.minutes("fit", SIZE_MB * 1.048576, method)
    assert asked["cellina"]["runtime"] > asked["ridge"]["runtime"]
    assert {told["mem_mb"] for told in asked.values()} == {2 * (2000 + 8 * SIZE_MB)}


def test_where_costs_are_compared_all_train_as_long_in_batches_of_one_size(asked):
    settings = json.loads(asked["alike"]["settings"])["cpa"]
    assert (settings["max_epochs"], settings["batch_size"]) == (7, 33)
