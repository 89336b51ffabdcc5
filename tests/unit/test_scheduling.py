"""How often Snakemake looks for the next jobs."""

import subprocess
import sys
from pathlib import Path

import tissue_counterfactuals

WORKFLOW = """
import sys
sys.path.insert(0, {package!r})
from tissue_counterfactuals.scheduling import look_again_only_for_free_slots
if {changed}:
    look_again_only_for_free_slots()
rule all:
    input: expand("{{i}}.txt", i=range(24))
rule one:
    output: "{{i}}.txt"
    shell: "sleep 0.5; touch {{output}}"
"""


def rounds(folder, changed, rate):
    """Times that a run of 24 jobs of half a second on two cores looked for jobs."""
    folder.mkdir()
    package = Path(tissue_counterfactuals.__file__).parents[1]
    (folder / "Snakefile").write_text(WORKFLOW.format(package=str(package), changed=changed))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--verbose", "--max-jobs-per-timespan", rate],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*.txt"))) == 24
    return done.stderr.count("Ready jobs: ")


def test_a_round_for_each_job_that_ends_and_no_more(tmp_path):
    few, many = rounds(tmp_path / "few", True, "100/1s"), rounds(tmp_path / "many", False, "100/1s")
    # One for each job, and a few at the start and end; two jobs that end together may share one.
    assert 12 <= few <= 32
    # Without it there are more of them with each second: 60 and more.
    assert many > 1.2 * few


def test_jobs_wait_for_a_slot_and_go_on_when_there_is_one(tmp_path):
    """Four jobs in two seconds are less than two cores could do: after each four nothing ends, and all go on."""
    assert rounds(tmp_path / "slots", True, "4/2s") >= 12
