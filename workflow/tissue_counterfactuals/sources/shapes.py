"""Places of the cells in a SpatialData store: centres of its shapes, or its points, carried to another system."""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from tissue_counterfactuals.errors import InputError

# Names of coordinate systems that are in micrometres by the habit of those who write them.
_MICRON_SYSTEMS = ("um", "micron", "microns", "micrometer", "micrometre", "micrometers")
_MICRON_UNITS = ("micrometer", "micrometre", "um")

_POINT, _POLYGON, _MULTIPOLYGON = 1, 3, 6


def centres(store: Path, region: str) -> tuple[pd.DataFrame, str, bool]:
    """Centres of the elements of a region, and the system that they were carried to.

    Returns:
        x and y by instance id (text); the name of the system: one in micrometres if there is one, else `global`;
        whether it says that it is in micrometres.
    Raises:
        InputError: the region is no shapes or points element, or has no such system.
    """
    import zarr

    kind = next((k for k in ("shapes", "points") if (store / k / region).is_dir()), None)
    if kind is None:
        raise InputError(
            f"file {store}: the table has no obsm['spatial'], and its region {region!r} is neither shapes nor points "
            "of the store; write the centroids to obsm['spatial'] (spatialdata.get_centroids)."
        )
    element = store / kind / region
    path = element / f"{kind}.parquet"
    if not path.exists():
        raise InputError(
            f"file {path}: there is no such file, the store is not whole or older than SpatialData 0.1; fetch or save "
            "it again."
        )
    try:
        attributes = dict(zarr.open_group(element, mode="r").attrs)
        stored = pa.parquet.read_table(path)
        table = stored.to_pandas()
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise InputError(f"file {path}: it is cut short or damaged; fetch the store again.") from error
    if kind == "points":
        places = table[["x", "y"]].to_numpy(dtype=np.float64)
    else:
        form = stored.schema.field("geometry").type
        if not (pa.types.is_binary(form) or pa.types.is_large_binary(form)):
            raise InputError(
                f"file {path}: its geometries are stored as {form}, but well-known binary is read; save the store with "
                "shapes_geometry_encoding='WKB'."
            )
        places = np.array([_centre(bytes(shape)) for shape in table["geometry"]]).reshape(-1, 2)
    matrix, system, in_microns = _to_system(attributes.get("coordinateTransformations", []), path)
    places = places @ matrix[:2, :2].T + matrix[:2, 2]
    return pd.DataFrame(places, columns=["x", "y"], index=table.index.astype(str)), system, in_microns


def _to_system(transformations: list[dict], path: Path) -> tuple[np.ndarray, str, bool]:
    """Matrix (3, 3) on (x, y, 1) to the system in micrometres, or to the global one, its name, and which it is."""
    found = {}
    for transformation in transformations:
        output = transformation["output"]
        units = {axis.get("unit") for axis in output["axes"] if axis["name"] in "xy"}
        microns = output["name"].lower() in _MICRON_SYSTEMS or units <= set(_MICRON_UNITS)
        found.setdefault("microns" if microns else output["name"], transformation)
    for name in ("microns", "global"):
        if name in found:
            return _matrix(found[name], path), found[name]["output"]["name"], name == "microns"
    raise InputError(
        f"file {path}: its coordinate systems are {', '.join(found) or 'none'}, but one in micrometres or `global` is "
        "needed; set such a transformation and save the store again."
    )


def _matrix(transformation: dict, path: Path) -> np.ndarray:
    """A stored transformation as a matrix on (x, y, 1); other axes are left out."""
    kind, matrix = transformation["type"], np.eye(3)
    if kind == "identity":
        return matrix
    if kind == "sequence":
        for step in transformation["transformations"]:
            matrix = _matrix(step, path) @ matrix
        return matrix
    axes = {}
    for side in ("input", "output"):
        names = [axis["name"] for axis in transformation[side]["axes"]]
        axes[side] = [names.index("x"), names.index("y")]
    if kind == "scale":
        matrix[[0, 1], [0, 1]] = np.array(transformation["scale"], dtype=float)[axes["input"]]
    elif kind == "translation":
        matrix[:2, 2] = np.array(transformation["translation"], dtype=float)[axes["input"]]
    elif kind == "affine":
        stored = np.array(transformation["affine"], dtype=float)
        matrix[:2] = stored[np.ix_(axes["output"], [*axes["input"], -1])]
    else:
        raise InputError(
            f"file {path}: its coordinates are carried by a transformation of the type {kind!r}, which is not read; "
            "use identity, scale, translation, affine or a sequence of these."
        )
    return matrix


def _centre(shape: bytes) -> tuple[float, float]:
    """Centroid of a point, polygon or multipolygon in well-known binary; holes are left out of account."""
    (x, y, area), _ = _moments(shape, 0)
    return (x / area, y / area) if area else (np.nan, np.nan)


def _moments(shape: bytes, at: int) -> tuple[np.ndarray, int]:
    """Area times centroid x and y, and area (a point: 1), of the shape that begins at a byte; where it ends."""
    order = "<" if shape[at] else ">"
    (kind,) = struct.unpack_from(f"{order}I", shape, at + 1)
    at += 5
    # Thousands tell of further dimensions (z, m), as do the highest bits.
    flat, extra = kind & 0xFF if kind > 0xFFFF else kind % 1000, 0
    if kind > 0xFFFF:
        extra = bool(kind & 0x80000000) + bool(kind & 0x40000000)
    elif kind >= 1000:
        extra = 2 if kind >= 3000 else 1
    size = 2 + extra
    if flat == _POINT:
        x, y = struct.unpack_from(f"{order}2d", shape, at)
        return np.array([x, y, 1.0]), at + 8 * size
    (count,) = struct.unpack_from(f"{order}I", shape, at)
    at += 4
    total = np.zeros(3)
    for part in range(count):
        if flat == _MULTIPOLYGON:
            moments, at = _moments(shape, at)
            total += moments
            continue
        if flat != _POLYGON:
            raise InputError(f"shapes: one is of the geometry type {kind}, but points and polygons are read.")
        (n,) = struct.unpack_from(f"{order}I", shape, at)
        ring = np.frombuffer(shape, f"{order}f8", n * size, at + 4).reshape(n, size)[:, :2]
        at += 4 + 8 * n * size
        if part == 0:
            total += _ring_moments(ring)
    return total, at


def _ring_moments(ring: np.ndarray) -> np.ndarray:
    """Area times centroid, and area, of a closed ring (n, 2), by the shoelace formula about its first corner."""
    corner = ring[0]
    x, y = (ring - corner).T
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    area = cross.sum() / 2
    centre = np.array([((x[:-1] + x[1:]) * cross).sum(), ((y[:-1] + y[1:]) * cross).sum()]) / 6
    return np.sign(area) * np.array([*(centre + corner * area), area])
