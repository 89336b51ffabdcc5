"""Download one file: resumable, checked, and only ever present under its name when whole."""

import hashlib
import time
from pathlib import Path

import requests

from tissue_counterfactuals.errors import InputError

_CHUNK = 1 << 16  # what a break can lose
_TIMEOUT_S = (15, 60)  # to connect, and between two pieces of the body
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5ad", ".h5", ".hdf5")


_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)


class _Interrupted(Exception):
    """The transfer broke off in a way that another attempt may mend; the message says how."""


def fetch(
    url: str,
    path: str | Path,
    sha256: str | None = None,
    attempts: int = 5,
    backoff_s: float = 2.0,
) -> Path:
    """Download `url` to `path`, going on with a partial download where the server allows it.

    The body grows in `<name>.part` and is renamed after its length, checksum and format have been checked, so a
    file of that name is always whole; one that is already there is kept if its checksum (where given) fits.

    Args:
        sha256: hexadecimal digest that the file must have.
        attempts: how many interruptions in a row, without a byte gained, to put up with; the wait doubles with
            each from `backoff_s` seconds.
    Returns:
        The path.
    Raises:
        InputError: wrong address, refused, interrupted too often, or not the file that was asked for.
    """
    path = Path(path)
    if path.exists() and (sha256 is None or sha256 == sha256_of(path)):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = furthest = 0
    while True:
        try:
            _transfer(url, part)
            break
        except (_Interrupted, requests.RequestException) as error:
            if isinstance(error, _NO_ADDRESS):
                raise InputError(f"download: {url} is no valid http(s) address.") from error
            reached = part.stat().st_size if part.exists() else 0
            # As long as the file grows, it is worth going on.
            failures = 0 if reached > furthest else failures + 1
            furthest = max(furthest, reached)
            if failures >= attempts:
                raise InputError(
                    f"download: {url} broke off, {failures} times without progress ({_reason(error)}); run again "
                    f"to go on from {reached:,} bytes, or put the file at {path} yourself."
                ) from error
            time.sleep(backoff_s * 2**failures)
    try:
        _check(part, url, path, sha256)
    except InputError:
        _discard(part)
        raise
    part.replace(path)
    _discard(part)
    return path


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """Why a transfer broke off, in words; those of the libraries below are long and nested."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.RequestException):
        return "the connection was lost"
    return str(error)


def _transfer(url: str, part: Path) -> None:
    """Bring the partial file to its full length, or raise."""
    tag = _tag_file(part)
    headers = {"Accept-Encoding": "identity"}
    start = part.stat().st_size if part.exists() and tag.exists() else 0
    if start:
        # If-Range: the server sends the rest only if its file is still the one that we began with.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        if response.status_code == 416:
            # Nothing lies behind what we have: it is whole, or longer than the server's file.
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return
            _discard(part)
            raise _Interrupted("the partial file does not fit the server's")
        _refuse(response, url)
        if response.status_code != 206:
            start = 0
            _discard(part)
            _keep_tag(response, tag)
        with open(part, "ab") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
        length = response.headers.get("Content-Length")
        if length is not None and part.stat().st_size != start + int(length):
            raise _Interrupted(f"{part.stat().st_size:,} of {start + int(length):,} bytes came")


def _refuse(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise _Interrupted(f"the server answered {status} {response.reason}")
    if status >= 400:
        raise InputError(
            f"download: {url} cannot be had, the server answered {status} {response.reason}; check the address."
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _web_page(url)


def _check(part: Path, url: str, path: Path, sha256: str | None) -> None:
    with open(part, "rb") as file:
        beginning = file.read(512)
    if beginning.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise _web_page(url)
    if path.suffix in _HDF5_SUFFIXES and not beginning.startswith(_HDF5_MAGIC):
        raise InputError(
            f"download: {url} is no HDF5 file, as {path.name} must be; check the address."
        )
    if sha256 is not None and (found := sha256_of(part)) != sha256:
        raise InputError(
            f"download: {url} has the SHA-256 {found}, but {sha256} is expected; the file was changed or damaged, "
            "run again or correct sha256."
        )


def _web_page(url: str) -> InputError:
    return InputError(
        f"download: {url} leads to a web page (HTML) and not to data; give the address of the file itself."
    )


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _keep_tag(response: requests.Response, tag: Path) -> None:
    """Note which version of the file we begin with; without a strong validator a resume would be unsafe."""
    validator = response.headers.get("ETag", "W/")
    if validator.startswith("W/"):
        validator = response.headers.get("Last-Modified", "")
    if validator:
        tag.write_text(validator)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)
