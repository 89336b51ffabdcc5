# Agreement of forces between samples (Fig. 6 of the Celcomen paper), and their clusters (Fig. 8).
SPLEEN = "celcomen_spleen.{protocol}"


rule celcomen_spleen:
    input:
        slide="results/slides/{dataset}/pooled.h5ad",
    output:
        agreement=report(
            f"results/tables/{{dataset}}/{SPLEEN}.agreement.tsv",
            caption="../report/figure_celcomen_6.rst",
            category="{dataset}",
            labels={"result": "agreement of samples", "protocol": "{protocol}"},
        ),
        summary=f"results/tables/{{dataset}}/{SPLEEN}.summary.tsv",
        curves=f"results/tables/{{dataset}}/{SPLEEN}.curves.tsv",
        diagnostics=f"results/tables/{{dataset}}/{SPLEEN}.diagnostics.tsv",
        forces=f"results/celcomen/{{dataset}}/{SPLEEN}.npz",
        manifest=f"results/celcomen/{{dataset}}/{SPLEEN}.json",
    log:
        f"results/logs/celcomen_spleen/{{dataset}}/{SPLEEN}.log",
    benchmark:
        f"results/benchmarks/celcomen_spleen/{{dataset}}/{SPLEEN}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=memory_of_task,
    params:
        dataset=dataset_names,
        seeds=config["seeds"],
        settings=without("spleen", "clusters"),
        switches=spleen_switches,
        threads=config["threads"],
    script:
        "../scripts/celcomen_spleen.py"


rule celcomen_clusters:
    input:
        forces="results/celcomen/{dataset}/celcomen_{tissue}.{protocol}.npz",
        manifest="results/celcomen/{dataset}/celcomen_{tissue}.{protocol}.json",
    output:
        members="results/tables/{dataset}/celcomen_{tissue}.{protocol}.clusters.tsv",
        enrichment="results/tables/{dataset}/celcomen_{tissue}.{protocol}.cluster_terms.tsv",
        matrices="results/celcomen/{dataset}/celcomen_{tissue}.{protocol}.clusters.npz",
    log:
        "results/logs/celcomen_clusters/{dataset}/{tissue}.{protocol}.log",
    benchmark:
        "results/benchmarks/celcomen_clusters/{dataset}/{tissue}.{protocol}.tsv"
    wildcard_constraints:
        tissue="spleen|glioblastoma",
    conda:
        "../../envs/core.yaml"
    params:
        settings=lambda w: config["celcomen"][w.tissue]["clusters"],
        switches=celcomen_switches("inference", "comparison"),
    script:
        "../scripts/celcomen_clusters.py"


rule figure_celcomen_6:
    input:
        agreement=f"results/tables/{{dataset}}/{SPLEEN}.agreement.tsv",
        curves=f"results/tables/{{dataset}}/{SPLEEN}.curves.tsv",
        summary=f"results/tables/{{dataset}}/{SPLEEN}.summary.tsv",
        manifest=f"results/celcomen/{{dataset}}/{SPLEEN}.json",
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_6.{protocol}.png",
            caption="../report/figure_celcomen_6.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 6", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_celcomen_6/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_6/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_6.py"


rule figure_celcomen_8:
    input:
        members=f"results/tables/{{dataset}}/{SPLEEN}.clusters.tsv",
        enrichment=f"results/tables/{{dataset}}/{SPLEEN}.cluster_terms.tsv",
        matrices=f"results/celcomen/{{dataset}}/{SPLEEN}.clusters.npz",
        manifest=f"results/celcomen/{{dataset}}/{SPLEEN}.json",
    output:
        report(
            "results/figures/{dataset}/figure_celcomen_8.{protocol}.png",
            caption="../report/figure_celcomen_8.rst",
            category="{dataset}",
            labels={"result": "Celcomen Fig. 8", "protocol": "{protocol}"},
        ),
    log:
        "results/logs/figure_celcomen_8/{dataset}/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_8/{dataset}/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_8.py"
