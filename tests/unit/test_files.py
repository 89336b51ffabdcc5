"""Files appear whole, are known by a checksum, and a damaged one is named and moved aside."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import (
    atomic_folder,
    atomic_path,
    digest,
    recorded_digest,
    refuse_future,
    refuse_unwritable,
    remove,
    slug,
    verify,
)


def write(path, text: str):
    with atomic_path(path) as temporary:
        temporary.write_text(text)
    return path


def write_folder(path, **files: str):
    with atomic_folder(path) as draft:
        for name, text in files.items():
            (draft / name).write_text(text)
    return path


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named_and_moved_aside_so_that_it_is_made_again(tmp_path, damage):
    path = write(tmp_path / "deep/er/folds.tsv", "fold\ttype\nA\tA\nB\tB\n")
    verify([path])
    damage(path)
    left = path.read_bytes()
    with pytest.raises(InputError, match=rf"^file {path}: it is not what was written .*folds\.tsv"):
        verify([path])
    assert not path.exists()
    assert path.with_name("folds.tsv.damaged").read_bytes() == left
    verify([write(path, "as good as new\n")])


def test_a_folder_is_known_by_all_its_files(tmp_path):
    path = write_folder(tmp_path / "model", **{"status.json": "{}", "model.pt": "weights"})
    # What Snakemake and users add is no damage.
    (path / ".snakemake_timestamp").touch()
    verify([path])
    for damage in (lambda: flip(path / "model.pt"), lambda: (path / "status.json").unlink()):
        damage()
        with pytest.raises(InputError, match="it is now called model.damaged"):
            verify([path])
        assert not path.exists()
        assert (tmp_path / "model.damaged").is_dir()
        write_folder(path, **{"status.json": "{}", "model.pt": "weights"})


def test_two_jobs_that_meet_one_damaged_file_both_say_so(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "model", **{"status.json": "{}", "model.pt": "weights"})
    flip(path / "model.pt")
    put_aside = Path.replace

    def overtaken(self, target):
        put_aside(self, target)
        return put_aside(self, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    with pytest.raises(InputError, match="it is now called model.damaged"):
        verify([path])


def test_what_was_not_written_here_passes_and_a_record_goes_with_its_file(tmp_path):
    users = tmp_path / "mine.h5ad"
    users.write_bytes(b"anything")
    verify([users, tmp_path / "absent", tmp_path, tmp_path / ("x" * 255)])
    path = write(tmp_path / "checkpoint.pt", "weights")
    remove(path)
    remove(path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.h5ad"]


def test_records_are_read_by_sha256sum(tmp_path):
    write(tmp_path / "a b.tsv", "text")
    write_folder(tmp_path / "model", **{"status.json": "{}", "model.pt": "weights"})
    for folder, record, n in ((tmp_path, ".a b.tsv.sha256", 1), (tmp_path / "model", ".sha256", 2)):
        told = subprocess.run(["sha256sum", "-c", record], cwd=folder, capture_output=True)
        assert (told.returncode, told.stdout.count(b"OK")) == (0, n)


def test_a_failed_writer_leaves_the_old_file_and_its_record(tmp_path):
    path = write(tmp_path / "table.tsv", "old")

    def fail(temporary):
        temporary.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    verify([path])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_cut_off_between_its_renaming_and_its_record_is_not_taken_for_damaged(tmp_path, monkeypatch):
    path = write(tmp_path / "table.tsv", "old")
    # The power goes right after the renaming.
    monkeypatch.setattr(type(path), "write_text", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
    verify([path])
    assert path.read_bytes() == b"new"


def test_a_file_and_its_folder_are_on_the_disk_before_a_write_ends(tmp_path, monkeypatch):
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))
    write(tmp_path / "table.tsv", "text")
    assert seen == [str(tmp_path / ".table.part.tsv"), str(tmp_path)]
    seen.clear()
    write_folder(tmp_path / "model", a="1")
    assert seen == [str(tmp_path / f".model.part{name}") for name in ("/a", "")] + [str(tmp_path)]


def test_results_from_the_future_are_told(tmp_path):
    path = write(tmp_path / "deep/table.tsv", "text")
    refuse_future(tmp_path)
    refuse_future(tmp_path / "absent")
    soon, later = time.time() + 60, time.time() + 86400
    os.utime(path, (soon, soon))
    refuse_future(tmp_path)
    os.utime(path, (later, later))
    with pytest.raises(InputError, match=rf"^file {path}: it is dated .* in the future"):
        refuse_future(tmp_path)


def test_results_that_may_not_be_written_are_told(tmp_path, monkeypatch):
    """A file system that is mounted to be read alone refuses root as well, as permissions do not."""
    results = tmp_path / "results"
    refuse_unwritable(results)
    (results / "slides").mkdir(parents=True)
    refuse_unwritable(results)
    for place in (results, results / "slides"):
        monkeypatch.setattr(os, "access", lambda path, mode, place=place: path != place)
        with pytest.raises(InputError, match=f"folder {place}: nothing may be written there"):
            refuse_unwritable(results)


def test_the_record_of_a_file_deep_in_a_folder_is_its_own(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        (folder / "deep/model.pt").write_text("weights")
        (folder / "model.pt").write_text("other weights")
    for name in ("model.pt", "deep/model.pt"):
        path = tmp_path / "model" / name
        assert recorded_digest(path) == digest(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("C57BL6J-2.036", "C57BL6J-2.036"),
        ("niche0_Astrocyte+Endothelial", "niche0_Astrocyte_Endothelial"),
        ("a/b\\c d", "a_b_c_d"),
        ("../x", "__x"),
        ("..", "_"),
        ("", "_"),
        ("é", "_"),
    ],
)
def test_slug(text, path):
    assert slug(text) == path
    assert slug(path) == path
