"""Tests of the slide map."""

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, panel, png_size, texts
from slides import small_slide
from tasks import Question
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.results.figures import figure_cellina_2, style

NAMES = ("cells", "held_out", "focal", "old_neighbors", "new_neighbors", "title", "provenance_text")


def slide_cells(n=1200, n_samples=2, seed=0):
    """Samples of 1000 x 600 micrometres whose coordinates coincide; left half normal, right half tumour."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1, (n, 2)) * [1000, 600]
    return pd.DataFrame(
        {
            "x_um": xy[:, 0],
            "y_um": xy[:, 1],
            "cell_type": pd.Categorical(rng.choice(["B cell", "Fibroblast", "T cell"], n)),
            "domain": pd.Categorical(np.where(xy[:, 0] < 500, "normal", "tumour")),
            "sample": pd.Categorical([f"sample_{i % n_samples}" for i in range(n)]),
        }
    )


def map_arguments(cells):
    held_out = ((cells["cell_type"] == "T cell") & (cells["domain"] == "tumour")).to_numpy()
    control = ((cells["cell_type"] == "T cell") & (cells["domain"] == "normal")).to_numpy()
    focal = int(np.flatnonzero(control)[0])
    xy = cells[["x_um", "y_um"]].to_numpy()
    near = np.linalg.norm(xy - xy[focal], axis=1) < 100
    near &= (cells["sample"] == cells["sample"].iloc[focal]).to_numpy() & ~held_out
    near[focal] = False
    donors = np.flatnonzero((cells["domain"] == "tumour") & ~held_out)[:50]
    return held_out, focal, np.flatnonzero(near), donors


@pytest.fixture(scope="module")
def slide_map():
    cells = slide_cells()
    arguments = map_arguments(cells)
    return cells, arguments, figure_cellina_2.compose(cells, *arguments, "demo [simulated]", PROVENANCE)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 7])
def test_samples_stand_side_by_side_without_overlap(n_samples):
    cells = slide_cells(n_samples=n_samples)
    layout = figure_cellina_2.arrange(cells)
    boxes = list(layout.boxes.values())
    assert len(boxes) == n_samples
    for i, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + width <= layout.width * (1 + 1e-9)
        assert y + height <= layout.height * (1 + 1e-9)
        for u, v, other_width, other_height in boxes[i + 1 :]:
            assert x + width < u or u + other_width < x or y + height < v or v + other_height < y
    # Within a sample nothing moves against anything else.
    xy = cells[["x_um", "y_um"]].to_numpy()
    for _, rows in cells.groupby("sample", observed=True).indices.items():
        shift = layout.xy[rows] - xy[rows]
        assert np.ptp(shift, axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_map_draws_every_cell_in_the_colour_of_its_type(slide_map):
    cells, _, figure = slide_map
    colors = style.category_colors(cells["cell_type"])
    drawn = dict.fromkeys(colors.values(), 0)
    for line in panel(figure, "Cell types").lines:
        if line.get_rasterized():
            drawn[line.get_color()] += len(line.get_xdata())
    sizes = cells["cell_type"].value_counts()
    assert drawn == {colors[name]: sizes[name] for name in colors}


def test_map_marks_held_out_and_control_cells(slide_map):
    cells, (held_out, *_), figure = slide_map
    layout = figure_cellina_2.arrange(cells)
    found = np.concatenate(
        [
            line.get_xydata()
            for line in panel(figure, "Held-out cells").lines
            if line.get_color() == figure_cellina_2.HELD_OUT_COLOR
        ]
    )
    expected = layout.xy[held_out]
    assert np.allclose(np.sort(found, axis=0), np.sort(expected, axis=0))
    n_control = ((cells["cell_type"] == "T cell") & (cells["domain"] == "normal")).sum()
    assert f"held out: T cell in tumour ({held_out.sum():,})" in texts(figure)
    assert f"control: T cell in normal ({n_control:,})" in texts(figure)


def test_map_joins_the_focal_cell_to_old_and_new_neighbours(slide_map):
    cells, (_, focal, old, new), figure = slide_map
    layout = figure_cellina_2.arrange(cells)
    for title, members in (("New neighbours", new), ("Old neighbours", old)):
        (edges,) = [c for c in panel(figure, title).collections if hasattr(c, "get_segments") and len(c.get_segments())]
        segments = np.array(edges.get_segments())
        assert np.allclose(segments[:, 0], layout.xy[focal])
        assert np.allclose(segments[:, 1], layout.xy[members])
    assert {f"old neighbours ({len(old)})", f"donors ({len(new)})"} <= set(texts(figure))


def test_map_shows_the_composition_of_both_neighbourhoods(slide_map):
    cells, (_, _, old, new), figure = slide_map
    axes = panel(figure, "Who the neighbours are")
    for y, members in ((0, new), (1, old)):
        shares = cells["cell_type"].iloc[members].value_counts(normalize=True)
        for name, share in shares.items():
            (bar,) = [b for b in axes.patches if b.get_gid() == name and round(b.get_y() + b.get_height() / 2) == y]
            assert bar.get_width() == pytest.approx(share)


def test_map_has_scale_bars_samples_and_provenance(slide_map):
    _, _, figure = slide_map
    written = texts(figure)
    assert written.count("sample_1") == 4
    assert "200 µm" in written
    assert {"demo [simulated]", PROVENANCE} <= set(written)
    for axes in figure.axes[:4]:
        assert axes.get_aspect() == 1


@pytest.mark.parametrize(("width", "length"), [(1000, 200), (4000, 1000), (790, 100), (80, 20), (20_000, 5000)])
def test_scale_bar_is_round_and_at_most_a_quarter(width, length):
    assert figure_cellina_2.scale_bar_length(width) == pytest.approx(length)


def test_map_of_an_isolated_cell_is_drawn(tmp_path):
    cells = slide_cells(n_samples=1)
    held_out, focal, _, donors = map_arguments(cells)
    nobody = np.array([], dtype=np.int64)
    style.save(
        figure_cellina_2.compose(cells, held_out, focal, nobody, donors, "t [real]", PROVENANCE), tmp_path / "m.png"
    )
    width, height = png_size(tmp_path / "m.png")
    assert width == 1950
    assert height > 700


def test_map_of_many_cells_has_the_same_bytes_twice(tmp_path):
    cells = slide_cells(n=60_000, n_samples=3)
    for name in "ab":
        style.save(
            figure_cellina_2.compose(cells, *map_arguments(cells), "t [real]", PROVENANCE), tmp_path / f"{name}.png"
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_map_refuses_what_does_not_fit_together():
    cells = slide_cells()
    held_out, focal, old, new = map_arguments(cells)
    with pytest.raises(InputError, match="held_out has 10 values for 1200 cells"):
        figure_cellina_2.compose(cells, held_out[:10], focal, old, new, "", "")
    with pytest.raises(InputError, match="new_neighbors holds the index 1200"):
        figure_cellina_2.compose(cells, held_out, focal, old, np.array([1200]), "", "")


@pytest.mark.parametrize("n_donors", [10, 400])
def test_the_map_shows_the_donors_that_methods_are_given(tmp_path, monkeypatch, n_donors):
    """With 400 donors the published rule finds too few, and the next one is shown."""
    slide = small_slide(n_cells=900, domains=("left", "middle", "right"))
    fold, rules = Fold("A", "left", ("middle", "right")), ("published", "matched")
    question = Question(tmp_path, slide, fold, donor_rules=rules, n_donors=n_donors)
    task = question.task
    monkeypatch.setattr(
        figure_cellina_2.provenance,
        "read",
        lambda path: {
            "label": "t",
            "kind": "simulated",
            "n_cells": 900,
            "seeds": [0],
            "commit": "c",
            "config_hash": "h",
        },
    )
    # A cell at the border, which stands beside cells that no method sees.
    beside = np.asarray(slide.obsm["spatial"])[:, 0]
    monkeypatch.setattr(figure_cellina_2, "central", lambda _, focal: int(beside[focal].argmax()))
    drawn = {}
    monkeypatch.setattr(figure_cellina_2, "compose", lambda *shown: drawn.update(zip(NAMES, shown, strict=True)))
    monkeypatch.setattr(style, "save", lambda *_: None)
    inputs = {"slide": question.slide, "question": [question.file]}
    output = {"tsv": tmp_path / "map.tsv", "png": tmp_path / "map.png"}
    figure_cellina_2.draw_files(inputs | {"manifest": None}, output)
    # All targets, and not the first alone.
    assert np.array_equal(drawn["held_out"], task.split.held_out)
    assert set(slide.obs["domain"][drawn["held_out"]]) == {"middle", "right"}
    assert "A held out in middle, right" in drawn["title"]
    near = slide_graph(slide, **task.question.graph)[[drawn["focal"]]].indices
    assert drawn["held_out"][near].any()
    seen = task.masked_graph[[drawn["focal"]]].indices
    assert np.array_equal(drawn["old_neighbors"], seen)
    assert not drawn["held_out"][seen].any()
    donors = task.question.donors("middle")
    row = int(np.flatnonzero(task.focal == drawn["focal"])[0])
    shown = {10: "published", 400: "matched"}[n_donors]
    assert isinstance(donors["published"], str) is (n_donors > 10)
    assert np.array_equal(drawn["new_neighbors"], donors[shown][row])
    told = pd.read_csv(output["tsv"], sep="\t")
    assert np.array_equal(told["held_out"], drawn["held_out"])
    assert np.flatnonzero(told["focal"]).tolist() == [drawn["focal"]]
    assert np.array_equal(np.flatnonzero(told["donor"]), np.unique(drawn["new_neighbors"]))
