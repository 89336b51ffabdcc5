# Figure 2c of the Celcomen paper: known forces, simulated tissues, and whether the forces are found again.
SIMULATION = "results/celcomen/simulation"


rule celcomen_simulation:
    output:
        correlations=f"{SIMULATION}/correlations.{{protocol}}.tsv",
        tests=report(
            f"{SIMULATION}/tests.{{protocol}}.tsv",
            caption="../report/figure_celcomen_2.rst",
            category="celcomen",
            labels={
                "result": "simulation: tests against noise",
                "protocol": "{protocol}",
            },
        ),
        provenance=f"{SIMULATION}/provenance.{{protocol}}.json",
    log:
        "results/logs/celcomen_simulation/{protocol}.log",
    benchmark:
        "results/benchmarks/celcomen_simulation/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: config["threads"]
    resources:
        mem_mb=2000,
    params:
        settings=config["celcomen"]["simulation"],
        switches=celcomen_switches("inference", "generation", "celcomen_simulation"),
        threads=config["threads"],
    script:
        "../scripts/celcomen_simulation.py"


rule figure_celcomen_2:
    input:
        correlations=f"{SIMULATION}/correlations.{{protocol}}.tsv",
        tests=f"{SIMULATION}/tests.{{protocol}}.tsv",
        provenance=f"{SIMULATION}/provenance.{{protocol}}.json",
    output:
        report(
            "results/figures/celcomen/figure_celcomen_2.{protocol}.png",
            caption="../report/figure_celcomen_2.rst",
            category="celcomen",
            labels={
                "result": "Figure 2c: simulation",
                "protocol": "{protocol}",
            },
        ),
    log:
        "results/logs/figure_celcomen_2/{protocol}.log",
    benchmark:
        "results/benchmarks/figure_celcomen_2/{protocol}.tsv"
    conda:
        "../../envs/core.yaml"
    script:
        "../scripts/figure_celcomen_2.py"
