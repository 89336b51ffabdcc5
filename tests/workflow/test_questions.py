"""A question of a user's own, from a file to an answer with one command and no benchmark."""

import json

import pandas as pd

from opened import check_declared, watched
from runs import tiny
from user_slides import ENTRY, write_users_slide

QUESTION = {"name": "stimulated", "cell_type": "T cell (CD4+)", "domain": "normal", "shift_pathway": "Hypoxia"}


def test_questions_alone(tmp_path):
    kept = ("path", "layer", "columns", "spatial", "unit_um", "graph")
    shifted = {
        "name": "silenced",
        "cell_type": "type_1",
        "domain": "stroma",
        "shift_genes": ["gene_03", "HALLMARK_HYPOXIA"],
    }
    questions = [
        QUESTION | {"methods": ["hierarchical", "ridge"]},
        shifted | {"methods": ["hierarchical"], "seeds": [3]},
    ]
    entry = {key: ENTRY[key] for key in kept} | {"kind": "stand-in"}
    config = tiny(seeds=[0]) | {"hierarchical": {"n_components": 4}}
    del config["methods"]
    config["datasets"] = {
        "mine": entry
        | {"questions": [*questions, shifted | {"name": "bad", "shift_genes": ["gene_3"], "methods": ["hierarchical"]}]}
    }
    with watched(tmp_path) as run:
        slide = write_users_slide(run.folder / "mine.h5ad")
        # A gene of bundled sets and pathways, whose files the jobs then read.
        slide.var_names = ["VEGFA" if gene == "gene_05" else gene for gene in slide.var_names]
        slide.write_h5ad(run.folder / "mine.h5ad")
        outcome = run.configure(config).snakemake("mine")
        begun = (run.folder / "results/slides").exists()
        config["datasets"]["mine"]["questions"] = questions
        answered = run.configure(config).snakemake("mine")
    assert outcome.code == 1
    assert (
        "datasets.mine.questions[2].shift_genes names 'gene_3', which is neither a gene of the slide" in outcome.screen
    )
    # The header of the file told, so that nothing has run.
    assert not begun

    assert answered.code == 0, answered.screen
    check_declared(run, {})
    assert not (run.folder / "results/scores").exists()
    answers = "results/answers/mine/mine"
    assert run.files(answers) == [
        f"{q['name']}/{name}"
        for q in sorted(questions, key=lambda q: q["name"])
        for name in (
            "answer.md",
            "answer.png",
            "answer.svg",
            "cells.tsv",
            "gene_sets.tsv",
            "genes.tsv",
            "manifest.json",
            "pathways.tsv",
        )
    ]
    text = run.read(f"{answers}/stimulated/answer.md")
    assert "[stand-in], slide mine: T cell (CD4+) of normal, Hypoxia stimulated in their neighbours" in text
    assert "1 seed" in text
    assert "Random effects (ours)" in text
    genes = pd.read_csv(run.folder / answers / "silenced/genes.tsv", sep="\t")
    assert genes["change_hierarchical"].notna().all()
    assert "gene_03, HALLMARK_HYPOXIA knocked out in their neighbours" in run.read(f"{answers}/silenced/answer.md")
    # Every method that was named has answered.
    status = run.read("results/models/mine/mine/asked+stimulated/ridge/corrected.seed0/status.json")
    assert json.loads(status)["status"] == "ok"
    own = run.read("results/models/mine/mine/asked+silenced/hierarchical/corrected.seed3/status.json")
    assert json.loads(own)["status"] == "ok"
    # What to say of it in a paper, and the answers before all else, stand there without a benchmark too.
    assert "; T cell (CD4+) of normal, Hypoxia stimulated in their neighbours" in run.read(
        "results/compare/mine/methods.md"
    )
    assert run.read("results/compare/mine/answer.md").startswith("# Answer\n\nOwn questions: ")
