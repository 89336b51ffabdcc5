"""Same seed, same bytes: whatever the number of cores, in whichever clone."""

import shutil
import subprocess
import sys

from runs import ROOT, Run, clean_environment, tiny


def test_one_core_in_a_second_clone_gives_the_same_table(finished, tmp_path):
    clone = tmp_path / "clone"
    # The files that a clone of the working tree would have, committed or not.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
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
