"""A slide whose counts still lie in its file, and the parts that h5ad files of every layout have in common."""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import check_slide, make_slide, record_filter, record_notes
from tissue_counterfactuals.sources.columns import find_coordinates, pick, read_labels, read_texts
from tissue_counterfactuals.sources.counts import Counts, FileCounts, MemoryCounts, StackedCounts
from tissue_counterfactuals.sources.genes import are_genes, tell_left_out
from tissue_counterfactuals.sources.hdf5 import attribute, read_flat
from tissue_counterfactuals.sources.places import check_places

# Entries that are few enough to be held at once (1 GB with their indices).
_FEW = 1 << 27


@dataclass
class StoredSlide:
    """All of a slide but its counts, and where these are.

    Attributes:
        frame: the slide without X.
        counts: its counts, in the order of its cells and genes.
    """

    frame: AnnData
    counts: Counts

    @property
    def where(self) -> str:
        """What messages call the file."""
        return self.counts.where

    def take(self, cells: np.ndarray, genes: np.ndarray) -> AnnData:
        """Some cells (n,) bool and genes (g,) bool as a slide in memory."""
        frame = self.frame[cells, genes]
        slide = make_slide(
            self.counts.take(cells, genes),
            frame.obs,
            frame.var_names,
            frame.obsm["spatial"],
            dict(frame.uns["provenance"]),
        )
        # What else a slide carries, such as the truth of a simulated one.
        slide.var = frame.var.copy()
        for part in ("uns", "obsm", "varm"):
            for key, value in getattr(frame, part).items():
                if key not in getattr(slide, part):
                    getattr(slide, part)[key] = value.copy() if hasattr(value, "copy") else value
        return slide

    def settle(self) -> "StoredSlide":
        """The same slide with its counts in memory where they are few enough: then the file is read once only."""
        if isinstance(self.counts, MemoryCounts) or self.counts.count_entries() > _FEW:
            return self
        return in_memory(self.load())

    def load(self) -> AnnData:
        """The whole slide, in memory and checked.

        Raises:
            InputError: it breaks the contract.
        """
        slide = self.take(*(np.ones(n, dtype=bool) for n in self.frame.shape))
        check_slide(slide, self.where.removeprefix("file "))
        return slide


def in_memory(slide: AnnData) -> StoredSlide:
    """The same form for a slide that has been read already."""
    parts = {part: dict(getattr(slide, part)) for part in ("uns", "obsm", "varm")}
    frame = AnnData(obs=slide.obs, var=slide.var, **parts)
    where = f"slide {slide.uns['provenance'].get('source', '')}"
    return StoredSlide(frame, MemoryCounts(slide.X, slide.obs_names, slide.var_names, where))


def store(
    path: str | Path,
    key: str,
    keep: np.ndarray,
    labels: pd.DataFrame,
    genes: pd.Index,
    coordinates_um: np.ndarray,
    provenance: dict,
    where: str,
    types: pd.Categorical | None = None,
) -> StoredSlide:
    """Some rows of a file as a stored slide, without features that are no genes.

    Args:
        key: where the counts are, for example "X" or "raw/X".
        keep: (stored rows,) bool.
        labels, coordinates_um: of the kept rows only.
        genes: (g,) of all columns; `types` of them as in `are_genes`.
    """
    for sample in labels["sample"].unique():
        check_places(coordinates_um[labels["sample"] == sample], where, unit_given=True, published=True)
    counts = FileCounts(path, key, labels.index, genes, keep, where)
    # Symbols that are there twice are refused when the slide is checked.
    if genes.is_unique and not (mask := keep_genes(genes, types, len(labels), provenance)).all():
        genes = genes[mask]
        counts = StackedCounts([counts], genes, where)
    frame = AnnData(
        obs=_clean(labels), var=pd.DataFrame(index=pd.Index(genes, dtype=str)), uns={"provenance": provenance}
    )
    frame.obsm["spatial"] = np.asarray(coordinates_um, dtype=np.float64)
    return StoredSlide(frame, counts)


def stack(slides: list[StoredSlide], provenance: dict, where: str) -> StoredSlide:
    """Slides below each other, over the genes that all of them have, in the order of the first.

    Cell ids get their sample before them. What is not shared is written into the provenance.

    Raises:
        InputError: they have no gene in common.
    """
    genes = slides[0].frame.var_names
    for slide in slides[1:]:
        genes = genes[genes.isin(slide.frame.var_names)]
    if not len(genes):
        raise InputError(f"{where}: the slides have no gene in common; use files of one panel.")
    tables = []
    for slide in slides:
        obs = slide.frame.obs.astype(dict.fromkeys(slide.frame.obs, str))
        obs.index = obs["sample"] + "_" + obs.index
        tables.append(obs)
        slide.counts.cells = obs.index
        shape = slide.frame.shape
        if len(genes) < shape[1]:
            record_filter(provenance, "genes of all slides", shape, (shape[0], len(genes)))
    frame = AnnData(obs=_clean(pd.concat(tables)), var=pd.DataFrame(index=genes), uns={"provenance": provenance})
    frame.obsm["spatial"] = np.concatenate([slide.frame.obsm["spatial"] for slide in slides])
    return StoredSlide(frame, StackedCounts([slide.counts for slide in slides], genes, where))


def read_index(table: h5py.Group) -> pd.Index:
    """The index of obs or var, as text."""
    return pd.Index(read_texts(table[attribute(table, "_index", "_index")]))


def read_column(table: h5py.Group, name: str, where: str, key: str, provenance: dict | None = None) -> pd.Categorical:
    """A column of obs or var as categorical text, whatever its encoding; `key` is the configuration key to mend.

    What was changed or taken for missing goes into the notes of `provenance`.
    """
    what, notes = f"{table.name.rsplit('/', 1)[-1]} column", []
    codes, categories = read_labels(pick(table, name, where, what, key), name, notes)
    if provenance is not None:
        record_notes(provenance, notes)
    return pd.Categorical.from_codes(codes, categories)


def read_coordinates(file: h5py.File, name: str, n_cells: int, where: str, key: str = "spatial") -> np.ndarray:
    """An array of obsm (cells, 2) as float64, in the file's unit."""
    return find_coordinates(file, name, n_cells, where, key)[:].astype(np.float64)


def read_numbers(obs: h5py.Group, name: str, where: str) -> np.ndarray:
    """A column of obs (cells,) that holds numbers, float64.

    Raises:
        InputError: it is not there, or holds something else.
    """
    stored = pick(obs, name, where, "obs column", "source")
    if not isinstance(stored, h5py.Dataset) or not np.issubdtype(stored.dtype, np.number):
        raise InputError(f"{where}: the obs column {name!r} holds no numbers; use the file as it was published.")
    return read_flat(stored).astype(np.float64)


def keep_genes(genes: pd.Index, types: pd.Categorical | None, n_cells: int, provenance: dict) -> np.ndarray:
    """Mask (features,) of those that are genes; what is left out is recorded as a filter and named in the notes."""
    mask = are_genes(genes, types)
    if not mask.all():
        record_notes(provenance, tell_left_out(genes, mask))
        record_filter(provenance, "features that are genes", (n_cells, len(mask)), (n_cells, mask.sum()))
    return mask


def keep_given(keep: np.ndarray, columns: dict[str, pd.Categorical], n_genes: int, provenance: dict) -> np.ndarray:
    """Drop cells without a value in some columns, one column after the other, each recorded as a filter.

    Args:
        keep: (cells,) bool, kept so far.
    Returns:
        The new mask.
    """
    for name, column in columns.items():
        kept = keep & ~pd.isna(column)
        if kept.sum() < keep.sum():
            record_filter(provenance, f"{name} given", (keep.sum(), n_genes), (kept.sum(), n_genes))
        keep = kept
    return keep


def note(provenance: dict, name: str, value: object) -> None:
    """Write something that was found or decided into a provenance: text as it is, anything else as JSON."""
    provenance[name] = value if isinstance(value, str) else json.dumps(value)


def _clean(labels: pd.DataFrame) -> pd.DataFrame:
    """Categorical columns without unused categories."""
    return labels.apply(lambda column: column.astype("category").cat.remove_unused_categories())
