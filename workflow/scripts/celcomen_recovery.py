from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments.celcomen_recovery import run

    run(
        snakemake.params.settings,
        snakemake.params.switches,
        snakemake.params.seeds,
        snakemake.output.recovery,
        snakemake.output.chains,
    )
