from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments import EXPERIMENTS

    (experiment,) = (row for row in EXPERIMENTS if row.name == snakemake.rule)
    experiment.run(
        **{name: snakemake.input[name] for name in experiment.inputs},
        **snakemake.params.arguments,
        outputs=dict(snakemake.output.items()),
    )
