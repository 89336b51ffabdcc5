"""`--use-conda`: every job runs in the environment that its rule names. What takes conda's place: conda_standin.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from absent import peer
from runs import ROOT, Run, clean_environment, tiny

STANDIN = ROOT / "tests/peers/conda_standin.py"
ACTIVATE = """
export CONDA_PREFIX="$1"
export PATH="$1/bin:$PATH"
"""


@pytest.fixture(scope="module")
def conda(tmp_path_factory):
    """A folder with `bin/conda` and the channel that it solves from."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the channel holds a copy of this Python, and envs/core.yaml asks for 3.11")
    rattler = peer("conda")
    home = tmp_path_factory.mktemp("conda")
    subprocess.run([rattler, STANDIN, "channel", home, sys.executable], check=True)
    (home / "bin").mkdir()
    (home / "bin/conda").write_text(f'#!/bin/sh\nexec {rattler} {STANDIN} {home} "$@"\n')
    (home / "bin/conda").chmod(0o755)
    (home / "bin/activate").write_text(ACTIVATE)
    return home


def snakemake(conda, run, *arguments):
    files = ["--snakefile", str(run.checkout / "Snakefile"), "--directory", str(run.folder)]
    files += ["--configfile", str(run.folder / "config.yaml")]
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *files, "--cores", "2", "--use-conda", *arguments],
        env=clean_environment() | {"PATH": f"{conda / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def test_jobs_run_in_environments_that_conda_made(conda, finished, tmp_path):
    run = Run(tmp_path / "run").configure(tiny(seeds=[0]))
    scores = "results/scores/tiny/slide_0/type_0/corrected.seed0.tsv"
    done = snakemake(conda, run, scores)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (conda / "made.txt").read_text().splitlines()
    _, prefix, pip = made.split()
    assert Path(prefix).parent == run.folder / ".snakemake/conda"
    # Solved from the channel and linked, with the pip that the file pins.
    linked = {path.name.rsplit("-", 2)[0] for path in (Path(prefix) / "conda-meta").glob("*.json")}
    assert linked == {"python", "pip"}
    assert pip.startswith("26.0")
    # One environment, made once; every job ran there, and gave the same numbers.
    commands = (conda / "ran.txt").read_text().splitlines()
    assert all(line.startswith(f"{prefix}/bin/python") for line in commands)
    commands = "\n".join(commands)
    for step in ("prepare", "build_graph", "write_folds", "write_question", "score"):
        assert f".{step}.py" in commands, step
    for step in ("fit", "predict"):
        assert f"-m tissue_counterfactuals.methods.run {step}" in commands, step
    assert run.bytes_of(scores) == finished.bytes_of(scores)
    # Conda makes what the workflow would else build itself.
    assert not (run.folder / "results/environments").exists()


def test_an_environment_that_the_channel_cannot_make_is_refused(conda, tmp_path):
    (tmp_path / "Snakefile").write_text(
        'rule one:\n    output: "one"\n    conda: "one.yaml"\n    shell: "touch {output}"\n'
    )
    text = (ROOT / "envs/core.yaml").read_text().replace("pip =26.0", "pip =9.9")
    (tmp_path / "one.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--use-conda"],
        cwd=tmp_path,
        env=clean_environment() | {"PATH": f"{conda / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "No candidates were found for pip 9.9" in done.stdout + done.stderr
