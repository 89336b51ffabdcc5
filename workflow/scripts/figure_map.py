from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.drawing import slide_map

    slide_map(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        snakemake.input.provenance,
        snakemake.params.counterfactual,
        snakemake.output[0],
    )
