"""One file out of a zip archive on a server, without the rest: a bundle of many gigabytes may hold a few that are read.

The directory stands at the end of an archive and says at which bytes each file lies; a server that sends stretches
(Range) is asked for the directory and then for that stretch, which can be resumed like any download; remotezip reads
such archives too, but cannot go on with a stretch that broke off.
"""

import io
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import requests

from tissue_counterfactuals.sources.downloads.transfer import (
    Interrupted,
    NoRanges,
    Patience,
    Unavailable,
    enough_disk,
    persist,
    request,
)

_BLOCK = 1 << 20
_ASKED = 1 << 16  # bytes of the directory asked for at once
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


def locate(url: str, member: str, patience: Patience) -> tuple[int, zipfile.ZipInfo]:
    """Find a file in the archive behind `url`; `member` is its path there, or the end of it.

    Returns:
        The first byte of what is packed, and what the archive's directory says of it.
    Raises:
        NoRanges: the server sends only whole files.
        Unavailable: no archive, or no such file (or several) in it.
    """
    with io.BufferedReader(_RangeFile(url, patience), _ASKED) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                info = find_member(archive, member, url)
        except zipfile.BadZipFile as error:
            raise Unavailable(
                f"download: {url} is no zip archive, as it must be for {member}; check the address.", "no zip archive"
            ) from error
        stream.seek(info.header_offset)
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length, info


def find_member(archive: zipfile.ZipFile, member: str, where: str) -> zipfile.ZipInfo:
    """The entry called `member`, or the only one that ends with it.

    Raises:
        Unavailable: none or several, or packed in a way that cannot be read.
    """
    infos = [info for info in archive.infolist() if info.filename == member or info.filename.endswith(f"/{member}")]
    if len(infos) != 1:
        names = [info.filename for info in infos] or archive.namelist()[:10]
        raise Unavailable(
            f"download: {where} holds {'several' if infos else 'no'} files {member} ({', '.join(names)}); check "
            "member and url in the table of data sets.",
            f"no single {member} in the archive",
        )
    if infos[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unavailable(
            f"download: {where} holds {member} packed by a method that is not read here; unpack it by hand.",
            "packed by an unknown method",
        )
    return infos[0]


def unpack(stretch: Path, info: zipfile.ZipInfo, output: Path) -> bool:
    """Unpack the bytes of a file; returns whether length and CRC-32 are those of the archive's directory.

    What unpacks to more than its directory says is cut off there: a few bytes can unpack to gigabytes.
    """
    try:
        with enough_disk(output), open(stretch, "rb") as packed, open(output, "wb") as file:
            shutil.copyfileobj(zipfile.ZipExtFile(packed, "r", info), file, _BLOCK)
    except (zipfile.BadZipFile, EOFError, zlib.error):
        return False
    return output.stat().st_size == info.file_size


def extract(archive: Path, member: str, output: Path) -> None:
    """Copy one file out of an archive on disk.

    Raises:
        Unavailable: it is not there, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            info = find_member(opened, member, str(archive))
            with enough_disk(output), opened.open(info) as packed, open(output, "wb") as file:
                shutil.copyfileobj(packed, file, _BLOCK)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise Unavailable(
            f"download: {archive} is a damaged zip archive ({error}); delete it and run again.", "a damaged archive"
        ) from error


class _RangeFile(io.RawIOBase):
    """The file behind an address, readable at any place; each read is one request."""

    def __init__(self, url: str, patience: Patience):
        self.url, self.patience, self.position = url, patience, 0
        with persist(lambda: self._ask(0, 0), url, patience) as response:
            self.size = int(response.headers["Content-Range"].rpartition("/")[2])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer) -> int:
        last = min(self.position + len(buffer), self.size) - 1
        if last < self.position:
            return 0
        body = persist(lambda: self._read(self.position, last), self.url, self.patience)
        buffer[: len(body)] = body
        self.position += len(body)
        return len(body)

    def _ask(self, first: int, last: int) -> requests.Response:
        response = request(self.url, {"Range": f"bytes={first}-{last}"}, self.patience)
        if response.status_code != 206 or not response.headers.get("Content-Range", "").rpartition("/")[2].isdigit():
            response.close()
            raise NoRanges(self.url)
        return response

    def _read(self, first: int, last: int) -> bytes:
        with self._ask(first, last) as response:
            body = response.content
        if len(body) != last - first + 1:
            raise Interrupted(f"{len(body):,} of {last - first + 1:,} bytes came")
        return body
