from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.drawing import curves

    curves(
        snakemake.input.models,
        snakemake.input.provenance,
        snakemake.wildcards.protocol,
        snakemake.output[0],
    )
