from pathlib import Path

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.jobs import job

with job(snakemake.log[0], inputs=snakemake.input):
    from tissue_counterfactuals.results.manifest import differences

    if found := differences(Path("results"), snakemake.params.config):
        raise InputError("\n".join(["the results are not those of this run:", *found]))
