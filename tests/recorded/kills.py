"""`make demo` killed at twenty-one moments: `make kills`.

A clone with a small tissue, six trainings and a guest whose environment has to be built is run once undisturbed. In a
second clone every start is ended by SIGKILL to the whole process group, Snakemake and its jobs alike, at a random
moment of a step that it has reached; then plain `make demo` is called again, and nothing else is done. After these
kills it is left alone. What then differs from the undisturbed run, and whether any job met a damaged file, stands in
kills.tsv.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".tsv")
sys.path[:0] = [str(ROOT / "tests/workflow"), str(ROOT / "workflow")]
from runs import clean_environment, clone_to, examples, tiny, untimed_results  # noqa: E402

# The steps in whose middle a run is killed, in the order in which a run comes to them; and how long to wait there, in
# seconds at most. The last two are in Snakemake's writing of the report.
REPORT = "--report results/report.html"
MOMENTS = [
    *[("prepare", 4), ("build_graph", 4), ("build_environment", 3), ("write_question", 4)],
    *[("fit", 15)] * 8,
    *[("predict", 6), ("predict", 6), ("score", 5), ("score", 5)],
    *[("tabulate", 3), ("table_cellina_1", 4), ("figure_cellina_2", 2)],
    *[(REPORT, 3)] * 2,
]  # fmt: skip


def prepare(folder: Path) -> Path:
    """A clone whose demo is small and has a guest."""
    clone = clone_to(folder)
    # Installed already: older than what is installed.
    (clone / ".venv").symlink_to((ROOT / ".venv").resolve())
    os.utime(clone / "requirements.txt", (0, 0))
    methods = [*tiny()["methods"], "cellina_ablated", "halving"]
    # Trainings long enough to leave checkpoints.
    config = tiny(methods=methods, cellina={"epochs": 400, "patience": 400})
    (clone / "config/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    row, module, _ = examples("A method")
    table = clone / "workflow/tissue_counterfactuals/methods/__init__.py"
    mark = '        Method("cellina",'
    table.write_text(table.read_text().replace(mark, f"        {row.strip()},\n{mark}"))
    (table.parent / "halving.py").write_text(module)
    # Nothing is fetched: the environment finds the packages of this one. Slow enough to be caught at it.
    (clone / "envs/halving.yaml").write_text("dependencies: [python =3.11, pip, {pip: []}]\n")
    (clone / "envs/halving.post-deploy.sh").write_text(
        "library=$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')\n"
        f"sleep 2\necho {sysconfig.get_path('purelib')} > $library/packages.pth\n"
    )
    return clone


def demo(clone: Path) -> subprocess.Popen:
    return subprocess.Popen(
        ["make", "demo"],
        cwd=clone,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def killed_at(clone: Path, step: str, wait: float) -> dict:
    """Start, kill everything `wait` seconds after a step began, say what stood on the screen."""
    process, screen = demo(clone), []
    began, started, end = time.time(), time.monotonic(), float("inf")
    os.set_blocking(process.stdout.fileno(), False)
    while process.poll() is None and time.monotonic() < end:
        while line := process.stdout.readline():
            screen.append(line)
        if end == float("inf") and begins(clone, step, began, screen):
            end = time.monotonic() + wait
        time.sleep(0.01)
    killed = process.poll() is None
    assert killed or process.returncode == 0, "".join(screen)
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    text = "".join(screen)
    done = re.findall(r"(\d+ of \d+) steps", text)
    return {
        "step": step,
        "moment": f"{wait:.1f} s after its start" if killed else "the run was over before",
        "seconds": round(time.monotonic() - started, 1),
        "unlocked": "its lock: it is taken away" in text,
        "steps_done": done[-1] if done else "0",
        "trainings_resumed": len(re.findall("resumed after epoch", logs(clone))),
    }


def begins(clone: Path, step: str, since: float, screen: list[str]) -> bool:
    """Whether a job of the step has begun since then: it has a log."""
    if step == REPORT:
        return any(REPORT in line for line in screen)
    logs = (clone / "results/logs" / step).rglob("*.log")
    return any(log.stat().st_mtime > since for log in logs)


def logs(clone: Path) -> str:
    return "".join(path.read_text() for path in (clone / "results/logs").rglob("*.log"))


def ended(clone: Path) -> tuple[float, str]:
    started, process = time.monotonic(), demo(clone)
    screen, _ = process.communicate()
    assert process.returncode == 0, screen
    return time.monotonic() - started, screen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        quiet, clone = (prepare(Path(folder) / name) for name in ("quiet", "killed"))
        seconds, _ = ended(quiet)
        print(f"undisturbed: {seconds:.0f} s", flush=True)
        rows = []
        for step, longest in MOMENTS:
            rows.append(killed_at(clone, step, draw.uniform(0, longest)))
            print(rows[-1], flush=True)
        seconds, screen = ended(clone)
        wanted, found = untimed_results(quiet), untimed_results(clone)
        differing = [n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)]
        damaged = len(re.findall("damaged", screen + logs(clone)))
        print(f"left alone: {seconds:.0f} s; {len(wanted)} files, {len(differing)} differ: {sorted(differing)[:20]}")
        print(f"{damaged} mentions of a damaged file")
    with open(TABLE, "w") as stream:
        print(
            f"# SIGKILL to all of `make demo`, then the same command; at the end {len(wanted)} files of results, of "
            f"which {len(differing)} differ from an undisturbed run; {damaged} mentions of a damaged file in the logs.",
            file=stream,
        )
        pd.DataFrame(rows).to_csv(stream, sep="\t", index_label="kill")


if __name__ == "__main__":
    main()
