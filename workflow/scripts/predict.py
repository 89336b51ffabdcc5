from pathlib import Path

from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.steps import load_task, predict

    task = load_task(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        snakemake.wildcards.fold,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
    )
    params, models = snakemake.params, map(Path, snakemake.input.models)
    folders = dict.fromkeys(params.controls) | dict(zip(params.learned, models, strict=True))
    predict(folders, task, snakemake.output[0])
