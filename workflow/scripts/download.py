from tissue_counterfactuals.jobs import job

with job(snakemake.log[0]):
    from tissue_counterfactuals.resources import requested_files
    from tissue_counterfactuals.sources.download import obtain

    key = f"{snakemake.wildcards.collection}/{snakemake.wildcards.file}"
    file = requested_files(snakemake.config)[key]
    obtain(file, snakemake.config["downloads"], snakemake.output[0])
