"""Same seed, same bytes: whatever the number of cores, in whichever clone."""

import subprocess
import sys

from runs import Run, clean_environment, clone_to, tiny


def test_one_core_in_a_second_clone_gives_the_same_table(finished, tmp_path):
    clone = clone_to(tmp_path / "clone")
    run = Run(clone).configure(tiny())
    table = "results/tables/tiny/scores.tsv"
    # As a user calls it in a clone: no option but these.
    arguments = ["--cores", "1", table, "--configfile", "config.yaml"]
    outcome = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=clone,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert run.bytes_of(table) == finished.bytes_of(table)
