from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_folds

    name = f"{snakemake.wildcards.dataset}/{snakemake.wildcards.slide}"
    write_folds(snakemake.input.slide, name, snakemake.params.dataset, snakemake.output[0])
