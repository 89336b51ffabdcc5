from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.figures import FIGURES

    (figure,) = (row for row in FIGURES if row.name == snakemake.rule)
    named = isinstance(figure.output, dict)
    output = dict(snakemake.output.items()) if named else snakemake.output[0]
    figure.draw(
        dict(snakemake.input.items()),
        output,
        **{name: snakemake.wildcards[name] for name in figure.takes},
    )
