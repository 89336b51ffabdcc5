"""A run that is killed in the middle of a training goes on, and ends as if nothing had happened."""

import os
import shutil
import signal
import subprocess
import time

from runs import ROOT, clean_environment

FIT = "tiny/slide_0/type_0/cellina/corrected.seed0"
TABLE = "results/tables/tiny/scores.tsv"


def test_a_killed_run_ends_with_the_same_table(finished, tmp_path):
    run = finished.copy_to(tmp_path / "run")
    shutil.rmtree(run.folder / "results/models" / FIT)
    shutil.rmtree(run.folder / "results/tables")
    for downstream in (
        "predictions/tiny/slide_0/type_0/corrected.seed0/core.h5ad",
        "scores/tiny/slide_0/type_0/corrected.seed0.tsv",
    ):
        (run.folder / "results" / downstream).unlink()

    process = run.start(TABLE)
    checkpoint = run.folder / "results/checkpoints" / f"{FIT}.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    screen, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, screen
    assert checkpoint.exists()
    assert not (run.folder / "results/models" / FIT / "status.json").exists()

    # What `make demo` does first.
    (run.folder / "Snakefile").write_text(f"include: {str(ROOT / 'Snakefile')!r}\n")
    unlock = [run.python, ROOT / "workflow/scripts/unlock.py"]
    said = subprocess.run(unlock, cwd=run.folder, env=clean_environment(), capture_output=True, text=True)
    assert "its lock: it is taken away" in said.stdout, said.stderr
    outcome = run.snakemake(TABLE)
    assert outcome.code == 0, outcome.screen
    log = run.read(f"results/logs/fit/{FIT}.log")
    assert "resumed after epoch" in log
    assert "epoch 1/40" not in log
    assert run.bytes_of(TABLE) == finished.bytes_of(TABLE)
    assert not checkpoint.exists()
