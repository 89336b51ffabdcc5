from tissue_counterfactuals.jobs import job

with job(snakemake.log[0]):
    from tissue_counterfactuals.sources.downloads.obtain import check_unchanged
    from tissue_counterfactuals.steps import prepare

    check_unchanged(snakemake.input.files, snakemake.config["downloads"])
    params, output = snakemake.params, snakemake.output
    prepare(params.dataset, params.files, params.samples, output.slide, output.shapes)
