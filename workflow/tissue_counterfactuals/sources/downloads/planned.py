"""What a run would download, and whether the disk can hold it: looked up, nothing fetched."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.copies import find_copies
from tissue_counterfactuals.sources.downloads.progress import show_size
from tissue_counterfactuals.sources.downloads.remote_zip import locate
from tissue_counterfactuals.sources.downloads.table import DataFile, requested_files
from tissue_counterfactuals.sources.downloads.transfer import Interrupted, NoRanges, Patience, request

_ASKING = Patience(attempts=1, timeout_s=5.0, backoff_s=0.0)
_AT_ONCE = 8  # questions to servers


@dataclass(frozen=True)
class Planned:
    """One file: where it is or has to come from, its bytes (None: not known), and those already there of it."""

    key: str
    state: str
    size: int | None
    exact: bool
    there: int = 0
    extra: int = 0  # bytes needed for a while beside the file


def plan(config: dict, ask: bool = False) -> list[Planned]:
    """All files that the data sets of a validated configuration are read from.

    Args:
        ask: whether servers may be asked for sizes that the table does not have.
    """
    settings = config["downloads"]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda file: _planned(file, settings, ask), requested_files(config).values()))


def show(config: dict, ask: bool = False) -> str:
    """The plan in words: a line for each file, then totals, needed disk and free disk."""
    files = plan(config, ask)
    if not files:
        return "Nothing is downloaded: no data set of the configuration has files or an address.\n"
    width = max(len(file.key) for file in files)
    lines = []
    for file in files:
        size = "size not known" if file.size is None else show_size(file.size)
        about = "" if file.exact or file.size is None else "about "
        part = f" ({show_size(file.there)} of it there)" if file.there else ""
        lines.append(f"{file.key:{width}}  {about + size:>15}  {file.state}{part}")
    wanted = [file for file in files if file.state == "to fetch"]
    known = [file for file in wanted if file.size is not None]
    total = sum(file.size for file in known)
    needed = sum(file.size - file.there + file.extra for file in known)
    folder = Path(config["downloads"]["folder"])
    free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.is_dir())).free
    unknown = len(wanted) - len(known)
    more = f" and {unknown} of unknown size" if unknown else ""
    lines += [
        f"To fetch: {len(wanted)} of {len(files)} files, {show_size(total)}{more}.",
        f"Disk: {show_size(needed)}{' or more' if unknown else ''} needed in {folder}, {show_size(free)} free"
        f"{'' if needed <= free else ': NOT ENOUGH'}.",
    ]
    by_hand = [file.key for file in files if file.state == "by hand"]
    if by_hand:
        lines.append(f"By hand (see resources/DATA.md): {', '.join(by_hand)}.")
    return "\n".join(lines) + "\n"


def _planned(file: DataFile, settings: dict, ask: bool) -> Planned:
    place = Path(settings["folder"]) / file.dataset / file.file
    if place.is_file():
        return Planned(file.key, f"there, {place}", place.stat().st_size, exact=True)
    for folder in (settings["cache"], settings["offline"]):
        copies = [] if folder is None else _copies(Path(folder), file)
        if copies:
            return Planned(file.key, f"in place, {copies[0]}", copies[0].stat().st_size, exact=True)
    size = file.size or (None if file.about_mb is None else int(file.about_mb * 1e6))
    if settings["offline"] is not None:
        return Planned(file.key, f"missing in {settings['offline']}", size, file.size is not None)
    if not file.addresses:
        return Planned(file.key, "by hand", size, file.size is not None)
    exact, extra = file.size is not None, 0
    if ask and (file.member or not exact) and (found := _ask(file)):
        (size, extra), exact = found, True
    part = place.with_name(place.name + (".part.packed" if file.member else ".part"))
    there = part.stat().st_size if part.exists() else 0
    return Planned(file.key, "to fetch", size, exact, there, extra)


def _copies(folder: Path, file: DataFile) -> list[Path]:
    try:
        return find_copies(folder, file, file.size, bool(file.md5 or file.sha256))
    except InputError:
        return []  # told when it is asked for


def _ask(file: DataFile) -> tuple[int, int] | None:
    """Bytes of a file, and those needed beside it for a while, as the first server says that will."""
    for url in file.addresses:
        try:
            if file.member:
                _, info = locate(url, file.member, _ASKING)
                return info.file_size, info.compress_size
            with request(url, {"Range": "bytes=0-0"}, _ASKING) as response:
                total = response.headers.get("Content-Range", "").rpartition("/")[2]
                length = total if response.status_code == 206 else response.headers.get("Content-Length", "")
                if length.isdigit():
                    return int(length), 0
        except (InputError, Interrupted, NoRanges, OSError, requests.RequestException, urllib3.exceptions.HTTPError):
            continue
    return None
