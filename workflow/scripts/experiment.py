from tissue_counterfactuals.devices import card_of_its_own
from tissue_counterfactuals.jobs import job

arguments = snakemake.params.arguments
with (
    job(snakemake.log[0], snakemake.params.threads, snakemake.input),
    card_of_its_own(arguments.get("device", "cpu"), print),
):
    from tissue_counterfactuals.experiments import EXPERIMENTS

    (experiment,) = (row for row in EXPERIMENTS if row.name == snakemake.rule)
    experiment.run(
        **{name: snakemake.input[name] for name in experiment.inputs},
        **arguments,
        outputs=dict(snakemake.output.items()),
    )
