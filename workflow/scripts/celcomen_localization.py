from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.experiments.celcomen_glioblastoma import localization

    localization(
        snakemake.input.forces,
        snakemake.input.manifest,
        snakemake.params.settings,
        snakemake.params.switches,
        snakemake.output.classes,
        snakemake.output.tests,
    )
