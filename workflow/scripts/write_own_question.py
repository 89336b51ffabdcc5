from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_own_question

    write_own_question(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.params.asked,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
        snakemake.output[0],
    )
