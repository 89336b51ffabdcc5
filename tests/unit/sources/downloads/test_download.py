"""Downloads from a server that misbehaves: each fault, its sentence, and that the good state stays as it was."""

import hashlib
import os
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from downloads import gzipped, hdf5, settings
from misbehaving_server import serving
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads import progress, transfer
from tissue_counterfactuals.sources.downloads.lockfile import Lock
from tissue_counterfactuals.sources.downloads.obtain import check_unchanged, obtain
from tissue_counterfactuals.sources.downloads.table import DataFile

BODY = hdf5(3_000_000)
OTHER = hdf5(3_000_000, seed=1)
SMALL = hdf5(9_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with serving({"a.h5ad": BODY, "b.h5ad": BODY, "small.h5ad": SMALL}) as running:
        yield running


@pytest.fixture
def file(server):
    return DataFile("set", "", "h5ad", "a.h5ad", url=server.url("a.h5ad"), verified="yes")


def get(file, folder, **changes):
    """Obtain into a folder of its own; returns the link."""
    link = folder / "results" / file.dataset / file.file
    obtain(file, settings(folder, **changes), link)
    return link


def store(folder):
    """Names of what lies in the folder of downloads, without the notes."""
    here = folder / "downloads/set"
    return sorted(p.name for p in here.iterdir() if not p.name.startswith("."))


# --- the file comes ---------------------------------------------------------------------------------------------


def test_a_whole_file_arrives_once(server, file, tmp_path):
    link = get(replace(file, size=len(BODY), md5=MD5, sha256=SHA256), tmp_path)
    assert link.is_symlink()
    assert link.read_bytes() == BODY
    assert store(tmp_path) == ["a.h5ad"]
    # Cleaning up the results costs no download.
    shutil.rmtree(tmp_path / "results")
    assert get(file, tmp_path).is_symlink()
    assert len(server.requests) == 1


def test_the_link_moves_with_the_folder_that_holds_it(file, tmp_path):
    get(file, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there/results/set/a.h5ad").read_bytes() == BODY


def test_a_broken_transfer_goes_on_where_it_stopped(server, file, tmp_path):
    server.faults["a.h5ad"] = ["break", "break", "503", "ok"]
    assert get(file, tmp_path).read_bytes() == BODY
    half = len(BODY) // 2
    three_quarters = half + (len(BODY) - half) // 2
    assert server.starts("a.h5ad") == [0, half, three_quarters, three_quarters]
    assert store(tmp_path) == ["a.h5ad"]


def test_breaks_do_not_count_while_the_file_grows(server, file, tmp_path):
    server.faults["a.h5ad"] = ["break"] * 6 + ["ok"]
    assert get(file, tmp_path, attempts=1).read_bytes() == BODY


@pytest.mark.parametrize("then", ["no ranges", "other stretch"])
def test_a_server_that_cannot_resume_is_read_from_the_beginning(server, file, tmp_path, then):
    server.faults["a.h5ad"] = ["break", then, "ok"]
    assert get(file, tmp_path).read_bytes() == BODY


def test_a_server_that_sends_less_at_once_is_asked_until_the_file_is_whole(server, file, tmp_path):
    """No size and no checksum is known: what the server says of the whole file is all that tells."""
    server.faults["a.h5ad"] = ["break", "short stretch", "short stretch", "ok"]
    assert get(replace(file, size=None, md5="", sha256=""), tmp_path).read_bytes() == BODY
    half = len(BODY) // 2
    assert server.starts("a.h5ad") == [0, half, half + 1000, half + 2000]


def test_without_a_version_nothing_is_patched_together(server, file, tmp_path):
    server.faults["a.h5ad"] = ["no validator"]
    server.rate = 20e6
    partial = tmp_path / "downloads/set/a.h5ad.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(OTHER[:1000])
    assert get(file, tmp_path).read_bytes() == BODY
    assert server.starts("a.h5ad") == [0]


@pytest.mark.parametrize("blind", [False, True])
def test_a_file_changed_between_two_runs_is_not_patched_together(server, file, tmp_path, blind):
    server.faults["a.h5ad"] = ["break", "503"]
    half = f"{len(BODY) // 2:,}"
    with pytest.raises(InputError, match=f"run again to go on from {half} bytes"):
        get(file, tmp_path, attempts=1)
    assert store(tmp_path) == ["a.h5ad.part", "a.h5ad.part.tag"]
    # A server that does not read If-Range goes on with the other file.
    server.faults["a.h5ad"] = ["any version" if blind else "ok"]
    server.files["a.h5ad"] = OTHER
    assert get(file, tmp_path).read_bytes() == OTHER


@pytest.mark.parametrize("excess", [b"", b"more"])
def test_a_partial_file_that_is_whole_or_too_long(server, file, tmp_path, excess):
    server.faults["a.h5ad"] = ["break", "503"]
    with pytest.raises(InputError):
        get(file, tmp_path, attempts=1)
    (tmp_path / "downloads/set/a.h5ad.part").write_bytes(BODY + excess)
    server.faults.clear()
    assert get(file, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("429 after 1", 1),
        ("429 at a date", 1),
        # A moment that has passed, and two that nobody understands: as long as without a word.
        *((f"429 after {word}", 0) for word in ("Fri, 31 Dec 1999 23:59:59 GMT", "soon", "31 Dec 99999 23:59:59 GMT")),
    ],
)
def test_a_server_that_asks_to_wait_is_waited_for(server, file, tmp_path, monkeypatch, word, seconds):
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    server.faults["a.h5ad"] = [word, "ok"]
    assert get(file, tmp_path).read_bytes() == BODY
    assert waits == [pytest.approx(seconds, abs=0.7)]


def test_one_that_asks_for_hours_is_left_alone(server, file, tmp_path):
    server.faults["a.h5ad"] = ["429 after 72000"]
    with pytest.raises(InputError, match="429 Too Many Requests and asks to wait 72000 s"):
        get(file, tmp_path)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["ok", "silent break"])
def test_text_whose_end_nobody_knows_is_said(server, tmp_path, capsys, fault):
    rows = b"gene,cell\n" * 400
    server.files["a.csv"] = rows
    file = DataFile("set", "", "csv", "a.csv", url=server.url("a.csv"), verified="yes")
    server.faults["a.csv"] = [fault]
    assert (get(file, tmp_path).read_bytes() == rows) == (fault == "ok")
    assert ("nobody can tell whether it is whole" in capsys.readouterr().out) == (fault != "ok")


# --- the file does not come -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "cannot be had, the server answered 404 Not Found; check the address"),
        ("403", "cannot be had, the server answered 403 Forbidden; check the address"),
        ("html", r"leads to a web page \(HTML\) and not to data; give the address of the file"),
        ("disguised html", r"leads to a web page \(HTML\) and not to data"),
        ("500", r"broke off, 3 times without progress \(the server answered 500 Internal"),
        ("429 after 0", r"broke off, 3 times without progress \(the server answered 429 Too"),
        ("429 after soon", r"broke off, 3 times without progress \(the server answered 429 Too"),
        ("silent break", "is an HDF5 file that is cut short; check the address"),
        ("packed", r"comes packed \(gzip\), though it was asked for as it is; fetch it with a browser"),
        ("break", r"\(the connection was lost\); run again to go on from 1\d,\d\d\d bytes, or put the file at "
            r".*b\.h5ad yourself"),
        ("stall", r"broke off, 3 times without progress \(no answer in time\); run again to go on"),
        ("trickle", r"broke off, 3 times without progress \(fewer than 1,024 bytes in 0\.5 s\)"),
    ],
)  # fmt: skip
def test_each_fault_has_its_sentence_and_leaves_the_good_state(server, file, tmp_path, fault, message):
    get(file, tmp_path)
    good = (tmp_path / "lock.tsv").read_bytes()
    another = replace(file, file="b.h5ad", url=server.url("small.h5ad"))
    server.faults["small.h5ad"] = [fault]
    # Only where waiting is the point, so that a busy machine is not taken for a stalled one.
    impatient = {"timeout_s": 0.5} if fault in ("stall", "trickle") else {}
    with pytest.raises(InputError, match=message) as error:
        get(another, tmp_path, **impatient)
    assert str(error.value).startswith(f"download: {another.url} ")
    assert "\n" not in str(error.value)
    assert "b.h5ad" not in store(tmp_path)
    assert not (tmp_path / "results/set/b.h5ad").is_symlink()
    assert (tmp_path / "results/set/a.h5ad").read_bytes() == BODY
    assert (tmp_path / "lock.tsv").read_bytes() == good
    # When the fault is mended, the next run ends as if there had been none.
    server.faults.clear()
    assert get(another, tmp_path).read_bytes() == SMALL


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"size": 5}, rf"has {len(BODY):,} bytes, but 5 are expected"),
        ({"md5": "0" * 32}, f"has the MD5 {MD5}, but {'0' * 32} is expected; the file was changed"),
        ({"sha256": "0" * 64}, f"has the SHA-256 {SHA256}, but {'0' * 64} is expected"),
    ],
)
def test_another_file_than_published_is_refused(file, tmp_path, pins, message):
    with pytest.raises(InputError, match=message):
        get(replace(file, **pins), tmp_path)
    assert store(tmp_path) == []
    assert not (tmp_path / "lock.tsv").exists()


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.h5ad", b"PK\x03\x04 a zip file", r"is no HDF5 file, as a\.h5ad must be"),
        ("a.h5", b"", "is empty"),
        ("a.csv.gz", b"barcode,in_tissue\n", r"is no gzip file, as a\.csv\.gz must be"),
        ("a.csv.gz", gzipped("x" * 9999)[:-9], "is a gzip file that is cut short or damaged"),
        ("a.parquet", b"PAR1 and no end", "is a parquet file that is cut short"),
        ("a.parquet", b"no magic PAR1", r"is no parquet file, as a\.parquet must be"),
        ("a.zip", b"PK\x03\x04 and no directory", "is a zip archive that is cut short"),
    ],
)
def test_a_file_of_another_format_is_refused(server, file, tmp_path, name, body, message):
    server.files["thing"] = body
    with pytest.raises(InputError, match=message):
        get(replace(file, file=name, url=server.url("thing")), tmp_path)
    assert store(tmp_path) == []


def test_an_address_that_leads_nowhere(file, tmp_path):
    with pytest.raises(InputError, match="gopher://x/y is no valid http"):
        get(replace(file, url="gopher://x/y"), tmp_path)
    with pytest.raises(InputError, match=r"broke off, 3 times without progress \(no connection\)"):
        get(replace(file, url="http://127.0.0.1:9/slide.h5ad"), tmp_path)


def test_an_address_that_is_not_confirmed_says_how_to_get_the_file_by_hand(server, file, tmp_path):
    server.faults["a.h5ad"] = ["404"]
    unsure = replace(file, verified="no", by_hand="Open the page and click Download")
    with pytest.raises(
        InputError,
        match=r"404 Not Found; check the address; this address is not confirmed: Open the page and click Download and "
        r"put it at .*downloads/set/a\.h5ad\.",
    ):
        get(unsure, tmp_path)
    with pytest.raises(InputError, match="no address is known for set/a.h5ad; Open the page and"):
        get(replace(unsure, url=""), tmp_path)
    (tmp_path / "downloads/set/a.h5ad").write_bytes(BODY)
    assert get(replace(unsure, url=""), tmp_path).read_bytes() == BODY


# --- disk -------------------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_not_begun(server, file, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=rf"has 1,000 bytes free, but {len(BODY):,} more are needed"):
        get(file, tmp_path)
    assert not (tmp_path / "downloads/set/a.h5ad.part").exists()


def test_a_disk_that_fills_up_on_the_way(server, file, tmp_path, monkeypatch):
    """The operating system refuses to let the file grow beyond a limit, as a full quota does."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(
            InputError,
            match=r"the disk of .* is full after 1,000,000 bytes of a\.h5ad; free space or set downloads\.folder",
        ):
            get(file, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert get(file, tmp_path).read_bytes() == BODY
    assert server.starts("a.h5ad") == [0, 1_000_000]


def test_a_folder_that_cannot_be_written(file, tmp_path):
    (tmp_path / "downloads").write_text("a file where the folder should be")
    with pytest.raises(
        InputError, match=r"folder .*downloads/set cannot be written \(Not a directory\); set downloads\.folder"
    ):
        get(file, tmp_path)


# --- mirrors ----------------------------------------------------------------------------------------------------


def test_mirrors_are_tried_in_their_order(server, file, tmp_path):
    server.files |= {"wrong.h5ad": OTHER, "page.h5ad": BODY}
    server.faults |= {"a.h5ad": ["404"], "page.h5ad": ["html"]}
    mirrors = " ".join(server.url(name) for name in ("page.h5ad", "wrong.h5ad", "b.h5ad"))
    assert get(replace(file, mirror=mirrors, sha256=SHA256), tmp_path).read_bytes() == BODY
    assert [name for name, _ in server.requests] == ["a.h5ad", "page.h5ad", "wrong.h5ad", "b.h5ad"]


def test_when_no_mirror_has_it_all_are_told(server, file, tmp_path):
    server.faults |= {"a.h5ad": ["404"], "b.h5ad": ["500"]}
    message = re.escape(
        f"set/a.h5ad cannot be had from any of its addresses: {file.url} (404 Not Found), "
        f"{server.url('b.h5ad')} (the server answered 500 Internal Server Error)."
    )
    with pytest.raises(InputError, match=message):
        get(replace(file, mirror=server.url("b.h5ad")), tmp_path)


# --- the lock ---------------------------------------------------------------------------------------------------


def test_the_first_download_is_the_measure_of_all_later_ones(server, file, tmp_path):
    get(file, tmp_path)
    header, row = (tmp_path / "lock.tsv").read_text().splitlines()
    assert header.split("\t") == ["dataset", "file", "size", "sha256", "origin", "first_fetched"]
    assert row.split("\t")[:5] == ["set", "a.h5ad", str(len(BODY)), SHA256, file.url]
    # Elsewhere, with the same lock, another file is refused: of another size at once, else when it has come.
    elsewhere = tmp_path / "elsewhere"
    lock = str(tmp_path / "lock.tsv")
    server.files["a.h5ad"] = OTHER
    with pytest.raises(
        InputError,
        match=r"has the SHA-256 \w+, but \w+ is expected; it has changed since 20.*bring the old file back, or delete "
        r"its line in .*lock\.tsv to accept",
    ):
        get(file, elsewhere, lock=lock)
    server.files["a.h5ad"] = hdf5(5000)
    with pytest.raises(InputError, match=f"bytes, but {len(BODY):,} are expected; it has changed since"):
        get(file, elsewhere, lock=lock)
    assert store(elsewhere) == []
    (tmp_path / "lock.tsv").write_text(header + "\n")
    assert get(file, elsewhere, lock=lock).read_bytes() == server.files["a.h5ad"]


def test_a_table_that_expects_another_file_than_the_lock(server, file, tmp_path):
    get(file, tmp_path)
    server.files["a.h5ad"] = OTHER
    newer = replace(file, sha256=hashlib.sha256(OTHER).hexdigest())
    with pytest.raises(InputError, match=r"it has changed since 20.* delete its line in .*lock\.tsv"):
        get(newer, tmp_path)
    (tmp_path / "lock.tsv").unlink()
    assert get(newer, tmp_path).read_bytes() == OTHER


def test_a_damaged_copy_is_replaced_only_by_a_good_one(server, file, tmp_path):
    get(file, tmp_path)
    stored = tmp_path / "downloads/set/a.h5ad"
    stored.write_bytes(BODY[:-1] + b"x")
    server.faults["a.h5ad"] = ["404"]
    with pytest.raises(InputError, match="404"):
        get(file, tmp_path)
    assert stored.exists()
    server.faults.clear()
    assert get(file, tmp_path).read_bytes() == BODY


def test_a_lock_with_the_line_ends_of_windows(server, file, tmp_path):
    get(file, tmp_path)
    lock = tmp_path / "lock.tsv"
    lock.write_bytes(lock.read_bytes().replace(b"\n", b"\r\n"))
    get(replace(file, file="b.h5ad"), tmp_path)
    assert Lock(lock).find("set", "a.h5ad").sha256 == Lock(lock).find("set", "b.h5ad").sha256 == SHA256


def test_a_lock_cut_off_by_a_crash_goes_on(server, file, tmp_path):
    get(file, tmp_path)
    lock = tmp_path / "lock.tsv"
    lock.write_text(lock.read_text() + "set\tb.h5ad\t17")
    get(replace(file, file="b.h5ad"), tmp_path)
    assert [line.split("\t")[1] for line in lock.read_text().splitlines()] == ["file", "a.h5ad", "b.h5ad"]
    lock.write_text(lock.read_text().replace(SHA256, "1234"))
    with pytest.raises(InputError, match=r"lock .*lock\.tsv, line 2 is damaged; delete that line"):
        get(file, tmp_path)
    lock.write_text("something else\n")
    with pytest.raises(InputError, match="its first line must be dataset, file, size"):
        get(file, tmp_path)


def test_a_file_changed_behind_its_link_is_refused(file, tmp_path):
    link = get(file, tmp_path)
    own = tmp_path / "own.h5ad"
    own.write_bytes(b"not ours to check")
    check_unchanged([link, own], settings(tmp_path))
    os.utime(link)
    check_unchanged([link, own], settings(tmp_path))
    (tmp_path / "downloads/set/a.h5ad").write_bytes(OTHER)
    with pytest.raises(InputError, match=r"file .*downloads/set/a\.h5ad has the SHA-256 .* it has changed since"):
        check_unchanged([link, own], settings(tmp_path))


# --- folders that others fill -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cache", "offline"])
@pytest.mark.parametrize(
    ("where", "pins"),
    [
        ("a.h5ad", {}),
        ("set/a.h5ad", {}),
        ("some/depth/a.h5ad", {}),
        ("authors_name.h5ad", {"also_called": "x.h5ad authors_name.h5ad"}),
        ("any name at all", {"size": len(BODY), "md5": MD5}),
    ],
)
def test_a_copy_in_a_shared_folder_is_used_in_place(server, file, tmp_path, kind, where, pins):
    shared = tmp_path / "shared"
    copy = shared / where
    copy.parent.mkdir(parents=True)
    copy.write_bytes(BODY)
    copy.chmod(0o444)
    before = sorted(shared.rglob("*"))
    link = get(replace(file, **pins), tmp_path, **{kind: str(shared)})
    assert link.resolve() == copy.resolve()
    assert sorted(shared.rglob("*")) == before
    assert store(tmp_path) == []
    assert server.requests == []


def test_a_shared_copy_is_read_once(file, tmp_path, monkeypatch):
    shared = tmp_path / "sha\tred"  # the lock is a table with tabs
    shared.mkdir()
    (shared / "a.h5ad").write_bytes(BODY)
    pinned = replace(file, md5=MD5, sha256=SHA256)
    get(pinned, tmp_path, cache=str(shared))
    from tissue_counterfactuals.sources.downloads import obtain as download

    monkeypatch.setattr(download, "digest_of", lambda *_: pytest.fail("the file was read again"))
    get(pinned, tmp_path, cache=str(shared))


def test_a_shared_copy_that_does_not_fit_is_passed_over(server, file, tmp_path, capsys):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a.h5ad").write_bytes(BODY[:-5])
    assert get(file, tmp_path, cache=str(shared)).resolve().is_relative_to(tmp_path / "downloads")
    assert "shared/a.h5ad is an HDF5 file that is cut short" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"file .*shared/a\.h5ad is an HDF5 file that is cut short; fetch it again"):
        get(file, tmp_path / "other", offline=str(shared))


def test_several_copies_that_nothing_tells_apart(file, tmp_path):
    shared = tmp_path / "shared"
    for name, body in (("x", BODY), ("y", hdf5(500))):
        (shared / name).mkdir(parents=True)
        (shared / name / "a.h5ad").write_bytes(body)
    with pytest.raises(
        InputError,
        match=r"x/a\.h5ad and .*y/a\.h5ad could each be set/a\.h5ad; put the right one at .*shared/set/a\.h5ad",
    ):
        get(file, tmp_path, offline=str(shared))
    assert get(replace(file, md5=MD5), tmp_path, offline=str(shared)).read_bytes() == BODY


def test_offline_nothing_is_fetched(server, file, tmp_path):
    (tmp_path / "empty").mkdir()
    by_hand = replace(file, by_hand="Open the page and click Download")
    with pytest.raises(
        InputError,
        match=r"set/a\.h5ad is not in the folder .*empty \(downloads\.offline\); Open the page and click Download and "
        r"put it there as a\.h5ad",
    ):
        get(by_hand, tmp_path, offline=str(tmp_path / "empty"))
    assert server.requests == []


# --- several at once, progress ----------------------------------------------------------------------------------


def test_two_runs_that_want_the_same_file_fetch_it_once(server, file, tmp_path):
    server.rate = 30e6
    links = [tmp_path / f"run{i}/a.h5ad" for i in range(3)]
    threads = [threading.Thread(target=obtain, args=(file, settings(tmp_path), link)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Path(link).read_bytes() == BODY for link in links] == [True] * 3
    assert len(server.requests) == 1


def test_the_progress_line_has_rate_and_time_left(monkeypatch):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock, 20.0))
    seen = []
    monkeypatch.setattr(progress, "say", seen.append)
    line = progress.Progress("set/a.h5ad")
    line(100_000_000, 400_000_000)
    line(200_000_000, 400_000_000)
    assert seen[-1] == "set/a.h5ad: 200 MB of 400 MB (50%), 10 MB/s, 20 s left"
    assert progress.show_time(3 * 3600 + 125) == "3 h 2 min"
    assert [progress.show_size(n) for n in (999, 4.53e9, 12e6)] == ["999 B", "4.53 GB", "12 MB"]
