"""What the headers of a bundle's files tell before anything is read: columns that are not there, how many cells."""

from collections.abc import Collection
from pathlib import Path

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import files_by_sample
from tissue_counterfactuals.sources.folders import sample_names


def absent_columns(
    files: dict[str, Path], dataset: dict, role: str = "", coordinates: tuple[str, ...] = ()
) -> list[str]:
    """What an entry names and no table of its bundles has, each in the sentence of the reader.

    Args:
        files, dataset: as in the table of readers.
        role, coordinates: of the table with a row per cell, where the layout has one, and its columns of places.
    """
    # Slow to import, and seldom needed while a run is planned.
    from tissue_counterfactuals.sources.ids import id_columns
    from tissue_counterfactuals.sources.text_tables import column_names, require_columns

    faults, by_sample = [], files_by_sample(files)
    for key, sample in sample_names(by_sample, "matrix").items():
        own = by_sample[key]
        try:
            labels = []
            for path in filter(None, [own.get(role), dataset["labels"] and Path(dataset["labels"])]):
                names = column_names(path)
                id_columns(names, path)
                if path == own.get(role):
                    require_columns(path, list(coordinates), names)
                labels += names
            for label in ("cell_type", "domain"):
                require_label(label, dataset, labels, f"sample {sample!r}")
        except InputError as error:
            faults.append(str(error))
    return faults


def count_cells(files: dict[str, Path], dataset: dict, enough: int, role: str) -> dict[str, int]:
    """Sample -> rows of its file of a role, counted up to `enough`: reading leaves cells out and adds none.

    Raises:
        InputError: a file cannot be read.
    """
    from tissue_counterfactuals.sources.tenx import count_barcodes
    from tissue_counterfactuals.sources.text_tables import count_rows

    count, by_sample = count_barcodes if role == "matrix" else count_rows, files_by_sample(files)
    return {name: count(by_sample[key][role], enough) for key, name in sample_names(by_sample, "matrix").items()}


def shared_genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The genes that the matrices of all samples name which would be read, in the order of the first.

    Raises:
        InputError: a file cannot be read.
    """
    from tissue_counterfactuals.sources.genes import are_genes
    from tissue_counterfactuals.sources.ids import id_columns, is_unnamed
    from tissue_counterfactuals.sources.tenx import read_features
    from tissue_counterfactuals.sources.text_tables import header_names

    named, by_sample = [], files_by_sample(files)
    for key, sample in sample_names(by_sample, "matrix").items():
        path, types = by_sample[key]["matrix"], None
        if dataset["samples"] is not None and sample not in dataset["samples"]:
            continue
        if path.is_dir() or path.suffix == ".h5":
            names, types = read_features(path)
        else:
            names = header_names(path)
            ids = id_columns(names, path)
            names = [name for name in names if name not in ids and not is_unnamed(name)]
        named.append([name for name, gene in zip(names, are_genes(names, types), strict=True) if gene])
    return in_all(named)


def in_all(named: list[list[str]]) -> list[str]:
    """What stands in every one of several lists, in the order of the first."""
    others = [set(names) for names in named[1:]]
    return [name for name in named[0] if all(name in other for other in others)]


def require_samples(where: str, samples: list[str] | None, present: Collection[str], fault: str) -> None:
    """Raise where one of the samples that are asked for is none of those present; `fault` says how that shows.

    Raises:
        InputError
    """
    for sample in samples or ():
        if sample not in present:
            raise InputError(f"{where}: samples names {sample!r}, {fault}; there are {', '.join(present)}.")


def require_label(label: str, dataset: dict, present: list[str], where: str) -> None:
    """Raise where a column that the entry names for a label is none of those present.

    Raises:
        InputError
    """
    column = (dataset.get("columns") or {}).get(label) or label
    if column != label and column not in present:
        shown = ", ".join(present[:12]) + ", ..." * (len(present) > 12)
        raise InputError(
            f"{where}: there is no column {column!r} (key columns.{label}) in the file of labels or the bundle "
            f"({shown or 'no label columns'}); name one that is there."
        )
