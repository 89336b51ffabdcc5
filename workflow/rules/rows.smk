# What the rows of the tables of experiments and figures mean to Snakemake, and the lists of files that targets are made
# of.
from itertools import product

from snakemake.io import get_wildcard_names

from tissue_counterfactuals import compare, gene_sets
from tissue_counterfactuals.experiments import EXPERIMENTS, ON_SLIDES, is_tried
from tissue_counterfactuals.results.figures import FIGURES

# Wildcards of inputs of experiments -> the key of its settings that lists their values.
EVERY = {"method": "methods", "subset": "subsets", "n_cells": "n_cells"}


def datasets_for(experiment):
    """Names of the data sets that an experiment is run on."""
    return [
        name
        for name, entry in config["datasets"].items()
        if experiment in entry["experiments"]
        # A data set with questions alone has no benchmark.
        and (experiment != "cellina" or entry["control_domain"] is not None)
    ]


# Target -> data sets whose benchmark is all that it holds.
COMPARED = {
    "demo": [
        name
        for name in datasets_for("cellina")
        if config["datasets"][name]["source"] == "simulated"
    ],
    "table1": datasets_for("cellina"),
}


def wildcards_of(*patterns):
    """Names of the wildcards of some paths."""
    return {name for pattern in patterns for name in get_wildcard_names(pattern)}


def of_job(kind, rule_name, outputs, suffix):
    """A file for each job of a rule, told apart by the wildcards of its outputs."""
    names = sorted(
        wildcards_of(
            *(dict(outputs).values() if isinstance(outputs, dict) else outputs)
        )
    )
    job = ".".join(f"{{{name}}}" for name in names) or "all"
    return f"results/{kind}/{rule_name}/{job}.{suffix}"


def in_report(path, caption, title):
    """A file that the report shows, under its data set, with its title and its wildcards."""
    names = wildcards_of(path)
    labels = {name: f"{{{name}}}" for name in sorted(names - {"dataset"})}
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category="{dataset}" if "dataset" in names else "celcomen",
        labels={"result": title} | labels,
    )


def results_of(of, name=None, tables=None):
    """All files of figures, and of tables that are drawn, of the benchmark or of an experiment.

    `tables` true gives the tables alone, false the figures alone.
    """
    values = {"protocol": config["protocols"]}
    if name is not None:
        targets = config["datasets"][name]["target_domains"]
        values |= {"dataset": [name], "slide": list(SLIDES[name])}
        values["target"] = [slug(target) for target in targets]
    files = []
    for figure in FIGURES:
        is_table = figure.name.startswith("table_")
        if figure.of != of or tables not in (None, is_table):
            continue
        if figure.several_targets and len(values.get("target", ())) < 2:
            continue
        if figure.learned and not method_names(name, learned=True):
            continue
        if not figure.has_methods(method_names(name) if name else []):
            continue
        for path in figure.outputs:
            files += expand(path, **{key: values[key] for key in wildcards_of(path)})
    return files


def everything_of(name):
    """All results of a data set."""
    experiments = config["datasets"][name]["experiments"]
    results = [
        results_of(experiment, name)
        for experiment in experiments
        if name in datasets_for(experiment)
    ]
    return [*sum(results, []), *answers_of(name)]


def answers_of(name):
    """The answers to a data set's own questions: of a sample on the slide that holds it, others on each slide."""
    return [
        f"results/answers/{name}/{slide}/{asked['name']}/answer.md"
        for asked in config["datasets"][name]["questions"]
        for slide, samples in SLIDES[name].items()
        if None in (asked["sample"], samples) or asked["sample"] in samples
    ]


def celcomen_files():
    """All results of the experiments on Celcomen: those without slides, and those on each data set."""
    files = [
        file for of in config["celcomen"]["without_slides"] for file in results_of(of)
    ]
    for of in ON_SLIDES:
        for name in datasets_for(of):
            files += results_of(of, name)
    return files


def results_of_target(target):
    """All results of a target, which may be a data set, without what compares them."""
    if target == "all":
        return [*map(everything_of, config["datasets"]), celcomen_files()]
    if target == "celcomen":
        return celcomen_files()
    if target == "table1":
        return [results_of("cellina", name, tables=True) for name in COMPARED[target]]
    if target == "demo":
        return [
            [results_of("cellina", name), answers_of(name)] for name in COMPARED[target]
        ]
    return everything_of(target)


def compared_experiments(target):
    """(experiment, data set) for all that a target has tables of; experiments without slides have no data set."""
    benchmark = datasets_for("cellina")
    if target in COMPARED:
        return [("cellina", name) for name in COMPARED[target]]
    names = config["datasets"] if target in ("all", "celcomen") else [target]
    on_slides = [
        (experiment, name)
        for name in names
        for experiment in config["datasets"][name]["experiments"]
        if (name in benchmark and target != "celcomen") or experiment != "cellina"
    ]
    alone = (
        config["celcomen"]["without_slides"] if target in ("all", "celcomen") else []
    )
    return [*on_slides, *((experiment, None) for experiment in alone)]


def comparison(target):
    """What the results of a target are compared in: published numbers and statements, and the answer of the run."""
    anything = compared_experiments(target) or answers_compared(target)
    return [f"results/compare/{target}/page.html"] if anything else []


def answers_compared(target):
    """The answers to the users' own questions among the results of a target."""
    results = flatten(results_of_target(target))
    return [file for file in results if Path(file).name == "answer.md"]


def tables_compared(wildcards):
    """The tables that a comparison reads, and the answers to the users' own questions."""
    files = answers_compared(wildcards.run)
    for experiment, name in compared_experiments(wildcards.run):
        values = {"protocol": config["protocols"]}
        if name is not None:
            entry = config["datasets"][name]
            values |= {
                "dataset": [name],
                "target": list(map(slug, entry["target_domains"])),
            }
            if published_as(entry):
                row = next((row for row in EXPERIMENTS if row.name == experiment), None)
                files += [
                    f"results/slides/{name}/{slide}.shapes.tsv"
                    for slide in slides_for(row, name)
                ]
        for path in compare.READ.get(experiment, {}).values():
            files += expand(path, **{key: values[key] for key in wildcards_of(path)})
    return list(dict.fromkeys(files))


def pictures_compared(wildcards):
    """The figures of a target, for the gallery."""
    files = dict.fromkeys(flatten(results_of_target(wildcards.run)))
    return [file for file in files if file.endswith(".png")]


def flatten(files):
    """Nested lists of files as one list."""
    return sum(([f] if isinstance(f, str) else flatten(f) for f in files), [])


def settings_of_experiment(experiment):
    """The section of the configuration that an experiment reads."""
    settings = config
    for key in experiment.section.split("."):
        settings = settings[key]
    return settings


def inputs_of_experiment(experiment):
    """The input files of an experiment, those of gene sets, published shapes and published numbers included."""
    inputs, sources = dict(experiment.inputs), experiment.gene_sets
    own = wildcards_of(*experiment.outputs.values())
    for key, pattern in inputs.items():
        further = wildcards_of(pattern) - own
        if further:
            settings = settings_of_experiment(experiment)
            values = {
                name: settings[key] for name, key in EVERY.items() if key in settings
            }
            values["environment"] = environments_of(settings["methods"])
            names = sorted(further)
            inputs[key] = [
                path
                for chosen in product(*(values[name] for name in names))
                if is_tried(settings, **dict(zip(names, chosen)))
                for path in expand(
                    pattern, **dict(zip(names, chosen)), allow_missing=True
                )
            ]
    if experiment.compares:
        inputs = inputs | {"expected": expected_shapes_of}
    if experiment.published:
        table = RESOURCES / "published" / experiment.published
        inputs = inputs | {"published": of_checkout(table)}
    if experiment.weights:
        named = settings_of_experiment(experiment)[experiment.weights]
        inputs = inputs | {"weights": files_of_weights(named)}
    if not sources:
        return inputs
    if sources in gene_sets.BUNDLED:
        names = [sources]
    else:
        names = settings_of_experiment(experiment)
        for key in sources.split("."):
            names = names[key]
    files = [of_checkout(gene_sets.file_of(name)) for name in names]
    # By the symbols in the weights of pathways it is told whether a slide is of mouse.
    return inputs | {"gene_sets": [*files, *files_of_weights(None)]}


def sets_of_question(wildcards):
    """The gene sets or weights that a user's own question may name its genes by."""
    asked = own_question(wildcards) or {}
    if asked.get("shift_pathway"):
        return files_of_weights(asked["weights"])
    if not asked.get("shift_genes"):
        return []
    # By the symbols in the weights of pathways it is told whether a slide is of mouse.
    bundled = [of_checkout(path) for path in gene_sets.BUNDLED.values()]
    return [*bundled, *files_of_weights(None)]


def files_of_weights(named):
    """Weights of pathways: the table that is named, or those among which the symbols of a slide choose."""
    every = gene_sets.WEIGHTS
    return [
        of_checkout(p) for p in ([every.get(named, named)] if named else every.values())
    ]


def arguments_of(experiment):
    """Params function: what the function of an experiment is called with beside its files."""

    def arguments(wildcards):
        protocol = getattr(wildcards, "protocol", "corrected")
        switches = protocols.resolve(protocol, config["switches"])
        settings = settings_of_experiment(experiment)
        known = {
            "protocol": protocol,
            "seeds": config["seeds"],
            "overrides": config["switches"],
            **{
                key: {k: v for k, v in config[section].items() if k != TIME_LIMIT}
                for key, section in {"model": "cellina", "gat": "cellina_gat"}.items()
            },
            "n_deg": config["metrics"]["n_deg"],
            "device": config["device"],
        }
        if "neighbors" in experiment.takes:
            known["neighbors"] = dataset_of(wildcards)["graph"]
        if "methods" in experiment.takes:
            own = settings_of_methods(settings["methods"])
            known["methods"] = {name: own.get(name, {}) for name in settings["methods"]}
        if "domains" in experiment.takes:
            keys = ("control_domain", "target_domains")
            known["domains"] = part_of_dataset(*keys)(wildcards)
        if "entry" in experiment.takes:
            keys = ("kind", "label", "source", "files")
            entry = part_of_dataset(*keys)(wildcards)
            known["entry"] = {"name": wildcards.dataset} | entry
        known |= {key: value for key, value in wildcards.items() if key not in known}
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


def inputs_of(figure):
    """The input files of a figure; wildcards that it does not have itself stand for all their values."""
    own = wildcards_of(*figure.outputs)
    inputs = {}
    for key, pattern in figure.inputs.items():
        further = wildcards_of(pattern) - own
        if key in figure.first:
            inputs[key] = first_of(pattern)
        elif "fold" in further:
            inputs[key] = per_fold(pattern)
        elif "slide" in further:
            inputs[key] = per_slide(pattern, figure.of)
        elif "protocol" in further:
            inputs[key] = expand(
                pattern, protocol=config["protocols"], allow_missing=True
            )
        else:
            inputs[key] = pattern
    return inputs


def per_slide(pattern, experiment):
    """Input function: the files of a pattern for the slides and seeds that an experiment is run with, and its axes."""
    row = next((row for row in EXPERIMENTS if row.name == experiment), None)
    settings = settings_of_experiment(row) if row else {}
    axes = row.axes.items() if row else ()

    def files(wildcards):
        return expand(
            pattern,
            slide=slides_for(row, wildcards.dataset),
            seed=settings.get("seeds") or config["seeds"],
            **{key: [as_text(v) for v in settings[name]] for key, name in axes},
            **wildcards,
        )

    return files


def as_text(value):
    """A setting in the name of a file."""
    return value if isinstance(value, str) else f"{value:g}"


def slides_for(row, name):
    """The slides of a data set that an experiment is run on: all, those that its settings name, or all as one.

    Args:
        row: of the experiment; None is the benchmark, which runs on all.
    """
    if row is None:
        return list(SLIDES[name])
    if row.pooled or row.name in ON_SLIDES:
        return [POOLED]
    wanted = settings_of_experiment(row)["slides"]
    slides = [s for s in SLIDES[name] if wanted is None or s in wanted]
    if not slides:
        raise WorkflowError(
            f"config: {row.section}.slides names {', '.join(wanted)}, none of which is a slide of {name}; "
            f"its slides are {', '.join(SLIDES[name])}."
        )
    return slides


# A misspelt name among several would leave a slide out without a word.
for row in EXPERIMENTS:
    every = [slide for name in datasets_for(row.name) for slide in SLIDES[name]]
    wanted = every and settings_of_experiment(row).get("slides") or []
    if unknown := [slide for slide in wanted if slide not in every]:
        raise WorkflowError(
            f"config: {row.section}.slides names {', '.join(unknown)}, which no data set with {row.name} has; the "
            f"slides are {', '.join(every)}."
        )


def outputs_of(figure):
    """The output files of a figure: the picture in the report, first where nothing else has a name."""
    picture = in_report(figure.outputs[-1], figure.name, figure.title)
    named = {"beside": figure.beside}
    if isinstance(figure.output, dict):
        return [], figure.output | {"png": picture} | named
    return [picture], named
