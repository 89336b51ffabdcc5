"""A preparation killed at any moment leaves nothing that the next run takes for its own, and ends in the same bytes."""

import importlib
import multiprocessing
import time
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.steps import prepare

# Forked, because a new process would spend its life importing.
FORK = multiprocessing.get_context("fork")


def prepare_into(folder, dataset, files):
    with redirect_stdout(StringIO()):
        prepare(dataset, files, dataset["samples"], folder / "a.h5ad", folder / "a.shapes.tsv")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(*arguments):
    process = FORK.Process(target=prepare_into, args=arguments)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("layout", ["xenium", "cosmx_crc"])
def test_killed_at_ten_random_moments(tmp_path, layout):
    module = importlib.import_module(f"layouts.{layout}")
    module.write(tmp_path / "raw")
    raw = {"experiments": ["celcomen_spleen"], "preprocess": {"n_top_genes": None}}
    dataset = load_config({"datasets": {"x": raw | module.entry(tmp_path / "raw")}})["datasets"]["x"]
    files = READERS[layout].locate(dataset["path"])

    whole, again = tmp_path / "whole", tmp_path / "again"
    whole.mkdir()
    again.mkdir()
    # The first run imports what the step needs; processes forked after it have it.
    prepare_into(whole, dataset, files)
    began = time.monotonic()
    process = start(again, dataset, files)
    process.join()
    duration = time.monotonic() - began
    assert process.exitcode == 0
    assert bytes_of(again) == bytes_of(whole)
    good = bytes_of(whole)
    names = ["a.h5ad", "a.shapes.tsv"]
    assert sorted(good) == sorted([*names, *(f".{name}.sha256" for name in names)])

    rng, killed, tries = np.random.default_rng(4), 0, 0
    # A run that ended before its moment came does not count; the machine may be faster than it was a moment ago.
    while killed < 10:
        tries += 1
        assert tries < 60
        moment = rng.uniform(0, duration)
        folder = tmp_path / f"killed_{tries}"
        folder.mkdir()
        process = start(folder, dataset, files)
        process.join(moment)
        process.kill()
        process.join()
        killed += process.exitcode == -9
        # What has its own name is whole; the slide, which the next step waits for, comes last.
        left = {name: body for name, body in bytes_of(folder).items() if not name.startswith(".")}
        assert left == {name: good[name] for name in left}
        assert "a.h5ad" not in left or len(left) == 2
        prepare_into(folder, dataset, files)
        assert bytes_of(folder) == good
