from pathlib import Path

from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.methods.environments import build

    build(snakemake.wildcards.environment, Path(snakemake.output[0]))
