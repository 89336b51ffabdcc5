# What the experiments on Celcomen end with, and what their jobs take from the configuration.
# Experiment -> figures that it ends with; {dataset} and {protocol} are filled in.
EXPERIMENTS = {
    "celcomen_spleen": [
        "results/figures/{dataset}/figure_celcomen_6.{protocol}.png",
        "results/figures/{dataset}/figure_celcomen_8.{protocol}.png",
    ],
    "celcomen_glioblastoma": [
        "results/figures/{dataset}/figure_celcomen_3.{protocol}.png",
        "results/figures/{dataset}/figure_celcomen_7.{protocol}.png",
    ],
    "celcomen_perturbmap": [
        "results/figures/{dataset}/figure_celcomen_4.{protocol}.png",
        "results/figures/{dataset}/figure_celcomen_4_null.png",
    ],
    "celcomen_simulation": [
        "results/figures/celcomen/figure_celcomen_2.{protocol}.png",
    ],
    "celcomen_recovery": ["results/figures/celcomen/recovery.png"],
}


def celcomen_files_of(name):
    """All results of Celcomen's experiments on one data set."""
    return [
        file
        for experiment in config["datasets"][name]["experiments"]
        for file in expand(
            EXPERIMENTS.get(experiment, []),
            dataset=name,
            protocol=config["protocols"],
        )
    ]


def celcomen_files():
    """All results of the experiments on Celcomen: those without slides, and those on each data set."""
    files = [
        file
        for experiment in config["celcomen"]["without_slides"]
        for file in expand(EXPERIMENTS[experiment], protocol=config["protocols"])
    ]
    for name in config["datasets"]:
        files += celcomen_files_of(name)
    return list(dict.fromkeys(files))


def everything_of(name):
    """All that a data set's own target asks for."""
    files = cellina_files_of(name) if name in datasets_for("cellina") else []
    return files + celcomen_files_of(name)


def celcomen_switches(*steps):
    """Params function: the values of the switches of some steps under a job's protocol."""
    return lambda wildcards: {
        name: value
        for step in steps
        for name, value in protocols.of_step(SWITCHES[wildcards.protocol], step).items()
    }


def spleen_switches(wildcards):
    """Params function: the switches of the fits, and which entries of two matrices are compared."""
    chosen = celcomen_switches("inference", "comparison", "celcomen_spleen")(wildcards)
    name = "compared_entries"
    return chosen | {name: SWITCHES[wildcards.protocol][name]}


def dataset_names(wildcards):
    """Params function: what figures call a data set."""
    entry = dataset_of(wildcards)
    return {
        "name": wildcards.dataset,
        "kind": entry["kind"],
        "label": entry["label"],
    }


def without(section, *keys):
    """A part of the settings of an experiment, so that a change of the others does not run the step again."""
    settings = config["celcomen"][section]
    return {key: value for key, value in settings.items() if key not in keys}
