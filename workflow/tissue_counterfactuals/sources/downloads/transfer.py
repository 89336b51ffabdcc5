"""Bring the bytes behind one address into a partial file: resumed where it stopped, retried, never blindly trusted.

The connection is carried by requests. The libraries that keep a table of checksums were looked at as well: pooch
documents no way to go on with a partial file, which is what matters with files of gigabytes.
"""

import errno
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from tissue_counterfactuals import __version__
from tissue_counterfactuals.errors import InputError

_CHUNK = 1 << 18
_SLOWEST = 1024  # bytes within the time-out: below, the connection counts as stalled
_LONGEST_WAIT_S = 900  # a server that asks for more is left alone
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"tissue-counterfactuals/{__version__}"}
_NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)


@dataclass(frozen=True)
class Patience:
    """What is put up with.

    Attributes:
        attempts: interruptions in a row, without a byte gained.
        timeout_s: seconds without an answer, or with fewer than 1,024 bytes, that count as an interruption.
        backoff_s: first wait; it doubles with each interruption.
    """

    attempts: int
    timeout_s: float
    backoff_s: float


class Unavailable(InputError):
    """This address does not give the file; another one may. `reason` is the short form of the message."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class NoRanges(Exception):
    """The server sends only whole files."""


class Interrupted(Exception):
    """The transfer broke off in a way that another attempt may mend; the message says how."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


class _NothingMore(Interrupted):
    """Answer 416: the stretch asked for begins behind the end; `total` is the length of the server's file."""

    def __init__(self, total: int | None):
        super().__init__("the server says that the file ends before")
        self.total = total


def transfer(
    url: str,
    part: Path,
    patience: Patience,
    progress: Callable[[int, int | None], None],
    announced: Callable[[int], None] | None = None,
    span: tuple[int, int] | None = None,
) -> None:
    """Bring `part` to the full length of what is behind `url`, going on with what is there of it.

    What has come is used again only if the server says that its file is still the one that was begun with
    (If-Range); the note of that lies beside, in `<part>.tag`.

    Args:
        progress: called with the bytes that are there and those that there will be (None: not known).
        announced: called with the bytes that the file will have, as soon as the server says so; it may refuse them.
        span: first byte and number of bytes, where only a stretch is wanted.
    Raises:
        Unavailable: no address, refused, or interrupted too often.
        NoRanges: a stretch is wanted of a server that sends only whole files.
        InputError: the disk is full.
    """

    def attempt():
        _attempt(url, part, patience, progress, announced, span)

    def reached() -> int:
        return part.stat().st_size if part.exists() else 0

    def remedy() -> str:
        place = f" to go on from {reached():,} bytes" if tag_file(part).exists() else ""
        return f"run again{place}, or put the file at {part.with_name(part.name.split('.part')[0])} yourself"

    persist(attempt, url, patience, reached, remedy)


def persist(
    attempt: Callable[[], object],
    url: str,
    patience: Patience,
    reached: Callable[[], int] = lambda: 0,
    remedy: Callable[[], str] = lambda: "run again later",
) -> object:
    """Call `attempt` until it succeeds or has been interrupted too often; as long as `reached` grows by more than a
    trickle, it goes on.

    Raises:
        Unavailable: it does not work, and `remedy` says what to do.
    """
    failures, furthest = 0, reached()
    while True:
        try:
            return attempt()
        except _NO_ADDRESS as error:
            raise Unavailable(f"download: {url} is no valid http(s) address.", "no valid address") from error
        except (Interrupted, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason, wait = _reason(error), getattr(error, "wait_s", 0.0)
            failures = 0 if reached() >= furthest + _SLOWEST else failures + 1
            furthest = max(furthest, reached())
            if failures >= patience.attempts or wait > _LONGEST_WAIT_S:
                raise Unavailable(
                    f"download: {url} broke off, {failures} times without progress ({reason}); {remedy()}.", reason
                ) from error
            time.sleep(max(wait, min(patience.backoff_s * 2**failures, _LONGEST_WAIT_S)))


def request(url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    """An open response to GET, refused and interrupted answers raised.

    Raises:
        Unavailable: the server does not have it or gives a web page; Interrupted: it asks to come back later.
    """
    response = requests.get(
        url, headers=_HEADERS | headers, stream=True, timeout=(patience.timeout_s, patience.timeout_s)
    )
    try:
        _refuse(response, url)
    except Exception:
        response.close()
        raise
    return response


def web_page(url: str) -> Unavailable:
    """The error of an address that gives HTML."""
    return Unavailable(
        f"download: {url} leads to a web page (HTML) and not to data; give the address of the file itself.",
        "a web page instead of data",
    )


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        InputError: fewer than `needed` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"download: the disk of {folder} has {free:,} bytes free, but {needed:,} more are needed; free space, or "
            "set downloads.folder to another disk."
        )


def _attempt(url, part, patience, progress, announced, span) -> None:
    tag = tag_file(part)
    first, length = span or (0, None)
    start = part.stat().st_size if part.exists() and _begun(tag, url, span) else 0
    if length is not None and start >= length:
        if start > length:
            discard(part)
            raise Interrupted("the partial file is too long")
        return
    headers = {}
    if start or span:
        end = "" if length is None else first + length - 1
        headers["Range"] = f"bytes={first + start}-{end}"
    if start:
        headers["If-Range"] = tag.read_text().splitlines()[-1]
    try:
        response = request(url, headers, patience)
    except _NothingMore as answer:
        # Nothing lies behind what we have: it is whole, or longer than the server's file.
        if answer.total == start:
            return
        discard(part)
        raise Interrupted("the partial file does not fit the server's") from answer
    with response:
        if response.status_code == 206:
            if _first_byte(response) != first + start:
                discard(part)
                raise Interrupted("the server sent another stretch than the one asked for")
            # Not every server reads If-Range.
            if start and _version(response) not in ("", headers["If-Range"]):
                discard(part)
                raise Interrupted("the file has changed on the server")
        elif span:
            if not start:
                raise NoRanges(url)
            discard(part)
            raise Interrupted("the file has changed on the server")
        else:
            start = 0
        total = _total(response, length)
        if total is not None:
            if announced is not None:
                announced(total)
            check_space(part.parent, total - start)
        if not start:
            discard(part)
            _keep_tag(response, url, span, tag)
        _receive(response, part, start, total, patience, progress)
        if total is not None and part.stat().st_size != total:
            raise Interrupted(f"{part.stat().st_size:,} of {total:,} bytes came")


def _receive(response, part, start, total, patience, progress) -> None:
    """Append the body to the partial file piece by piece, as it comes."""
    there, since, mark = start, time.monotonic(), start
    with enough_disk(part), open(part, "ab") as file:
        while piece := response.raw.read1(_CHUNK):
            file.write(piece)
            file.flush()
            there += len(piece)
            progress(there, total)
            now = time.monotonic()
            if there - mark >= _SLOWEST:
                since, mark = now, there
            elif now - since > patience.timeout_s:
                raise Interrupted(f"fewer than {_SLOWEST:,} bytes in {patience.timeout_s:g} s")


@contextmanager
def enough_disk(path: Path) -> Iterator[None]:
    """Turn a full disk, or quota, into an `InputError` that says so; what was written of `path` stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        written = path.stat().st_size if path.exists() else 0
        raise InputError(
            f"download: the disk of {path.parent} is full after {written:,} bytes of {path.name.split('.part')[0]}; "
            "free space or set downloads.folder to another disk, then run again to go on from there."
        ) from error


def _refuse(response: requests.Response, url: str) -> None:
    status, reason = response.status_code, response.reason
    if status == 416:
        total = response.headers.get("Content-Range", "").removeprefix("bytes */")
        raise _NothingMore(int(total) if total.isdigit() else None)
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response)
        asked = f" and asks to wait {wait:.0f} s" if wait else ""
        raise Interrupted(f"the server answered {status} {reason}{asked}", wait)
    if status >= 400:
        raise Unavailable(
            f"download: {url} cannot be had, the server answered {status} {reason}; check the address.",
            f"{status} {reason}",
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise web_page(url)
    packed = response.headers.get("Content-Encoding", "identity")
    if packed != "identity" and not urlsplit(url).path.endswith(".gz"):
        raise Unavailable(
            f"download: {url} comes packed ({packed}), though it was asked for as it is; fetch it with a browser.",
            f"comes packed ({packed})",
        )


def _retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait, given as a number or as a date."""
    try:
        return urllib3.Retry(retry_after_max=math.inf).get_retry_after(response.raw) or 0.0
    except (urllib3.exceptions.InvalidHeader, ValueError):
        return 0.0


def _first_byte(response: requests.Response) -> int | None:
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total(response: requests.Response, length: int | None) -> int | None:
    """Bytes that the partial file will have in the end; a server may send fewer at once than it was asked for."""
    if length is not None:
        return length
    if response.status_code == 206:
        told = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        told = response.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _reason(error: Exception) -> str:
    """Why a transfer broke off, in words; those of the libraries below are long and nested."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate of the server is not trusted"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        return "the connection was lost"
    return str(error)


# --- the note beside a partial file -----------------------------------------------------------------------------


def tag_file(part: Path) -> Path:
    """Beside a partial file: address, stretch, and which version of the file was begun with."""
    return part.with_name(part.name + ".tag")


def _begun(tag: Path, url: str, span: tuple[int, int] | None) -> bool:
    lines = tag.read_text().splitlines() if tag.exists() else []
    return len(lines) == 3 and lines[:2] == [url, str(span)]


def _keep_tag(response: requests.Response, url: str, span: tuple | None, tag: Path) -> None:
    """Without a strong validator a resume would be unsafe: nothing is kept."""
    if version := _version(response):
        tag.write_text(f"{url}\n{span}\n{version}")


def _version(response: requests.Response) -> str:
    validator = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified", "") if validator.startswith("W/") else validator


def discard(part: Path) -> None:
    """Remove a partial file and its note."""
    part.unlink(missing_ok=True)
    tag_file(part).unlink(missing_ok=True)
