"""The table of published data sets, resources/datasets.tsv: which files there are, where they lie, how to tell them.

No address of a data set stands anywhere else. What the columns mean is written in resources/README.md.
"""

import csv
import hashlib
import re
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS

DATASETS_PATH = Path(__file__).resolve().parents[4] / "resources" / "datasets.tsv"

# Collection of the files that users name by an address of their own; the table cannot use the name.
OWN = "own"

_FORMS = {
    "dataset": (r"[A-Za-z0-9_-]+", "letters, digits, _ and -"),
    "slide": (r"[A-Za-z0-9_.-]*", "letters, digits, _, . and -, or nothing"),
    "role": (r"[a-z0-9_]+", "small letters, digits and _"),
    "file": (r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a file name of letters, digits, _, . and -"),
    "url": (r"(https?://\S+)?", "an http(s) address or nothing"),
    "mirror": (r"(https?://\S+( https?://\S+)*)?", "http(s) addresses with a space between, or nothing"),
    "size": (r"([1-9][0-9]*)?", "bytes as a whole number, or nothing"),
    "about_mb": (r"([0-9]+(\.[0-9]+)?)?", "megabytes as a number, or nothing"),
    "md5": (r"([0-9a-f]{32})?", "32 hexadecimal digits in small letters, or nothing"),
    "sha256": (r"([0-9a-f]{64})?", "64 hexadecimal digits in small letters, or nothing"),
    "archive_md5": (r"([0-9a-f]{32})?", "32 hexadecimal digits in small letters, or nothing"),
    "verified": ("yes|no", "yes or no"),
    "by_hand": (r".+", "how to get the file by hand"),
}  # fmt: skip


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: a row of the table.

    Attributes:
        dataset: name of the data set, under which a configuration asks for it.
        slide: the sample that the file belongs to; "" for a file that holds them all.
        role: what the reader takes it for (see `sources.READERS`).
        file: its name in the folder of downloads, and by which a copy fetched by hand is known.
        url: where to fetch it, or the zip archive that holds it; "" where no address is known.
        mirror: further addresses, with spaces between.
        member: name of the file in the archive; "" where `url` is the file itself.
        size: bytes; None where not published.
        about_mb: rounded megabytes, for planning only.
        md5, sha256: checksums; "" where not published.
        archive_md5: checksum of the archive that `member` lies in.
        also_called: other names under which copies go round, with spaces between.
        expected: what is inside.
        verified: "yes" where the address stands word for word in public text, "no" where it was put together.
        by_hand: where to click.
    """

    dataset: str
    slide: str
    role: str
    file: str
    url: str = ""
    mirror: str = ""
    member: str = ""
    size: int | None = None
    about_mb: float | None = None
    md5: str = ""
    sha256: str = ""
    archive_md5: str = ""
    also_called: str = ""
    version: str = ""
    licence: str = ""
    citation: str = ""
    expected: str = ""
    verified: str = "no"
    by_hand: str = ""

    @property
    def key(self) -> str:
        """How messages, the lock and the configuration name it."""
        return f"{self.dataset}/{self.file}"

    @property
    def role_of_slide(self) -> str:
        """Its role, behind the slide that it belongs to if there are several: "KP_1/matrix"."""
        return f"{self.slide}/{self.role}" if self.slide else self.role

    @property
    def addresses(self) -> list[str]:
        """Where to try, in this order."""
        return [address for address in (self.url, *self.mirror.split()) if address]

    @property
    def archive(self) -> str:
        """File name of the archive that holds it; "" for a file of its own."""
        return file_name(self.url) if self.member else ""


COLUMNS = tuple(field.name for field in fields(DataFile))


def file_name(url: str) -> str:
    """The last part of an address, without what follows a question mark."""
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1]


@cache
def read_datasets(path: str | Path | None = None) -> dict[str, list[DataFile]]:
    """Data set -> its files, in the order of the table.

    Args:
        path: a table of your own; None for the one that comes with the workflow.
    Raises:
        InputError: the table cannot be read, a column is missing or unknown, a value has the wrong form, or a file
            is there twice.
    """
    path = Path(path or DATASETS_PATH)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"table {path} cannot be read ({error}); check the path.") from error
    table = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    _check_columns(path, table.fieldnames or [])
    datasets: dict[str, list[DataFile]] = {}
    taken: dict[tuple, int] = {}
    for row in table:
        where = f"table {path}, line {table.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{where}: it has not as many values as the header ({len(COLUMNS)}); check its tabs.")
        file = _to_file(row, where)
        for known in ((file.dataset, file.file), (file.dataset, file.slide, file.role, "role")):
            first = taken.setdefault(known, table.line_num)
            if first != table.line_num:
                raise InputError(
                    f"{where}: {' '.join(filter(None, known))} is already in line {first}; take one of them out."
                )
        datasets.setdefault(file.dataset, []).append(file)
    return datasets


def _check_columns(path: Path, names: list[str]) -> None:
    for column in names:
        if column not in COLUMNS:
            raise InputError(f"table {path}: column {column!r} is unknown; the columns are {', '.join(COLUMNS)}.")
    for column in COLUMNS:
        if names.count(column) != 1:
            raise InputError(
                f"table {path}: column {column!r} is {'there twice' if column in names else 'missing'}; the "
                f"columns are {', '.join(COLUMNS)}."
            )


def _to_file(row: dict[str, str], where: str) -> DataFile:
    for column, (form, words) in _FORMS.items():
        if not re.fullmatch(form, row[column]):
            raise InputError(f"{where}: {column} is {row[column]!r}; give {words}.")
    if row["dataset"] == OWN:
        raise InputError(f"{where}: dataset {OWN!r} is kept for users' addresses; rename it.")
    if row["verified"] == "yes" and not row["url"]:
        raise InputError(f"{where}: verified is yes, but there is no url; say no or give the url.")
    if row["member"] and not row["url"].split("?")[0].endswith(".zip"):
        raise InputError(f"{where}: member is set, but url names no .zip archive; correct either.")
    size, about = row["size"], row["about_mb"]
    return DataFile(**row | {"size": int(size) if size else None, "about_mb": float(about) if about else None})


# --- what a configuration asks for ------------------------------------------------------------------------------


def table_files(name: str, entry: dict, table: str | None, samples: list[str] | None) -> list[DataFile]:
    """The files that a data set of the configuration is downloaded as; none where it is simulated or a local path.

    Args:
        name: key of the data set in the configuration; entry: its block there.
        table: path of the table, None for the workflow's own.
        samples: the samples wanted; None takes all.
    """
    if entry["files"] is None:
        own = own_file(name, entry)
        return [] if own is None else [own]
    rows = read_datasets(table)[entry["files"]]
    return [row for row in rows if not row.slide or samples is None or row.slide in samples]


def own_file(name: str, entry: dict) -> DataFile | None:
    """The file behind an address in `path`; another address is another file, so that none is taken for another."""
    url = entry["path"]
    if url is None or "://" not in url:
        return None
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    role, *_ = READERS[entry["source"]].needed
    return DataFile(
        dataset=OWN,
        slide="",
        role=role,
        file=f"{name}.{digest}{Path(file_name(url)).suffix or '.h5ad'}",
        url=url,
        sha256=entry["sha256"] or "",
        by_hand=f"Fetch {url} with a browser.",
    )


def slides_in_table(name: str, table: str | None) -> list[str]:
    """Samples of a data set that have files of their own, in the order of the table; [] where one file holds all."""
    return list(dict.fromkeys(row.slide for row in read_datasets(table)[name] if row.slide))


def expected_of(file: DataFile) -> dict:
    """What says that a file is the right one; a change of it calls for another look at the file."""
    return {key: getattr(file, key) for key in ("size", "md5", "sha256", "member", "archive_md5")}


def requested_files(config: dict) -> dict[str, DataFile]:
    """Key (data set/file) -> file, for all that the data sets of a configuration are read from.

    Addresses of `downloads.urls` stand before those of the table.
    """
    settings = config["downloads"]
    found = {}
    for name, entry in config["datasets"].items():
        for file in table_files(name, entry, settings["table"], entry["samples"]):
            own = settings["urls"].get(file.key)
            found[file.key] = replace(file, url=own, mirror="") if own else file
    return found


def download_faults(config: dict) -> list[str]:
    """What is wrong with `downloads` and with `files` of the data sets, a sentence each."""
    settings = config["downloads"]
    try:
        datasets = read_datasets(settings["table"])
    except InputError as error:
        return [f"config: downloads.table: {error}"]
    table = settings["table"] or "resources/datasets.tsv"
    known = {file.key for files in datasets.values() for file in files}
    faults = [
        f"config: downloads.urls names {key!r}, which is not in {table}; give it as data set/file."
        for key in settings["urls"]
        if key not in known
    ]
    for folder in ("cache", "offline"):
        if settings[folder] is not None and not Path(settings[folder]).is_dir():
            faults.append(
                f"config: downloads.{folder}: there is no folder {settings[folder]!r}; paths count from {Path.cwd()}."
            )
    for name, entry in config["datasets"].items():
        faults += _files_faults(f"config: datasets.{name}", entry, datasets, table)
    return faults


def _files_faults(where: str, entry: dict, datasets: dict, table: str) -> list[str]:
    chosen = entry["files"]
    if chosen is None:
        return []
    if chosen not in datasets:
        return [f"{where}.files is {chosen!r}; {table} has {', '.join(datasets)}."]
    slides = {row.slide for row in datasets[chosen] if row.slide}
    return [
        f"{where}.samples names {sample!r}, which has no file in {chosen} of {table}; there are "
        f"{', '.join(sorted(slides))}."
        for sample in entry["samples"] or []
        if slides and str(sample) not in slides
    ]
