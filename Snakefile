# Tissue counterfactuals: load and check the configuration, include the rules, name the targets.
# What each step does is written in workflow/tissue_counterfactuals; the rules only connect files.
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")

# The folder of this file, also where another workflow uses it as a module.
HERE = Path(str(workflow.current_basedir))
# Snakemake hands this path on to the scripts, so that they find the package wherever they run.
sys.path.insert(0, str(HERE / "workflow"))

from tissue_counterfactuals.config.yaml_files import check_config_files
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.estimates import say_at_start, show_after_dry_run
from tissue_counterfactuals.failures import show_at_exit
from tissue_counterfactuals.files import refuse_future, refuse_unwritable
from tissue_counterfactuals.jobs import python_without_spaces
from tissue_counterfactuals.scheduling import look_again_only_for_free_slots

STARTED = time.time()
# A file given with --configfile stands alone; without one, or without data sets in it, this is the demo.
DEMO = HERE / "config/config.yaml"
try:
    sys.executable = python_without_spaces(sys.executable)
    if workflow.is_main_process:
        look_again_only_for_free_slots()
        check_config_files(
            [*workflow.configfiles, *[DEMO] * ("datasets" not in config)]
        )
        refuse_future("results")
except InputError as error:
    raise WorkflowError(str(error))

if "datasets" not in config:

    configfile: DEMO


include: "workflow/rules/common.smk"
include: "workflow/rules/rows.smk"
include: "workflow/rules/downloads.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/methods.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/experiments.smk"


if workflow.is_main_process:
    show_after_dry_run(workflow, config)


report: "workflow/report/workflow.rst"


onstart:
    if workflow.is_main_process:
        try:
            refuse_unwritable("results")
        except InputError as error:
            raise WorkflowError(str(error))
        say_at_start(workflow, config)


# What there is, what it was made from and how long it took, for all results that are there.
onsuccess:
    if workflow.is_main_process:
        from tissue_counterfactuals.results import manifest

        manifest.write(Path("results"), config)


# Why each job failed, once, below everything that Snakemake says of it.
onerror:
    if workflow.is_main_process:
        show_at_exit(workflow, STARTED)


rule all:
    default_target: True
    input:
        results_of_target("all"),
        comparison("all"),


# The benchmark on simulated tissue: what `make demo` shows.
rule demo:
    input:
        results_of_target("demo"),
        comparison("demo"),


# Every experiment of the Celcomen paper that the configuration names.
rule celcomen:
    input:
        results_of_target("celcomen"),
        comparison("celcomen"),


rule table1:
    input:
        results_of_target("table1"),
        comparison("table1"),


rule figures:
    input:
        [results_of("cellina", name, tables=False) for name in datasets_for("cellina")],


# Do the results still belong to this code, configuration and data? Computes all checksums anew; makes nothing.
rule verify:
    log:
        "results/logs/verify.log",
    localrule: True
    conda:
        "envs/core.yaml"
    params:
        config=config,
    script:
        "workflow/scripts/verify.py"


# All that goes into the HTML; `--report results/report.html` then writes it.
rule report:
    input:
        results_of_target("all"),
        comparison("all"),


# Published numbers and statements beside those of the run, and its answer: results/compare/all.
rule compare:
    input:
        comparison("all"),


# Every data set is a target of its own: `snakemake <name of the data set>`. It comes last, to know the names taken.
for name in config["datasets"]:
    if workflow.is_rule(name):
        raise WorkflowError(
            f"config: datasets.{name} has the name of a target or rule; give it another name."
        )

    rule:
        name:
            name
        input:
            results_of_target(name),
            comparison(name),
