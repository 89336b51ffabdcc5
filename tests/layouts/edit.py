"""Changes to files that already stand in their layout: how faults get into them."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd

WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>no data</body></html>\n"


def web_page(path: Path) -> None:
    """What a browser saves when the server asks to sign in."""
    path.write_bytes(WEB_PAGE)


def truncate(path: Path) -> None:
    """Cut a file in its middle."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit_csv(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], header: bool = True) -> None:
    """Read a CSV as text, change it, write it back in the same form."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, header=0 if header else None)
    table = table.rename(columns=lambda name: "" if str(name).startswith("Unnamed") else name)
    change(table).to_csv(path, index=False, header=header)


def drop_column(path: Path, column: str | int, header: bool = True) -> None:
    edit_csv(path, lambda table: table.drop(columns=column), header)


def scale_columns(path: Path, columns: list, factor: float, header: bool = True) -> None:
    def scaled(table: pd.DataFrame) -> pd.DataFrame:
        table[columns] = (table[columns].astype(float) * factor).astype(str)
        return table

    edit_csv(path, scaled, header)


def reverse_rows(path: Path, header: bool = True) -> None:
    edit_csv(path, lambda table: table[::-1], header)


def drop_rows(path: Path, n: int, header: bool = True) -> None:
    edit_csv(path, lambda table: table[n:], header)


def ensembl_csv(path: Path) -> None:
    """Ensembl ids in place of the symbols that name the columns."""
    edit_csv(path, lambda table: table.rename(columns=lambda name: name.replace("GENE", "ENSG000000000")))


def log_csv(path: Path) -> None:
    def logged(table: pd.DataFrame) -> pd.DataFrame:
        genes = [name for name in table if name.startswith("GENE")]
        table[genes] = np.log1p(table[genes].astype(float)).astype(str)
        return table

    edit_csv(path, logged)


def edit_10x(path: Path, change: Callable[[h5py.Group], None]) -> None:
    """Change the arrays of a 10x matrix in place."""
    with h5py.File(path, "a") as file:
        change(file["matrix"])


def replace(group: h5py.Group, name: str, values: np.ndarray) -> None:
    del group[name]
    group[name] = values


def log_10x(path: Path) -> None:
    edit_10x(path, lambda matrix: replace(matrix, "data", np.log1p(matrix["data"][:])))


def ensembl_10x(path: Path) -> None:
    def change(matrix: h5py.Group) -> None:
        n = len(matrix["features/name"])
        replace(matrix["features"], "name", np.array([f"ENSG{i:011d}" for i in range(n)], "S"))

    edit_10x(path, change)


def double_10x(path: Path) -> None:
    """Call the second barcode like the first."""

    def change(matrix: h5py.Group) -> None:
        barcodes = matrix["barcodes"][:]
        barcodes[1] = barcodes[0]
        replace(matrix, "barcodes", barcodes)

    edit_10x(path, change)


def edit_anndata(path: Path, change: Callable[[anndata.AnnData], anndata.AnnData | None]) -> None:
    """Read an h5ad file or a zarr group, change it, write it back."""
    if path.is_dir():
        import zarr

        group = zarr.open_group(path, mode="r")
        attributes, zarr_format = dict(group.attrs), group.metadata.zarr_format
        data = anndata.read_zarr(path)
        data = change(data) or data
        shutil.rmtree(path)
        with anndata.settings.override(zarr_write_format=zarr_format):
            data.write_zarr(path)
        zarr.open_group(path, mode="r+").attrs.update(attributes)
        return
    data = anndata.read_h5ad(path)
    (change(data) or data).write_h5ad(path)


def write_text(path: Path, text: str) -> None:
    """Write text, packed where the name ends in .gz."""
    content = text.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def ensembl_anndata(path: Path) -> None:
    """Ensembl ids where symbols must be."""

    def change(data: anndata.AnnData) -> None:
        data.var_names = [f"ENSG{i:011d}" for i in range(data.n_vars)]

    edit_anndata(path, change)


def log_anndata(path: Path) -> None:
    def change(data: anndata.AnnData) -> None:
        data.X = data.X.log1p()

    edit_anndata(path, change)


def double_anndata(path: Path) -> None:
    """Call the second cell like the first."""

    def change(data: anndata.AnnData) -> None:
        names = list(data.obs_names)
        data.obs_names = [names[0], names[0], *names[2:]]

    edit_anndata(path, change)
