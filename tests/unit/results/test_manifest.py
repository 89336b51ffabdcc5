"""The manifest of a run, and what it finds changed."""

import json

import pytest

from tissue_counterfactuals.files import atomic_folder, atomic_path
from tissue_counterfactuals.results import manifest, provenance

CONFIG = {"seeds": [0, 1], "device": "cpu", "datasets": {"d": {"kind": "simulated"}}}
BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n"
# SHA-256 of "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A small folder of results, with its manifest."""
    monkeypatch.setattr(provenance, "commit", lambda: "c0ffee")
    with atomic_path(tmp_path / "tables/d/scores.tsv") as path:
        path.write_text("abc")
    table = {"kind": "simulated", "commit": "c0ffee", "config_hash": "0", "n_cells": 9, "config": CONFIG}
    table |= {"seeds": [0, 1], "python": "3.11.7", "packages": {"torch": "2.13.0"}}
    with atomic_path(tmp_path / "tables/d/provenance.json") as path:
        path.write_text(json.dumps(table))
    with atomic_folder(tmp_path / "models/d/s/f/cellina/corrected.seed0") as folder:
        (folder / "status.json").write_text(json.dumps({"device": "NVIDIA H100"}))
        (folder / "model.pt").write_text("abc")
    for name in ("figures/d/costs.png", "slides/d/s.h5ad", "compare/demo/answer.md"):
        with atomic_path(tmp_path / name) as path:
            path.write_text("abc")
    for place, values in (("fit/d/a", "2.5\t0\t300.5\t2.25"), ("fit/d/b", "1.5\t0\t400\t1")):
        (tmp_path / f"benchmarks/{place}.tsv").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"benchmarks/{place}.tsv").write_text(f"{BENCHMARK}{values}\n")
    (tmp_path / "benchmarks/fit/e.as_run.tsv").write_text(f"{BENCHMARK}9\t0\t9\t9\n")
    (tmp_path / "benchmarks/score.tsv").write_text(f"{BENCHMARK}0.01\t0\t-\t-\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/fit.log").write_text("epoch 1")
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments/scvi.json").write_text('{"interpreter": "python", "size_mb": 7}')
    manifest.write(tmp_path, CONFIG)
    return tmp_path


def test_it_says_what_was_made_and_from_what(results):
    written = json.loads((results / "manifest.json").read_text())
    model = "models/d/s/f/cellina/corrected.seed0"
    files = {"tables/d/scores.tsv", "tables/d/provenance.json", f"{model}/model.pt"}
    files |= {"figures/d/costs.png", "slides/d/s.h5ad", "compare/demo/answer.md"}
    assert set(written["files"]) == files | {f"{model}/status.json"}
    for name in ("tables/d/scores.tsv", f"{model}/model.pt"):
        assert written["files"][name]["sha256"] == ABC
        assert written["files"][name]["bytes"] == 3
    assert written["config"] == CONFIG
    assert written["seeds"] == [0, 1]
    assert written["devices"] == ["NVIDIA H100"]
    assert written["tables"]["tables/d/provenance.json"]["commit"] == "c0ffee"
    core = {"python": "3.11.7", "packages": {"torch": "2.13.0"}}
    assert written["environments"] == {"core": core, "scvi": {"size_mb": 7}}
    assert written["steps"]["fit"] == {"jobs": 3, "seconds": 13.0, "peak_memory_mb": 400.0}
    assert written["steps"]["score.tsv"]["jobs"] == 1
    assert manifest.differences(results, CONFIG) == []


def test_beside_each_table_and_figure_stands_what_it_was_made_from(results):
    beside = {path.parent.relative_to(results).as_posix() for path in results.glob("*/**/manifest.json")}
    assert beside == {"tables/d", "figures/d", "compare/demo"}
    figure = json.loads((results / "figures/d/manifest.json").read_text())
    assert figure["files"] == {
        "costs.png": json.loads((results / "manifest.json").read_text())["files"]["figures/d/costs.png"]
    }
    # The table's configuration: the run that ended last may have had another.
    assert (figure["commit"], figure["config_hash"], figure["seeds"]) == ("c0ffee", "0", [0, 1])
    assert figure["data"] == {"slides/d/s.h5ad": ABC}
    assert figure["devices"] == ["NVIDIA H100"]
    assert figure["environments"]["core"]["packages"] == {"torch": "2.13.0"}
    # Of this data set alone.
    assert figure["steps"] == {"fit": {"jobs": 2, "seconds": 4.0, "peak_memory_mb": 400.0}}
    of_the_run = json.loads((results / "compare/demo/manifest.json").read_text())
    assert of_the_run["steps"]["fit"]["jobs"] == 3
    assert of_the_run["config_hash"] == provenance.config_hash(CONFIG)


def test_a_later_run_with_other_seeds_and_code_is_not_what_made_the_tables(results, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "decaf")
    for name, commit, seed in (("tables/d/x.s.json", "c0ffee", 2), ("tables/spleen/y.json", "older", 3)):
        with atomic_path(results / name) as path:
            path.write_text(
                json.dumps({"kind": "real", "commit": commit, "config_hash": "1", "seeds": [seed], "n_cells": 1})
            )
    for name in ("figures/spleen/y.png", "celcomen/simulation/z.png"):
        with atomic_path(results / name) as path:
            path.write_text("abc")
    provenance.write_simulated(results / "celcomen/simulation/z.json", "S", 9, [4], {}, {})
    monkeypatch.setattr(provenance, "commit", lambda: "newest")
    manifest.write(results, CONFIG | {"seeds": [7]})
    told = {}
    for path in results.glob("*/**/manifest.json"):
        beside = json.loads(path.read_text())
        told[path.parent.relative_to(results).as_posix()] = (beside["commit"], beside["seeds"])
    assert told == {
        **dict.fromkeys(("tables/d", "figures/d"), ("c0ffee", [0, 1, 2])),
        **dict.fromkeys(("tables/spleen", "figures/spleen"), ("older", [3])),
        "celcomen/simulation": ("decaf", [4]),
        "compare/demo": ("newest", [7]),
    }
    assert json.loads((results / "figures/d/manifest.json").read_text())["config_hash"] == "0, 1"


def test_it_finds_what_was_changed_taken_away_and_added(results):
    (results / "tables/d/scores.tsv").write_text("abd")
    (results / "models/d/s/f/cellina/corrected.seed0/model.pt").unlink()
    (results / "tables/d/more.tsv").write_text("")
    (results / "logs/fit.log").write_text("epoch 2")
    # Made from the results afterwards, with the time in it.
    (results / "report.html").write_text("<html>")
    found = "\n".join(manifest.differences(results, CONFIG))
    assert "tables/d/scores.tsv: it is not what the run wrote" in found
    assert "model.pt: it is gone" in found
    assert "tables/d/more.tsv: the manifest does not know it" in found
    assert len(found.splitlines()) == 3


def test_it_finds_another_configuration_and_other_code(results, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "decaf")
    changed = CONFIG | {"datasets": {"d": {"kind": "real"}}}
    code, configuration = manifest.differences(results, changed)
    assert code == ("table tables/d/provenance.json: it was made by commit c0ffee; this checkout is decaf.")
    assert configuration == "config: datasets.d.kind is not what it was when the results of d were made."


def test_the_run_that_ended_last_may_have_been_of_other_data_or_another_configuration(results):
    manifest.write(results, CONFIG | {"datasets": {"other": {}}})
    assert manifest.differences(results, CONFIG) == []
    # A small target under a changed key: the tables of `d` are still those of before.
    changed = CONFIG | {"device": "cuda"}
    manifest.write(results, changed)
    assert manifest.differences(results, CONFIG) == []
    (sentence,) = manifest.differences(results, changed)
    assert sentence == "config: device is not what it was when the results of d were made."
    # Another data set of the same configuration says nothing of this one's tables.
    assert manifest.differences(results, CONFIG | {"datasets": CONFIG["datasets"] | {"new": {}}}) == []


def test_without_a_manifest_that_is_said(tmp_path):
    (sentence,) = manifest.differences(tmp_path, CONFIG)
    assert "manifest.json: it is missing" in sentence
