"""What every file was when it was first fetched, and that it has stayed so.

The lock stands beside the configuration and not in `results/`, because it must outlive a clean-up, and because whoever
commits it lets others prove that they read the same bytes. It is a table to which rows are only ever added, so that
downloads running side by side, on several machines too, need no server; a row cut off by a crash is dropped.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.progress import say


@dataclass(frozen=True)
class Locked:
    """One file as it was first fetched: `size` in bytes, `sha256`, where from and when (UTC)."""

    dataset: str
    file: str
    size: int
    sha256: str
    origin: str
    first_fetched: str


_COLUMNS = tuple(field.name for field in fields(Locked))
_HEADER = "\t".join(_COLUMNS) + "\n"


class Lock:
    """The lock file; it need not exist."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def find(self, dataset: str, file: str) -> Locked | None:
        """What was recorded for a file; None if it was never fetched.

        Raises:
            InputError: the lock is damaged.
        """
        if not self.path.exists():
            return None
        return self._rows(self.path.read_text(encoding="utf-8")).get((dataset, file))

    def record(self, dataset: str, file: str, size: int, sha256: str, origin: str) -> None:
        """Add a row for a file that has none."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # The path of a copy may hold a tab.
        row = Locked(dataset, file, size, sha256, " ".join(origin.split()), now)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _claim(self.path.resolve()), open(self.path, "a+", encoding="utf-8", newline="\n") as table:
            table.seek(0)
            text = table.read()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                table.truncate(len(whole.encode()))
            if (dataset, file) in self._rows(whole):
                return
            line = "\t".join(map(str, astuple(row))) + "\n"
            table.write(line if whole else _HEADER + line)
            table.flush()
            os.fsync(table.fileno())

    def _rows(self, text: str) -> dict[tuple[str, str], Locked]:
        rows = [line.rstrip("\r").split("\t") for line in text.split("\n")[:-1]]
        if rows and tuple(rows[0]) != _COLUMNS:
            raise InputError(
                f"lock {self.path}: its first line must be {', '.join(_COLUMNS)}, separated by tabs; mend it or "
                "delete the file to trust what is there now."
            )
        found = {}
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(_COLUMNS) or not row[2].isdigit() or len(row[3]) != 64:
                raise InputError(
                    f"lock {self.path}, line {number} is damaged; delete that line to trust the file as it is now."
                )
            found[row[0], row[1]] = Locked(row[0], row[1], int(row[2]), *row[3:])
        return found


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process, of this run or another, works on `path`.

    The claim is the operating system's and ends with the process, however that ends. It is made on a file beside.

    Raises:
        InputError: the folder of `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = _claim(path.with_name(f".{path.name}.claim"), path.name)
    except OSError as error:
        raise InputError(
            f"folder {path.parent} cannot be written ({error.strerror}); set downloads.folder to one of your own, and "
            "downloads.cache to this one to use what lies in it."
        ) from error
    with claim:
        yield


def _claim(path: Path, name: str = "") -> AbstractContextManager:
    """A lock on a file that is held from now on; who has to wait for it says so, if it has a name."""
    lock = FileLock(path)
    try:
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            if name:
                say(f"{name}: another run is at it, waiting")
            return lock.acquire()
    except OSError as error:
        # Some network disks know no locks: then two runs at once may fetch a file twice, each checked before use.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        return nullcontext()
