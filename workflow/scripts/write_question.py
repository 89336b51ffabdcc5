from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_question

    write_question(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        snakemake.wildcards.fold,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
        snakemake.output[0],
    )
