from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments.celcomen_knockout import run

    run(
        snakemake.input.slide,
        snakemake.input.forces,
        snakemake.input.manifest,
        snakemake.params.settings,
        snakemake.params.switches,
        dict(snakemake.output.items()),
    )
