"""Runs of the real workflow in folders of their own, on a tissue small enough for tests."""

import contextlib
import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]

# One fold, two seeds: two trainings that run side by side with two cores.
TINY = {
    "datasets": {
        "tiny": {
            "source": "simulated",
            "simulation": {"n_slides": 1, "n_cells": 900, "n_genes": 40},
            "control_domain": "domain_0",
            "target_domains": ["domain_1"],
            "holdout": {"cell_types": ["type_0"]},
            "graph": {"max_neighbors": 20},
        }
    },
    "seeds": [0, 1],
    "methods": ["no_change", "mean_shift", "ceiling", "truth", "cellina"],
    # Enough epochs for a training to be killed in their middle, and no early end.
    "cellina": {"epochs": 40, "patience": 40, "batch_size": 64, "n_hidden": 8, "n_latent": 3},
    "counterfactual": {"n_donors": 20},
    "metrics": {"n_deg": 10},
    "device": "cpu",
}
TINY_DATASET = TINY["datasets"]["tiny"]
# What says when and how long, and so differs between any two runs; the page of the comparison shows the figure of
# costs.
TIMED = re.compile(
    r"(^|/)(logs|benchmarks|environments)/|\.sha256$|manifest\.json$|ro-crate-metadata\.json$|report\.html$"
    r"|page\.html$|\.snakemake_timestamp$|status\.json$|provenance\.json$|history\.tsv$|costs\.[^/]*$"
)


def tiny(**changes: object) -> dict:
    """The tiny configuration with changes; a block of keys is changed key by key."""
    config = copy.deepcopy(TINY)
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    return config


@dataclass
class Outcome:
    """How a call of snakemake ended: exit code, and all that stood on the screen."""

    code: int
    screen: str

    def planned(self) -> dict[str, int]:
        """Jobs by rule, from the table that snakemake prints before it begins."""
        table = self.screen.split("Job stats:")[1].split("total")[0]
        rows = [line.split() for line in table.splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


@dataclass
class Run:
    """A folder in which snakemake runs the workflow of a checkout with the folder's own config.yaml."""

    folder: Path
    checkout: Path = ROOT
    python: str = sys.executable

    def configure(self, config: dict) -> "Run":
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return self

    def copy_to(self, folder: Path) -> "Run":
        """The same results, with their times, elsewhere: what is changed there leaves this run alone."""
        shutil.copytree(self.folder, folder)
        return Run(folder, self.checkout)

    def start(self, *arguments: str, cores: int = 2) -> subprocess.Popen:
        """Start snakemake at the head of a process group of its own."""
        files = [
            *("--snakefile", str(self.checkout / "Snakefile")),
            *("--directory", str(self.folder)),
            *("--configfile", str(self.folder / "config.yaml")),
        ]
        return subprocess.Popen(
            [self.python, "-m", "snakemake", *files, "--cores", str(cores), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=clean_environment(),
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, cores: int = 2) -> Outcome:
        """Run snakemake to its end."""
        process = self.start(*arguments, cores=cores)
        screen, _ = process.communicate()
        return Outcome(process.returncode, screen)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def bytes_of(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def files(self, under: str) -> list[str]:
        """All files below a folder of results, as paths from there, sorted; without the records of checksums."""
        top = self.folder / under
        files = (p for p in top.rglob("*") if p.is_file() and p.suffix != ".sha256")
        return sorted(str(p.relative_to(top)) for p in files if p.name != ".sha256")


def examples(heading: str, document: str = "CONTRIBUTING.md") -> list[str]:
    """The blocks of code under a heading of a document, in their order."""
    section = (ROOT / document).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def untimed_results(checkout: Path) -> dict[str, bytes]:
    """All files of results that two runs of the same commit must share, by path."""
    top = checkout / "results"
    files = {str(p.relative_to(top)): p for p in top.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not TIMED.search(name)}


def clone_to(folder: Path) -> Path:
    """The files that a clone of the working tree would have, committed or not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    # Compiled modules and kernels go along, with the times of their sources: to make them takes longer than most tests.
    compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "workflow").glob("**/__pycache__/*.*")]
    for name in filter(None, [*listed, *compiled]):
        # Workers beside this one write compiled files under other names and rename them.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def clean_environment() -> dict[str, str]:
    """A user's environment: the package is not on the path, and nobody has chosen threads."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and "NUM_THREADS" not in k}
