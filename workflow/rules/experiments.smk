# Experiments: a rule for each row of the table in the package, which says what a row means.

for experiment in EXPERIMENTS:

    rule:
        name:
            experiment.name
        input:
            **inputs_of_experiment(experiment),
        output:
            **{
                key: (
                    in_report(path, experiment.caption, experiment.shown[key])
                    if key in experiment.shown
                    else path
                )
                for key, path in experiment.outputs.items()
            },
        log:
            of_job("logs", experiment.name, experiment.outputs, "log"),
        benchmark:
            of_job("benchmarks", experiment.name, experiment.outputs, "tsv")
        conda:
            "../../envs/core.yaml"
        threads: config["threads"] if experiment.parallel else 1
        resources:
            mem_mb=memory_of_experiment(experiment),
            runtime=runtime_of(experiment.name, least=30),
            gpu=int(experiment.gpu and config["device"] == "cuda"),
        params:
            arguments=arguments_of(experiment),
            threads=config["threads"] if experiment.parallel else 1,
        script:
            "../scripts/experiment.py"
