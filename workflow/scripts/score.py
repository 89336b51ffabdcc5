from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], snakemake.params.threads, snakemake.input):
    from tissue_counterfactuals.methods.run import load_task
    from tissue_counterfactuals.steps import score

    task = load_task(snakemake.input.slide, snakemake.input.question)
    names = {key: snakemake.wildcards[key] for key in ("dataset", "slide", "protocol")}
    score(
        snakemake.input.predictions,
        task,
        snakemake.params.switches,
        names | {"kind": snakemake.params.kind, "seed": task.seed},
        snakemake.params.n_deg,
        snakemake.output.scores,
        snakemake.output.diagnostics,
    )
