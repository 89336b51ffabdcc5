# Knock-outs predicted and observed in tumour lesions (Fig. 4 of the Celcomen paper), and the null test of it.
LESIONS = "celcomen_perturbmap.{protocol}"
LESION_TABLES = f"results/tables/{{dataset}}/{LESIONS}"
LESION_MANIFEST = f"results/celcomen/{{dataset}}/{LESIONS}.json"
NULL_TEST = "results/celcomen/perturbmap_null"


rule celcomen_perturbmap:
    input:
        slide="results/slides/{dataset}/pooled.h5ad",
    output:
        correlations=f"{LESION_TABLES}.correlations.tsv",
        genes=f"{LESION_TABLES}.genes.tsv",
        spots=f"{LESION_TABLES}.spots.tsv",
        summary=report(
            f"{LESION_TABLES}.summary.tsv",
            caption="../report/figure_celcomen_4_null.rst",
            category="{dataset}",
            labels={
                "result": "knock-outs against controls",
                "protocol": "{protocol}",
            },
        ),
        diagnostics=f"{LESION_TABLES}.diagnostics.tsv",
        manifest=LESION_MANIFEST,
    log:
        "results/logs/celcomen_perturbmap/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/celcomen_perturbmap/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
    params:
        dataset=dataset_names,
        seeds=config["seeds"],
        settings=without("perturbmap", "null_test"),
        switches=celcomen_switches("inference", "generation", "celcomen_perturbmap"),
        threads=config["threads"],
    script:
        "../scripts/celcomen_perturbmap.py"


rule celcomen_perturbmap_null:
    output:
        correlations=f"{NULL_TEST}/correlations.tsv",
        summary=report(
            f"{NULL_TEST}/summary.tsv",
            caption="../report/figure_celcomen_4_null.rst",
            category="celcomen",
            labels={"result": "knock-outs without effect"},
        ),
        switches=report(
            f"{NULL_TEST}/switches.tsv",
            caption="../report/figure_celcomen_4_null.rst",
            category="celcomen",
            labels={"result": "knock-outs without effect, switch by switch"},
        ),
    log:
        "results/logs/celcomen_perturbmap_null/all.log",
    benchmark:
        "results/benchmarks/celcomen_perturbmap_null/all.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=4000,
    params:
        settings=without(
            "perturbmap", "knockouts", "max_genes", "draws", "shuffled_fits"
        ),
        overrides=config["switches"],
        threads=config["threads"],
    script:
        "../scripts/celcomen_perturbmap_null.py"


rule figure_celcomen_4:
    input:
        correlations=f"{LESION_TABLES}.correlations.tsv",
        genes=f"{LESION_TABLES}.genes.tsv",
        spots=f"{LESION_TABLES}.spots.tsv",
        manifest=LESION_MANIFEST,
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_4.{protocol}.png",
            caption="../report/figure_celcomen_4.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 4", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_celcomen_4/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_4/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_4.py"


rule figure_celcomen_4_null:
    input:
        correlations=expand(
            f"{LESION_TABLES}.correlations.tsv",
            protocol=config["protocols"],
            allow_missing=True,
        ),
        summary=expand(
            f"{LESION_TABLES}.summary.tsv",
            protocol=config["protocols"],
            allow_missing=True,
        ),
        manifest=expand(
            LESION_MANIFEST, protocol=config["protocols"], allow_missing=True
        ),
        null_correlations=f"{NULL_TEST}/correlations.tsv",
        null_switches=f"{NULL_TEST}/switches.tsv",
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_4_null.png",
            caption="../report/figure_celcomen_4_null.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 4: does it survive its null?"},
        ),
    log:
        "results/logs/figure_celcomen_4_null/{dataset}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_4_null/{dataset}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_4_null.py"
