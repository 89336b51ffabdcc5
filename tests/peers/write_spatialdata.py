"""Writes a store with the package `spatialdata`, in an environment of its own (spatialdata-requirements.txt).

    python tests/peers/write_spatialdata.py STORE.zarr CENTRES.npz

Circles, polygons, multipolygons and points, each with transformations of its own and annotated by a table of its own
name; CENTRES.npz holds, by table, the centres as the package carries them to the system `wanted`.
"""

import sys
import warnings

import anndata
import geopandas
import numpy as np
import pandas as pd
import scipy.sparse as sp
import spatialdata
from shapely.geometry import MultiPolygon, Point, Polygon
from spatialdata.models import PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation

N = 120


def square(x: float, y: float, half: float) -> Polygon:
    return Polygon([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)])


def main(store: str, centres: str) -> None:
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(11), np.arange(11)), axis=-1).reshape(-1, 2)[:N]
    places = 10.0 * grid + rng.uniform(-2, 2, (N, 2))
    names = [f"c{i}" for i in rng.permutation(N)]
    turned = Affine(
        [[0.6, -0.8, 30.0], [0.8, 0.6, -5.0], [0, 0, 1]],
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    shrunk = Scale([0.2125, 0.2125], axes=("x", "y"))
    sequence = Sequence([shrunk, turned, Translation([7.0, 9.0], axes=("x", "y"))])
    many = [MultiPolygon([square(x, y, 3), square(x + 20, y, 6)]) for x, y in places / 0.2125]
    elements = {
        "circles": (
            ShapesModel.parse(
                geopandas.GeoDataFrame({"radius": 2.0}, geometry=[Point(p) for p in places], index=names),
                transformations={"global": turned},
            ),
            "global",
        ),
        "polygons": (
            ShapesModel.parse(
                geopandas.GeoDataFrame(geometry=[square(x, y, 2) for x, y in places], index=names),
                transformations={
                    "global": Scale([4.7, 4.7], axes=("x", "y")),
                    "microns": Identity(),
                },
            ),
            "microns",
        ),
        "multipolygons": (
            ShapesModel.parse(
                geopandas.GeoDataFrame(geometry=many, index=names),
                transformations={"global": sequence},
            ),
            "global",
        ),
        "spots": (
            PointsModel.parse(
                pd.DataFrame(places, columns=["x", "y"], index=np.arange(N) + 5),
                transformations={"global": sequence.transformations[2]},
            ),
            "global",
        ),
    }
    data = spatialdata.SpatialData(
        shapes={k: e for k, (e, _) in elements.items() if k != "spots"},
        points={"spots": elements["spots"][0]},
    )
    expected = {}
    for region, (element, system) in elements.items():
        order = rng.permutation(N)
        instances = (np.arange(N) + 5 if region == "spots" else np.array(names))[order]
        table = anndata.AnnData(
            sp.csr_matrix(rng.poisson(1.0, (N, 6)).astype(np.float32)),
            obs=pd.DataFrame(
                {"region": pd.Categorical([region] * N), "instance": instances},
                index=[f"{region}_{i}" for i in range(N)],
            ),
            var=pd.DataFrame(index=[f"GENE{i}" for i in range(6)]),
        )
        data[f"of_{region}"] = TableModel.parse(table, region=region, region_key="region", instance_key="instance")
        found = spatialdata.get_centroids(element, coordinate_system=system).compute()
        expected[f"of_{region}"] = found[["x", "y"]].loc[instances].to_numpy()
        expected[f"counts_of_{region}"] = table.X.toarray()
    data.write(store)
    np.savez(centres, **expected)


if __name__ == "__main__":
    main(*sys.argv[1:])
