"""A user's own h5ad file to a slide; only the wanted rows are read, and the counts stay sparse."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import digest
from tissue_counterfactuals.sources.columns import feature_names, find_coordinates, open_h5ad, pick, read_labels
from tissue_counterfactuals.sources.hdf5 import attribute
from tissue_counterfactuals.sources.headers import require_samples
from tissue_counterfactuals.sources.labels import refuse_ids

if TYPE_CHECKING:
    from anndata import AnnData

    from tissue_counterfactuals.sources.stored import StoredSlide

# Name, or beginning of the names, of what a simulated slide carries so that its truth can be computed.
_TRUTH = "simulation"


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The names of the genes of X, or of `.raw` where the counts are there."""
    return feature_names(files["h5ad"], "raw/var" if dataset["layer"] == "raw" else "var")


def samples(files: dict[str, Path], dataset: dict) -> list[str]:
    """Values of the sample column that cells have, in the file's order.

    Raises:
        InputError: no such column, or no value in it.
    """
    path, column = files["h5ad"], dataset["columns"]["sample"]
    where = f"file {path}"
    with open_h5ad(path) as file:
        codes, categories = read_labels(pick(file["obs"], column, where, "obs column", "columns.sample"))
    used = set(codes.tolist())
    found = [category for code, category in enumerate(categories) if code in used]
    if not found:
        raise InputError(f"{where}: no cell has a value in obs column {column!r} (key columns.sample).")
    refuse_ids(len(found), len(codes), f"obs column {column!r} (key columns.sample)", where)
    return found


def absent(files: dict[str, Path], dataset: dict) -> list[str]:
    """What an entry names and the header of its file has not, each in the sentence of the reader.

    Whether the coordinates are in their unit, all of them must be read to tell: `stored` does.

    Raises:
        InputError: the file cannot be opened, or is no h5ad.
    """
    where, faults = f"file {files['h5ad']}", []
    columns = {f"columns.{label}": column for label, column in dataset["columns"].items() if column}
    with open_h5ad(files["h5ad"]) as file:
        obs = file["obs"]
        ids = obs[attribute(obs, "_index", "_index")]
        if isinstance(ids, h5py.Group):
            ids = ids["codes" if "codes" in ids else "values"]
        n_cells = ids.size
        looks = [partial(pick, obs, column, where, "obs column", key) for key, column in columns.items()]
        looks += [
            partial(pick, obs, name, where, "obs column", "keep_columns") for name in dataset["keep_columns"] or ()
        ]
        looks.append(partial(_find_counts, file, dataset["layer"], where))
        looks.append(partial(find_coordinates, file, dataset["spatial"], n_cells, where))
        for look in looks:
            try:
                look()
            except InputError as error:
                faults.append(str(error))
    return faults


def stored(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> StoredSlide:
    """The slide with its counts still in the file.

    Cells without a type or domain are dropped and counted in the provenance. The truth of a simulated slide
    (uns["simulation"] and all that is called simulation_*) is kept; other extras are left behind.

    Args:
        dataset: the data set's section of the configuration.
        samples: values of the sample column to keep; None keeps all.
    Raises:
        InputError: something named is missing (with what there is), or the data break the contract.
    """
    from tissue_counterfactuals.slide import new_provenance
    from tissue_counterfactuals.sources.stored import note, read_column, read_coordinates, read_index, store

    path, layer, unit_um = files["h5ad"], dataset["layer"], dataset["unit_um"]
    columns = {label: dataset["columns"][label] for label in ("cell_type", "domain", "sample")}
    where = f"file {path}"
    with open_h5ad(path) as file:
        checksum = check_sha256(path, dataset["sha256"])
        provenance = new_provenance(dataset["path"] or str(path), checksum)
        labels = _read_labels(file, columns, where, Path(path).stem, provenance)
        for name in dataset["keep_columns"] or ():
            labels[name] = read_column(file["obs"], name, where, "keep_columns", provenance)
        key, var = _find_counts(file, layer, where)
        genes, types = read_index(var), None
        if "feature_types" in var:
            types = read_column(var, "feature_types", where, "layer")
        coordinates = read_coordinates(file, dataset["spatial"], len(labels), where) * float(unit_um or 1)
        named = {*columns.values(), *(dataset["keep_columns"] or ())}
        _check_places(file, named, labels["sample"], samples, coordinates, unit_um, where)
        if isinstance(file.get("uns/provenance"), h5py.Group):
            note(provenance, "upstream", _upstream(file["uns/provenance"]))
        keep = _choose_cells(labels, columns, samples, len(genes), provenance, where)
        slide = store(path, key, keep, labels[keep], genes, coordinates[keep], provenance, where, types)
        if layer != "raw" and f"uns/{_TRUTH}" in file:
            try:
                _copy_truth(file, slide.frame, np.flatnonzero(keep))
            except Exception as error:
                # Another program's, under the same name: nothing here needs it.
                note(provenance, _TRUTH, f"not readable ({type(error).__name__})")
    return slide


def _upstream(group: h5py.Group) -> str:
    """A provenance that stood in the file, as JSON; it may be somebody else's, of any content."""
    from anndata.io import read_elem

    try:
        return json.dumps(read_elem(group), default=str)
    except Exception as error:
        return json.dumps(f"not readable ({type(error).__name__})")


def check_sha256(path: str | Path, expected: str | None) -> str:
    """The SHA-256 of a file.

    Raises:
        InputError: another one is configured.
    """
    checksum = digest(path)
    if expected not in (None, checksum):
        raise InputError(
            f"file {path}: its SHA-256 is {checksum}, but {expected} is configured; use the right file or correct "
            "sha256."
        )
    return checksum


def _read_labels(
    file: h5py.File, columns: dict[str, str | None], where: str, name: str, provenance: dict
) -> pd.DataFrame:
    """Cell ids (index) and labels, categorical, of all cells."""
    from tissue_counterfactuals.sources.stored import read_column, read_index

    labels = pd.DataFrame(index=read_index(file["obs"]))
    for label, column in columns.items():
        if column is None:
            labels[label] = pd.Categorical([name] * len(labels))
        else:
            labels[label] = read_column(file["obs"], column, where, f"columns.{label}", provenance)
    return labels


def _check_places(file, named, sample, samples, places, unit_um, where) -> None:
    """`check_places` for each sample that is read, of all its cells; columns that nobody names may tell sections."""
    from tissue_counterfactuals.sources.places import check_places, may_tell_sections, nearest_distance

    others = [name for name in file["obs"] if may_tell_sections(name) and name not in named]
    sections = {name: read_labels(file["obs"][name])[0] for name in others}
    area = _cell_area(file["obs"])
    for name in sample.cat.categories if samples is None else samples:
        own = np.asarray(sample == name)
        parts = {column: codes[own] for column, codes in sections.items()}
        check_places(places[own], where, unit_um is not None, area, parts)
        for pixels, um_per_pixel in () if unit_um else _spots_in_pixels(file):
            nearest = nearest_distance(places[own])
            if abs(nearest / pixels - 1) < 0.05 < abs(um_per_pixel - 1):
                raise InputError(
                    f"{where}: cells lie as far apart as spot_diameter_fullres in uns says in pixels ({pixels:.4g}), "
                    f"so the coordinates are in pixels; set unit_um to {um_per_pixel:.5g}, the microns_per_pixel there."
                )


def _cell_area(obs: h5py.Group) -> float | None:
    """Median of the column that Xenium has for it, in square micrometres whatever the coordinates are in."""
    stored = obs.get("cell_area")
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
        return None
    areas = stored[:]
    return float(np.median(areas[areas > 0])) if (areas > 0).any() else None


def _spots_in_pixels(file: h5py.File) -> list[tuple[float, float]]:
    """Width of a bin in pixels, and micrometres per pixel, of each library of Visium HD that the file tells of."""
    libraries = file.get("uns/spatial")
    scales = [lib["scalefactors"] for lib in getattr(libraries, "values", list)() if "scalefactors" in lib]
    keys = ("spot_diameter_fullres", "microns_per_pixel")
    return [tuple(float(scale[key][()]) for key in keys) for scale in scales if all(key in scale for key in keys)]


def _choose_cells(
    labels: pd.DataFrame,
    columns: dict[str, str | None],
    samples: list[str] | None,
    n_genes: int,
    provenance: dict,
    where: str,
) -> np.ndarray:
    """Mask of the cells to read; what is left out goes into the provenance."""
    from tissue_counterfactuals.slide import record_filter
    from tissue_counterfactuals.sources.stored import keep_given

    keep = np.ones(len(labels), dtype=bool)
    if samples is not None:
        fault = f"which no cell has in column {columns['sample']!r}"
        require_samples(where, samples, labels["sample"].cat.categories, fault)
        keep &= labels["sample"].isin(samples).to_numpy()
        record_filter(provenance, "chosen samples", (len(keep), n_genes), (keep.sum(), n_genes))
    given = {label: labels[label] for label in ("sample", "cell_type", "domain")}
    keep = keep_given(keep, given, n_genes, provenance)
    if not keep.any():
        raise InputError(
            f"{where}: no cell has both a cell type (column {columns['cell_type']!r}) and a domain (column "
            f"{columns['domain']!r}); check columns and samples."
        )
    return keep


def _find_counts(file: h5py.File, layer: str | None, where: str) -> tuple[str, h5py.Group]:
    """Where the matrix of counts is, and the gene table that belongs to it."""
    if layer == "raw":
        raw = pick(file, "raw", where, "part", "layer")
        pick(raw, "X", where, "matrix in raw", "layer")
        return "raw/X", pick(raw, "var", where, "table in raw", "layer")
    if layer is not None:
        pick(file.get("layers"), layer, where, "layer", "layer")
        return f"layers/{layer}", file["var"]
    # A file without counts of its own has no X, or one that is there and empty.
    if "X" not in file or getattr(file["X"], "shape", ()) is None:
        raise InputError(
            f"{where}: it has no X; key layer must say where the raw counts are (layers: "
            f"{', '.join(sorted(file.get('layers', ()))) or 'none'}; raw: {'there' if 'raw' in file else 'not there'})."
        )
    return "X", file["var"]


def _copy_truth(file: h5py.File, frame: AnnData, rows: np.ndarray) -> None:
    """Carry over what the truth of a simulated slide needs; genes are those of X, cells the rows kept."""
    from anndata.io import read_elem

    frame.uns[_TRUTH] = read_elem(file["uns"][_TRUTH])
    for part in ("obs", "var", "obsm", "varm"):
        table = getattr(frame, part)
        for name in [n for n in file.get(part, ()) if n.startswith(_TRUTH)]:
            value = read_elem(file[part][name])
            table[name] = value[rows] if part in ("obs", "obsm") else value
