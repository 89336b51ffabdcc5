from pathlib import Path

from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads):
    from tissue_counterfactuals.steps import load_task, predict

    task = load_task(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        snakemake.wildcards.fold,
        int(snakemake.wildcards.seed),
        snakemake.params.settings,
    )
    model = snakemake.input.get("model")
    predict(snakemake.params.methods, task, model and Path(model), snakemake.output[0])
