"""The workflow in a folder with a space, used by another workflow, and with files of configuration that deceive."""

import os
import shutil
import subprocess
import sys
import time

import yaml

from runs import ROOT, Run, clean_environment, tiny

SLIDE = "results/slides/tiny/slide_0.h5ad"


def test_a_clone_and_a_python_below_a_folder_with_a_space(tmp_path):
    place = tmp_path / "sp ace"
    for part in ("workflow", "config", "envs", "profiles", "resources"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", place)
    Run(place).configure(tiny())
    (place / ".venv").symlink_to(sys.prefix)
    command = [".venv/bin/python", "-m", "snakemake", "--cores", "1", SLIDE]
    outcome = subprocess.run(
        [str(place / command[0]), *command[1:], "--configfile", "config.yaml"],
        cwd=place,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (place / SLIDE).is_file()


def test_as_a_module_of_another_workflow(tmp_path):
    run = Run(tmp_path, checkout=tmp_path).configure(tiny())
    (tmp_path / "Snakefile").write_text(
        'configfile: "config.yaml"\n'
        "module counterfactuals:\n"
        f'    snakefile: "{ROOT / "Snakefile"}"\n'
        "    config: config\n"
        "use rule * from counterfactuals as tc_*\n"
    )
    outcome = run.snakemake("-n", SLIDE, f"--directory={tmp_path}")
    assert outcome.code == 0, outcome.screen
    assert outcome.planned() == {"tc_prepare": 1}


def test_a_key_given_twice_is_refused_in_any_of_several_files(tmp_path):
    run = Run(tmp_path).configure(tiny())
    second = tmp_path / "second.yaml"
    second.write_text("seeds: [0]\nseeds: [3]\n")
    outcome = run.snakemake("-n", "--configfile", str(tmp_path / "config.yaml"), str(second))
    assert outcome.code != 0
    assert f"config file {second}: lines 1 and 2: the key seeds is given twice" in outcome.screen
    assert "Traceback" not in outcome.screen


def test_make_run_looks_at_a_configuration_before_snakemake_reads_it(tmp_path):
    """Snakemake itself ends in a traceback over other encodings."""
    path = tmp_path / "my.yaml"
    words = ["make", "-C", str(ROOT), f"VENV={sys.prefix}", "-o", f"{sys.prefix}/installed", "run", f"CONFIG={path}"]
    for encoding in ("cp1252", "utf-16"):
        path.write_bytes("datasets: {a: {label: Gewebe ä}}\n".encode(encoding))
        made = subprocess.run(words, env=clean_environment(), capture_output=True, text=True)
        assert made.returncode != 0
        told = f"config file {path}: it is not written in UTF-8; save it again with this encoding."
        assert made.stderr.splitlines()[0] == told
        assert "snakemake" not in made.stdout
    path.write_text("datasets: {a: {label: Gewebe ä}}\n")
    assert f"snakemake --cores 2 --configfile {path}" in subprocess.check_output([*words, "-n", "CORES=2"], text=True)


def test_the_demo_in_another_encoding_is_told(tmp_path):
    for part in ("workflow", "profiles", "resources"):
        (tmp_path / part).symlink_to(ROOT / part)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_bytes(yaml.safe_dump(tiny()).encode("utf-16"))
    outcome = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--cores", "1"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert outcome.returncode != 0
    screen = outcome.stdout + outcome.stderr
    assert "it is not written in UTF-8; save it again" in screen
    assert "Traceback" not in screen


def test_results_from_the_future_stop_the_run(tmp_path):
    run = Run(tmp_path).configure(tiny())
    (tmp_path / "results/slides/tiny").mkdir(parents=True)
    (tmp_path / SLIDE).write_text("a slide")
    date = time.time() + 86400
    os.utime(tmp_path / SLIDE, (date, date))
    outcome = run.snakemake("-n", "results/graphs/tiny/slide_0.npz")
    assert outcome.code != 0
    assert f"file {SLIDE}: it is dated" in outcome.screen
