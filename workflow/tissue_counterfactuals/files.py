"""Write beside, check, rename: a half-written file is never taken for a whole one, and a damaged one is found.

Whatever is written here is followed by a record of its SHA-256 in the form of `sha256sum`: `.NAME.sha256` beside a
file, `.sha256` in a folder. `verify` compares before the file is used. And how files are named after labels: `slug`.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tissue_counterfactuals.errors import InputError

# Longest label that names of files are made of; with what stands around it, 255 bytes are allowed.
MAX_LABEL = 150


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it is renamed to `path`, on error it is removed.

    The temporary name keeps the suffix, because writers such as matplotlib choose the format by it; and it is the same
    each time, so that what a killed job left behind goes when the job runs again. What has been renamed is on the disk:
    it survives a loss of power.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        record = f"{digest(temporary)}  {path.name}\n"
        _flush(temporary)
        # At no moment does a record stand beside a file that it does not belong to.
        _record_of(path).unlink(missing_ok=True)
        temporary.replace(path)
        _record_of(path).write_text(record)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, on error it is removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        lines = [f"{digest(file)}  {file.relative_to(temporary)}\n" for file in files]
        (temporary / ".sha256").write_text("".join(lines))
        for file in (*files, temporary):
            _flush(file)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove(path: str | Path) -> None:
    """Delete what `atomic_path` wrote, with its record; nothing there is no error."""
    Path(path).unlink(missing_ok=True)
    _record_of(Path(path)).unlink(missing_ok=True)


# How a file comes back that jobs read, and one that none reads: Snakemake misses the first only.
_AGAIN = "the same command makes it again"
BY_NAME = "name it as the target of a run, and it is made again"


def verify(paths: Iterable[str | Path], mend: str = _AGAIN) -> None:
    """Check that files and folders are what they were when they were written; those without a record pass.

    A damaged one is moved aside (NAME.damaged), so that the next run makes it again.

    Args:
        mend: what the message says of that; `BY_NAME` for `final_files`.
    Raises:
        InputError: names the first damaged one.
    """
    for path in map(Path, paths):
        fault = _damage(path)
        if fault is None:
            continue
        aside = path.with_name(f"{path.name}.damaged")
        if aside.is_dir():
            shutil.rmtree(aside)
        # Two jobs may meet the same damaged file; the first has put it aside.
        with contextlib.suppress(FileNotFoundError):
            path.replace(aside)
        _record_of(path).unlink(missing_ok=True)
        raise InputError(
            f"file {fault}: it is not what was written there (its SHA-256 differs), so it was damaged or edited; it is "
            f"now called {aside.name}, and {mend}."
        )


def final_files(results: str | Path) -> list[Path]:
    """The tables and figures of a folder of results: most are read by no job that would `verify` them."""
    found = (file for kind in ("tables", "figures") for file in Path(results, kind).rglob("*"))
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def refuse_future(folder: str | Path) -> None:
    """Refuse results that are dated in the future: Snakemake would take them for newer than any change.

    Raises:
        InputError: with the first one that is more than an hour ahead of the clock.
    """
    limit = time.time() + 3600
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)
            if (changed := os.lstat(path).st_mtime) > limit:
                date = time.strftime("%Y-%m-%d %H:%M", time.localtime(changed))
                raise InputError(
                    f"file {path}: it is dated {date}, in the future, so that a changed setting would not be noticed; "
                    f"set the clock right, or give all results one date of now: touch now; find {folder} -exec touch "
                    "-h -r now {} +"
                )


def refuse_unwritable(folder: str | Path) -> None:
    """Refuse results among which nothing can be written, before Snakemake falls over the first of them.

    Raises:
        InputError: with the folder, this one or one of its own.
    """
    folder = Path(folder)
    for place in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            raise InputError(
                f"folder {place}: nothing may be written there; give yourself the right to (chmod -R u+w {folder}), "
                "or run in another folder, with a copy of the results (cp -a) if they are to be gone on with."
            )


def _damage(path: Path) -> Path | None:
    """The first file at or below `path` that differs from its record."""
    record = path / ".sha256" if path.is_dir() else _record_of(path)
    lines = []
    with contextlib.suppress(OSError):
        lines = record.read_text().splitlines()
    for line in lines:
        recorded, _, name = line.partition("  ")
        file = record.parent / name
        if not file.is_file() or digest(file) != recorded:
            return file
    return None


def recorded_digest(path: Path) -> str | None:
    """SHA-256 of a file as recorded when it was written, beside it or in a folder above; None without a record."""
    for folder in (path.parent, *path.parent.parents):
        record = folder / ".sha256"
        if record.is_file():
            name = str(path.relative_to(folder))
            lines = (line.partition("  ") for line in record.read_text().splitlines())
            return next((value for value, _, known in lines if known == name), None)
    record = _record_of(path)
    return record.read_text().partition("  ")[0] if record.is_file() else None


def _record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems cannot do it for folders.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def slug(text: str) -> str:
    """The form of a name that paths are made of: letters, digits, `_`, `.` and `-`; anything else becomes `_`."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(text))
    return re.sub(r"^\.+", "_", cleaned) or "_"


def slugs(labels: Iterable[str], what: str) -> dict[str, str]:
    """Path form -> label for several names; `what` begins the message ("slide x: the cell types").

    Raises:
        InputError: two labels have the same path form, or one is too long for the name of a file.
    """
    mapping: dict[str, str] = {}
    for label in labels:
        if len(label) > MAX_LABEL:
            raise InputError(
                f"{what} {label[:40]!r}... has {len(label)} characters, and file names are made of it; give it a name "
                f"of at most {MAX_LABEL}."
            )
        other = mapping.setdefault(slug(label), label)
        if other != label:
            raise InputError(
                f"{what} {other!r} and {label!r} would both be called {slug(label)!r} in file names; rename one "
                "of them."
            )
    return mapping
