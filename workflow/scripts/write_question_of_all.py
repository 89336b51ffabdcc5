from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import write_question_of_all

    write_question_of_all(
        snakemake.input.slide,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
        snakemake.output[0],
    )
