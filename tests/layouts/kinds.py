"""Faults that files of many layouts can have, each planted through where a layout keeps its labels, ids, genes or
places.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from layouts import edit

Fault = Callable[[Path], None]
# Applies a change to all values of a column, or to the places (n, 2), of the files in a folder.
Editor = Callable[[Path, Callable[[np.ndarray], np.ndarray]], None]

# What leaves a good slide, perhaps of fewer cells.
HARMLESS = (
    *("missing labels as text", "line breaks and tabs in labels"),
    *("a control probe among the genes", "a known column about cells among the genes"),
    *("ids beside a row counter", "files of a Mac and hidden folders"),
)


# --- where things stand -----------------------------------------------------------------------------------------


def csv_column(file: str, column: str) -> Editor:
    def edit_column(folder, change):
        edit.edit_csv(folder / file, lambda t: t.assign(**{column: change(t[column].to_numpy(dtype=object))}))

    return edit_column


def obs_column(file: str, column: str) -> Editor:
    def edit_column(folder, change):
        def changed(data):
            values = change(data.obs[column].astype(object).to_numpy())
            data.obs[column] = pd.Categorical(values)

        edit.edit_anndata(folder / file, changed)

    return edit_column


def csv_places(file: str, x: str, y: str) -> Editor:
    def edit_places(folder, change):
        def changed(table):
            table[[x, y]] = change(table[[x, y]].to_numpy(dtype=float)).astype(str)
            return table

        edit.edit_csv(folder / file, changed)

    return edit_places


def anndata_places(file: str, name: str) -> Editor:
    """`name` of obsm, or the beginning of two columns of obs, CenterX_..."""

    def edit_places(folder, change):
        def changed(data):
            if name in data.obsm:
                data.obsm[name] = change(data.obsm[name])
            else:
                columns = [name.replace("*", axis) for axis in "XY"]
                data.obs[columns] = change(data.obs[columns].to_numpy())

        edit.edit_anndata(folder / file, changed)

    return edit_places


def gene_in_csv(file: str, name: str, value: int = 1) -> Fault:
    return lambda folder: edit.edit_csv(folder / file, lambda t: t.assign(**{name: str(value)}))


def gene_in_10x(file: str, name: str) -> Fault:
    """A feature of the type Gene Expression, as early versions write control probes."""

    def add(matrix):
        for part, value in (("name", name), ("feature_type", "Gene Expression"), ("id", name)):
            stored = matrix[f"features/{part}"][:]
            edit.replace(matrix["features"], part, np.array([*stored, value.encode()], "S"))
        n_features, n_barcodes = matrix["shape"][:]
        indptr, indices, data = (matrix[part][:] for part in ("indptr", "indices", "data"))
        counts = sp.csc_matrix((data, indices, indptr), shape=(n_features, n_barcodes))
        counts = sp.vstack([counts, np.ones((1, n_barcodes), data.dtype)], format="csc")
        for part in ("indptr", "indices", "data"):
            edit.replace(matrix, part, getattr(counts, part))
        edit.replace(matrix, "shape", np.array(counts.shape, np.int32))

    return lambda folder: edit.edit_10x(folder / file, add)


def gene_in_anndata(file: str, name: str, raw: bool = False) -> Fault:
    def change(data):
        if raw:
            whole = data.raw.to_adata()
            data.raw = _with_gene(whole, name)
            return None
        return _with_gene(data, name)

    return lambda folder: edit.edit_anndata(folder / file, change)


def _with_gene(data: anndata.AnnData, name: str) -> anndata.AnnData:
    counts = sp.hstack([sp.csc_matrix(data.X), sp.csc_matrix((data.n_obs, 1))], format="csr")
    var = pd.DataFrame(index=[*data.var_names, name])
    return anndata.AnnData(counts, obs=data.obs, var=var, obsm=data.obsm, uns=data.uns)


# --- the kinds of faults ----------------------------------------------------------------------------------------


def of_labels(edit_labels: Editor, first: int = 0) -> dict[str, Fault]:
    """Args: first: place of the first cell that has all its labels."""

    def as_text(values):
        values[first : first + 4] = "nan", "NA", "None", " "
        return values

    def untidy(values):
        values[first + 1 :: 2] = [f"{value}\r\n" for value in values[first + 1 :: 2]]
        values[first] = f"\t{values[first]}"
        return values

    def ids(values):
        return np.array([f"cell {i}" for i in range(len(values))], dtype=object)

    return {
        "missing labels as text": lambda folder: edit_labels(folder, as_text),
        "line breaks and tabs in labels": lambda folder: edit_labels(folder, untidy),
        "labels that name single cells": lambda folder: edit_labels(folder, ids),
    }


def of_label_file(file: str = "labels.csv") -> dict[str, Fault]:
    def written(encoding, sign="Drüse"):
        def plant(folder):
            text = (folder / file).read_text().replace("glia", sign)
            (folder / file).write_bytes(text.encode(encoding))

        return plant

    def of_others(table):
        table[10:] = table[10:].assign(**{table.columns[0]: [f"other {i}" for i in range(10, len(table))]})
        return table

    return {
        f"text in cp1252: {file}": written("cp1252"),
        f"text in UTF-16: {file}": written("utf-16"),
        f"ids of another run: {file}": lambda folder: edit.edit_csv(folder / file, of_others),
    }


def of_ids(tables: dict[str, list[str]]) -> dict[str, Fault]:
    """Args: tables: file -> its columns of ids."""
    faults = {}
    for file, columns in tables.items():

        def beside(table):
            return pd.concat([_counter(table), table], axis=1)

        def instead(table, columns=columns):
            return beside(table.drop(columns=columns))

        faults[f"a row counter in place of ids: {file}"] = lambda f, file=file, c=instead: edit.edit_csv(f / file, c)

    def all_beside(folder):
        for file in tables:
            edit.edit_csv(folder / file, beside)

    return faults | {"ids beside a row counter": all_beside}


def _counter(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"": np.arange(len(table)).astype(str)}, index=table.index)


def of_rounded_ids(file: str, column: str) -> dict[str, Fault]:
    def rounded(values):
        return np.array([repr(float(value)) for value in values], dtype=object)

    edit_ids = csv_column(file, column)
    return {f"ids as floating-point numbers: {file}": lambda folder: edit_ids(folder, rounded)}


def of_genes(add_control: Fault, in_table: str | None = None) -> dict[str, Fault]:
    faults = {"a control probe among the genes": add_control}
    if in_table:
        faults["a known column about cells among the genes"] = gene_in_csv(in_table, "slide_ID_numeric", 120)
        faults["an unknown column about cells among the genes"] = gene_in_csv(in_table, "my_batch", 2)
    return faults


def of_places(edit_places: Editor) -> dict[str, Fault]:
    def overlaid(places):
        # Within a few cells of each other, since layouts with several samples may have them one after the other.
        places[1::2] = places[: 2 * (len(places) // 2) : 2]
        return places

    return {"two sections on top of each other": lambda folder: edit_places(folder, overlaid)}


def of_folder() -> dict[str, Fault]:
    def plant(folder):
        shutil.copytree(folder, folder / ".snapshot")
        shutil.copytree(folder / ".snapshot", folder / "__MACOSX")
        for path in [p for p in folder.rglob("*") if p.is_file() and p.parent.name[0] not in "._"]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")

    return {"files of a Mac and hidden folders": plant}
