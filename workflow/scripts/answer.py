from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.answer import write_answer

    write_answer(
        snakemake.input.slide,
        snakemake.input.questions,
        snakemake.input.predictions,
        snakemake.params.asked,
        snakemake.params.names,
        dict(snakemake.output.items()),
    )
