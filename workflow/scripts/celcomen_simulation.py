from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments.celcomen_simulation import run

    run(
        snakemake.wildcards.protocol,
        snakemake.params.settings,
        snakemake.params.switches,
        dict(snakemake.output.items()),
    )
