"""Finding the files of a bundle in a folder, by the names that instruments and archives give them."""

import re
from collections.abc import Iterable
from pathlib import Path

from tissue_counterfactuals.errors import InputError

# Bins of one run of Visium HD, each in a folder of its own.
_BINS = re.compile(r"square_\d+um")

# Folders that every run of an instrument calls the same, so that they cannot name a sample.
_NAMELESS = ("outs", "spatial", "extracted", "flatFiles", "cell_feature_matrix")


def visible(paths: Iterable[Path], folder: Path) -> list[Path]:
    """What of `paths` below a folder belongs to the data, sorted: nothing hidden, and nothing that a Mac packs beside
    it.
    """
    return sorted(
        path for path in paths if not any(p.startswith(".") or p == "__MACOSX" for p in path.relative_to(folder).parts)
    )


def find_one(folder: Path, patterns: tuple[str, ...], what: str) -> Path | None:
    """The file or folder that the first matching pattern names, None where there is none.

    Raises:
        InputError: one pattern is met by several.
    """
    for pattern in patterns:
        found = visible(folder.glob(pattern), folder)
        if len(found) > 1:
            raise InputError(
                f"folder {folder}: {len(found)} files could be its {what} ({found[0].name}, {found[1].name}); give "
                "each sample a folder of its own."
            )
        if found:
            return found[0]
    return None


def locate_bundles(folder: Path, patterns: dict[str, tuple[str, ...]], needed: tuple[str, ...]) -> dict[str, Path]:
    """Files by role of one bundle, or by "sample/role" where the folder holds a folder for each sample.

    Args:
        patterns: role -> names of its files; a folder without the first of the roles `needed` is no bundle, but one
            beside bundles that has another of them is a bundle that is not whole, for the caller to refuse.
    Raises:
        InputError: the folders are the bins of one run, or several files play one role.
    """
    for own in (folder, folder / "outs"):
        if files := _roles(own, patterns, needed[:1]):
            return files
        if (own / "binned_outputs").is_dir():
            return locate_bundles(own / "binned_outputs", patterns, needed)
    children = [child for child in visible(folder.iterdir(), folder) if child.is_dir()]
    found = {c: _roles(c, patterns, needed[:1]) or _roles(c / "outs", patterns, needed[:1]) for c in children}
    if any(found.values()):
        found = {
            c: own or _roles(c, patterns, needed) or _roles(c / "outs", patterns, needed) for c, own in found.items()
        }
    bins = [child for child, own in found.items() if own and _BINS.fullmatch(child.name)]
    if bins:
        raise InputError(
            f"folder {folder}: {', '.join(child.name for child in bins)} hold the same tissue in bins and are no "
            f"samples; name one of them in path, {bins[-1]} for example."
        )
    return {f"{c.name}/{role}": path for c, own in found.items() for role, path in own.items()}


def _roles(folder: Path, patterns: dict[str, tuple[str, ...]], one_of: tuple[str, ...]) -> dict[str, Path]:
    """The files by role of a folder that has at least one of these roles."""
    files = {role: path for role, names in patterns.items() if (path := find_one(folder, names, role))}
    return files if files.keys() & set(one_of) else {}


def sample_names(by_sample: dict[str, dict[str, Path]], role: str) -> dict[str, str]:
    """Key of each sample -> its name; a bundle that stands alone is called as the folder that it lies in."""
    return {key: key or _folder_name(own[role]) for key, own in by_sample.items()}


def _folder_name(path: Path) -> str:
    # The path as given: where it is a link into a cache, what it leads to has a name that says nothing.
    names = [folder.name for folder in path.absolute().parents if folder.name not in _NAMELESS]
    return names[0] or "sample"
