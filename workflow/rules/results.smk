# Tables and figures: a rule for each row of the table of figures in the package, which says what a row means.
TABLES = "results/tables/{dataset}"
# Capital letters come before the names of data sets.
COMPARISON = "Answer"


rule tabulate:
    input:
        scores=per_fold(
            "results/scores/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.tsv"
        ),
        # Read from beside the scores.
        diagnostics=per_fold(
            "results/scores/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.diagnostics.tsv"
        ),
        slides=lambda w: expand(
            "results/slides/{dataset}/{slide}.h5ad",
            dataset=w.dataset,
            slide=SLIDES[w.dataset],
        ),
        folds=lambda w: expand(
            "results/folds/{dataset}/{slide}.tsv",
            dataset=w.dataset,
            slide=SLIDES[w.dataset],
        ),
    output:
        scores=f"{TABLES}/scores.tsv",
        summary=report(
            f"{TABLES}/summary.tsv",
            caption="../report/tables.rst",
            category="{dataset}",
            labels={"result": "summary of all metrics"},
        ),
        gains=report(
            f"{TABLES}/gains.tsv",
            caption="../report/tables.rst",
            category="{dataset}",
            labels={"result": "gain over twin and controls"},
        ),
        diagnostics=f"{TABLES}/diagnostics.tsv",
        deviations=report(
            f"{TABLES}/deviations.tsv",
            caption="../report/tables.rst",
            category="{dataset}",
            labels={"result": "as run and corrected"},
        ),
        provenance=f"{TABLES}/provenance.json",
    log:
        "results/logs/tabulate/{dataset}.log",
    benchmark:
        "results/benchmarks/tabulate/{dataset}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_join,
        runtime=runtime_of("tabulate", least=30),
    params:
        config=config,
    script:
        "../scripts/tabulate.py"


for figure in FIGURES:

    rule:
        name:
            figure.name
        input:
            **inputs_of(figure),
        output:
            *outputs_of(figure)[0],
            **outputs_of(figure)[1],
        log:
            of_job("logs", figure.name, figure.outputs, "log"),
        benchmark:
            of_job("benchmarks", figure.name, figure.outputs, "tsv")
        conda:
            "../../envs/core.yaml"
        resources:
            mem_mb=memory_of_join,
            runtime=runtime_of(figure.name, least=30),
        script:
            "../scripts/figure.py"


# Published numbers and statements beside those of a target's results; it reads tables, so that it costs seconds.
rule compare_with_published:
    input:
        tables=tables_compared,
        figures=pictures_compared,
        published=[
            of_checkout(path)
            for path in [
                *sorted((RESOURCES / "published").glob("*.tsv")),
                *(
                    RESOURCES / f"{name}.tsv"
                    for name in ("expected_shapes", "datasets")
                ),
                RESOURCES.parent / "config" / "paper.yaml",
            ]
        ],
        # Where it says whom to cite for data of one's own.
        table=config["downloads"]["table"] or [],
    output:
        page=report(
            "results/compare/{run}/page.html",
            caption="../report/compare.rst",
            category=COMPARISON,
            labels={"result": "tables and figures, to sort and filter"},
        ),
        statements=report(
            "results/compare/{run}/statements.tsv",
            caption="../report/compare.rst",
            category=COMPARISON,
            labels={"result": "statements of the papers"},
        ),
        numbers=report(
            "results/compare/{run}/numbers.tsv",
            caption="../report/compare.rst",
            category=COMPARISON,
            labels={"result": "published numbers and ours"},
        ),
        methods=report(
            "results/compare/{run}/methods.md",
            caption="../report/compare.rst",
            category=COMPARISON,
            labels={"result": "methods and settings, to paste"},
        ),
        answer="results/compare/{run}/answer.md",
        opening="results/compare/{run}/opening.html",
    log:
        "results/logs/compare_with_published/{run}.log",
    benchmark:
        "results/benchmarks/compare_with_published/{run}.tsv"
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=memory_of_task,
        runtime=runtime_of("compare_with_published", least=30),
    params:
        config=config,
    script:
        "../scripts/compare.py"
