"""Fig. A6 of Cellina: cells that are taken, costs that were recorded, and what did not end."""

import json

import numpy as np
import pandas as pd

from drawings import PROVENANCE, texts
from slides import small_slide
from tissue_counterfactuals import steps
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.experiments import EXPERIMENTS
from tissue_counterfactuals.results.figures import figure_cellina_a6, style
from tissue_counterfactuals.slide import read_slide, write_slide

(ROW,) = (e for e in EXPERIMENTS if e.name == "cellina_scalability")
SETTINGS = Config.model_fields["cellina_experiments"].default.scalability.model_dump()


def taken(folder, subset, n_cells, slide):
    write_slide(slide, folder / "s.h5ad")
    steps.take_cells(folder / "s.h5ad", subset, n_cells, folder / "taken.h5ad")
    return read_slide(folder / "taken.h5ad")


def test_a_patch_is_the_cells_nearest_to_the_middle_of_their_sample(tmp_path):
    slide = small_slide(300, samples=("one", "two"))
    patch = taken(tmp_path, "contiguous", 60, slide)
    assert patch.n_obs == 60
    places = np.asarray(slide.obsm["spatial"])
    far = np.empty(300)
    for sample in ("one", "two"):
        own = (slide.obs["sample"] == sample).to_numpy()
        far[own] = np.linalg.norm(places[own] - np.median(places[own], axis=0), axis=1)
    nearest = slide.obs_names[np.sort(np.argsort(far)[:60])]
    assert patch.obs_names.tolist() == nearest.tolist()
    assert (patch.X != slide[nearest].X).nnz == 0


def test_random_cells_are_from_everywhere_and_a_small_slide_is_taken_whole(tmp_path):
    slide = small_slide(300)
    some = taken(tmp_path, "random", 100, slide)
    assert some.n_obs == 100
    spread = np.asarray(some.obsm["spatial"]).std(axis=0)
    np.testing.assert_allclose(spread, np.asarray(slide.obsm["spatial"]).std(axis=0), rtol=0.2)
    assert taken(tmp_path, "random", 1000, slide).obs_names.equals(slide.obs_names)


def fitted(folder, place, **status):
    model = folder / place / "all+" / "cellina" / "corrected.seed0"
    model.mkdir(parents=True)
    usual = {"seconds": 2.0, "peak_memory_mb": 300, "peak_gpu_memory_mb": 0, "device": "cpu"}
    (model / "status.json").write_text(json.dumps(usual | {"status": "ok", "reason": ""} | status))
    benchmark = folder / f"{place}.tsv"
    pd.DataFrame({"s": [5.0], "max_rss": [1.0]}).to_csv(benchmark, sep="\t", index=False)
    return model, benchmark


def finished(folder):
    write_slide(small_slide(300), folder / "one.h5ad")
    made = [
        fitted(folder, "one+random+200", seconds=41.0, seconds_before=40.0),
        fitted(folder, "one+random+1000"),
        fitted(folder, "one+random+2000"),
        fitted(folder, "one+contiguous+200", status="failed", reason="fit: memory ran out"),
    ]
    outputs = {"scores": folder / "scores.tsv", "manifest": folder / "manifest.json"}
    models, fits = zip(*made, strict=True)
    ROW.run(
        slide=folder / "one.h5ad",
        models=models,
        fits=fits,
        entry={"name": "toy", "kind": "simulated", "label": "Toy"},
        protocol="corrected",
        seed="0",
        settings=SETTINGS | {"most_cells": {"cellina": 250}},
        outputs=outputs,
    )
    return outputs


def test_costs_are_those_recorded_and_sizes_beyond_the_slide_are_one(tmp_path):
    table = pd.read_csv(finished(tmp_path)["scores"], sep="\t", keep_default_na=False)
    random = table[table["subset"] == "random"].set_index("n_cells")
    assert random["seconds"].astype(float).to_dict() == {200: 41.0, 300: 2.0}
    # The job that Snakemake saw last had only gone on with the first of them.
    assert random["pipeline_seconds"].astype(float).to_dict() == {200: 45.0, 300: 5.0}
    lost = table[table["subset"] == "contiguous"].set_index("n_cells")
    assert lost["status"].to_dict() == {200: "failed", 300: "not tried"}
    assert lost["reason"].tolist() == ["fit: memory ran out", "not tried on more than 250 cells"]


def test_the_figure_shows_costs_and_says_why_a_point_is_missing(tmp_path):
    made = finished(tmp_path)
    output = {"tsv": tmp_path / "a6.tsv", "png": tmp_path / "a6.png"}
    inputs = {"scores": [made["scores"]], "manifests": [made["manifest"]]}
    figure_cellina_a6.draw_files(inputs, output, "corrected")
    assert output["png"].stat().st_size > 10_000
    table = pd.read_csv(output["tsv"], sep="\t", keep_default_na=False)
    for name in figure_cellina_a6.PANELS:
        table[name] = pd.to_numeric(table[name])
    figure = figure_cellina_a6.compose(table, "Costs [simulated]", PROVENANCE)
    assert any("200 a contiguous patch: fit: memory ran out" in t for t in texts(figure))
    assert any("300 a contiguous patch: not tried on more than 250 cells" in t for t in texts(figure))
    assert any("Last row" in text for text in texts(figure))
    # One size did not end, another was not tried.
    marks = [(line.get_marker(), line.get_xdata().tolist()) for line in figure.axes[-1].lines]
    assert marks == [("x", [200]), ("_", [300])]
    first = figure.axes[0]
    assert first.get_ylabel() == "Training, seconds"
    assert first.lines[0].get_ydata().tolist() == [41.0, 2.0]
    # No GPU was used, so that there is no panel for it.
    assert {a.get_ylabel() for a in figure.axes} - {""} == set(list(figure_cellina_a6.PANELS.values())[:3])


def test_methods_that_learn_from_niches_are_solid_and_those_that_see_no_neighbours_dashed():
    """As in the paper, where scVIVA is spatial."""
    methods = ["cellina", "cellina_gat", "spatialprop", "concert", "scviva", "scvi", "scanvi", "scgen", "cpa"]
    costs = {"subset": "random", "n_cells": 1000, "n_fits": 1, "n_failed": 0, "reason": "", "devices": "cpu"}
    costs |= {"n_slides": 1, "complete": True}
    costs |= dict.fromkeys(figure_cellina_a6.PANELS, 1.0)
    table = pd.DataFrame([{"method": method} | costs for method in methods])[figure_cellina_a6.COLUMNS]
    figure = figure_cellina_a6.compose(table, "Costs [simulated]", PROVENANCE)
    (legend,) = figure.legends
    lines = {h.get_label(): h.get_linestyle() for h in legend.legend_handles}
    dashed = {label for label, line in lines.items() if line == "--"}
    assert dashed == {style.method_style(method).label for method in ("scvi", "scanvi", "scgen", "cpa")}
    assert len(lines) == len(methods)


def test_medians_over_other_slides_or_without_what_failed_stand_apart_from_the_line():
    usual = {"method": "ridge", "subset": "random", "status": "ok", "reason": "", "device": "cpu"}
    rows = [("small", 200, 1.0), ("small", 500, 3.0), ("small", 700, 9.0)]
    rows += [("large", 200, 2.0), ("large", 500, 4.0), ("large", 1000, 5.0)]
    costs = [usual | dict(zip(("slide", "n_cells", "seconds"), row, strict=True)) for row in rows]
    costs[1] |= {"status": "failed", "reason": "fit: memory ran out"}
    for row in costs:
        row |= dict.fromkeys(figure_cellina_a6.PANELS, row["seconds"])
    for chosen, complete in ((costs, {200: True, 500: False, 700: False, 1000: False}), (costs[3:], None)):
        table = figure_cellina_a6.summarize(pd.DataFrame(chosen))
        found = table.set_index("n_cells")["complete"]
        assert found.to_dict() == (complete or dict.fromkeys(found.index, True))
        figure = figure_cellina_a6.compose(table, "Costs [simulated]", PROVENANCE)
        joined, apart = figure.axes[0].lines
        assert joined.get_xdata().tolist() == [n for n, whole in found.items() if whole]
        assert apart.get_xdata().tolist() == [n for n, whole in found.items() if not whole]
        labels = [h.get_label() for h in figure.legends[0].legend_handles]
        assert ("some slides or trainings only" in labels) == bool(complete)
        # Each size has a training that ended, so that there is no row of those that have none.
        assert not any("Last row" in text for text in texts(figure))
