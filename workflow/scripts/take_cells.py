from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import take_cells

    take_cells(
        snakemake.input[0],
        snakemake.wildcards.subset,
        int(snakemake.wildcards.n_cells),
        snakemake.output[0],
    )
