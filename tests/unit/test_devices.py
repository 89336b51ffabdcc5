"""A GPU for each job, on a machine whose driver is a script that lists two."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from tissue_counterfactuals.devices import card_of_its_own, cards

HOLD = """
import os, time
from tissue_counterfactuals.devices import card_of_its_own
with card_of_its_own("cuda", print):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with two cards; its locks lie in the folder of temporary files that is returned."""
    listing = tmp_path / "bin/nvidia-smi"
    listing.parent.mkdir()
    listing.write_text(
        "#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-a)'\necho '  MIG (UUID: MIG-c)'\necho 'GPU 1: H100 (UUID: GPU-b)'\n"
    )
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{listing.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def hold(driver, root):
    """Start a process that takes a card and keeps it; its card, and the process."""
    running = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", HOLD],
            env=os.environ | {"PYTHONPATH": str(root / "workflow")},
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process.stdout.readline().strip(), process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_jobs_side_by_side_get_cards_of_their_own_and_a_killed_one_gives_its_back(driver, hold):
    _, first = hold()
    assert first.stdout.readline().strip() == "GPU-a"
    said = []
    with card_of_its_own("auto", said.append):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert said == ["device: auto; GPU b, one of 2"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ

    first.send_signal(signal.SIGKILL)
    first.wait()
    with card_of_its_own("cuda", said.append):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"


def test_a_job_waits_for_a_card(driver, hold):
    for _ in range(2):
        hold()[1].stdout.readline()
    third = subprocess.Popen(
        [sys.executable, "-u", "-c", HOLD],
        env=os.environ | {"PYTHONPATH": "workflow"},
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.1)
    try:
        assert third.stdout.readline() == "all 2 GPUs are in use by other jobs: waiting\n"
    finally:
        third.kill()
        third.wait()


@pytest.mark.parametrize("visible", ["", "1", "GPU-a"])
def test_what_a_scheduler_gave_out_is_left_alone(driver, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with card_of_its_own("cuda", lambda line: None):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert not list(driver.iterdir())


def test_several_cards_of_a_scheduler_are_shared_among_its_jobs(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with card_of_its_own("cuda", lambda line: None):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        with card_of_its_own("cuda", lambda line: None):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_a_cpu_job_takes_none_and_a_machine_without_a_driver_has_none(driver, monkeypatch):
    with card_of_its_own("cpu", lambda line: None):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not list(driver.iterdir())
    monkeypatch.setenv("PATH", "")
    assert cards() == []
