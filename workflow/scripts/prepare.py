from tissue_counterfactuals.jobs import job

with job(snakemake.log[0]):
    from tissue_counterfactuals.steps import prepare

    source = snakemake.input[0] if snakemake.input else None
    prepare(snakemake.params.dataset, source, snakemake.params.samples, snakemake.output[0])
