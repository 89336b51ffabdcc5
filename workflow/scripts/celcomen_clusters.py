from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.experiments.force_clusters import run

    run(
        snakemake.input.forces,
        snakemake.input.manifest,
        snakemake.params.settings,
        snakemake.params.switches,
        snakemake.output.members,
        snakemake.output.enrichment,
        snakemake.output.matrices,
    )
