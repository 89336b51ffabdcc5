"""The Snakefile itself: no finding of the linter, and every named target resolves."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from runs import Run, examples, tiny


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
    # What only a profile's default would bound is too small for a large slide.
    told = [text.strip() for text in re.split(r"^\[.*\]$", outcome.screen, flags=re.MULTILINE)]
    made = [text for text in told if text.startswith(("rule ", "checkpoint ")) and "output: " in text]
    jobs = {text.split(":")[0].split()[1]: text for text in made}
    assert rules | {"prepare", "write_folds", "tabulate"} <= jobs.keys()
    asked = {name: re.findall(r"(\w+)=", text.split("resources: ")[-1].split("\n")[0]) for name, text in jobs.items()}
    assert [name for name, resources in asked.items() if not {"mem_mb", "runtime"} <= {*resources}] == []


def test_a_file_of_a_data_set_that_is_not_configured_has_no_rule(tmp_path):
    outcome = Run(tmp_path).configure(tiny()).snakemake("--dry-run", "results/tables/tin/scores.tsv")
    assert outcome.code != 0
    assert "No rule to produce results/tables/tin/scores.tsv" in outcome.screen
    assert "KeyError" not in outcome.screen


def test_under_an_equal_budget_trainings_whose_costs_are_compared_count_epochs(tmp_path):
    run = Run(tmp_path).configure(tiny(budget="equal", equal_steps=77, protocols=["corrected"]))
    fits = [("cellina", "slide_0"), ("cellina", "slide_0+random+300"), ("ridge", "slide_0")]
    targets = [f"results/models/tiny/{slide}/all+/{method}/corrected.seed0" for method, slide in fits]
    outcome = run.snakemake("--dry-run", "--printshellcmds", *targets)
    lines = [line for line in outcome.screen.splitlines() if " fit " in line and "--method" in line]
    given = {("ridge" in line, "+random+" in line): "--steps 77" in line for line in lines}
    # A method that takes no steps trains as ever, whatever the budget.
    assert given == {(False, False): True, (False, True): False, (True, False): False}


def test_a_dry_run_ends_with_what_the_run_will_take(tmp_path):
    run = Run(tmp_path).configure(tiny())
    outcome = run.snakemake("--dry-run", "table1")
    *steps, end, _ = outcome.screen.split(" jobs    s each")[1].splitlines()
    # One fold is to come, with two seeds; the folds are not known yet.
    jobs = {" ".join(line.split()[3:]): int(line.split()[0]) for line in steps[1:]}
    assert {jobs["fit cellina"], jobs["predict"], jobs["score"]} == {2}
    assert "min of jobs, " in end
    # A run begins with how long it will take. Where nothing is to be done, nothing is said.
    screen = run.snakemake("results/slides/tiny/slide_0.h5ad").screen
    assert screen.index("min of jobs, ") < screen.index("steps (100%) done")
    assert "s each" not in screen
    assert "s each" not in run.snakemake("--dry-run", "results/slides/tiny/slide_0.h5ad").screen


def test_the_slide_of_the_readme_is_asked_its_questions(tmp_path):
    """A file as the example describes it: two sections in which all types and domains are."""
    (block,) = (text for text in examples("Your own slide", "README.md") if text.startswith("datasets:"))
    config = yaml.safe_load(block)
    rng, genes = np.random.default_rng(0), ["Il1b", "Stat3", "Cxcl1", "Tnfaip3", *(f"Gene{i}" for i in range(96))]
    labels = {"annotation": ["astrocyte", "microglia", "neuron"], "region": ["cortex", "lesion"]}
    labels["section"] = ["left", "right"]
    obs = pd.DataFrame({column: rng.choice(values, 3000) for column, values in labels.items()})
    slide = anndata.AnnData(rng.poisson(1.0, (3000, len(genes))).astype(np.float32), obs=obs)
    slide.var_names, slide.obsm["spatial"] = genes, rng.uniform(0, 600, (3000, 2))
    weights = pd.DataFrame({"source": "il1b", "target": "Stat3", "weight": 1.5, "cell_type": labels["annotation"]})
    run = Run(tmp_path).configure(config)
    slide.write_h5ad(tmp_path / "my_slide.h5ad")
    weights.to_csv(tmp_path / "by_type.tsv", sep="\t", index=False)
    outcome = run.snakemake("--dry-run", "my_slide")
    assert outcome.code == 0, outcome.screen
    questions = config["datasets"]["my_slide"]["questions"]
    (one,) = (asked["name"] for asked in questions if "sample" in asked)
    found = re.findall(r"results/answers/my_slide/(left|right)/(\w+)/answer.md", outcome.screen)
    assert len(questions) == 9
    everywhere = {(section, asked["name"]) for section in labels["section"] for asked in questions}
    # A question about one section is not asked of the other, where it has no cells.
    assert set(found) == everywhere - {("right", one)}


def test_one_more_method_or_seed_of_a_question_trains_no_other_again(tmp_path):
    asked = {"name": "q", "cell_type": "type_0", "domain": "domain_0", "move_to": "domain_1"}
    asked |= {"methods": ["hierarchical"], "seeds": [0]}
    config = tiny(protocols=["corrected"], methods=["hierarchical", "ridge"])
    entry = config["datasets"]["tiny"]
    target = "results/answers/tiny/slide_0/q/answer.md"
    run = Run(tmp_path).configure(config | {"datasets": {"tiny": entry | {"questions": [asked]}}})
    outcome = run.snakemake("--notemp", target)
    assert outcome.code == 0, outcome.screen
    answered = {"predict": 1, "answer": 1}
    trained = answered | {"state_training": 1, "fit": 1}
    for edit, counterfactual, jobs in (
        ({}, {"node": {"n_genes": 5}, "donor_rules": ["published"]}, {}),
        ({"methods": ["hierarchical", "ridge"]}, {}, trained),
        ({"seeds": [0, 1]}, {}, trained | {"write_own_question": 1}),
        ({"move_to": "domain_2"}, {}, trained | {"write_own_question": 1}),
    ):
        own = {"datasets": {"tiny": entry | {"questions": [asked | edit]}}}
        own["counterfactual"] = config["counterfactual"] | counterfactual
        outcome = run.configure(config | own).snakemake("--dry-run", target)
        assert outcome.code == 0, outcome.screen
        assert ({} if "Nothing to be done" in outcome.screen else outcome.planned()) == jobs


def test_an_edit_makes_anew_what_reads_it_and_no_more(tmp_path):
    """What a dry run over one finished training plans after an edit."""
    config = tiny(methods=["no_change", "ridge"], seeds=[0], protocols=["corrected"])
    entry = config["datasets"]["tiny"]
    target = "results/predictions/tiny/slide_0/type_0/corrected.seed0/core.h5ad"
    run = Run(tmp_path).configure(config)
    outcome = run.snakemake(target)
    assert outcome.code == 0, outcome.screen
    two_types = {"holdout": {"cell_types": ["type_0", "type_1"]}}
    trained = {"state_training", "write_question", "fit", "predict"}
    edits = {
        "unread": ({"experiments": ["cellina", "cellina_weights"], "patients": {"p": ["slide_0"]}}, set()),
        "unread of holdout": ({"holdout": {"cell_types": ["type_0"], "min_cells": 12}}, set()),
        "another type": (two_types, {"write_folds", "write_question", "predict"}),
        "domains": ({"control_domain": "domain_2"}, trained | {"write_folds"}),
        # The question is written anew too, which is no reason to train.
        "graph": ({"graph": {"max_neighbors": 21}}, trained | {"build_graph"}),
        # Fewer than there are: they are chosen without the cells of each fold.
        "genes": (
            {"preprocess": {"n_top_genes": 30}},
            {"prepare", "build_graph", "write_folds", *trained} - {"state_training"},
        ),
    }
    planned = {}
    for name, (edit, _) in edits.items():
        outcome = run.configure(config | {"datasets": {"tiny": entry | edit}}).snakemake("--dry-run", target)
        assert outcome.code == 0, outcome.screen
        planned[name] = set() if "Nothing to be done" in outcome.screen else {*outcome.planned()}
    assert planned == {name: jobs for name, (_, jobs) in edits.items()}


def test_an_experiment_can_have_seeds_of_its_own(tmp_path):
    names = ("application", "disentanglement", "gene_range", "scalability", "weights")
    asked = tiny(seeds=[0, 1], protocols=["corrected"], methods=["no_change", "cellina"])
    asked["datasets"]["tiny"]["experiments"] = [f"cellina_{name}" for name in names]
    asked["cellina_experiments"] = {
        name: {"seeds": [place]} | ({"methods": ["cellina"]} if name in ("disentanglement", "scalability") else {})
        for place, name in enumerate(names)
    }
    outcome = Run(tmp_path).configure(asked).snakemake("--dry-run", "tiny")
    assert outcome.code == 0, outcome.screen
    jobs = re.findall(r"rule (\w+):.*?wildcards: (.*?)\n", outcome.screen, flags=re.DOTALL)
    seeds = {
        name: {re.search(r"\bseed=(\d+)", wildcards)[1] for rule, wildcards in jobs if rule == f"cellina_{name}"}
        for name in names
    }
    assert seeds == {name: {str(place)} for place, name in enumerate(names)}
    # So do the trainings that are made for them alone.
    found = [re.search(r"slide=(\w+)[+,].*\bseed=(\d+)", wildcards) for rule, wildcards in jobs if rule == "fit"]
    assert {fit.groups() for fit in found} == {("pooled", "1"), ("slide_0", "3")}
