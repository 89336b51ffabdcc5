from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.steps import build_graph

    build_graph(snakemake.input.slide, snakemake.params.settings, snakemake.output[0])
