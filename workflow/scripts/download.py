from tissue_counterfactuals.jobs import job

with job(snakemake.log[0]):
    from tissue_counterfactuals.sources.download import fetch

    fetch(snakemake.params.url, snakemake.output[0], sha256=snakemake.params.sha256)
