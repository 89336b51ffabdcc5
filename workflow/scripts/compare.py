from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals import compare

    compare.run(
        {name: list(snakemake.input[name]) for name in ("tables", "figures")},
        snakemake.params.config,
        dict(snakemake.output.items()),
    )
