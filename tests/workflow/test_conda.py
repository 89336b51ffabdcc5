"""`--use-conda`: every job runs in the environment that its rule names. What takes conda's place: conda_standin.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from runs import Run, clean_environment, tiny

ACTIVATE = """
export CONDA_PREFIX="$1"
export PATH="$1/bin:$PATH"
"""


def test_jobs_run_in_environments_that_conda_made(finished, tmp_path):
    home = tmp_path / "conda"
    (home / "bin").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conda_standin.py"), home / "bin/standin.py")
    (home / "bin/conda").write_text(
        f'#!/bin/sh\nexec {sys.executable} {home}/bin/standin.py "$@"\n'
    )
    (home / "bin/conda").chmod(0o755)
    (home / "bin/activate").write_text(ACTIVATE)

    run = Run(tmp_path / "run").configure(tiny(seeds=[0]))
    scores = "results/scores/tiny/slide_0/type_0/corrected.seed0.tsv"
    files = ["--snakefile", str(run.checkout / "Snakefile"), "--directory", str(run.folder)]
    files += ["--configfile", str(run.folder / "config.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *files, "--cores", "2", "--use-conda", scores],
        env=clean_environment() | {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (home / "made.txt").read_text().splitlines()
    name, prefix = made.split()
    assert Path(prefix).parent == run.folder / ".snakemake/conda"
    # One environment, made once; every job ran there, and gave the same numbers.
    commands = (home / "ran.txt").read_text()
    for step in ("prepare", "build_graph", "write_folds", "write_question", "score"):
        assert f".{step}.py" in commands, step
    for step in ("fit", "predict"):
        assert f"-m tissue_counterfactuals.methods.run {step}" in commands, step
    assert run.bytes_of(scores) == finished.bytes_of(scores)
    # Conda makes what the workflow would else build itself.
    assert not (run.folder / "results/environments").exists()
