"""Every layout with every fault: what the user is told, written into resources/FAULTS.md.

    TC_WRITE_FAULTS=1 pytest tests/unit/sources/test_fault_matrix.py

writes the table anew; without it, a table that no longer says what happens fails the test.
"""

import functools
import hashlib
import importlib
import json
import os
import re
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from downloads import hdf5, settings
from layouts import edit, kinds
from misbehaving_server import serving
from slides import list_filters
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.downloads.obtain import obtain
from tissue_counterfactuals.sources.downloads.table import DataFile
from tissue_counterfactuals.sources.stored import StoredSlide

LAYOUTS = list(READERS)

# In which layouts a fault need not be told, because it is none there, with the reason.
RIGHT_THERE = {
    ("h5ad", "wrong gene ids"): "any names will do that are unique",
    ("merfish_brain", "coordinates in pixels"): "the extent of the section tells the unit",
}

# Faults that leave a good slide, perhaps of fewer cells.
HARMLESS = ("barcodes in another order", "extra cells without labels", "extra spots without labels", *kinds.HARMLESS)

# Told from the headers of faultless files, before anything is read.
BAD_SETTINGS = {
    "more neighbours than a sample has cells (a setting)": {
        "experiments": ["cellina_weights"],
        "control_domain": "one",
        "target_domains": ["another"],
        "graph": {"max_neighbors": 10_000},
    },
    "a knocked-out gene that the slide has not (a setting)": {"experiments": ["celcomen_glioblastoma"]},
}

HEADER = """# What each fault in a data file leads to

Made by `tests/unit/sources/test_fault_matrix.py`, which plants every fault into a small file of every layout and
reads it as the workflow does; `TC_WRITE_FAULTS=1 pytest tests/unit/sources/test_fault_matrix.py` writes it anew.
`refused`: the run stops with this sentence, before any job where it begins with `config`. `read`: the slide is right;
how it differs from that of the faultless files stands in its provenance.
"""


LIMITS = """
## What cannot be told

- **Two sections laid over each other, no column that tells them apart, no two cells at one point**: read as one
  section. How evenly cells lie does not give it away: of real single sections 0.5 % (breast, Xenium) to 17 %
  (somatosensory cortex, osmFISH) of the cells have a neighbour nearer than 0.3 of the mean spacing, of a section and
  its mirror image 10 to 19 %. Name the column of sections under `columns.sample`.
- **A unit that is wrong, but leaves a spacing of tissue**: 2.5 to 25 um to the nearest cell and 240 to 60,000
  cells per square millimetre pass, so that cells 5 um apart pass in pixels of 0.21 um too. Where the file has a column
  `cell_area` (square micrometres), or shapes in micrometres, or the scale factors of Visium HD, it is told. A `unit_um`
  that is given is not checked at all.
- **A file of settings in cp1252 or UTF-16**, given with `--configfile`: Snakemake reads it before a line of this
  workflow runs, and stops with a traceback that ends in `'utf-8' codec can't decode byte ...`. Save the file in UTF-8.
  `make run CONFIG=my.yaml` looks at it first, and says so in a sentence.
"""


def dataset_of(module, folder, asked=None):
    raw = {"experiments": ["celcomen_spleen"]} | module.entry(folder) | (asked or {})
    return load_config({"datasets": {"tissue": raw}})["datasets"]["tissue"]


def open_slide(module, folder, asked=None):
    """The slide, the way a run gets to it: from the validated entry, over the planning of samples."""
    dataset = dataset_of(module, folder, asked)
    reader = READERS[dataset["source"]]
    files = reader.locate(dataset["path"])
    if dataset["source"] != "h5ad":
        reader.samples(files, dataset)
    slide = reader.open(files, dataset, dataset["samples"])
    return slide.load() if isinstance(slide, StoredSlide) else slide


def faults_of(module):
    """Name of each fault -> function that plants it into a folder."""
    planted = {}
    for file in module.FILES:
        for word, change in (("web page saved as data", edit.web_page), ("truncated file", edit.truncate)):
            name = file if isinstance(file, str) else "a chunk of X"
            planted[f"{word}: {name}"] = lambda folder, file=file, change=change: change(
                folder / file if isinstance(file, str) else file(folder)
            )
    return planted | module.FAULTS


def told(slide, good):
    """How a slide that was read differs from the one without a fault, or None if it is wrong."""
    place = good.obs_names.get_indexer(slide.obs_names)
    kept = good[place]
    same = (
        (place >= 0).all()
        and list(slide.var_names) == list(good.var_names)
        and (slide.X != kept.X).nnz == 0
        and abs(slide.obsm["spatial"] - kept.obsm["spatial"]).max() < 1e-6
        and all((slide.obs[c].astype(str) == kept.obs[c].astype(str)).all() for c in slide.obs)
    )
    known = set(list_filters(good)["filter"] + list_filters(good)["cells_after"].astype(str))
    words = [
        f"{row.cells_before - row.cells_after} cells dropped ({row.filter})"
        for row in list_filters(slide).itertuples()
        if f"{row.filter}{row.cells_after}" not in known and row.cells_before > row.cells_after
    ]
    known = {f"{row.filter}{row.genes_before - row.genes_after}" for row in list_filters(good).itertuples()}
    words += [
        f"{row.genes_before - row.genes_after} features dropped ({row.filter})"
        for row in list_filters(slide).itertuples()
        if f"{row.filter}{row.genes_before - row.genes_after}" not in known and row.genes_before > row.genes_after
    ]
    for key in ("notes", "unit", "repeated_ids"):
        before, after = good.uns["provenance"].get(key, "[]"), slide.uns["provenance"].get(key)
        if after is not None and after != before:
            lines = json.loads(after) if key == "notes" else [f"{key}: {after}"]
            words += [line for line in lines if line not in before]
    lost = len(good) - len(slide)
    return same, "; ".join(words) or ("the same slide" if same and not lost else "")


def outcome(module, folder, good, asked=None):
    try:
        same, words = told(open_slide(module, folder, asked), good)
    except InputError as error:
        return "refused", str(error).replace(f"{folder}/", "").replace(str(folder), folder.name)
    return ("read" if same else "read otherwise"), words


def rows_of(layout, tmp_path):
    module = importlib.import_module(f"layouts.{layout}")
    source = tmp_path / "source" / layout
    module.write(source)
    rows = []
    for name, plant in faults_of(module).items():
        # Always the same path, because samples are called after folders.
        folder = tmp_path / layout
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        good = open_slide(module, folder)
        plant(folder)
        rows.append((name, *outcome(module, folder, good)))
    shutil.rmtree(folder)
    shutil.copytree(source, folder)
    # What is told from headers refuses nothing that is there.
    reader, dataset = READERS[layout], dataset_of(module, folder)
    assert set(good.var_names) <= set(reader.genes(reader.locate(dataset["path"]), dataset))
    rows += [(name, *outcome(module, folder, good, asked)) for name, asked in BAD_SETTINGS.items()]
    return rows


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Function from the name of a layout to its rows (fault, verdict, words), which are made once."""
    folder = tmp_path_factory.mktemp("matrix")
    return functools.cache(lambda layout: rows_of(layout, folder))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_fault_is_told_or_harmless(matrix, layout):
    rows = {fault: (verdict, words) for fault, verdict, words in matrix(layout)}
    assert len(rows) >= 9
    for fault, (verdict, words) in rows.items():
        if fault in HARMLESS:
            assert verdict == "read", (fault, words)
            assert words, fault
        elif (layout, fault) in RIGHT_THERE:
            assert verdict.startswith("read"), (fault, words)
        else:
            assert verdict == "refused", (fault, words)
            assert one_sentence(words), words
            assert fault not in BAD_SETTINGS or words.startswith("config: "), words


def one_sentence(words):
    """It names a file (or the sample), says what is wrong, and after a semicolon or a comma how to mend it."""
    return (
        re.match(r"(file|folder|slide|sample|config|download)\b.*: .*[;,] .*\.$", words)
        and "\n" not in words
        and not re.search(r"\. [A-Z]", words)
    )


# --- downloads --------------------------------------------------------------------------------------------------

BODY = hdf5(200_000)

DOWNLOAD_FAULTS = {
    "404": "refused",
    "500": "refused",
    "429 after 0": "refused",
    "html": "refused",
    "disguised html": "refused",
    "break": "refused",
    "silent break": "refused",
    "stall": "refused",
    "no ranges": "read",
    "changed since": "refused",
    "checksum of the table": "refused",
    "full disk": "refused",
}


@contextmanager
def largest_file(n_bytes):
    """The operating system lets no file grow beyond a limit, as a full quota does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def download_row(fault, folder):
    with serving({"a.h5ad": BODY}) as server:
        file = DataFile("set", "", "h5ad", "a.h5ad", url=server.url("a.h5ad"), verified="yes")
        get = lambda file=file: obtain(file, settings(folder), folder / "results/set/a.h5ad")  # noqa: E731
        try:
            if fault == "changed since":
                get()
                shutil.rmtree(folder / "downloads")
                server.files["a.h5ad"] = hdf5(200_000, seed=1)
                get()
            elif fault == "checksum of the table":
                get(replace(file, sha256=hashlib.sha256(b"another").hexdigest()))
            elif fault == "full disk":
                with largest_file(100_000):
                    get()
            else:
                # A server that resumes always breaks a little later, so that one that never goes on is asked for.
                server.faults["a.h5ad"] = [fault, "503"] if "break" in fault else [fault]
                get()
        except InputError as error:
            text = str(error).replace(f"{folder}/", "").replace(str(folder), "folder")
            text = re.sub(r"127\.0\.0\.1:\d+", "server", text)
            text = re.sub(r"[0-9a-f]{64}", lambda found: f"{found[0][:8]}...", text)
            return "refused", re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\+\d\d:\d\d)?", "(date)", text)
    assert (folder / "results/set/a.h5ad").read_bytes() == BODY
    return "read", "the whole file"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        return [(f, *download_row(f, tmp_path_factory.mktemp("get"))) for f in DOWNLOAD_FAULTS]


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
def test_every_download_fault_is_told(downloads, fault):
    ((verdict, words),) = [row[1:] for row in downloads if row[0] == fault]
    assert verdict == DOWNLOAD_FAULTS[fault], words
    assert "\n" not in words


# --- the table --------------------------------------------------------------------------------------------------


def render(matrix, downloads):
    lines = [
        HEADER,
        "## Downloads",
        "",
        "| fault of the server | | what happens |",
        "|---|---|---|",
    ]
    lines += [f"| {' | '.join(escape(cell) for cell in row)} |" for row in downloads]
    for layout in LAYOUTS:
        lines += ["", f"## {layout}: {READERS[layout].description}", ""]
        lines += ["| fault | | what happens |", "|---|---|---|"]
        for fault, verdict, words in matrix(layout):
            if reason := RIGHT_THERE.get((layout, fault)):
                words = f"{words}; {reason}" if words else reason
            word = "read" if verdict.startswith("read") else verdict
            lines.append(f"| {' | '.join(escape(cell) for cell in (fault, word, words))} |")
    return "\n".join(lines) + "\n" + LIMITS


def escape(cell):
    return cell.replace("|", "\\|").replace("<", "&lt;")


def test_the_table_in_the_docs_says_what_happens(matrix, downloads, root):
    path = root / "resources/FAULTS.md"
    table = render(matrix, downloads)
    if os.environ.get("TC_WRITE_FAULTS"):
        path.write_text(table)
    assert path.exists(), "write it with TC_WRITE_FAULTS=1"
    assert path.read_text() == table, "write it anew with TC_WRITE_FAULTS=1"
