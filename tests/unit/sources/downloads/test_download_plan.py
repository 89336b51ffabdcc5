"""What would be fetched, told beforehand: sizes from the table, from the disk and from the servers."""

import subprocess
import sys

import pytest
import yaml

from downloads import hdf5, write_table, zipped
from misbehaving_server import serving
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.sources.downloads.planned import plan, show

BODY = hdf5(300_000)
ZERO = bytes(2_000_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving({"a.h5ad": BODY, "empty.h5ad": b"", "x.zip": zipped({"matrix.h5": ZERO})}) as running:
        yield running


@pytest.fixture
def raw(server, tmp_path):
    rows = [
        {"slide": "1", "file": "asked.h5ad", "url": server.url("a.h5ad")},
        {"slide": "2", "file": "known.h5ad", "url": server.url("a.h5ad"), "size": "7000"},
        {"slide": "3", "file": "about.h5ad", "url": server.url("gone.h5ad"), "about_mb": "2.5"},
        {"slide": "4", "file": "unknown.h5ad", "url": server.url("gone.h5ad")},
        {"slide": "5", "file": "member.h5", "url": server.url("x.zip"), "member": "matrix.h5"},
        {"slide": "6", "file": "nowhere.h5ad"},
        {"slide": "7", "file": "there.h5ad", "url": server.url("a.h5ad")},
        {"slide": "8", "file": "begun.h5ad", "url": server.url("a.h5ad")},
        {"slide": "9", "file": "empty.h5ad", "url": server.url("empty.h5ad")},
    ]
    there = tmp_path / "downloads/set"
    there.mkdir(parents=True)
    (there / "there.h5ad").write_bytes(b"x" * 4000)
    (there / "begun.h5ad.part").write_bytes(b"x" * 1000)
    return {
        "datasets": {"x": {"source": "cosmx_crc", "files": "set", "control_domain": "a", "target_domains": ["b"]}},
        "downloads": {
            "table": str(write_table(tmp_path / "table.tsv", *rows)),
            "folder": str(tmp_path / "downloads"),
        },
    }  # fmt: skip


def lines(text):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()}


def test_with_the_servers_asked(server, raw, tmp_path):
    shown = show(load_config(raw), ask=True)
    found = lines(shown)
    assert found["set/asked.h5ad"] == "301 kB to fetch"
    assert found["set/known.h5ad"] == "7 kB to fetch"
    assert found["set/about.h5ad"] == "about 2.5 MB to fetch"
    assert found["set/unknown.h5ad"] == "size not known to fetch"
    assert found["set/member.h5"] == "2 MB to fetch"
    assert found["set/nowhere.h5ad"] == "size not known by hand"
    assert found["set/empty.h5ad"] == "size not known to fetch"
    assert found["set/there.h5ad"].startswith("4 kB there, ")
    assert found["set/begun.h5ad"] == "301 kB to fetch (1 kB of it there)"
    total = 2 * len(BODY) + 7000 + 2_500_000 + len(ZERO)
    assert f"To fetch: 7 of 9 files, {total / 1e6:.3g} MB and 2 of unknown size." in shown
    assert f"Disk: {(total - 1000) / 1e6:.3g} MB or more needed in {tmp_path}/downloads, " in shown
    assert "By hand (see resources/DATA.md): set/nowhere.h5ad." in shown


def test_a_file_out_of_an_archive_needs_room_for_both_forms(server, raw):
    (member,) = [file for file in plan(load_config(raw), ask=True) if file.key == "set/member.h5"]
    assert (member.size, member.exact) == (len(ZERO), True)
    assert 0 < member.extra < len(ZERO) / 100


def test_without_a_network_nobody_is_asked(server, raw):
    shown = show(load_config(raw))
    assert lines(shown)["set/asked.h5ad"] == "size not known to fetch"
    assert server.requests == []


def test_a_disk_that_is_too_small_is_told(raw, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "1 MB free: NOT ENOUGH." in show(load_config(raw))


def test_nothing_to_download():
    simulated = {"x": {"source": "simulated", "experiments": ["celcomen_spleen"]}}
    assert show(load_config({"datasets": simulated})).startswith("Nothing is downloaded")


def test_the_script(root, raw, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    command = [sys.executable, str(root / "workflow/scripts/show_downloads.py")]
    done = subprocess.run([*command, "config.yaml", "--no-network"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "set/known.h5ad" in done.stdout
    (tmp_path / "config.yaml").write_text("datasets: {x: {files: nothing}}")
    done = subprocess.run([*command, "config.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: config: datasets.x")
    assert "Traceback" not in done.stderr
