# Recovery of independent forces that are known, and chains: all estimators on the same simulated tissues.


rule celcomen_recovery:
    output:
        recovery=report(
            "results/celcomen/recovery/recovery.tsv",
            caption="../report/figure_celcomen_recovery.rst",
            category="celcomen",
            labels={"result": "recovery of known forces", "part": "all tissues"},
        ),
        chains="results/celcomen/recovery/chains.tsv",
    log:
        "results/logs/celcomen_recovery/recovery.log",
    benchmark:
        "results/benchmarks/celcomen_recovery/recovery.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
    params:
        settings=config["celcomen"]["recovery"],
        switches=protocols.of_step(
            protocols.resolve("corrected", config["switches"]), "inference"
        ),
        seeds=config["seeds"],
        threads=config["threads"],
    script:
        "../scripts/celcomen_recovery.py"


rule figure_celcomen_recovery:
    input:
        recovery="results/celcomen/recovery/recovery.tsv",
        chains="results/celcomen/recovery/chains.tsv",
    output:
        report(
            "results/figures/celcomen/recovery.png",
            caption="../report/figure_celcomen_recovery.rst",
            category="celcomen",
            labels={"result": "recovery of known forces", "part": "figure"},
        ),
    log:
        "results/logs/figure_celcomen_recovery/recovery.log",
    benchmark:
        "results/benchmarks/figure_celcomen_recovery/recovery.tsv"
    conda:
        "../../envs/core.yaml"
    params:
        settings=config["celcomen"]["recovery"],
        seeds=config["seeds"],
    script:
        "../scripts/figure_celcomen_recovery.py"
