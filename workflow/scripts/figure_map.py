from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.drawing import slide_map

    slide_map(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.question,
        snakemake.input.provenance,
        snakemake.output[0],
    )
