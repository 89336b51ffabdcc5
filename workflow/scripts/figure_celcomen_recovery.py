from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.figures.figure_celcomen_recovery import draw

    draw(
        snakemake.input.recovery,
        snakemake.input.chains,
        snakemake.params.settings,
        snakemake.params.seeds,
        snakemake.output[0],
    )
