"""How long jobs take and what they need: recorded runs, and what follows from them for other slides.

Every step is linear in cells and genes, so that a slide of twice the size takes twice as long, beside the seconds that
starting Python takes. A dry run ends with what the run will take; as a program, this keeps what a finished one took.
"""

import argparse
import atexit
import csv
import math
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

from tissue_counterfactuals.config.dataset import SIMULATED
from tissue_counterfactuals.methods import METHODS, applicable

RECORDED = Path(__file__).resolve().parents[2] / "resources/recorded_runs.tsv"
# A job's first seconds: Python, its packages, compiled kernels.
_START_S = 4.0

# The slides of the record.
_USUAL = "3,000 cells x 300 genes"

# Other machines, other settings, other work on the same node: what to ask of a cluster beside what was recorded.
_MARGIN = 3.0
_LEAST_MINUTES = 10


@dataclass(frozen=True)
class Recorded:
    """Means over the jobs of a rule (for `fit`, of one method) in a recorded run."""

    rule: str
    method: str
    slide_mb: float  # size of the slides it reads, 0 where it reads none
    seconds: float  # of wall time; Snakemake's CPU time leaves out what a job's children use
    memory_mb: float  # highest resident memory
    jobs: int


@cache
def recorded() -> dict[tuple[str, str], Recorded]:
    """The table, by rule and method."""
    with open(RECORDED) as stream:
        lines = (line for line in stream if not line.startswith("#"))
        rows = [
            Recorded(**{f.name: f.type(row[f.name]) for f in fields(Recorded)})
            for row in csv.DictReader(lines, delimiter="\t")
        ]
    return {(row.rule, row.method): row for row in rows}


def seconds(rule: str, slide_mb: float | None = None, method: str = "") -> float | None:
    """Seconds of a job that reads slides of this size (None: those of the record), or None if nothing is recorded."""
    row = recorded().get((rule, method))
    # A record without slides says nothing of a job with some.
    if row is None or (slide_mb and not row.slide_mb):
        return None
    size = slide_mb / row.slide_mb if slide_mb else 1.0
    return min(row.seconds, _START_S) + max(row.seconds - _START_S, 0.0) * size


def minutes(rule: str, slide_mb: float, method: str = "") -> int:
    """Minutes of wall time to ask a cluster for; without a record an hour, or as for the slowest training if longer."""
    expected = seconds(rule, slide_mb, method)
    if expected is None:
        fits = (seconds("fit", slide_mb, name) for recorded_rule, name in recorded() if recorded_rule == "fit")
        expected = max(1200.0, *filter(None, fits))
    return max(_LEAST_MINUTES, math.ceil(_MARGIN * expected / 60))


def slides_mb(files: Iterable[str | Path]) -> float:
    """Megabytes of the slides among some files: of a job's inputs, what its time grows with.

    Raises:
        FileNotFoundError: one of them is not there yet.
    """
    slides = (Path(file) for file in files if str(file).endswith(".h5ad"))
    return sum(os.path.getsize(path) for path in slides if path.parts[-3:-2] == ("slides",)) / 1e6


def planned(jobs: Iterable) -> dict[tuple[str, str], list[float | None]]:
    """Jobs of Snakemake by rule and method: MB of the slides that each reads, None where one is not there yet."""
    found = defaultdict(list)
    for job in jobs:
        method = job.wildcards.get("method", "") if job.rule.name == "fit" else ""
        try:
            size = slides_mb(job.input)
        except FileNotFoundError:
            size = None
        found[job.rule.name, method].append(size)
    return dict(sorted(found.items()))


def of_folds_to_come(jobs: Iterable, config: dict) -> tuple[dict[tuple[str, str], int], bool]:
    """Jobs of the folds that are only known when slides are prepared, and whether all could be counted.

    Held-out types that the configuration names are taken to be all there; with `auto` their number is unknown, as is
    that of patients left out where only the slide has the names of its samples.
    """
    found, all_known = defaultdict(int), True
    for job in jobs:
        if job.rule.name != "write_folds":
            continue
        dataset = config["datasets"][job.wildcards["dataset"]]
        types, n_patients = dataset["holdout"]["cell_types"], _n_patients_left_out(dataset)
        if isinstance(types, str) or n_patients is None:
            all_known = False
            continue
        runs = len(types) * n_patients * len(config["seeds"]) * len(config["protocols"])
        methods = applicable(dataset["methods"], dataset["source"] == "simulated", dataset["fit"])
        for method in methods:
            found["fit", method.name] += runs * method.learned
        found["predict", ""] += runs * len({method.environment for method in methods})
        found["write_question", ""] += runs
        found["score", ""] += runs
    return {key: n for key, n in found.items() if n}, all_known


def _n_patients_left_out(dataset: dict) -> int | None:
    """How many patients are left out in turn, 1 where nobody is; None where only the slide knows."""
    if dataset["fit"] != "leave_patient_out":
        return 1
    n_samples = len(dataset["samples"] or [])
    if not n_samples and dataset["source"] == "simulated":
        n_samples = dataset["simulation"]["n_slides"]
    named = dataset["patients"].values()
    return n_samples - sum(map(len, named)) + len(named) if n_samples else None


def table(jobs: dict[tuple[str, str], list[float | None]]) -> list[str]:
    """What jobs will take, a line per step: how many, seconds and memory of each."""
    lines = [f"{'jobs':>5}  {'s each':>8}  {'MB each':>7}  step"]
    for (rule, method), sizes in jobs.items():
        times = [seconds(rule, size, method) for size in sizes]
        told = f"{'?':>8}  {'?':>7}"
        if None not in times:
            memory = recorded()[rule, method].memory_mb
            told = f"{sum(times) / len(times):>8.1f}  {memory:>7.0f}"
        lines.append(f"{len(sizes):>5}  {told}  {rule} {method}".rstrip())
    return lines


def not_prepared(jobs: Iterable, config: dict) -> list[str]:
    """Data sets whose slides are still to be prepared, so that nobody knows how large they are; simulated ones are
    about as large as those of the record.
    """
    names = {job.wildcards["dataset"] for job in jobs if job.rule.name == "prepare"}
    return sorted(name for name in names if config["datasets"][name]["source"] not in SIMULATED)


def in_all(jobs: dict[tuple[str, str], list[float | None]], cores: int | None, unknown_size: Sequence[str] = ()) -> str:
    """Sentences: how long the jobs will take one after another, and on so many cores (None: those of a cluster); how
    much of it a GPU may do, how many jobs are not in it because such were never recorded, and which data sets
    (`unknown_size`) may take far longer.
    """
    total = on_gpu = 0.0
    unknown = 0
    for (rule, method), sizes in jobs.items():
        times = [seconds(rule, size, method) for size in sizes]
        unknown += times.count(None)
        taken = sum(filter(None, times))
        total += taken
        if method and METHODS[method].gpu:
            on_gpu += taken
    if total == 0:
        return "How long such jobs take was not recorded."
    more = f" Jobs of which there is no record come on top: {unknown:,}." if unknown else ""
    if unknown_size:
        more += (
            f" This is the least: the slides of {', '.join(unknown_size)} are not prepared, and count as {_USUAL}; ask "
            "again when they are (-n)."
        )
    return (
        f"{'At least' if unknown_size else 'About'} {_time(total)} of jobs"
        f"{f', {_time(total / cores)} on {cores} cores' if cores else ''}; "
        f"{_time(on_gpu)} are trainings that can use a GPU, as they take without.{more}"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cores(workflow: object) -> int | None:
    """Cores of this machine that the run may use; None where jobs go to a cluster, as Snakemake has it."""
    return workflow.global_resources["_cores"].value


def to_be_done(workflow: object, config: dict) -> tuple[dict, bool, list[str]]:
    """Jobs of a run by rule and method, those of folds to come among them, whether those could be counted, and the data
    sets that are `not_prepared`.
    """
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.output]
    found = planned(jobs)
    to_come, all_known = of_folds_to_come(jobs, config)
    for key, n in to_come.items():
        found[key] = found.get(key, []) + [None] * n
    return found, all_known, not_prepared(jobs, config)


def say_at_start(workflow: object, config: dict) -> None:
    """Say how long the run will take."""
    jobs, all_known, unprepared = to_be_done(workflow, config)
    if jobs:
        unknown = "" if all_known else " The folds come on top: they are known when slides are prepared."
        print(f"{in_all(jobs, _cores(workflow), unprepared)}{unknown}", file=sys.stderr)


def show_after_dry_run(workflow: object, config: dict) -> None:
    """Have Snakemake print the table below all that it says of a dry run."""

    def show() -> None:
        if not (workflow.dryrun and workflow.dag):
            return
        jobs, all_known, unprepared = to_be_done(workflow, config)
        if not jobs:
            return
        print("", *table(jobs), in_all(jobs, _cores(workflow), unprepared), sep="\n")
        print("From resources/recorded_runs.tsv, in proportion to the slides that are there.")
        if not all_known:
            print(
                "The folds, most of the work, are known when slides are prepared: a data set has `cell_types: auto`, "
                "or leaves out patients that only its slide names."
            )

    atexit.register(show)


def record(results: Path, column: str = "s") -> list[Recorded]:
    """Means by rule and method over the benchmark files of a finished run; `column` is the seconds of the clock (`s`)
    or of the processor (`cpu_time`), for a run on a machine with so much other work that the clock says nothing.
    """
    found = defaultdict(list)
    top = results / "benchmarks"
    for path in sorted(top.rglob("*.tsv")):
        rule, *wildcards = path.relative_to(top).parts
        # fit/<dataset>/<slide>/<fold>/<method>/<protocol>.seed<n>.tsv
        method = wildcards[3] if rule == "fit" else ""
        size = slides_mb(_slides_of(results / "slides", wildcards))
        with open(path) as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                # Jobs that end at once leave no measurement.
                if row["max_rss"] not in ("-", "NA"):
                    found[rule, method].append((size, float(row[column]), float(row["max_rss"])))
    return [
        Recorded(
            *key,
            *(round(statistics.mean(values), 1) for values in zip(*rows, strict=True)),
            len(rows),
        )
        for key, rows in sorted(found.items())
    ]


def _slides_of(slides: Path, wildcards: list[str]) -> list[Path]:
    """The slides that a job read, by its benchmark's path: the one that is named, or all of its data set.

    Wildcards are folders (`dataset/slide/..`), or stand in one name with dots between them.
    """
    words = f".{'.'.join(wildcards).removesuffix('.tsv')}."
    dataset = next((d for d in sorted(slides.glob("*")) if words.startswith(f".{d.name}.")), None)
    if dataset is None:
        return []
    every = sorted(dataset.glob("*.h5ad"))
    named = [path for path in every if f".{path.stem}." in words]
    return named or [path for path in every if "+" not in path.stem]


def main() -> None:
    parser = argparse.ArgumentParser(description="record a finished run")
    parser.add_argument("results", type=Path, help="its folder of results")
    parser.add_argument("--machine", required=True, help="said at the top of the table")
    parser.add_argument("--cpu", action="store_true", help="record seconds of the processor, not of the clock")
    parser.add_argument("--add", action="store_true", help="keep what is recorded, and add steps that are not")
    options = parser.parse_args()
    rows = {(row.rule, row.method): row for row in record(options.results, "cpu_time" if options.cpu else "s")}
    notes = [f"# {options.machine}"]
    if options.add:
        rows |= recorded()
        with open(RECORDED) as stream:
            notes = [line.strip() for line in stream if line.startswith("#")] + [f"# Other steps: {options.machine}"]
    with open(RECORDED, "w") as stream:
        print(*notes, sep="\n", file=stream)
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(field.name for field in fields(Recorded))
        writer.writerows(astuple(row) for _, row in sorted(rows.items()))


if __name__ == "__main__":
    main()
