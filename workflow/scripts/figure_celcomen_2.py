from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.figures.figure_celcomen_2 import draw_files

    draw_files(dict(snakemake.input.items()), snakemake.wildcards.protocol, snakemake.output[0])
