from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.experiments.perturbmap_null import null_test

    null_test(
        snakemake.params.settings,
        snakemake.params.overrides,
        dict(snakemake.output.items()),
    )
