from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_checked_folds

    params = snakemake.params
    tables = dict(zip(params.slides, snakemake.input, strict=True))
    write_checked_folds(snakemake.wildcards.dataset, tables, params.cell_types, snakemake.output[0])
