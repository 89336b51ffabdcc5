"""Copies of a file in a folder that others filled: known by name, or by their size where a checksum can confirm it."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.table import DataFile

_DEPTH = 4  # a shared folder may be a whole archive


def find_copies(folder: Path, file: DataFile, size: int | None, checked: bool) -> list[Path]:
    """Files that may be the one asked for, the likeliest first; whether one is must be checked.

    A file of its name at the top of the folder, or in a folder named after the data set, is the one. Else taken are,
    from a few levels below, files of its name or of one of its other names, its archive, a file of its short name in
    a folder named after the data set or the archive, and, where a checksum can tell, any file of its size.

    Args:
        size: bytes that it has, if known.
        checked: whether a checksum is known.
    Raises:
        InputError: several different files bear its name and nothing tells which is meant.
    """
    direct = [folder / file.dataset / file.file, folder / file.file]
    if found := [path for path in direct if path.is_file()]:
        return found
    named, sized, archives = [], [], []
    names = {file.file, *file.also_called.split()}
    homes = {file.dataset, file.archive.removesuffix(".zip")} - {""}
    short = PurePosixPath(file.member).name
    for path in _walk(folder):
        at_home = homes & set(path.relative_to(folder).parts[:-1])
        if path.name in names or (path.name == short and at_home):
            named.append(path)
        elif path.name == file.archive:
            archives.append(path)
        elif checked and size is not None and path.stat().st_size == size:
            sized.append(path)
    if not checked and len({path.stat().st_size for path in named}) > 1:
        raise InputError(
            f"folder {folder}: {' and '.join(map(str, named[:3]))} could each be {file.key}; put the right one at "
            f"{direct[0]}."
        )
    return [*named, *sized, *archives]


def _walk(folder: Path) -> Iterator[Path]:
    top = len(folder.parts)
    for here, folders, files in os.walk(folder):
        folders.sort()
        if len(Path(here).parts) - top >= _DEPTH:
            folders.clear()
        yield from (path for name in sorted(files) if (path := Path(here) / name).is_file())
