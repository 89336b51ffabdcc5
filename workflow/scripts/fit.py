from pathlib import Path

from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.steps import fit, load_task

    task = load_task(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        snakemake.wildcards.fold,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
    )
    fit(
        snakemake.wildcards.method,
        task,
        Path(snakemake.output[0]),
        Path(snakemake.params.checkpoint),
    )
