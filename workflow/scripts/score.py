from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.steps import load_task, score

    wildcards = snakemake.wildcards
    task = load_task(
        snakemake.input.slide,
        snakemake.input.graph,
        snakemake.input.folds,
        wildcards.fold,
        int(wildcards.seed),
        snakemake.params.settings,
    )
    names = {key: wildcards[key] for key in ("dataset", "slide", "protocol")}
    score(
        snakemake.input.predictions,
        task,
        names | {"kind": snakemake.params.kind, "seed": task.seed},
        snakemake.params.n_deg,
        snakemake.output.scores,
        snakemake.output.diagnostics,
    )
