from tissue_counterfactuals.jobs import job

with job(snakemake.log[0]):
    from tissue_counterfactuals.sources.downloads.obtain import obtain
    from tissue_counterfactuals.sources.downloads.table import requested_files

    key = f"{snakemake.wildcards.collection}/{snakemake.wildcards.file}"
    file = requested_files(snakemake.config)[key]
    obtain(file, snakemake.config["downloads"], snakemake.output[0])
