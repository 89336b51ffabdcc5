from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_folds

    name = f"{snakemake.wildcards.dataset}/{snakemake.wildcards.slide}"
    params = snakemake.params
    write_folds(snakemake.input.slide, name, params.dataset, snakemake.output[0], params.alone)
