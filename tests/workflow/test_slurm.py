"""The profile for SLURM, on a real SLURM of one node with one card that does nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from runs import Run, clean_environment, clone_to, tiny
from slurm import Slurm, missing

FIT = "results/models/tiny/slide_0/type_0/cellina/corrected.seed0"
SCORES = "results/scores/tiny/slide_0/type_0/corrected.seed0.tsv"
# This cluster keeps no accounts, and tests do not wait as long as people.
HERE = ["--slurm-no-account", "--slurm-init-seconds-before-status-checks", "2"]
HERE += ["--latency-wait", "5"]
PROFILE = ["--profile", "workflow/profiles/slurm"]
ENDS = """
rule all:
    input: "refused", "too_long", "too_large"
rule refused:
    output: "refused"
    log: "refused.log"
    shell: "echo 'error: slide s: no cell has the domain d.' > {log}; exit 1"
rule too_long:
    output: "too_long"
    resources: runtime=1
    shell: "sleep 300"
rule too_large:
    output: "too_large"
    resources: mem_mb=400
    shell: "python3 -c 'import time; x = bytearray(900 << 20); time.sleep(60)'"
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = missing()
    if reason and not os.environ.get("TC_REQUIRE_SLURM"):
        pytest.skip(f"no SLURM can be started here: {reason}")
    assert not reason
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *PROFILE, *HERE, *arguments],
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process) -> tuple[int, str]:
    screen, _ = process.communicate(timeout=1200)
    return process.returncode, screen


def test_a_run_whose_submitter_is_killed_ends_as_the_local_run(slurm, finished, tmp_path):
    clone = clone_to(tmp_path / "clone")
    run = Run(clone).configure(tiny(seeds=[0]))
    # As where a card is asked for; what trains here takes none.
    arguments = ("--configfile", "config.yaml", "--set-resources", "fit:gpu=1", "--", SCORES)

    process = start(clone, *arguments)
    while not any("rule_fit" in job["rule"] for job in slurm.jobs("running")):
        assert process.poll() is None, ended(process)[1]
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL

    # The job of the killed run is still there, and ends while its successor trains the same model.
    unlocked = Run(clone).snakemake("--unlock")
    assert unlocked.code == 0, unlocked.screen
    code, screen = ended(start(clone, *arguments))
    assert code == 0, screen
    for file in (SCORES, f"{FIT}/model.pt"):
        assert run.bytes_of(file) == finished.bytes_of(file), file
    jobs = slurm.jobs()
    assert {job["partition"] for job in jobs if "rule_fit" in job["rule"]} == {"gpu"}
    assert {job["partition"] for job in jobs if "rule_fit" not in job["rule"]} == {"cpu"}
    # Minutes and memory were asked for, for every job.
    assert all(job["time"] not in ("", "1:00:00") and job["memory"] != "0" for job in jobs)


def test_how_a_job_ended_is_said(slurm, tmp_path):
    clone = clone_to(tmp_path / "clone")
    (clone / "Ends").write_text(ENDS)
    code, screen = ended(start(clone, "--snakefile", "Ends", "--retries", "0"))
    assert code == 1
    assert "error: slide s: no cell has the domain d." in screen
    assert "SLURM status is: 'TIMEOUT'" in screen
    for rule, status in (("refused", "FAILED"), ("too_long", "TIMEOUT"), ("too_large", "FAILED")):
        states = [job["state"] for job in slurm.jobs() if f"rule_{rule}" in job["rule"]]
        assert states == [status], rule
