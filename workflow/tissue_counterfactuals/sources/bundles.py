"""From the parts of a bundle to a slide: joined by id, proven to be counts, in micrometres, every filter recorded."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import digest
from tissue_counterfactuals.slide import check_slide, make_slide, new_provenance, record_filter, record_notes
from tissue_counterfactuals.sources import files_by_sample
from tissue_counterfactuals.sources.columns import write_texts
from tissue_counterfactuals.sources.folders import sample_names
from tissue_counterfactuals.sources.genes import are_genes, tell_left_out, unique_symbols
from tissue_counterfactuals.sources.headers import require_label, require_samples
from tissue_counterfactuals.sources.ids import COSMX_CELL, check_ids, id_columns, name_cells, slide_numbers
from tissue_counterfactuals.sources.labels import tidy_labels
from tissue_counterfactuals.sources.places import check_places, may_tell_sections, sections_of
from tissue_counterfactuals.sources.stored import note
from tissue_counterfactuals.sources.text_tables import column_names, read_table

# Share of the cells of a matrix that may lack a row of another file before the two cannot be of the same run.
_MAX_MISSING = 0.1

# What a cell is called where nobody has labelled the cells, because not every experiment needs labels.
CONSTANT_LABELS = {"cell_type": "cell", "domain": "tissue"}


@dataclass
class Sample:
    """One sample as read, not yet filtered.

    Attributes:
        counts: (cells, genes) CSR float32.
        genes: symbols, (genes,).
        cells: index = ids within the sample; columns x and y in micrometres, and any label columns.
        filters: name of each filter gone through, with shapes before and after.
        stored: shape as stored, before all filters.
        notes: what was decided on the way, a sentence each.
        unit_measured: the unit of the coordinates was measured in the data, so that it needs no further proof.
        placed_in: file that the coordinates come from, where it is not that of the counts.
        cell_area_um2: median area of a cell, if the files say it.
        gene_ids: Ensembl id of each gene, (genes,), if the files say it.
    """

    counts: sp.csr_matrix
    genes: np.ndarray
    cells: pd.DataFrame
    filters: list[tuple[str, tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unit_measured: bool = False
    stored: tuple[int, int] | None = None
    placed_in: Path | None = None
    cell_area_um2: float | None = None
    gene_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.stored = self.stored or self.counts.shape

    def keep_cells(self, mask: np.ndarray, name: str) -> None:
        """Drop cells outside the mask (cells,), and record it under this name if there are any."""
        if mask.all():
            return
        before = self.counts.shape
        self.counts, self.cells = self.counts[mask], self.cells[mask]
        self.filters.append((name, before, self.counts.shape))

    def keep_genes(self, types: np.ndarray | None = None) -> None:
        """Drop features that are no genes, and record it if there are any; `types` (genes,) as in `are_genes`."""
        mask = are_genes(self.genes, types)
        if mask.all():
            return
        before = self.counts.shape
        self.notes += tell_left_out(self.genes, mask)
        self.counts, self.genes = self.counts[:, mask], self.genes[mask]
        self.gene_ids = None if self.gene_ids is None else self.gene_ids[mask]
        self.filters.append(("features that are genes", before, self.counts.shape))


def read_bundles(
    files: dict[str, Path],
    dataset: dict,
    samples: list[str] | None,
    read_sample: Callable[[dict[str, Path], dict], Sample],
    constants: dict[str, str] = CONSTANT_LABELS,
    prefix: bool = False,
) -> AnnData:
    """Read the samples of a data set one after the other into one slide.

    Args:
        files: as in the table of readers.
        read_sample: the files of one sample by role, and the entry, to the sample.
        constants: label of every cell, where there is no column for it.
        prefix: put the sample before the ids, for layouts in which samples share their ids; where files are given
            by sample, it always stands there, so that the ids do not depend on how many samples are read.
    Returns:
        A slide that `check_slide` has passed.
    Raises:
        InputError: what any of the samples says, or a sample that is not there.
    """
    by_sample = files_by_sample(files)
    names = sample_names(by_sample, "matrix")
    require_samples(f"folder {dataset.get('path')}", samples, list(names.values()), "which is not there")
    chosen = {key: name for key, name in names.items() if samples is None or name in samples}
    read = {name: read_sample(by_sample[key], dataset) for key, name in chosen.items()}
    paths = {f"{name}/{role}": p for key, name in chosen.items() for role, p in by_sample[key].items()}
    named = "" not in names
    return make_bundle_slide(read, dataset, paths, constants=constants, prefix=prefix or named, by_sample=named)


def make_bundle_slide(
    samples: dict[str, Sample],
    dataset: dict,
    paths: dict[str, Path],
    master: str = "matrix",
    constants: dict[str, str] = CONSTANT_LABELS,
    prefix: bool = False,
    by_sample: bool = False,
) -> AnnData:
    """Label and check samples that have been read, and stack them into one slide with its provenance.

    Args:
        samples: name -> sample.
        paths: "name/role" -> file, all that were read.
        by_sample: the file of labels tells samples apart, by a column or by ids that begin with the sample.
    Other arguments and errors as `read_bundles`.
    """
    provenance = new_provenance(str(dataset.get("path") or dataset.get("files")))
    in_file = {name: sample.stored[0] for name, sample in samples.items()}
    n_genes = max(sample.stored[1] for sample in samples.values())
    note(provenance, "in_file", {"cells": in_file, "genes": n_genes})
    notes = []
    for name, sample in samples.items():
        path = paths[f"{name}/{master}"]
        check_places(
            sample.cells[["x", "y"]].to_numpy(dtype=np.float64),
            f"file {sample.placed_in or path}",
            sample.unit_measured or dataset.get("unit_um") is not None,
            sample.cell_area_um2,
            sections_of(sample.cells.drop(columns=_named(dataset), errors="ignore")),
            mend="give each section a file, or a region, of its own, or rename the column if it tells something else",
        )
        _label_cells(sample, name, dataset, constants, by_sample)
        sample.genes = unique_symbols(pd.Index(sample.genes), provenance, f"file {path}").to_numpy()
        sample.cells["sample"] = name
        if prefix:
            sample.cells.index = f"{name}_" + sample.cells.index
        for step, before, after in sample.filters:
            record_filter(provenance, f"{name}: {step}", before, after)
        notes += [f"{name}: {line}" for line in sample.notes]
    digests = {path: _digest(path) for path in dict.fromkeys(paths.values())}
    _refuse_copies({paths[f"{name}/{master}"]: name for name in samples}, digests)
    listed = json.dumps({key: digests[path] for key, path in paths.items()}, sort_keys=True)
    provenance["sha256"] = hashlib.sha256(listed.encode()).hexdigest()
    note(provenance, "files", listed)
    record_notes(provenance, notes)
    slide = _stack(list(samples.values()), provenance)
    check_slide(slide, ", ".join(samples))
    return slide


def _named(dataset: dict) -> list[str]:
    """The columns that the entry names."""
    return [name for name in (dataset.get("columns") or {}).values() if name]


def join(
    sample_ids: pd.Index, table: pd.DataFrame, matrix: Path, path: Path, notes: list[str], same_cells: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of a table (index = ids) that belong to the rows of a matrix, whatever their order.

    Args:
        notes: where a sentence goes about rows that are left out, and about another order.
        same_cells: the layout gives both the same cells, so that many more rows mean a matrix that is cut short.
    Returns:
        The table in the order of the matrix, rows of NaN where it has none; mask (rows of the matrix,) of those that
        it has.
    Raises:
        InputError: an id occurs twice in either, or more than a tenth of the matrix has no row.
    """
    for ids, file in ((sample_ids, matrix), (table.index, path)):
        if not len(ids):
            raise InputError(f"file {file}: it has no rows; it is cut short, fetch it again.")
        check_ids(ids, f"file {file}")
    place = table.index.get_indexer(sample_ids)
    found = place >= 0
    if not found.any():
        raise InputError(
            f"file {path}: none of its ids ({table.index[0]!r}, ...) is one of {matrix} ({sample_ids[0]!r}, ...); "
            "use the two files of the same run."
        )
    if (missing := (~found).mean()) > _MAX_MISSING:
        raise InputError(
            f"file {path}: it has no row for {(~found).sum()} of the {len(found)} ids of {matrix} ({missing:.0%}, the "
            f"first is {sample_ids[found.argmin()]!r}); it is cut short or of another run, fetch it again."
        )
    notes.append(f"{found.sum()} of the {len(found)} ids of {matrix.name} stand in {path.name}")
    extra = len(table) - int(found.sum())
    if same_cells and extra > _MAX_MISSING * len(table):
        raise InputError(
            f"file {matrix}: it has no row for {extra} of the {len(table)} ids of {path} ({extra / len(table):.0%}); "
            "it is cut short or of another run, fetch it again."
        )
    if extra:
        notes.append(f"{extra} rows of {path.name} belong to no row of {matrix.name} and were left out")
    if (np.diff(place[found]) < 0).any():
        notes.append(f"{path.name} stood in another order than {matrix.name}; joined by id")
    return table.reindex(sample_ids), found


def read_cells(path: Path, dataset: dict, x: str, y: str, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """A table of one row per cell: ids as index, columns x and y, those of the configuration that it has, and `more`.

    Args:
        x, y, more: columns of numbers; of `more`, those that are there.
    """
    present = column_names(path)
    ids = id_columns(present, path)
    labels = [name for name in _named(dataset) if name in present]
    labels += [name for name in present if may_tell_sections(name) and name not in labels]
    labels += [COSMX_CELL] * (COSMX_CELL in present and COSMX_CELL not in labels)
    more = [name for name in more if name in present]
    table = read_table(path, texts=tuple(dict.fromkeys([*ids, *labels])), numbers=(x, y, *more))
    table.index = name_cells(table[list(ids)], path)
    table = table[table.index.notna()].rename(columns={x: "x", y: "y"})
    return table[["x", "y", *labels, *more]]


def refuse_fractions(counts: sp.csr_matrix, ids: pd.Index, genes: np.ndarray, path: Path) -> None:
    """Raise where a stored value of counts (cells, genes) is no whole number of at least 0.

    Raises:
        InputError: with the first such cell and gene.
    """
    data = counts.data
    good = (data >= 0) & (data < np.inf) & (data == np.rint(data))
    if good.all():
        return
    first = int(good.argmin())
    cell = ids[np.searchsorted(counts.indptr, first, side="right") - 1]
    raise InputError(
        f"file {path}: cell {cell!r}, gene {genes[counts.indices[first]]!r} has the value {data[first]:g}, but raw "
        "counts are whole numbers; use the matrix as the instrument wrote it, not a normalised one."
    )


def _label_cells(sample: Sample, name: str, dataset: dict, constants: dict[str, str], by_sample: bool) -> None:
    """Give the cells their type and domain: from the file of labels, from the bundle itself, or a constant."""
    where, columns = f"sample {name!r}", dataset.get("columns") or {}
    wanted = {label: columns.get(label) or label for label in constants}
    table = pd.DataFrame()
    if dataset.get("labels"):
        table = _read_label_file(Path(dataset["labels"]), wanted, columns.get("sample"), name)
        # Samples may share their ids, so that without a column for it the id itself must tell the sample.
        prefix = f"{name}_" if by_sample and not columns.get("sample") else ""
        found = (prefix + sample.cells.index).isin(table.index)
        if not found.any():
            first = f" ({table.index[0]!r}, ...)" if len(table) else ""
            raise InputError(
                f"file {dataset['labels']}: none of its ids{first} is a cell of {where} "
                f"({prefix + sample.cells.index[0]!r}, ...); give the ids as the bundle has them."
            )
        _refuse_other_slide(sample, table.attrs["slides"], where, dataset)
        n, file = int(found.sum()), Path(dataset["labels"]).name
        own = int(table.index.str.startswith(prefix).sum())
        if 2 * n < min(len(found), own):
            raise InputError(
                f"file {dataset['labels']}: only {n} of its {own} ids are among the {len(found)} cells of {where}, so "
                "that it seems to be of another run; use the labels of these cells."
            )
        sample.notes.append(f"{n} of the {len(found)} cells have a row in {file}, which has {own}")
        table = table.reindex(prefix + sample.cells.index)
    for label, column in wanted.items():
        if column in table:
            sample.cells[label] = tidy_column(table[column], column, sample.notes).to_numpy()
        elif column in sample.cells:
            sample.cells[label] = tidy_column(sample.cells[column], column, sample.notes)
        else:
            require_label(label, dataset, list(sample.cells.columns.drop(["x", "y"])), where)
            sample.cells[label] = constants[label]
            sample.notes.append(f"no column {column!r}: every cell has the {label} {constants[label]!r}")
    sample.cells = sample.cells[["x", "y", *wanted]]
    for label in wanted:
        given = sample.cells[label].notna().to_numpy()
        if not given.any():
            raise InputError(f"{where}: no cell has a {label}; check columns.{label} and labels.")
        sample.keep_cells(given, f"{label} given")


def _refuse_other_slide(sample: Sample, slides: set[str], where: str, dataset: dict) -> None:
    """Raise where ids of CosMx are of other slides than the cells: each slide numbers its fields and cells anew.

    Args:
        slides: numbers of slides in the ids of the labels.
    Raises:
        InputError: the numbers differ, or the labels are of several slides.
    """
    own = slide_numbers(sample.cells[COSMX_CELL]) if COSMX_CELL in sample.cells else set()
    if len(slides) > 1 or (own and slides and own != slides):
        raise InputError(
            f"file {dataset['labels']}: its ids (c_SLIDE_FOV_CELL) are of slide {', '.join(sorted(slides))}"
            f"{', those of ' + where + ' of slide ' + ', '.join(sorted(own)) if own else ''}, and every slide numbers "
            "its cells alike; give the labels of this slide alone, or name the column of samples under columns.sample."
        )


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _read_label_file(path: Path, wanted: dict[str, str], sample_column: str | None, name: str) -> pd.DataFrame:
    """Labels of one sample by cell id, missing ones NaN."""
    names = column_names(path)
    ids = id_columns(names, path)
    texts = [column for column in dict.fromkeys(wanted.values()) if column in names]
    for label, column in wanted.items():
        # Taken for absent, it would make all cells one type or one domain.
        alike = [other for other in names if column not in names and _letters(other) == _letters(column)]
        if alike:
            raise InputError(
                f"file {path}: it has no column {column!r}, and {alike[0]!r} is much like it; name it under "
                f"columns.{label}."
            )
    if not texts:
        raise InputError(
            f"file {path}: it has neither a column {wanted['cell_type']!r} nor {wanted['domain']!r}, it has "
            f"{', '.join(names)}; name its columns under columns.cell_type and columns.domain."
        )
    columns = dict.fromkeys([*ids, *texts, *filter(None, [sample_column])])
    table = read_table(path, texts=tuple(columns))
    table.index = name_cells(table[list(ids)], path)
    if sample_column:
        table = table[tidy_column(table[sample_column], sample_column, []) == name]
    check_ids(table.index, f"file {path}")
    table.attrs["slides"] = slide_numbers(table[ids[0]])
    return table


def tidy_column(column: pd.Series, what: str, notes: list[str]) -> pd.Series:
    """Labels (n,) as text, cleaned by the rule of all layouts (`tidy_labels`); missing ones NaN. What was changed goes
    into `notes`, where `what` is the column's name.
    """
    codes, values = pd.factorize(column)
    codes, labels = tidy_labels(codes, write_texts(np.asarray(values)), what, notes)
    return pd.Series(np.array([*labels, np.nan], dtype=object)[codes], index=column.index)


def _refuse_copies(masters: dict[Path, str], digests: dict[Path, str]) -> None:
    """Raise where the counts of two samples are one and the same file under two names: its cells would count twice.

    Raises:
        InputError: with the two files.
    """
    first: dict[str, Path] = {}
    for path in masters:
        other = first.setdefault(digests[path], path)
        if other != path:
            raise InputError(
                f"file {path}: it is the same as {other}, so that samples {masters[other]!r} and {masters[path]!r} "
                "are one; remove the copy, or list the samples to use under samples."
            )


def _stack(samples: list[Sample], provenance: dict) -> AnnData:
    """One slide of all samples, over the genes that all have, in the order of the first.

    A name that has another Ensembl id in another sample is another gene there, and is left out: of a symbol that occurs
    twice, the order in the file says which gets the number.
    """
    genes = samples[0].genes
    n_cells = sum(len(sample.cells) for sample in samples)
    for what, differ in (("genes of all samples", _absent), ("genes with one id in all samples", _of_another_id)):
        kept = ~np.any([differ(genes, samples[0], sample) for sample in samples], axis=0)
        if not kept.all():
            record_filter(provenance, what, (n_cells, len(genes)), (n_cells, int(kept.sum())))
        genes = genes[kept]
    counts = []
    for sample in samples:
        place = pd.Index(sample.genes).get_indexer(genes)
        same = np.array_equal(place, np.arange(len(sample.genes)))
        counts.append(sample.counts if same else sample.counts[:, place])
    cells = pd.concat([sample.cells for sample in samples])
    return make_slide(
        counts[0] if len(counts) == 1 else sp.vstack(counts, format="csr"),
        cells[["cell_type", "domain", "sample"]],
        pd.Index(genes),
        cells[["x", "y"]].to_numpy(),
        provenance,
    )


def _absent(genes: np.ndarray, first: Sample, sample: Sample) -> np.ndarray:
    return ~np.isin(genes, sample.genes)


def _of_another_id(genes: np.ndarray, first: Sample, sample: Sample) -> np.ndarray:
    if first.gene_ids is None or sample.gene_ids is None:
        return np.zeros(len(genes), dtype=bool)
    # Without the version of the annotation: ENSG00000141510.17. Some tools write symbols in the place of ids.
    ids = [pd.Series(one.gene_ids, index=one.genes)[genes].str.split(".").str[0] for one in (first, sample)]
    known = np.all([own.str.fullmatch(r"ENS[A-Z]*G\d+") for own in ids], axis=0)
    return known & (ids[0] != ids[1]).to_numpy()


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and sums of all files below a folder."""
    if path.is_file():
        return digest(path)
    found = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        found.update(f"{file.relative_to(path)} {digest(file)}\n".encode())
    return found.hexdigest()
