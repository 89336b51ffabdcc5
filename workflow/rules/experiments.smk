# Experiments on Celcomen: a rule for each row of the table in the package, which says what a row means.


def arguments_of(experiment):
    """Params function: what the function of an experiment is called with beside its files."""

    def arguments(wildcards):
        protocol = getattr(wildcards, "protocol", "corrected")
        switches = protocols.resolve(protocol, config["switches"])
        settings = config["celcomen"]
        for key in experiment.section.split("."):
            settings = settings[key]
        known = {
            "protocol": protocol,
            "seeds": config["seeds"],
            "overrides": config["switches"],
        }
        if "entry" in experiment.takes:
            keys = ("kind", "label", "source", "files")
            entry = part_of_dataset(*keys)(wildcards)
            known["entry"] = {"name": wildcards.dataset} | entry
        # Only what it reads, so that a change of anything else does not run it again.
        chosen = {key: known[key] for key in experiment.takes}
        chosen["settings"] = {
            key: value
            for key, value in settings.items()
            if key not in experiment.unread
        }
        if experiment.switches:
            chosen["switches"] = {
                name: value
                for name, value in switches.items()
                if {name, protocols.SWITCHES[name].step} & {*experiment.switches}
            }
        return chosen

    return arguments


def memory_of_experiment(experiment):
    """Resources function: megabytes, more at each further attempt."""
    if experiment.memory_mb is None:
        return memory_of_task
    return lambda wildcards, attempt: experiment.memory_mb * attempt


for experiment in EXPERIMENTS:

    rule:
        name:
            experiment.name
        input:
            **experiment.inputs,
        output:
            **{
                key: (
                    in_report(path, experiment.caption, experiment.shown[key])
                    if key in experiment.shown
                    else path
                )
                for key, path in experiment.outputs.items()
            },
        log:
            of_job("logs", experiment.name, experiment.outputs, "log"),
        benchmark:
            of_job("benchmarks", experiment.name, experiment.outputs, "tsv")
        conda:
            "../../envs/core.yaml"
        threads: config["threads"] if experiment.parallel else 1
        resources:
            mem_mb=memory_of_experiment(experiment),
        params:
            arguments=arguments_of(experiment),
            threads=config["threads"] if experiment.parallel else 1,
        script:
            "../scripts/experiment.py"
