# Forces in a tumour: localisation and knock-out (Fig. 3 of the Celcomen paper), and clusters (Fig. 7).
TUMOUR = "celcomen_glioblastoma.{protocol}"
TUMOUR_TABLES = f"results/tables/{{dataset}}/{TUMOUR}"


rule celcomen_glioblastoma:
    input:
        slide="results/slides/{dataset}/pooled.h5ad",
    output:
        diagnostics=f"{TUMOUR_TABLES}.diagnostics.tsv",
        shapes=f"{TUMOUR_TABLES}.shapes.tsv",
        forces=f"results/celcomen/{{dataset}}/{TUMOUR}.npz",
        manifest=f"results/celcomen/{{dataset}}/{TUMOUR}.json",
    log:
        f"results/logs/celcomen_glioblastoma/{{dataset}}/{TUMOUR}.log",
    benchmark:
        f"results/benchmarks/celcomen_glioblastoma/{{dataset}}/{TUMOUR}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
    params:
        dataset=lambda w: dataset_names(w) | part_of_dataset("source", "files")(w),
        seeds=config["seeds"],
        settings=without(
            "glioblastoma", "localization", "knockout", "enrichment", "clusters"
        ),
        switches=celcomen_switches("inference", "comparison"),
        threads=config["threads"],
    script:
        "../scripts/celcomen_glioblastoma.py"


rule celcomen_localization:
    input:
        forces=f"results/celcomen/{{dataset}}/{TUMOUR}.npz",
        manifest=f"results/celcomen/{{dataset}}/{TUMOUR}.json",
    output:
        classes=f"{TUMOUR_TABLES}.localization.tsv",
        tests=report(
            f"{TUMOUR_TABLES}.localization_tests.tsv",
            caption="../report/figure_celcomen_3.rst",
            category="{dataset}",
            labels={"result": "localisation", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/celcomen_localization/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/celcomen_localization/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        settings=config["celcomen"]["glioblastoma"]["localization"],
        switches=celcomen_switches("inference", "comparison", "celcomen_glioblastoma"),
    script:
        "../scripts/celcomen_localization.py"


rule celcomen_knockout:
    input:
        slide="results/slides/{dataset}/pooled.h5ad",
        forces=f"results/celcomen/{{dataset}}/{TUMOUR}.npz",
        manifest=f"results/celcomen/{{dataset}}/{TUMOUR}.json",
    output:
        cells=f"results/celcomen/{{dataset}}/{TUMOUR}.knockout_cells.tsv",
        signature=f"{TUMOUR_TABLES}.signature.tsv",
        trajectories=f"{TUMOUR_TABLES}.knockout.tsv",
        placebo=f"{TUMOUR_TABLES}.placebo.tsv",
        changes=f"{TUMOUR_TABLES}.knockout_genes.tsv",
        enrichment=report(
            f"{TUMOUR_TABLES}.knockout_terms.tsv",
            caption="../report/figure_celcomen_3.rst",
            category="{dataset}",
            labels={"result": "enrichment after knock-out", "protocol": "{protocol}"},
        ),
        diagnostics=f"{TUMOUR_TABLES}.knockout_diagnostics.tsv",
    log:
        "results/logs/celcomen_knockout/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/celcomen_knockout/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
    params:
        settings=without("glioblastoma", "localization", "clusters"),
        switches=celcomen_switches("inference", "generation", "celcomen_glioblastoma"),
        threads=config["threads"],
    script:
        "../scripts/celcomen_knockout.py"


rule figure_celcomen_3:
    input:
        classes=f"{TUMOUR_TABLES}.localization.tsv",
        tests=f"{TUMOUR_TABLES}.localization_tests.tsv",
        cells=f"results/celcomen/{{dataset}}/{TUMOUR}.knockout_cells.tsv",
        trajectories=f"{TUMOUR_TABLES}.knockout.tsv",
        placebo=f"{TUMOUR_TABLES}.placebo.tsv",
        enrichment=f"{TUMOUR_TABLES}.knockout_terms.tsv",
        diagnostics=f"{TUMOUR_TABLES}.knockout_diagnostics.tsv",
        manifest=f"results/celcomen/{{dataset}}/{TUMOUR}.json",
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_3.{protocol}.png",
            caption="../report/figure_celcomen_3.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 3", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_celcomen_3/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_3/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_3.py"


rule figure_celcomen_7:
    input:
        members=f"{TUMOUR_TABLES}.clusters.tsv",
        enrichment=f"{TUMOUR_TABLES}.cluster_terms.tsv",
        matrices=f"results/celcomen/{{dataset}}/{TUMOUR}.clusters.npz",
        manifest=f"results/celcomen/{{dataset}}/{TUMOUR}.json",
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_7.{protocol}.png",
            caption="../report/figure_celcomen_7.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 7", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_celcomen_7/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_7/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_7.py"
