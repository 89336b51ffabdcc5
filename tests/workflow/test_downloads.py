"""The target `download`: all files side by side, in place where somebody has them, sizes told beforehand."""

import os
import shutil
import signal
import time

import pytest

from downloads import hdf5, write_table
from misbehaving_server import serving
from runs import Run

BODIES = {f"{i}.h5ad": hdf5(400_000, seed=i) for i in range(4)}
KEYS = [f"set/{i}.h5ad" for i in range(3)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(BODIES) as running:
        yield running


@pytest.fixture
def configured(server, tmp_path):
    """A run with a data set of three slides from a table and one file from an address, and its configuration."""
    write_table(
        tmp_path / "table.tsv",
        *[{"slide": str(i), "file": f"{i}.h5ad", "url": server.url(f"{i}.h5ad")} for i in range(4)],
    )
    benchmark = {"control_domain": "REF", "target_domains": ["CRC"]}
    config = {
        "datasets": {
            "slides": {"source": "cosmx_crc", "files": "set", "samples": [0, 1, 2]} | benchmark,
            "mine": {"path": server.url("3.h5ad"), "fit": "pooled"} | benchmark,
        },
        "downloads": {"table": "table.tsv", "backoff_s": 0},
    }
    return Run(tmp_path).configure(config), config


def stored(run):
    folder = run.folder / "downloads"
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.name[0] not in "." and p.is_file()
    )  # fmt: skip


def test_all_files_side_by_side_and_only_once(server, configured):
    run, config = configured
    outcome = run.snakemake("--dry-run", "download")
    assert outcome.code == 0, outcome.screen
    assert outcome.planned() == {"download": 1, "download_file": 4}
    assert "To fetch: 4 of 4 files, 1.61 MB." in outcome.screen
    assert "Disk: 1.61 MB needed in downloads, " in outcome.screen
    assert not (run.folder / "downloads").exists()

    server.rate = 400_000
    outcome = run.snakemake("download", cores=4)
    assert outcome.code == 0, outcome.screen
    assert server.most_busy == 4
    for i, key in enumerate(KEYS):
        assert run.bytes_of(f"results/downloads/{key}") == BODIES[f"{i}.h5ad"]
    lock = run.read("config/downloads.lock.tsv")
    assert len(lock.splitlines()) == 5

    # Neither other settings, nor another mirror, nor a clean-up of the results ask the servers again.
    asked = len(server.requests)
    config["downloads"] |= {"attempts": 9, "urls": {"set/0.h5ad": "http://127.0.0.1:9/0.h5ad"}}
    outcome = run.configure(config).snakemake("download")
    assert "Nothing to be done" in outcome.screen
    shutil.rmtree(run.folder / "results")
    outcome = run.snakemake("download")
    assert outcome.code == 0, outcome.screen
    assert len(server.requests) == asked
    assert run.read("config/downloads.lock.tsv") == lock


def test_a_fault_stops_with_one_sentence_and_the_others_go_on(server, configured):
    run, _ = configured
    server.faults["1.h5ad"] = ["404"]
    outcome = run.snakemake("download")
    assert outcome.code == 1
    assert f"error: download: {server.url('1.h5ad')} cannot be had, the server answered 404" in outcome.screen
    assert "Traceback" not in outcome.screen
    assert [name for name in stored(run) if name.startswith("set")] == [KEYS[0], KEYS[2]]


def test_offline_with_files_of_others(server, configured, tmp_path):
    run, config = configured
    by_hand = tmp_path / "by_hand"
    by_hand.mkdir()
    for i in range(3):
        (by_hand / f"{i}.h5ad").write_bytes(BODIES[f"{i}.h5ad"])
    del config["datasets"]["mine"]
    config["downloads"]["offline"] = "by_hand"
    outcome = run.configure(config).snakemake("download")
    assert outcome.code == 0, outcome.screen
    assert "To fetch: 0 of 3 files" in outcome.screen
    assert (run.folder / "results/downloads/set/1.h5ad").resolve() == by_hand / "1.h5ad"
    assert stored(run) == []
    assert server.requests == []


def test_a_run_killed_on_the_way_ends_with_the_same_files(server, configured):
    run, _ = configured
    server.rate = 150_000
    process = run.start("download")
    part = run.folder / "downloads/set/0.h5ad.part"
    deadline = time.monotonic() + 60
    while process.poll() is None and not any(run.folder.glob("downloads/*/*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(run.folder.glob("downloads/*/*.part")), part
    server.rate = None
    assert run.snakemake("--unlock").code == 0
    outcome = run.snakemake("download")
    assert outcome.code == 0, outcome.screen
    for i, key in enumerate(KEYS):
        assert run.bytes_of(f"results/downloads/{key}") == BODIES[f"{i}.h5ad"]
    assert any(start > 0 for i in range(4) for start in server.starts(f"{i}.h5ad"))
    assert not any(run.folder.glob("downloads/*/*.part*"))
