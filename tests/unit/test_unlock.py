"""A lock that a killed run left is taken away, and no other."""

import importlib.util
import platform
import subprocess
import sys

import pytest


@pytest.fixture
def script(root):
    spec = importlib.util.spec_from_file_location("unlock", root / "workflow/scripts/unlock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def unlocked(script, monkeypatch):
    """Folders in which Snakemake was asked to unlock."""
    folders = []
    monkeypatch.setattr(script.subprocess, "run", lambda command, cwd, check: folders.append((command[-1], cwd)))
    return folders


def lock(folder, host: str) -> None:
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.output.lock").write_text("results/x\n")
    (folder / ".snakemake/log").mkdir()
    for name, computer in (("1", "another"), ("2", host)):
        log = folder / f".snakemake/log/{name}.snakemake.log"
        log.write_text(f"SNAKEMAKE\n  Date: today\n  Host: {computer}\n  User: me\n")


def test_what_a_dead_run_left_is_taken_away(script, unlocked, tmp_path):
    script.main(tmp_path)
    assert unlocked == []
    lock(tmp_path, platform.node())
    script.main(tmp_path)
    assert unlocked == [("--unlock", tmp_path)]


def test_the_lock_of_another_computer_stays(script, unlocked, tmp_path, capsys):
    lock(tmp_path, "another")
    script.main(tmp_path)
    assert unlocked == []
    assert "may still be alive" in capsys.readouterr().out


def test_the_lock_of_a_living_run_stays(script, unlocked, tmp_path):
    lock(tmp_path, platform.node())
    command = [sys.executable, "-c", "print(flush=True); input()", "snakemake"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        run.stdout.readline()
        script.main(tmp_path)
        assert unlocked == []
        run.stdin.close()
    script.main(tmp_path)
    assert len(unlocked) == 1
