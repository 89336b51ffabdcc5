"""How long the job graph of the whole reproduction takes to build, once the slides are there: bound 30 seconds.

    python tests/bench/bench_plan.py [configuration, config/paper.yaml] [number of seeds]

Slides, downloads and graphs are empty stand-ins of the size of the real files, tables of folds are those of the
published held-out types; `snakemake --dry-run` then plans everything after them. The bound is on CPU seconds until the
graph is there, which other work on the machine changes little: planning is one thread.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from tissue_counterfactuals.config import load_config, samples_of  # noqa: E402
from tissue_counterfactuals.files import slug  # noqa: E402
from tissue_counterfactuals.question.folds import FOLD_COLUMNS, Fold, patients_of  # noqa: E402
from tissue_counterfactuals.sources.downloads.table import requested_files  # noqa: E402

BOUND_S = 30


def stand_in(path: Path, megabytes: int = 0) -> None:
    """A file without content that is said to be so large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(megabytes * 10**6)


def fold_table(entry: dict, samples: list[str] | None) -> pd.DataFrame:
    """The folds of a slide that has every held-out type."""
    patients = {"": ()}
    if entry["fit"] == "leave_patient_out":
        patients = patients_of(samples, entry["patients"])
    rows = []
    for patient, own in patients.items():
        for cell_type in entry["holdout"]["cell_types"]:
            fold = Fold(cell_type, entry["control_domain"], (), patient, own)
            for target in entry["target_domains"]:
                row = dict(
                    zip(FOLD_COLUMNS, (cell_type, fold.control, target, patient, "", 1000, 1000, ""), strict=True)
                )
                rows.append({"fold": slug(fold.label)} | row)
    return pd.DataFrame(rows)


def main(configuration: Path, n_seeds: int | None) -> int:
    raw = yaml.safe_load(configuration.read_text())
    if n_seeds:
        raw["seeds"] = list(range(n_seeds))
    config = load_config(raw)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        results = Path("results")
        for key in requested_files(config):
            stand_in(results / "downloads" / key, 300)
        time.sleep(0.01)
        n_slides = n_folds = 0
        for name, entry in config["datasets"].items():
            for slide, samples in samples_of(name, entry).items():
                n_slides += 1
                stand_in(results / f"slides/{name}/{slide}.h5ad", 300)
                stand_in(results / f"slides/{name}/{slide}.shapes.tsv")
                if entry["control_domain"] is not None:
                    time.sleep(0.01)
                    table = fold_table(entry, samples)
                    n_folds += table["fold"].nunique()
                    path = results / f"folds/{name}/{slide}.tsv"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    table.to_csv(path, sep="\t", index=False)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        Path("planned.yaml").write_text(yaml.safe_dump(raw))
        command += ["--configfile", "planned.yaml", "--cores", "2", "--dry-run", "--quiet", "rules"]
        started, seconds, screen = time.perf_counter(), 0.0, []
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
            for line in run.stdout:
                screen.append(line)
                # The table of jobs comes twice: once the graph is there, and after each job's command was worked out.
                if line.startswith("Job stats:"):
                    wall = time.perf_counter() - started
                    seconds = sum(psutil.Process(run.pid).cpu_times()[:2])
                if line.startswith("total"):
                    run.kill()
    if not seconds:
        print(*screen[-40:], sep="")
        return 1
    table = "".join(screen).split("Job stats:")[1].splitlines()
    jobs = {words[0]: int(words[1]) for words in map(str.split, table) if len(words) == 2 and words[1].isdigit()}
    print(*(f"{number:>7,}  {rule}" for rule, number in jobs.items()), sep="\n")
    print(f"{n_slides} slides, {n_folds} folds: {seconds:.1f} CPU s, bound {BOUND_S} ({wall:.1f} s by the clock)")
    return int(seconds > BOUND_S)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    file = Path(arguments[0]) if arguments else ROOT / "config/paper.yaml"
    sys.exit(main(file, int(arguments[1]) if len(arguments) > 1 else None))
