"""What published runs found in the same files: a real slide of another shape is a deviation, and is told."""

import json
from functools import cache

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.slide import VARIABLE
from tissue_counterfactuals.sources import EXPECTED, published_as
from tissue_counterfactuals.sources.stored import StoredSlide

COLUMNS = [
    *("dataset", "sample", "step", "quantity", "cell_type", "domain"),
    *("found", "expected", "difference", "verdict", "published_in"),
]
_KEY = COLUMNS[:6]


@cache
def expected_shapes() -> pd.DataFrame:
    """The table resources/expected_shapes.tsv, a row per published number.

    A number belongs to a data set of resources/datasets.tsv, a sample (empty: all together) and a step:
    `file` (as stored), `labelled` (as read: cells with labels), `prepared` (after the filters) or one that an
    experiment names; `cell_type` and `domain`, where given, say of which cells it is.
    """
    table = pd.read_csv(EXPECTED, sep="\t", dtype=str, keep_default_na=False)
    return table.astype({"expected": int})


def compare_shapes(dataset: dict, read: AnnData | StoredSlide, prepared: AnnData) -> pd.DataFrame:
    """Cells and genes of a slide at each step, beside what published runs had; a row per number.

    Numbers are compared for real data only. Those that differ go into the provenance of `prepared` under
    `deviations` and are printed.

    Args:
        dataset: an entry of the configuration; `files`, or else the source, says whose data they are.
        read: the slide as its reader gave it.
        prepared: the same after the filters.
    """
    frame = read if isinstance(read, AnnData) else read.frame
    table = compare_numbers(dataset, [*_stored(frame), *_counted(frame, "labelled"), *_counted(prepared, "prepared")])
    differing = table[table["verdict"] == "differs"]
    if len(differing):
        rows = differing[[*_KEY, "found", "expected"]].to_dict("records")
        prepared.uns["provenance"]["deviations"] = json.dumps(rows)
    return table


def compare_numbers(dataset: dict, found: list[dict]) -> pd.DataFrame:
    """Numbers that were found, each with the published one where there is one; those that differ are printed.

    Args:
        found: rows with sample, step, quantity, cell_type, domain ("" for all) and `found`; numbers of a cell type or
            domain are shown only where one is published.
    Returns:
        Table of COLUMNS; verdict is same, differs, "not published" or, for data that are not real, "not compared".
    """
    name = published_as(dataset)
    table = pd.DataFrame(found).assign(dataset=name)
    columns = [*_KEY, "expected", "published_in"]
    expected = expected_shapes() if name else pd.DataFrame(columns=columns, dtype=object)
    counted = expected.merge(table[_KEY[:4]].drop_duplicates(), on=_KEY[:4])
    # A type that nobody was found of has no row of its own, but may have been published.
    table = table.merge(counted, on=_KEY, how="outer", sort=False).fillna({"found": 0})
    group = (table["cell_type"] != "") | (table["domain"] != "")
    table = table[~group | table["expected"].notna()].reset_index(drop=True)
    known = table["expected"].notna()
    table["difference"] = (table["found"] - table["expected"]).astype("Int64")
    verdict = np.where(table["difference"].fillna(0) == 0, "same", "differs")
    table["verdict"] = np.where(known, verdict, "not published" if dataset["kind"] == "real" else "not compared")
    table = table.astype({"found": "Int64", "expected": "Int64"})[COLUMNS]
    table = table.fillna({"published_in": ""})
    for row in table[table["verdict"] == "differs"].itertuples():
        print(f"deviation: {_sentence(row)}")
    return table


def _row(sample: str, step: str, quantity: str, found: int, cell_type="", domain="") -> dict:
    return {
        "sample": sample,
        "step": step,
        "quantity": quantity,
        "cell_type": cell_type,
        "domain": domain,
        "found": int(found),
    }


def _stored(frame: AnnData) -> list[dict]:
    """What the file held, as far as its reader has said so."""
    stored = json.loads(frame.uns["provenance"].get("in_file", "{}"))
    rows = [_row(s, "file", "cells", n) for s, n in stored.get("cells", {}).items()]
    rows += [_row(s, "file", "genes", stored["genes"]) for s in stored.get("cells", {})]
    if "samples" in stored:
        rows.append(_row("", "file", "samples", stored["samples"]))
    return rows


def _counted(slide: AnnData, step: str) -> list[dict]:
    """Cells and genes of the whole slide and of each sample, and cells by type, by domain and by both.

    Of variable genes those chosen from all cells are counted, as published runs have them.
    """
    n_genes = int(slide.var[VARIABLE].sum()) if VARIABLE in slide.var else slide.n_vars
    rows = [_row("", step, "cells", slide.n_obs), _row("", step, "genes", n_genes)]
    for sample, cells in slide.obs.groupby("sample", observed=True):
        rows += [_row(sample, step, "cells", len(cells)), _row(sample, step, "genes", n_genes)]
        for by in (["cell_type"], ["domain"], ["cell_type", "domain"]):
            for values, n in cells.groupby(by, observed=True).size().items():
                values = values if isinstance(values, tuple) else (values,)
                rows.append(_row(sample, step, "cells", n, **dict(zip(by, values, strict=True))))
    return rows


def _sentence(row) -> str:
    what = " ".join(filter(None, [row.cell_type, row.quantity, row.domain and f"in {row.domain}"]))
    return (
        f"{row.dataset} {row.sample or 'all samples'}, {row.step}: {row.found:,} {what}, but {row.expected:,} were "
        f"published ({row.published_in})."
    )
