"""How long jobs take and what they need: recorded runs, and what follows from them for other slides.

Every step is linear in cells and genes, so that a slide of twice the size takes twice as long, beside the seconds that
starting Python takes. As a program: `plan` says what a run will take, `record` keeps what a finished one took.
"""

import argparse
import csv
import math
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path

RECORDED = Path(__file__).resolve().parents[2] / "resources/recorded_runs.tsv"
# A job's first seconds: Python, its packages, compiled kernels.
_START_S = 4.0

# Other machines, other settings, other work on the same node: what to ask of a cluster beside what was recorded.
_MARGIN = 3.0
_LEAST_MINUTES = 10


@dataclass(frozen=True)
class Recorded:
    """Means over the jobs of a rule (for `fit`, of one method) in a recorded run."""

    rule: str
    method: str
    slide_mb: float  # size of the slide file
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
    """Seconds of a job on a slide file of this size (None: that of the record), or None if nothing is recorded."""
    row = recorded().get((rule, method))
    if row is None:
        return None
    size = 1.0 if slide_mb is None or row.slide_mb == 0 else slide_mb / row.slide_mb
    return min(row.seconds, _START_S) + max(row.seconds - _START_S, 0.0) * size


def minutes(rule: str, slide_mb: float, method: str = "") -> int:
    """Minutes of wall time to ask a cluster for; those of an hour where nothing is recorded."""
    expected = seconds(rule, slide_mb, method)
    return max(_LEAST_MINUTES, math.ceil(_MARGIN * (1200 if expected is None else expected) / 60))


def planned(screen: str) -> dict[tuple[str, str], int]:
    """Jobs by rule and method, from what a dry run of Snakemake prints."""
    jobs, rule = Counter(), ""
    for line in screen.splitlines():
        if match := re.match(r"\s*(?:local)?(?:rule|checkpoint) (\w+):$", line):
            rule = match[1]
            jobs[rule, ""] += 1
        elif rule == "fit" and (match := re.search(r"wildcards: .*\bmethod=(\w+)", line)):
            jobs[rule, ""] -= 1
            jobs[rule, match[1]] += 1
    return {key: n for key, n in sorted(jobs.items()) if n}


def table(jobs: dict[tuple[str, str], int]) -> str:
    """What jobs will take, a line per step: how many, seconds and memory of each; and hours in all."""
    lines, hours = [f"{'jobs':>5}  {'s each':>10}  {'MB each':>7}  step"], 0.0
    for (rule, method), n in jobs.items():
        row = recorded().get((rule, method))
        if row is None:
            told = f"{'?':>10}  {'?':>7}"
        else:
            hours += n * row.seconds / 3600
            told = f"{row.seconds:>10.1f}  {row.memory_mb:>7.0f}"
        lines.append(f"{n:>5}  {told}  {rule} {method}".rstrip())
    sizes = [row.slide_mb for row in recorded().values() if row.slide_mb > 0]
    lines.append(
        f"In all {hours:.2f} hours of single jobs beside the steps with a question mark, for slide files of about "
        f"{max(sizes, default=0):g} MB; work grows with their size. Folds that are not known yet are not among the jobs."
    )
    return "\n".join(lines)


def record(results: Path) -> list[Recorded]:
    """Means by rule and method over the benchmark files of a finished run."""
    found = defaultdict(list)
    top = results / "benchmarks"
    for path in sorted(top.rglob("*.tsv")):
        rule, *wildcards = path.relative_to(top).parts
        # fit/<dataset>/<slide>/<fold>/<method>/<protocol>.seed<n>.tsv
        method = wildcards[3] if rule == "fit" else ""
        slide = results / "slides" / "/".join([*wildcards, ""][:2])
        slide = slide.with_name(slide.name.removesuffix(".tsv") + ".h5ad")
        size = slide.stat().st_size / 1e6 if slide.is_file() else 0.0
        with open(path) as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                # Jobs that end at once leave no measurement.
                if row["max_rss"] not in ("-", "NA"):
                    found[rule, method].append((size, float(row["s"]), float(row["max_rss"])))
    return [
        Recorded(
            *key,
            *(round(statistics.mean(values), 1) for values in zip(*rows, strict=True)),
            len(rows),
        )
        for key, rows in sorted(found.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    plan = steps.add_parser("plan", help="what a run will take, before it is begun")
    plan.add_argument("arguments", nargs=argparse.REMAINDER, help="what snakemake would be given")
    keep = steps.add_parser("record", help="record a finished run")
    keep.add_argument("results", type=Path, help="its folder of results")
    keep.add_argument("--machine", required=True, help="said at the top of the table")
    options = parser.parse_args()
    if options.step == "plan":
        command = [sys.executable, "-m", "snakemake", "--dry-run", *options.arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        print(table(planned(done.stdout + done.stderr)))
        return
    with open(RECORDED, "w") as stream:
        print(f"# {options.machine}", file=stream)
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(field.name for field in fields(Recorded))
        writer.writerows(astuple(row) for row in record(options.results))


if __name__ == "__main__":
    main()
