from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import tabulate

    tabulate(
        snakemake.input.scores,
        snakemake.input.slides,
        snakemake.input.folds,
        snakemake.wildcards.dataset,
        snakemake.params.config,
        dict(snakemake.output.items()),
    )
