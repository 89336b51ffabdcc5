# Tables and figures. They read tidy tables and slides, never models.
TABLES = "results/tables/{dataset}"


rule tabulate:
    input:
        scores=per_fold(
            "results/scores/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.tsv"
        ),
        slides=lambda w: expand(
            "results/slides/{dataset}/{slide}.h5ad",
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


rule table_1:
    input:
        scores=f"{TABLES}/scores.tsv",
        provenance=f"{TABLES}/provenance.json",
    output:
        tsv=f"{TABLES}/table_1.{{target}}.{{protocol}}.tsv",
        md=f"{TABLES}/table_1.{{target}}.{{protocol}}.md",
        png=report(
            f"{TABLES}/table_1.{{target}}.{{protocol}}.png",
            caption="../report/table_cellina_1.rst",
            category="{dataset}",
            labels={
                "result": "Table 1",
                "target": "{target}",
                "protocol": "{protocol}",
            },
        ),
    log:
        "results/logs/table_1/{dataset}/{target}.{protocol}.log",
    benchmark:
        "results/benchmarks/table_1/{dataset}/{target}.{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/table_1.py"


rule figure_cell_types:
    input:
        scores=f"{TABLES}/scores.tsv",
        provenance=f"{TABLES}/provenance.json",
    output:
        report(
            "results/figures/{dataset}/cell_types.{target}.{protocol}.png",
            caption="../report/figure_cellina_a2.rst",
            category="{dataset}",
            labels={
                "result": "scores by held-out type",
                "target": "{target}",
                "protocol": "{protocol}",
            },
        ),
    log:
        "results/logs/figure_cell_types/{dataset}/{target}.{protocol}.log",
    benchmark:
        "results/benchmarks/figure_cell_types/{dataset}/{target}.{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_cell_types.py"


rule figure_map:
    input:
        slide="results/slides/{dataset}/{slide}.h5ad",
        graph="results/graphs/{dataset}/{slide}.npz",
        question=first_question,
        provenance=f"{TABLES}/provenance.json",
    output:
        report(
            "results/figures/{dataset}/map.{slide}.png",
            caption="../report/figure_cellina_2.rst",
            category="{dataset}",
            labels={"result": "map", "slide": "{slide}"},
        ),
    log:
        "results/logs/figure_map/{dataset}/{slide}.log",
    benchmark:
        "results/benchmarks/figure_map/{dataset}/{slide}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_map.py"


rule figure_learning_curves:
    input:
        models=per_fold(
            "results/models/{dataset}/{slide}/{fold}/{method}/{protocol}.seed{seed}"
        ),
        provenance=f"{TABLES}/provenance.json",
    output:
        report(
            "results/figures/{dataset}/learning_curves.{protocol}.png",
            caption="../report/learning_curves.rst",
            category="{dataset}",
            labels={"result": "learning curves", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_learning_curves/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_learning_curves/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_learning_curves.py"
