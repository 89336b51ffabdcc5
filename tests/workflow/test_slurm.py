"""The profile for SLURM, on a real SLURM of one node with one card that does nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from absent import absent
from runs import clean_environment, clone_to, untimed_results
from slurm import ACCOUNT, Slurm, missing

# This cluster keeps no accounts, and tests do not wait as long as people.
HERE = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
NO_ACCOUNT = "--slurm-no-account"
PROFILE = ["--profile", "workflow/profiles/slurm"]
ENDS = """
import sys
sys.path.insert(0, "workflow")
from tissue_counterfactuals.failures import show_at_exit
onerror:
    if workflow.is_main_process:
        show_at_exit(workflow, 0)
rule all:
    input: "refused", "too_long", "too_large", "grown", "score.0", "score.1", "score.2"
rule refused:
    output: "refused"
    log: "refused.log"
    shell: "echo 'error: slide s: no cell has the domain d.' > {log}; exit 1"
rule too_long:
    output: "too_long"
    log: "too_long.log"
    resources: runtime=1
    shell: "sleep 300"
rule too_large:
    output: "too_large"
    log: "too_large.log"
    resources: mem_mb=400
    shell: "python3 -c 'import time; x = bytearray(900 << 20); time.sleep(60)'"
rule grown:
    output: "grown"
    retries: 1
    resources: mem_mb=lambda wildcards, attempt: 500 * attempt
    shell: "python3 -c 'import time; x = bytearray(700 << 20); time.sleep(12)' && touch {output}"
rule score:
    output: "score.{n}"
    shell: "touch {output}"
rule card:
    output: "card"
    resources: gpu=1
    shell: "echo $CUDA_VISIBLE_DEVICES > {output}"
"""


@pytest.fixture(scope="module", params=[False, True], ids=["no accounts", "accounts"])
def slurm(request, tmp_path_factory):
    if reason := missing():
        absent(f"no SLURM can be started here: {reason}", "TC_REQUIRE_SLURM")
    with Slurm(tmp_path_factory.mktemp("slurm"), accounts=request.param) as running:
        yield running


without_accounts = pytest.mark.parametrize("slurm", [False], indirect=True, ids=["no accounts"])
with_accounts = pytest.mark.parametrize("slurm", [True], indirect=True, ids=["accounts"])


def start(folder, *arguments, account=(NO_ACCOUNT,)):
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *PROFILE, *account, *HERE, *arguments],
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


@without_accounts
@pytest.mark.skipif("TC_DEMO" not in os.environ, reason="TC_DEMO names no checkout in which `make demo` has run")
def test_the_demo_whose_submitter_is_killed_ends_as_the_local_demo(slurm, tmp_path):
    """The stage `cluster and Celcomen` of the CI, after the demo: some minutes."""
    demo, clone = os.environ["TC_DEMO"], tmp_path / "clone"
    # Of the same commit, which stands under tables and figures.
    subprocess.run(["git", "clone", "--quiet", demo, str(clone)], check=True)
    # As where a card is asked for; what trains here takes none.
    arguments = ("--set-resources", "fit:gpu=int(wildcards.method == 'cellina')", "--", "demo")
    process = start(clone, *arguments)
    while not any("rule_fit" in job["rule"] for job in slurm.jobs("running")):
        assert process.poll() is None, ended(process)[1]
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL

    # The job of the killed run is still there, and ends while its successor trains the same model.
    unlocked = subprocess.run(
        [sys.executable, "-m", "snakemake", "--unlock"], cwd=clone, env=clean_environment(), capture_output=True
    )
    assert unlocked.returncode == 0, unlocked.stderr
    code, screen = ended(start(clone, *arguments))
    assert code == 0, screen
    jobs = pd.DataFrame(slurm.jobs())
    print(jobs.to_string())
    wanted, found = (untimed_results(checkout) for checkout in (Path(demo), clone))
    assert any(name.startswith("tables/") for name in found)
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    assert not differing, "\n".join(differing)
    fits = jobs["rule"].str.match("rule_fit.*_cellina_(corrected|as_run)_0")
    assert set(jobs["partition"][fits]) == {"gpu"}
    assert set(jobs["partition"][~fits]) == {"cpu"}
    # Minutes and memory were asked for, for every job: not all that a partition allows, two hours.
    assert not jobs["time"].isin(["", "2:00:00"]).any()
    assert not (jobs["memory"] == "0").any()


@without_accounts
def test_how_a_job_ended_is_said(slurm, tmp_path):
    clone = clone_to(tmp_path / "clone")
    (clone / "Ends").write_text(ENDS)
    before = len([job for job in slurm.jobs() if "score" in job["rule"]])
    code, screen = ended(start(clone, "--snakefile", "Ends", "--retries", "0"))
    assert code == 1
    assert "error: slide s: no cell has the domain d." in screen
    assert "SLURM status is: 'TIMEOUT'" in screen
    states = {"refused": ["FAILED"], "too_long": ["TIMEOUT"], "too_large": ["FAILED"], "grown": ["COMPLETED", "FAILED"]}
    for rule, wanted in states.items():
        found = [job for job in slurm.jobs() if f"rule_{rule}" in job["rule"]]
        assert sorted(job["state"] for job in found) == wanted, rule
        # What ran out of memory was sent again with more.
        if rule == "grown":
            assert {job["state"]: job["memory"] for job in found} == {"FAILED": "500M", "COMPLETED": "1000M"}
    # Short jobs of a kind share one.
    assert len([job for job in slurm.jobs() if "score" in job["rule"]]) == before + 1
    assert all((clone / f"score.{n}").is_file() for n in range(3))
    # The last thing on the screen is why each job failed: its sentence, or that it was ended from outside.
    last = screen.rpartition("At least one job did not complete successfully.")[2].split("\n")
    told = [line for line in last if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in told] == ["slide s", "too_large.log", "too_long.log"]
    assert "was ended by SLURM because it ran out of memory (results/logs/slurm/rule_too_large/" in told[1]
    assert "was ended by SLURM because it ran out of time (results/logs/slurm/rule_too_long/" in told[2]


@without_accounts
def test_a_cluster_that_refuses_gpus_takes_gres(slurm, tmp_path):
    """What the profile has as a comment, with the comment signs taken away."""
    clone = clone_to(tmp_path / "clone")
    (clone / "Ends").write_text(ENDS)
    profile = clone / "workflow/profiles/slurm/config.yaml"
    before, block = profile.read_text().split("# set-resources:")
    block = "set-resources:" + block.replace("#   fit:", "#   card:").replace("\n# ", "\n")
    profile.write_text(before + block)
    code, screen = ended(start(clone, "--snakefile", "Ends", "card"))
    assert code == 0, screen
    (job,) = [job for job in slurm.jobs() if job["rule"].startswith("rule_card")]
    assert (job["partition"], job["gpu"]) == ("gpu", "gres:gpu:1")
    assert (clone / "card").read_text() == "0\n"


@with_accounts
@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_where_accounts_are_kept_both_status_commands_work(slurm, tmp_path, command):
    clone = clone_to(tmp_path / "clone")
    (clone / "Ends").write_text(ENDS)
    profile = clone / "workflow/profiles/slurm/config.yaml"
    text = profile.read_text()
    assert "slurm-status-command: squeue" in text
    profile.write_text(text.replace("slurm-status-command: squeue", f"slurm-status-command: {command}"))
    account = ["--default-resources", f"slurm_account={ACCOUNT}"]
    targets = ["--retries", "0", "--", "refused", "card"]
    code, screen = ended(start(clone, "--snakefile", "Ends", *targets, account=account))
    assert code == 1, screen
    assert "error: slide s: no cell has the domain d." in screen
    assert "SLURM status is: 'FAILED'" in screen
    assert (clone / "card").read_text() == "0\n"
    assert slurm.billed(ACCOUNT) >= {"COMPLETED", "FAILED"}
