# Configuration, what jobs take from it, and the lists of files that targets are made of.
import json
import os
import shlex
from functools import cache

from snakemake.settings.types import DeploymentMethod

import tissue_counterfactuals
from tissue_counterfactuals import estimates, protocols
from tissue_counterfactuals.config import POOLED, load_config, samples_of
from tissue_counterfactuals.config.known import may_choose_genes
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import BY_NAME, final_files, slug, verify
from tissue_counterfactuals.methods import CORE, METHODS, applicable, environments
from tissue_counterfactuals.results.harmless import harmless
from tissue_counterfactuals.sources.downloads.table import (
    expected_of,
    requested_files,
    table_files,
)
from tissue_counterfactuals.sources import (
    EXPECTED,
    READERS,
    RESOURCES,
    files_of_samples,
    published_as,
)

try:
    # Whatever stands in data and configuration is shown in the report as text.
    config = harmless(load_config(config))
    # Data set -> slide -> values of its sample column (None: all of them, fitted together).
    SLIDES = {
        name: harmless(samples_of(name, entry))
        for name, entry in config["datasets"].items()
    }
    SWITCHES = {
        p: protocols.resolve(p, config["switches"]) for p in config["protocols"]
    }
    # Data set/file -> file to be had before anything can be read.
    REQUESTED = requested_files(config)
    # Jobs are planned from the tables of folds: one that was cut would lose folds without a word. What a report shows
    # is read by no job.
    if workflow.is_main_process:
        verify(
            f"results/folds/{name}/{slide}.tsv"
            for name in SLIDES
            for slide in SLIDES[name]
        )
        if any(word.partition("=")[0] == "--report" for word in sys.argv):
            verify(final_files("results"), BY_NAME)
except InputError as error:
    raise WorkflowError(str(error))


# Whether conda makes the environments, or the workflow does where a method needs one.
USE_CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
# The fold of models from which nobody is held out; "+" is in no path form of a type.
WHOLE = "all+"
# Keys that say how long a method trains -> what they are called where costs are compared.
LENGTHS = {"epochs": "epochs", "max_epochs": "epochs", "batch_size": "batch_size"}
# Key of a method's section, and what holds for a method without settings.
TIME_LIMIT = "time_limit_minutes"
DAY_MIN = 24 * 60


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    slide="[^/]+",
    fold="[^/]+",
    question="[A-Za-z0-9_-]+",
    run="[A-Za-z0-9_-]+",
    method="|".join(m.name for m in METHODS.values() if m.learned),
    protocol="|".join(protocols.PROTOCOLS),
    seed="[0-9]+",
    target="[^/]+",
    environment="|".join(sorted({m.environment for m in METHODS.values()})),
    collection="[A-Za-z0-9_-]+",
    file="[^/]+",
    swept="[a-z_]+",
    weight="[0-9.e+-]+",


def dataset_of(wildcards):
    """The configuration entry of a job's data set."""
    return config["datasets"][wildcards.dataset]


def files_of(wildcards):
    """Role -> file that a slide is read from: none for simulated tissue, downloads for a set of the table or a URL."""
    entry, samples = dataset_of(wildcards), samples_of_slide(wildcards)
    fetched = table_files(
        wildcards.dataset, entry, config["downloads"]["table"], samples
    )
    if fetched or entry["path"] is None:
        return {file.role_of_slide: f"results/downloads/{file.key}" for file in fetched}
    files = READERS[entry["source"]].locate(entry["path"])
    files = files_of_samples(files, samples)
    return harmless({role: str(path) for role, path in files.items()})


def labels_of(wildcards):
    """The file of labels that a data set names, if it names one."""
    return [label for label in [dataset_of(wildcards)["labels"]] if label]


def of_checkout(path):
    """A file of the workflow as an input: from here where it lies below, so that a folder that moves stays finished."""
    path = Path(path)
    return str(
        path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    )


def expected_shapes_of(wildcards):
    """What published runs found in a data set, if it is one of theirs."""
    return [of_checkout(EXPECTED)] if published_as(dataset_of(wildcards)) else []


def tables_of(wildcards):
    """The tables of the workflow that a slide is read with."""
    reader = READERS.get(dataset_of(wildcards)["source"])
    names = reader.tables if reader else ()
    return [of_checkout(RESOURCES / name) for name in names] + expected_shapes_of(
        wildcards
    )


@cache
def announce_downloads():
    """Say how much there is to fetch and whether the disk can hold it: before the target runs, and in a dry run."""
    if workflow.is_main_process:
        from tissue_counterfactuals.sources.downloads.planned import show

        print(show(config, ask=config["downloads"]["offline"] is None), file=sys.stderr)


def all_downloads(wildcards):
    """All files that the data sets of the configuration are read from."""
    announce_downloads()
    return [f"results/downloads/{key}" for key in REQUESTED]


def samples_of_slide(wildcards):
    """Values of the sample column that a slide keeps, None for all; Celcomen reads all samples as one slide."""
    if wildcards.slide == POOLED:
        return dataset_of(wildcards)["samples"]
    return SLIDES[wildcards.dataset][wildcards.slide]


def part_of_dataset(*keys):
    """Params function: some keys of a data set's entry, so that a change of others does not run the step again."""
    return lambda wildcards: {key: dataset_of(wildcards)[key] for key in keys}


# Everything that a slide is read and filtered with.
READ = (
    *("source", "path", "files", "sha256", "simulation", "field", "lesions", "screen"),
    *("layer", "labels", "columns", "keep_columns", "spatial", "unit_um", "preprocess"),
)


@cache
def chooses_genes(name):
    """Whether variable genes are chosen on the slides of a data set, for each fold of the benchmark anew."""
    entry = config["datasets"][name]
    benchmark = "cellina" in entry["experiments"] and entry["control_domain"]
    return bool(benchmark) and may_choose_genes(entry)


def read_in_preparation(wildcards):
    """Params function: what a slide is made from, with folds only where its genes depend on them."""
    entry = dataset_of(wildcards)
    chooses = chooses_genes(wildcards.dataset)
    # What is called stand-in is not compared with published numbers; of other files there are none.
    unpublished = not published_as(entry | {"kind": "real"})
    kind = "real" if unpublished and entry["source"] in READERS else entry["kind"]
    return (
        part_of_dataset(*READ)(wildcards)
        | {"kind": kind, "experiments": ["cellina"] if chooses else []}
        | (read_in_folds(entry) if chooses else {})
    )


def read_in_folds(entry):
    """What the folds of a slide are listed from: of keys that are not read, no value."""
    auto = entry["holdout"]["cell_types"] == "auto"
    return part_of_holdout(entry) | {
        "holdout": {
            "cell_types": entry["holdout"]["cell_types"],
            "min_cells": entry["holdout"]["min_cells"] if auto else None,
        },
    }


def part_of_holdout(entry):
    """Domains, and patients where they are left out: the same for all held-out types."""
    apart = entry["fit"] == "leave_patient_out"
    return {
        "control_domain": entry["control_domain"],
        "target_domains": entry["target_domains"],
        "fit": entry["fit"] if apart else None,
        "patients": entry["patients"] if apart else {},
    }


def asked_of_fold(wildcards):
    """Params function: what is held out, beyond what the name of the fold says; nothing is from a whole slide."""
    if wildcards.fold == WHOLE:
        return {}
    entry, fold = dataset_of(wildcards), wildcards.fold
    named = entry["holdout"]["cell_types"]
    # Two types may have the same path form; one that is its own has no other beside it.
    told = [
        label
        for label in (named if named != "auto" else [])
        if label != slug(label)
        and (fold == slug(label) or fold.startswith(f"{slug(label)}.without."))
    ]
    return part_of_holdout(entry) | {"named": told}


def question_settings(*steps, keys=()):
    """Params function: what a question is drawn from, with the switches of the steps that read them from it, and the
    keys of `counterfactual` that it reads.

    A change elsewhere in the configuration must not ask again.
    """

    def settings(wildcards):
        entry = dataset_of(wildcards)
        switches = SWITCHES[wildcards.protocol]
        return {
            "protocol": wildcards.protocol,
            "graph": entry["graph"],
            "validation_fraction": entry["holdout"]["validation_fraction"],
            "switches": {
                k: v
                for step in steps
                for k, v in protocols.of_step(switches, step).items()
            },
            **{key: config["counterfactual"][key] for key in keys},
        }

    return settings


def settings_of_methods(methods, slide=""):
    """Method -> its own section of the configuration, without what only bounds its time."""
    settings = {
        name: {
            k: v for k, v in config[METHODS[name].settings].items() if k != TIME_LIMIT
        }
        for name in methods
        if METHODS[name].settings
    }
    if "+" in slide:
        # Where costs are compared, all methods train as long, in batches of the same size.
        alike = config["cellina_experiments"]["scalability"]
        for own in settings.values():
            own |= {
                key: alike[as_key]
                for key, as_key in LENGTHS.items()
                if key in own and alike[as_key] is not None
            }
    return settings


def time_limits(methods):
    """Method -> minutes after which a step of it counts as failed, as JSON."""
    return json.dumps(
        {
            name: config.get(METHODS[name].settings, {}).get(TIME_LIMIT, DAY_MIN)
            for name in methods
        }
    )


# Where a guest is installed, and what becomes of one that fails, is no reason to run a step again: Snakemake leaves a
# params function that takes `input` out when it asks whether parameters have changed.


def guest_command(wildcards, input):
    """What the command line of a guest begins with."""
    python = "python" if USE_CONDA else shlex.quote(sys.executable)
    package = shlex.quote(str(Path(tissue_counterfactuals.__file__).parents[1]))
    return f"PYTHONPATH={package} {python} -m tissue_counterfactuals.methods.run"


def place_of_guest(wildcards, input):
    """The option that names the environment that was built for a guest, if it has one of its own."""
    return (
        f"--environment {shlex.quote(input.environment)}" if input.environment else ""
    )


def protocol_of_answers():
    """A user's question is answered without the authors' defects where that protocol is run."""
    protocols = config["protocols"]
    return "corrected" if "corrected" in protocols else protocols[0]


def training_asked(wildcards):
    """All that a training depends on beside its slide, as JSON."""
    return json.dumps(
        {
            "asked": asked_itself(wildcards) or asked_of_fold(wildcards),
            "question": question_settings("graph", "training")(wildcards),
            "settings": settings_of_methods([wildcards.method], wildcards.slide),
            "steps": steps_of_training(wildcards),
        }
    )


def question_of_training(wildcards):
    """The question of a training. It also holds donors and shifts: that they are others is no reason to train a method
    that does not read them then.
    """
    (question,) = expand(QUESTION, **wildcards)
    return question if "asked" in METHODS[wildcards.method].needs else ancient(question)


def steps_of_training(wildcards):
    """The option of an equal budget, which counts optimiser steps; where costs are compared, all train for as many
    epochs instead.
    """
    counted = "+" not in wildcards.slide and "steps" in METHODS[wildcards.method].needs
    equal = config["budget"] == "equal" and counted
    return f"--steps {config['equal_steps']}" if equal else ""


def memory_is_asked(wildcards, input):
    """The option of a training whose costs are what is asked, so that one that does not fit is a point of the figure."""
    return "--memory-is-asked" if "+" in wildcards.slide else ""


def uses_gpu(methods):
    """How many GPUs a job with these methods takes."""
    return int(
        config["device"] == "cuda" and any(METHODS[name].gpu for name in methods)
    )


def environment_of(name):
    """The environment that a job must find made: none for the workflow's own, and none where conda makes it."""
    return [] if name == CORE or USE_CONDA else f"results/environments/{name}.json"


def size_mb(files):
    """Megabytes of input files. Snakemake's own `input.size_mb` starts an event loop for each job that is planned."""
    return sum(map(os.path.getsize, files)) / 1024**2


def memory_of_task(wildcards, input, attempt):
    """Megabytes: the slide, its graph and the dense neighbourhood features, more at each further attempt."""
    return int(2000 + 8 * size_mb(input)) * attempt


def memory_of_join(wildcards, input, attempt):
    """Megabytes of a job that reads its files one after another: as for the largest, more at each further attempt."""
    return memory_of_task(wildcards, [max(input, key=os.path.getsize)], attempt)


def runtime_of(rule_name, least=0):
    """Resources function: minutes to ask a cluster for, from recorded runs, more at each further attempt."""

    def minutes(wildcards, input, attempt):
        method = getattr(wildcards, "method", "") if rule_name == "fit" else ""
        # A slide that is still to be made is as large as what it is made from.
        size = size_mb(input) if rule_name == "prepare" else estimates.slides_mb(input)
        return max(least, estimates.minutes(rule_name, size, method)) * attempt

    return minutes


def memory_of_preparation(wildcards, input, attempt):
    """Megabytes: what is kept of a slide; a file that is larger than memory is read in blocks."""
    return int(min(4000 + 2 * size_mb(input), 12000)) * attempt


def methods_of(name):
    """A data set's methods: rows of the table."""
    entry = config["datasets"][name]
    return applicable(entry["methods"], entry["source"] == "simulated", entry["fit"])


def method_names(name, environment=None, learned=None):
    """Names of a data set's methods, all or some."""
    return [
        method.name
        for method in methods_of(name)
        if environment in (None, method.environment)
        and learned in (None, method.learned)
    ]


def environments_of(methods):
    """The environments that methods run in."""
    return list(dict.fromkeys(METHODS[name].environment for name in methods))


def methods_with_latents(environment):
    """Names of the methods of an environment whose latents are compared."""
    names = config["cellina_experiments"]["disentanglement"]["methods"]
    return [name for name in names if METHODS[name].environment == environment]


def own_question(wildcards):
    """The user's question that a job belongs to; None for a fold of the benchmark."""
    known = dict(wildcards.items())
    name = known.get("question") or known["fold"].partition("+")[2]
    questions = dataset_of(wildcards)["questions"]
    return next((asked for asked in questions if asked["name"] == name), None)


def asked_itself(wildcards):
    """A user's question without who answers it: one more method or seed is no reason to train the others again."""
    asked = own_question(wildcards) or {}
    return {k: v for k, v in asked.items() if k not in ("methods", "seeds")}


def seeds_asked(wildcards):
    """Seeds of a user's question."""
    return own_question(wildcards)["seeds"] or config["seeds"]


def methods_asked(wildcards, learned=None):
    """Names of the methods that a job asks: the data set's or a question's, of its environment if it has one."""
    asked = own_question(wildcards)
    names = asked["methods"] if asked else method_names(wildcards.dataset)
    environment = dict(wildcards.items()).get("environment")
    return [
        name
        for name in names
        if environment in (None, METHODS[name].environment)
        and learned in (None, METHODS[name].learned)
    ]


def folds_of(dataset, slide):
    """Path forms of a slide's held-out types; known once the slide has been read, so the checkpoint waits for that."""
    table = checkpoints.write_folds.get(dataset=dataset, slide=slide).output[0]
    with open(table) as stream:
        forms = dict.fromkeys(line.split("\t")[0] for line in list(stream)[1:])
    # What is left out has none.
    return [form for form in forms if form]


def first_of(pattern):
    """Input function: the file of a pattern for the first fold, protocol and seed of a slide; none without a fold."""

    def file(wildcards):
        check_all_folds(wildcards.dataset)
        return expand(
            pattern,
            fold=folds_of(wildcards.dataset, wildcards.slide)[:1],
            protocol=config["protocols"][0],
            seed=config["seeds"][0],
            **wildcards,
        )

    return file


def check_all_folds(dataset):
    """Plan nothing of a data set that cannot be asked. Of one slide alone its own table of folds is refused."""
    if len(SLIDES[dataset]) > 1:
        checkpoints.check_folds.get(dataset=dataset)


def per_fold(pattern):
    """Input function: a pattern's files for all slides, folds, learned methods, environments, protocols and seeds."""

    def files(wildcards):
        found = []
        check_all_folds(wildcards.dataset)
        for slide in SLIDES[wildcards.dataset]:
            found += expand(
                pattern,
                dataset=wildcards.dataset,
                slide=slide,
                fold=folds_of(wildcards.dataset, slide),
                method=method_names(wildcards.dataset, learned=True),
                environment=environments_of(method_names(wildcards.dataset)),
                protocol=getattr(wildcards, "protocol", config["protocols"]),
                seed=config["seeds"],
            )
        return list(dict.fromkeys(found))

    return files
