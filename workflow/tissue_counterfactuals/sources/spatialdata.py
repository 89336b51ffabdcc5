"""SpatialData zarr store: the counts of one of its tables, and the places of the elements that the table annotates."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.hdf5 import Malformed, check_indices, check_indptr

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    import zarr
    from anndata import AnnData

# Stored entries of a matrix read at once.
_BLOCK = 1 << 23
# How far distances in obsm and in the shapes may differ, as by cells that only one of them has.
_UNIT_TOLERANCE = 0.2


def locate(folder: Path) -> dict[str, Path]:
    """The store itself, or one of its tables (store.zarr/tables/NAME)."""
    return {"zarr": folder}


def samples(files: dict[str, Path], dataset: dict) -> list[str]:
    """The regions that the table annotates, or the store where it annotates none.

    Raises:
        InputError: there is no such table, or a region is called by a path.
    """
    path = Path(files["zarr"])
    folder = _table_folder(path)
    region = _open_table(folder).attrs.get("region")
    if region is None:
        return [path.stem]
    regions = [region] if isinstance(region, str) else [str(name) for name in region]
    for name in regions:
        # An element is looked for by this name: it must not lead out of the store.
        if Path(name).name != name or name == "..":
            raise InputError(
                f"file {folder}: its region {name!r} is no name of an element but a path; rename it in the store."
            )
    return regions


def absent(files: dict[str, Path], dataset: dict) -> list[str]:
    """The array of coordinates, where the entry names one that the table has not, in the sentence of the reader."""
    folder = _table_folder(Path(files["zarr"]))
    try:
        _array_of_places(_open_table(folder), dataset, folder)
    except InputError as error:
        return [str(error)]
    return []


def cells(files: dict[str, Path], dataset: dict, enough: int) -> dict[str, int]:
    """Rows of each region that the table annotates, or of the table where there is one region at most."""
    table = _open_table(_table_folder(Path(files["zarr"])))
    obs, present = table["obs"], _regions(files, dataset)
    if len(present) == 1:
        return {present[0]: _names(obs)[0].size}
    import numpy as np

    # Not by anndata, which is slow to import.
    column = obs[table.attrs["region_key"]]
    if "codes" in column:
        codes, names = column["codes"][:], [str(name) for name in column["categories"][:]]
        sizes = dict(zip(names, np.bincount(codes[codes >= 0], minlength=len(names)).tolist(), strict=True))
    else:
        sizes = {region: int((column[:] == region).sum()) for region in present}
    return {region: sizes.get(region, 0) for region in present}


def genes(files: dict[str, Path], dataset: dict) -> list[str]:
    """The names of the genes of the table."""
    names, categories = _names(_open_table(_table_folder(Path(files["zarr"])))["var"])
    return [str(name) for name in (names[:] if categories is None else categories[:][names[:]])]


def _names(table: "zarr.Group") -> tuple["zarr.Array", "zarr.Array | None"]:
    """The index of obs or var, unread: names, or codes and the categories that they stand for."""
    stored = table[table.attrs["_index"]]
    if hasattr(stored, "ndim"):
        return stored, None
    return (stored["codes"], stored["categories"]) if "codes" in stored else (stored["values"], None)


def read(files: dict[str, Path], dataset: dict, samples: list[str] | None) -> "AnnData":
    """Read a table into a slide; each region that it annotates is a sample.

    Coordinates are the array `spatial` of obsm where the table has it. Otherwise they are the centres of the region's
    shapes, or its points, joined by instance, in the coordinate system in micrometres or else the global one, for
    which unit_um or the areas of the cells (`cell_area` of obs) must then tell the unit.

    Raises:
        InputError: the store is not whole, has no such table or places, their unit cannot be told, or the data break
            the contract.
    """
    import numpy as np

    from tissue_counterfactuals.sources.bundles import make_bundle_slide
    from tissue_counterfactuals.sources.headers import require_samples

    folder = _table_folder(Path(files["zarr"]))
    table = _open_table(folder)
    attributes = dict(table.attrs)
    present = _regions(files, dataset)
    require_samples(f"file {folder}", samples, present, "which is no region of the table")
    obs, var = _element(table, "obs", folder), _element(table, "var", folder)
    read, paths = {}, {}
    for region in present if samples is None else samples:
        own = np.ones(len(obs), dtype=bool)
        if attributes.get("region") is not None:
            own = (_key(obs, attributes, "region_key", folder) == region).to_numpy()
        if own.any():
            read[region] = _read_region(folder, table, obs, var, own, region, dataset)
            paths[f"{region}/table"] = folder
            if (shapes := folder.parents[1] / "shapes" / region).is_dir():
                paths[f"{region}/shapes"] = shapes
    if not read:
        raise InputError(f"file {folder}: no row of the table belongs to {', '.join(present)}; check samples.")
    return make_bundle_slide(read, dataset, paths, master="table")


_regions = samples


def _read_region(
    folder: Path,
    table: "zarr.Group",
    obs: "pd.DataFrame",
    var: "pd.DataFrame",
    own: "np.ndarray",
    region: str,
    dataset: dict,
):
    import numpy as np
    import pandas as pd

    from tissue_counterfactuals.sources import bundles, shapes
    from tissue_counterfactuals.sources.ids import check_ids

    cells = obs[own].copy()
    cells.index = cells.index.astype(str)
    check_ids(cells.index, f"file {folder}")
    genes = var.index.to_numpy(dtype=object)
    counts = _counts(table, own, dataset.get("layer"), folder)
    name = _array_of_places(table, dataset, folder)
    notes: list[str] = []
    found = np.ones(len(cells), dtype=bool)
    # Of Xenium, in square micrometres whatever the coordinates are in.
    area = float(pd.to_numeric(cells.get("cell_area", pd.Series()), errors="coerce").median())
    if name is not None:
        places = _element(table["obsm"], name, folder)[own]
        if getattr(places, "ndim", 0) != 2 or places.shape[1] < 2:
            raise InputError(
                f"file {folder}: obsm[{name!r}] is no array of x and y; name the array to use under spatial."
            )
        cells["x"], cells["y"] = np.asarray(places, dtype=np.float64)[:, :2].T
        notes.append(f"coordinates are obsm[{name!r}]")
        _compare_units(cells, folder, region, name, dataset)
    else:
        centres, system, in_microns = shapes.centres(folder.parents[1], region)
        instances = _key(cells, dict(table.attrs), "instance_key", folder)
        placed, found = bundles.join(
            instances.set_axis(instances).index, centres, folder, folder.parents[1] / "shapes" / region, notes
        )
        cells["x"], cells["y"] = placed["x"].to_numpy(), placed["y"].to_numpy()
        notes.append(f"coordinates are the centres of {region} in the coordinate system {system!r}")
        # Cells of dense tissue lie as many pixels apart as those of loose tissue micrometres: distances prove nothing.
        if not in_microns and not dataset.get("unit_um") and not area > 0:
            raise InputError(
                f"file {folder.parents[1]}: nothing says in what unit the coordinate system {system!r} of {region} is; "
                "set unit_um to the micrometres per unit (1 if it is in micrometres)."
            )
    cells[["x", "y"]] *= dataset.get("unit_um") or 1.0
    sample = bundles.Sample(counts, genes, cells, notes=notes, cell_area_um2=area if area > 0 else None)
    if len(own) > own.sum():
        shape = (len(own), len(genes))
        sample.filters.append((f"rows of the region {region}", shape, (int(own.sum()), len(genes))))
    sample.keep_genes(var.get("feature_types"))
    bundles.refuse_fractions(sample.counts, cells.index, sample.genes, folder)
    sample.keep_cells(found, f"cells that stand in the shapes of {region}")
    return sample


def _compare_units(cells: "pd.DataFrame", folder: Path, region: str, name: str, dataset: dict) -> None:
    """Refuse places from obsm that are in another unit than the shapes of the region, where these say micrometres."""
    from tissue_counterfactuals.sources import shapes
    from tissue_counterfactuals.sources.places import nearest_distance

    store = folder.parents[1]
    if dataset.get("unit_um") or not (store / "shapes" / region).is_dir():
        return
    try:
        centres, system, in_microns = shapes.centres(store, region)
    except Exception:
        return  # of places that are not read, in whatever form they are
    factor = nearest_distance(centres.to_numpy()) / nearest_distance(cells[["x", "y"]].to_numpy())
    if in_microns and abs(factor - 1) > _UNIT_TOLERANCE:
        raise InputError(
            f"file {folder}: cells lie {factor:.4g} times as far apart in the shapes of {region!r}, in the coordinate "
            f"system {system!r} in micrometres, as in obsm[{name!r}]; set unit_um to the micrometres per unit of "
            f"obsm[{name!r}] ({factor:.4g} if the two are the same cells)."
        )


def _array_of_places(table: "zarr.Group", dataset: dict, folder: Path) -> str | None:
    """The array of obsm that holds coordinates; None where the centres of shapes do."""
    name, found = dataset.get("spatial") or "spatial", sorted(table["obsm"]) if "obsm" in table else []
    if name not in found and name != "spatial":
        raise InputError(
            f"file {folder}: there is no array of coordinates {name!r} in obsm (key spatial), it has "
            f"{', '.join(found) or 'none'}; name one of them, or leave spatial out to take the centres of the shapes."
        )
    return name if name in found else None


def _key(obs: "pd.DataFrame", attributes: dict, key: str, folder: Path) -> "pd.Series":
    """The column of obs that an attribute of the table names, as text."""
    column = attributes.get(key)
    if column not in obs:
        raise InputError(
            f"file {folder}: obs has no column {column!r}, which its attribute {key} names (it has "
            f"{', '.join(map(str, obs.columns)) or 'none'}); save the table again with SpatialData."
        )
    return obs[column].astype(str)


def _table_folder(path: Path) -> Path:
    """The folder of the table that a path names, or of the only one in a store; no link in it leads out of the
    store.
    """
    if path.parent.name in ("tables", "table") and not any((path / kind).is_dir() for kind in ("tables", "table")):
        _refuse_outside(path.parents[1])
        return path
    _refuse_outside(path)
    found = sorted(child for kind in ("tables", "table") for child in (path / kind).glob("*") if child.is_dir())
    if not found:
        raise InputError(
            f"file {path}: it is no SpatialData store with a table (tables/NAME); save the counts as a table of the "
            "store."
        )
    if len(found) > 1:
        raise InputError(
            f"file {path}: it holds the tables {', '.join(child.name for child in found)}; name one of them in path, "
            f"{path / 'tables' / found[0].name} for example."
        )
    return found[0]


def _refuse_outside(store: Path) -> None:
    """Refuse a store of which a part that is read is a link to somewhere else, as an HDF5 file with external links."""
    real = store.resolve()
    for kind in ("tables", "table", "shapes", "points"):
        for folder, folders, files in os.walk(store / kind):
            for path in (Path(folder), *(Path(folder, name) for name in folders + files)):
                if path.is_symlink() and not path.resolve().is_relative_to(real):
                    raise InputError(
                        f"file {store}: {path.relative_to(store)} is a link out of the store, to {path.resolve()}; "
                        "put a copy of what it leads to in its place."
                    )


def _open_table(folder: Path) -> "zarr.Group":
    import zarr

    # The metadata of the group itself, because those of the store are copies that an edit leaves behind.
    try:
        table = zarr.open_group(folder, mode="r", use_consolidated=False)
        if "obs" in table and "var" in table:
            return table
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"file {folder}: it is no table of AnnData in zarr, or not whole; fetch or save the store again.")


def _element(group: "zarr.Group", name: str, folder: Path):
    """One element in memory, whole or refused."""
    from anndata.io import read_elem

    try:
        _refuse_gaps(group[name], folder)
        return read_elem(group[name])
    except InputError:
        raise
    except Exception as error:
        # What goes wrong in a damaged chunk depends on the codec that stumbles over it.
        raise _not_whole(folder, name) from error


def _counts(table: "zarr.Group", own: "np.ndarray", layer: str | None, folder: Path) -> "sp.csr_matrix":
    """Rows of the stored matrix as CSR float32, read block by block where it is stored by rows."""
    import numpy as np
    import scipy.sparse as sp
    from anndata.io import sparse_dataset

    place, name = (table, "X") if layer is None else (table.get("layers", {}), layer)
    if name not in place:
        raise InputError(
            f"file {folder}: there is no {'X' if layer is None else f'layer {layer!r}'}; key layer must say where the "
            f"raw counts are (layers: {', '.join(sorted(table.get('layers', {}))) or 'none'})."
        )
    stored = place[name]
    try:
        _refuse_bad_indices(stored)
    except (Malformed, KeyError) as error:
        raise InputError(
            f"file {folder}: the matrix {name} is damaged: {error}; fetch or write the store again."
        ) from error
    if stored.attrs.get("encoding-type") != "csr_matrix":
        matrix = _element(place, name, folder)
        return sp.csr_matrix(sp.csr_matrix(matrix)[own], dtype=np.float32)
    try:
        _refuse_gaps(stored, folder)
        backed = sparse_dataset(stored)
        n_rows = backed.shape[0]
        step = max(1, int(_BLOCK * n_rows / max(1, stored["data"].shape[0])))
        blocks = [sp.csr_matrix((0, backed.shape[1]), dtype=np.float32)]
        for start in range(0, n_rows, step):
            wanted = own[start : start + step]
            if wanted.any():
                block = backed[start : start + step][wanted]
                blocks.append(sp.csr_matrix(block, dtype=np.float32))
        return sp.vstack(blocks, format="csr")
    except InputError:
        raise
    except Exception as error:
        raise _not_whole(folder, name) from error


def _refuse_bad_indices(stored: "zarr.Group | zarr.Array") -> None:
    """Look at the indices of a sparse matrix before native code does.

    Raises:
        Malformed: they are not those of a matrix of its shape.
        KeyError: a part is missing.
    """
    kind = stored.attrs.get("encoding-type")
    if kind not in ("csr_matrix", "csc_matrix"):
        return
    n_rows, n_columns = (int(size) for size in stored.attrs["shape"])
    along, across = (n_rows, n_columns) if kind == "csr_matrix" else (n_columns, n_rows)
    n_entries = stored["indices"].size
    if stored["data"].shape != (n_entries,) or stored["indices"].shape != (n_entries,):
        raise Malformed("its values and indices have not the same length")
    check_indptr(stored["indptr"][:], along, n_entries, "indptr")
    for start in range(0, n_entries, _BLOCK):
        check_indices(stored["indices"][start : start + _BLOCK], across, "indices")


def _refuse_gaps(element: "zarr.Group | zarr.Array", folder: Path) -> None:
    """Raise where chunks of numbers are missing, which zarr would read as zeros.

    A chunk that holds nothing but the fill value may rightly be absent; the values of a sparse matrix and coordinates
    are never all zero, and their absence is what a broken download looks like.
    """
    import zarr

    if isinstance(element, zarr.Group):
        if "data" in element and "indptr" in element:
            for part in ("data", "indices"):
                _refuse_gaps(element[part], folder)
        return
    if element.ndim and element.dtype.kind == "f" or element.basename in ("data", "indices"):
        present, wanted = element.nchunks_initialized, element.nchunks
        if present < wanted and element.size:
            raise InputError(
                f"file {folder}: {wanted - present} of {wanted} chunks of {element.path or element.basename} are "
                "missing; fetch the store again."
            )


def _not_whole(folder: Path, name: str) -> InputError:
    return InputError(
        f"file {folder}: its element {name} cannot be read, a file of the store is cut short, damaged or missing; "
        "fetch the store again."
    )
