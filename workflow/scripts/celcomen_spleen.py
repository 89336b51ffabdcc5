from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments.celcomen_spleen import run

    run(
        snakemake.input.slide,
        snakemake.params.dataset,
        snakemake.wildcards.protocol,
        snakemake.params.seeds,
        snakemake.params.settings,
        snakemake.params.switches,
        dict(snakemake.output.items()),
    )
