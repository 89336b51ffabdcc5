from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.drawing import table_1

    table_1(
        snakemake.input.scores,
        snakemake.input.provenance,
        snakemake.wildcards.target,
        snakemake.wildcards.protocol,
        snakemake.output.tsv,
        snakemake.output.md,
        snakemake.output.png,
    )
