from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.drawing import cell_types

    cell_types(
        snakemake.input.scores,
        snakemake.input.provenance,
        snakemake.wildcards.target,
        snakemake.wildcards.protocol,
        snakemake.output[0],
    )
