"""kill -9 at random moments of a download: the next run ends with the same bytes as an undisturbed one."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from downloads import hdf5, settings, zipped
from misbehaving_server import serving
from tissue_counterfactuals.sources.downloads.table import DataFile

BODY = hdf5(4_000_000)
BUNDLE = zipped({"first": b"x" * 1000, "cell_feature_matrix.h5": BODY})
SECONDS = 1.0  # what the whole file takes

RUN = """
import json, sys
from tissue_counterfactuals.sources.downloads.table import DataFile
from tissue_counterfactuals.sources.downloads.obtain import obtain
file, settings, output = json.load(sys.stdin)
print("begun", flush=True)
obtain(DataFile(**file), settings, output)
"""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving({"a.h5ad": BODY, "x_outs.zip": BUNDLE}) as running:
        running.rate = len(BODY) / SECONDS
        yield running


def start(root, file, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root / "workflow",
        text=True,
    )
    output = str(folder / "results" / file.file)
    process.stdin.write(json.dumps([asdict(file), settings(folder), output]))
    process.stdin.close()
    assert process.stdout.readline() == "begun\n"
    return process


def wait_for(process, part, n_bytes):
    """Until the partial file has grown to a size, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not (part.exists() and part.stat().st_size >= n_bytes):
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("kind", ["file", "file in an archive"])
def test_ten_kills(root, server, tmp_path, kind):
    member = "cell_feature_matrix.h5" if kind != "file" else ""
    url = server.url("x_outs.zip" if member else "a.h5ad")
    file = DataFile("set", "", "h5ad", "a.h5ad", url=url, member=member)
    stored = tmp_path / "downloads/set/a.h5ad"
    part = stored.with_name("a.h5ad.part" + ".packed" * bool(member))
    moments = random.Random(7)
    # Four at any time after the start, four after so and so many bytes, two while the last steps are hurried through.
    for kill in range(10):
        server.rate = len(BODY) / SECONDS if kill < 8 else None
        process = start(root, file, tmp_path)
        if kill % 2 and kill < 8:
            wait_for(process, part, moments.uniform(0.05, 0.12) * (kill + 1) * len(BODY))
        else:
            time.sleep(moments.uniform(0, 0.2 * SECONDS))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
        process.stdout.close()
        # The name belongs to the whole file only.
        assert not stored.exists() or stored.read_bytes() == BODY
    process = start(root, file, tmp_path)
    assert process.wait() == 0
    process.stdout.close()
    assert stored.read_bytes() == BODY
    assert (tmp_path / "results/a.h5ad").read_bytes() == BODY
    assert [p.name for p in stored.parent.iterdir() if p.name[0] != "."] == ["a.h5ad"]
    assert len((tmp_path / "lock.tsv").read_text().splitlines()) == 2
    # What had come was kept: some runs went on from where a killed one had stopped.
    asked = server.asked("x_outs.zip" if member else "a.h5ad")
    assert any("If-Range" in headers for headers in asked)
