# Tables and figures: a rule for each row of the table of figures in the package, which says what a row means.
TABLES = "results/tables/{dataset}"


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
        script:
            "../scripts/figure.py"
