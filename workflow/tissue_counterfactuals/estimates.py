"""How long jobs take and what they need: recorded runs, and what follows from them for other slides.

Every step is linear in cells and genes, so that a slide of twice the size takes twice as long, beside the seconds that
starting Python takes. `python -m tissue_counterfactuals.estimates results` records a finished run.
"""

import argparse
import csv
import math
import statistics
from collections import defaultdict
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
    cpu_s: float
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
    """CPU seconds of a job on a slide file of this size (None: that of the record), or None if nothing is recorded."""
    row = recorded().get((rule, method))
    if row is None:
        return None
    size = 1.0 if slide_mb is None or row.slide_mb == 0 else slide_mb / row.slide_mb
    return min(row.cpu_s, _START_S) + max(row.cpu_s - _START_S, 0.0) * size


def minutes(rule: str, slide_mb: float, method: str = "") -> int:
    """Minutes of wall time to ask a cluster for; those of an hour where nothing is recorded."""
    expected = seconds(rule, slide_mb, method)
    return max(_LEAST_MINUTES, math.ceil(_MARGIN * (1200 if expected is None else expected) / 60))


def table(jobs: dict[tuple[str, str], int]) -> str:
    """What a run will take: jobs by rule (and method), seconds of each, hours of CPU together, highest memory.

    Sizes are those of the recorded run: a slide of ten times the size takes ten times as long.
    """
    lines, hours = ["jobs  CPU s each  MB each  step"], 0.0
    for (rule, method), n in jobs.items():
        row = recorded().get((rule, method))
        name = f"{rule} {method}".strip()
        if row is None:
            lines.append(f"{n:>4}  {'?':>10}  {'?':>7}  {name}")
            continue
        hours += n * row.cpu_s / 3600
        lines.append(f"{n:>4}  {row.cpu_s:>10.1f}  {row.memory_mb:>7.0f}  {name}")
    lines.append(f"In all {hours:.2f} CPU hours, for slides of the recorded size ({_sizes()}).")
    return "\n".join(lines)


def _sizes() -> str:
    sizes = [row.slide_mb for row in recorded().values() if row.slide_mb > 0]
    return f"{min(sizes):g} to {max(sizes):g} MB" if sizes else "none"


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
                    found[rule, method].append(
                        (size, float(row["cpu_time"]), float(row["max_rss"]))
                    )
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
    parser.add_argument("results", type=Path, help="folder of a finished run")
    parser.add_argument("--machine", required=True, help="said at the top of the table")
    options = parser.parse_args()
    with open(RECORDED, "w") as stream:
        print(f"# {options.machine}", file=stream)
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(field.name for field in fields(Recorded))
        writer.writerows(astuple(row) for row in record(options.results))


if __name__ == "__main__":
    main()
