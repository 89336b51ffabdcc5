"""A data file as the table names it: from the folder of downloads, a shared folder, one filled by hand, or the network.

    what is asked for -> where it is -> is it the right one? -> the lock -> a link in the results

The bytes lie in `downloads.folder` or stay where they were found; results hold links only, so that cleaning them up
costs no download. A file has its name only when it is whole and checked, and a good one goes only when a better one is
there.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.copies import find_copies
from tissue_counterfactuals.sources.downloads.formats import WITH_AN_END, digest_of, format_fault
from tissue_counterfactuals.sources.downloads.lockfile import Lock, Locked, alone
from tissue_counterfactuals.sources.downloads.progress import Progress, say, show_size
from tissue_counterfactuals.sources.downloads.remote_zip import extract, locate, unpack
from tissue_counterfactuals.sources.downloads.table import DataFile, file_name, read_datasets
from tissue_counterfactuals.sources.downloads.transfer import (
    NoRanges,
    Patience,
    Unavailable,
    check_space,
    discard,
    transfer,
    web_page,
)


def obtain(file: DataFile, settings: dict, output: str | Path) -> Path:
    """Have a file, and make `output` a link to it.

    Looked for in this order: the folder of downloads, the shared folder (`cache`), the folder filled by hand
    (`offline`; with it nothing is fetched), the addresses of the table. It is checked against the table and against
    the lock; a file that the lock does not know yet is entered there.

    Args:
        settings: the block `downloads` of a configuration.
    Returns:
        Where the bytes lie.
    Raises:
        InputError: it cannot be had, or it is not the file that was asked for; nothing good has been touched.
    """
    task = _Task(file, settings)
    with alone(task.place):
        found = task.on_disk() or task.by_hand() or task.download()
        task.accept(found)
        if found != task.place:
            say(f"{file.key}: used in place, {found}")
    link(found, Path(output), absolute=found != task.place)
    return found


def check_unchanged(paths: list[str | Path], settings: dict) -> None:
    """Refuse links made by `obtain` whose bytes have been changed since: a shared folder is not ours.

    A file is read again only if its size or time have changed. Paths of other files are passed over.

    Raises:
        InputError: the first file that is not what it was.
    """
    lock = Lock(settings["lock"])
    for path in map(Path, paths):
        dataset, name = path.parent.name, path.name
        locked = lock.find(dataset, name) if path.is_symlink() else None
        if locked is None:
            continue
        stamp = _Stamp(Path(settings["folder"]) / dataset / name)
        if fault := _Expected.first(locked, lock.path).fault(path, stamp):
            raise InputError(f"file {path.resolve()} {fault}")


def link(target: Path, output: Path, absolute: bool) -> None:
    """Make `output` a link to `target` in one step; a relative one survives a move of the folder that holds both."""
    output.parent.mkdir(parents=True, exist_ok=True)
    text = target.resolve() if absolute else os.path.relpath(target, output.parent)
    temporary = output.with_name(f".{output.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(text)
    temporary.replace(output)


class _Stamp:
    """Remembers that a file was read and what its checksums were, so that gigabytes are read once."""

    def __init__(self, place: Path):
        self.path = place.with_name(f".{place.name}.checked")

    def digest(self, path: Path, algorithm: str) -> str:
        state = path.stat()
        # Not the path: a partial file that becomes the whole one is not read again.
        identity = [state.st_ino, state.st_size, state.st_mtime_ns]
        try:
            known = json.loads(self.path.read_text())
        except (OSError, ValueError):
            known = {}
        if known.get("identity") != identity:
            known = {"identity": identity}
        if algorithm not in known:
            if state.st_size > 1 << 30:
                say(f"{path.name}: reading {show_size(state.st_size)} to check them, once")
            known[algorithm] = digest_of(path, algorithm)
            with suppress(OSError):  # what cannot be remembered is read again
                temporary = self.path.with_name(self.path.name + ".new")
                temporary.write_text(json.dumps(known))
                temporary.replace(self.path)
        return known[algorithm]


@dataclass(frozen=True)
class _Expected:
    """What a file must be; `remedy` says what to do if it is not."""

    size: int | None
    md5: str
    sha256: str
    remedy: str

    @classmethod
    def published(cls, file: DataFile) -> "_Expected":
        """As the table of data sets, or the configuration, has it."""
        remedy = "the file was changed or damaged, run again or correct the table or configuration."
        return cls(file.size, file.md5, file.sha256, remedy)

    @classmethod
    def first(cls, locked: Locked, lock: Path) -> "_Expected":
        """As it was when first fetched."""
        remedy = (
            f"it has changed since {locked.first_fetched}: bring the old file back, or delete its line in {lock} to "
            "accept this one."
        )
        return cls(locked.size, "", locked.sha256, remedy)

    def fault(self, path: Path, stamp: _Stamp) -> str | None:
        """The end of a sentence that says how a file differs and what to do; None if it does not."""
        if fault := self.size_fault(path.stat().st_size):
            return fault
        for algorithm, name in (("md5", "MD5"), ("sha256", "SHA-256")):
            wanted = getattr(self, algorithm)
            if wanted and (found := stamp.digest(path, algorithm)) != wanted:
                return f"has the {name} {found}, but {wanted} is expected; {self.remedy}"
        return None

    def size_fault(self, size: int) -> str | None:
        """The same for its number of bytes alone."""
        if self.size in (None, size):
            return None
        return f"has {size:,} bytes, but {self.size:,} are expected; {self.remedy}"


class _Task:
    """One file, and where it could come from."""

    def __init__(self, file: DataFile, settings: dict):
        self.file, self.settings = file, settings
        self.place = Path(settings["folder"]) / file.dataset / file.file
        self.part = self.place.with_name(self.place.name + ".part")
        self.stretch = self.place.with_name(self.part.name + ".packed")  # of an archive
        self.stamp = _Stamp(self.place)
        self.lock = Lock(settings["lock"])
        self.patience = Patience(settings["attempts"], settings["timeout_s"], settings["backoff_s"])
        self.progress = Progress(file.key)
        self.origin = str(self.place)
        self.misfit = ""  # what was wrong with the first copy that did not fit
        self.expected = [_Expected.published(file)]
        self.locked = self.lock.find(file.dataset, file.file)
        if self.locked is not None:
            self.expected.append(_Expected.first(self.locked, self.lock.path))

    def on_disk(self) -> Path | None:
        """A copy that fits, in the folder of downloads or in the shared folder."""
        copies = [self.place] if self.place.is_file() else []
        if self.settings["cache"] is not None:
            copies += self._copies(self.settings["cache"])
        return self._first_fitting(copies)

    def by_hand(self) -> Path | None:
        """The copy in the folder that the user filled; with one configured, nothing else will do."""
        folder = self.settings["offline"]
        if folder is None:
            return None
        found = self._first_fitting(self._copies(folder))
        if found is None:
            raise InputError(
                self.misfit
                or f"download: {self.file.key} is not in the folder {folder} (downloads.offline); "
                f"{self._instructions()} and put it there as {self.file.file}."
            )
        return found

    def download(self) -> Path:
        """Fetch it from the first address that gives it."""
        if not self.file.addresses:
            raise InputError(
                self.misfit
                or f"download: no address is known for {self.file.key}; {self._instructions()} and put it at "
                f"{self.place}."
            )
        failures = []
        for url in self.file.addresses:
            try:
                self._fetch(url)
                self.origin = url
                return self.place
            except Unavailable as error:
                say(str(error))
                failures.append((url, error))
        if len(failures) == 1:
            raise self._with_instructions(failures[0][1])
        tried = ", ".join(f"{url} ({error.reason})" for url, error in failures)
        raise self._with_instructions(
            InputError(f"download: {self.file.key} cannot be had from any of its addresses: {tried}.")
        )

    def accept(self, found: Path) -> None:
        """Enter a file into the lock if it is new there."""
        discard(self.part)
        discard(self.stretch)
        if self.locked is None:
            size, digest = found.stat().st_size, self.stamp.digest(found, "sha256")
            self.lock.record(self.file.dataset, self.file.file, size, digest, self.origin)
            say(f"{self.file.key}: {show_size(size)}, SHA-256 {digest}, entered in {self.lock.path}")

    # --- one address ---

    def _fetch(self, url: str) -> None:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        if self.file.member:
            self._fetch_member(url)
        else:
            self._fetch_file(url)
        try:
            self._check_part(url)
        except InputError:
            discard(self.part)
            raise
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.place)

    def _fetch_file(self, url: str) -> None:
        sizes = []

        def announced(size: int) -> None:
            sizes.append(size)
            self._refuse(url, [e.size_fault(size) for e in self.expected])

        transfer(url, self.part, self.patience, self.progress, announced)
        told = sizes or any(e.size or e.md5 or e.sha256 for e in self.expected)
        if not told and not self.file.file.endswith(WITH_AN_END):
            say(f"{self.file.key}: {url} announces no length, and none is known: nobody can tell whether it is whole")

    def _check_part(self, url: str) -> None:
        fault = format_fault(self.part, self.file.file)
        if fault and "web page" in fault:
            raise web_page(url)
        if fault:
            raise Unavailable(f"download: {url} {fault}; check the address.", fault)
        self._refuse(url, [self._fault(self.part)])

    def _refuse(self, url: str, faults: list[str | None]) -> None:
        for fault in filter(None, faults):
            raise Unavailable(f"download: {url} {fault}", fault.partition(";")[0])

    def _fault(self, path: Path) -> str | None:
        return next(filter(None, (e.fault(path, self.stamp) for e in self.expected)), None)

    def _fetch_member(self, url: str) -> None:
        try:
            first, info = locate(url, self.file.member, self.patience)
            check_space(self.place.parent, info.compress_size + info.file_size)
            transfer(url, self.stretch, self.patience, self.progress, span=(first, info.compress_size))
        except NoRanges:
            say(f"{url} is sent only as a whole: fetching all of it for {self.file.member}")
            self._fetch_archive(url)
            return
        whole = unpack(self.stretch, info, self.part)
        discard(self.stretch)
        if not whole:
            discard(self.part)
            raise Unavailable(
                f"download: {self.file.member} in {url} does not have the checksum of the archive's own directory; "
                "run again.",
                "damaged on the way",
            )

    def _fetch_archive(self, url: str) -> None:
        """The whole archive; it goes when every file of the table that lies in it has been unpacked."""
        rows = [row for row in read_datasets(self.settings["table"]).get(self.file.dataset, []) if row.member]
        # Called as in the table, wherever it comes from: other files of the table look for it under that name.
        name = next((row.archive for row in rows if row.file == self.file.file), file_name(url))
        archive = self.place.with_name(name)
        with alone(archive):
            if not archive.is_file():
                part = archive.with_name(archive.name + ".part")
                transfer(url, part, self.patience, self.progress)
                fault = format_fault(part, archive.name)
                wanted = self.file.archive_md5
                if not fault and wanted and (found := digest_of(part, "md5")) != wanted:
                    fault = f"has the MD5 {found}, but {wanted} is expected"
                if fault:
                    discard(part)
                    raise Unavailable(f"download: {url} {fault}; check the address.", fault)
                part.replace(archive)
                discard(part)
            extract(archive, self.file.member, self.part)
            siblings = [row.file for row in rows if row.file != self.file.file and row.archive == name]
            if all(archive.with_name(sibling).is_file() for sibling in siblings):
                archive.unlink()

    # --- words and details ---

    def _copies(self, folder: str) -> list[Path]:
        size = next(filter(None, (e.size for e in self.expected)), None)
        checked = any(e.md5 or e.sha256 for e in self.expected)
        return find_copies(Path(folder), self.file, size, checked)

    def _first_fitting(self, copies: list[Path]) -> Path | None:
        for copy in copies:
            packed = self.file.member and copy.name == self.file.archive
            if packed:
                extract(copy, self.file.member, self.part)
            candidate = self.part if packed else copy
            fault = format_fault(candidate, self.file.file)
            fault = f"{fault}; fetch it again." if fault else self._fault(candidate)
            if fault is None:
                self.origin = str(copy)
                return self.part.replace(self.place) if packed else copy
            say(f"{self.file.key}: not used, file {copy} {fault}")
            self.misfit = self.misfit or f"file {copy} {fault}"
        return None

    def _instructions(self) -> str:
        return self.file.by_hand.rstrip(". ") or f"fetch {self.file.url} with a browser"

    def _with_instructions(self, error: InputError) -> InputError:
        if self.file.verified == "yes" or not self.file.by_hand:
            return error
        return InputError(
            f"{str(error).rstrip('.')}; this address is not confirmed: {self._instructions()} and put it at "
            f"{self.place}."
        )
