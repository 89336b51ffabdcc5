"""SpatialData store, written without the package: a table, and circles or polygons in shapes with a transformation."""

import json
import struct
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import scipy.sparse as sp
import zarr

from layouts import edit, kinds
from layouts.tissue import Tissue, make_tissue, shuffled

UM_PER_PIXEL = 0.2125
TABLE = "tables/table"


def write(
    folder: Path,
    seed: int = 0,
    obsm: bool = False,
    polygons: bool = False,
    name: str = "table",
    zarr_format: int = 3,
) -> Tissue:
    """Write the store `folder`, with one table and the region that it annotates; `cell_area` as of Xenium.

    Args:
        obsm: give the table its coordinates in obsm; otherwise only the shapes have them, in pixels.
        polygons: squares around the cells instead of circles.
        zarr_format: 3, or 2 as stores before SpatialData 0.5.
    """
    tissue = make_tissue(seed=seed)
    n = len(tissue.cells)
    store = zarr.open_group(folder, mode="a", zarr_format=zarr_format)
    store.attrs["spatialdata_attrs"] = {"version": "0.2"}
    for group in ("tables", "shapes"):
        store.require_group(group)
    table = anndata.AnnData(
        sp.csr_matrix(tissue.counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "region": pd.Categorical(["cells"] * n),
                "instance": np.arange(n) + 1,
                "cell_area": 80.0,
                "cell_type": pd.Categorical(tissue.cell_type),
                "domain": pd.Categorical(tissue.domain),
            },
            index=tissue.cells,
        ),
        var=pd.DataFrame(index=tissue.genes),
    )
    if obsm:
        table.obsm["spatial"] = tissue.places_um
    with anndata.settings.override(zarr_write_format=zarr_format):
        table.write_zarr(folder / "tables" / name)
    zarr.open_group(folder / "tables" / name, mode="r+").attrs.update(
        {
            "spatialdata-encoding-type": "ngff:regions_table",
            "region": "cells",
            "region_key": "region",
            "instance_key": "instance",
            "version": "0.2",
        }
    )
    pixels = tissue.places_um / UM_PER_PIXEL
    write_shapes(folder / "shapes/cells", pixels, polygons, seed, zarr_format)
    return tissue


def write_shapes(folder: Path, pixels: np.ndarray, polygons: bool, seed: int, zarr_format: int) -> None:
    """Shapes in pixels, known by numbers from 1 on, with a scale to the global system."""
    make = _square if polygons else _point
    shapes = pd.DataFrame(
        {"geometry": [make(x, y) for x, y in pixels], "radius": 5.0},
        index=np.arange(len(pixels)) + 1,
    ).iloc[shuffled(len(pixels), seed)]
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    axes = [{"name": name, "type": "space", "unit": "unit"} for name in "xy"]
    group.attrs.update(
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": [
                {
                    "type": "scale",
                    "scale": [UM_PER_PIXEL, UM_PER_PIXEL],
                    "input": {"name": "xy", "axes": axes},
                    "output": {"name": "global", "axes": axes},
                }
            ],
            "spatialdata_attrs": {"version": "0.3"},
        }
    )
    pa.parquet.write_table(pa.Table.from_pandas(shapes), folder / "shapes.parquet")


def _point(x: float, y: float) -> bytes:
    return struct.pack("<BI2d", 1, 1, x, y)


def _square(x: float, y: float, half: float = 20.0) -> bytes:
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    flat = [value for i, j in corners for value in (x + half * i, y + half * j)]
    return struct.pack("<BIII10d", 1, 3, 1, 5, *flat)


def set_transformation(folder: Path, transformations: list[dict]) -> None:
    """Replace the transformations of the shapes."""
    group = zarr.open_group(folder / "shapes/cells", mode="r+")
    group.attrs["coordinateTransformations"] = transformations


def scale_shapes(folder: Path, factor: float) -> None:
    """Points so many times as far apart, in pixels that the global system takes over as they are."""
    _edit_shapes(folder, lambda places: places * factor)
    _scale_to_pixels(folder)


def entry(folder: Path) -> dict:
    """Keys of the configuration that read what `write` wrote."""
    return {"source": "spatialdata", "path": str(folder)}


def _chunk(folder: Path) -> Path:
    """The file that holds the values of the counts."""
    return next(p for p in sorted((folder / TABLE / "X/data").rglob("*")) if p.is_file() and p.name[0] in "0c")


def _genes(data: anndata.AnnData) -> None:
    data.var_names = [f"ENSG{i:011d}" for i in range(data.n_vars)]


def _logs(data: anndata.AnnData) -> None:
    data.X = data.X.log1p()


def _double(data: anndata.AnnData) -> None:
    data.obs_names = [data.obs_names[0], data.obs_names[0], *data.obs_names[2:]]


def _unlabelled(data: anndata.AnnData) -> None:
    data.obs.loc[data.obs_names[:4], "cell_type"] = np.nan


def _drop_instance(data: anndata.AnnData) -> None:
    del data.obs["instance"]


def _scale_to_pixels(folder: Path) -> None:
    path = folder / "shapes/cells/zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["coordinateTransformations"][0]["scale"] = [1.0, 1.0]
    path.write_text(json.dumps(content))


def _reverse_shapes(folder: Path) -> None:
    path = folder / "shapes/cells/shapes.parquet"
    table = pa.parquet.read_table(path).to_pandas()[::-1]
    pa.parquet.write_table(pa.Table.from_pandas(table), path)


def _edit_shapes(folder: Path, change) -> None:
    path = folder / "shapes/cells/shapes.parquet"
    table = pa.parquet.read_table(path).to_pandas()
    places = np.array([struct.unpack("<2d", shape[5:]) for shape in table["geometry"]])
    table["geometry"] = [_point(x, y) for x, y in change(places)]
    pa.parquet.write_table(pa.Table.from_pandas(table), path)


FILES = (_chunk, "shapes/cells/shapes.parquet")

FAULTS = {
    "wrong gene ids": lambda f: edit.edit_anndata(f / TABLE, _genes),
    "missing column": lambda f: edit.edit_anndata(f / TABLE, _drop_instance),
    "log-normalised instead of counts": lambda f: edit.edit_anndata(f / TABLE, _logs),
    "coordinates in pixels": _scale_to_pixels,
    "duplicated barcodes": lambda f: edit.edit_anndata(f / TABLE, _double),
    "barcodes in another order": _reverse_shapes,
    "extra cells without labels": lambda f: edit.edit_anndata(f / TABLE, _unlabelled),
}
FAULTS |= kinds.of_places(_edit_shapes) | kinds.of_folder()
FAULTS |= kinds.of_labels(kinds.obs_column(TABLE, "cell_type"))
FAULTS |= kinds.of_genes(kinds.gene_in_anndata(TABLE, "NegControlProbe_00042"))
