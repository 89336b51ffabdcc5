"""Attention of Cellina-GAT, from the adapter through the file of predictions to the figure."""

import numpy as np
import pandas as pd
import pytest

from drawings import panel, png_size, texts
from slides import small_slide
from tasks import Question
from tissue_counterfactuals.models.cellina_gat import CellinaGAT
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.results.figures import attention, style


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    made = Question(tmp_path_factory.mktemp("q"), small_slide(n_cells=300, n_genes=12))
    made.predict("cellina_gat", "mean_shift")
    return made


@pytest.fixture
def manifest(monkeypatch):
    record = {"label": "demo", "kind": "simulated"}
    monkeypatch.setattr(attention.provenance, "read", lambda path: record)
    monkeypatch.setattr(attention.provenance, "footer", lambda *_: "made by a test")


def files_of(folder):
    return {"tsv": folder / "tsv", "cell": folder / "cell", "png": folder / "a.png"}


def found_in(question):
    with read_predictions(question.folder / "predictions.h5ad") as made:
        assert not made.attention("mean_shift", "right")
        return made.attention("cellina_gat", "right")


def test_the_file_of_predictions_holds_whom_every_focal_cell_listens_to(question):
    task = question.task
    model = CellinaGAT.load(question.folder / "cellina_gat/model.pt", "cpu")
    own = model.surroundings(task.graph_without_answers(max_neighbors=10), task.slide.X)
    donors = task.question.donors("right")["published"]
    found = found_in(question)
    assert set(found) == {"published", "no_intervention"}
    for variant, around in (("no_intervention", own), ("published", own.moved(task.focal, donors, False))):
        cells, neighbors, weights = found[variant]
        assert np.array_equal(cells, task.focal)
        named, expected = model.attention(task.slide, task.focal, around)
        assert np.array_equal(neighbors, named)
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
    heard = found["published"][1]
    assert [set(row) - {-1} for row in heard] == [set(row) for row in donors]


def test_the_figure_shows_the_tissue_and_who_is_heard(question, manifest, tmp_path):
    inputs = {"slide": question.slide, "folds": question.folds, "manifest": None}
    inputs |= {"question": [question.file], "predictions": [question.folder / "predictions.h5ad"]}
    output = files_of(tmp_path)
    attention.draw_files(inputs, output)
    assert png_size(output["png"])[0] > 1000
    # Before and after, all that a cell hears, and all that cells hear on average.
    for name in ("tsv", "cell"):
        table = pd.read_csv(output[name], sep="\t")
        assert table.groupby("time")["attention"].sum().to_dict() == pytest.approx({"before": 1, "after": 1}, abs=1e-4)
    assert (table["time"] == "after").sum() == 10
    found = found_in(question)
    slide = question.task.slide
    cells = slide.obs[["cell_type", "sample"]].astype(str).reset_index(drop=True)
    cells[["x_um", "y_um"]] = slide.obsm["spatial"]
    figure = attention.compose(cells, found["no_intervention"], found["published"], "demo [simulated]", "made")
    assert {"made", *attention.PANELS} <= set(texts(figure))
    by_type = panel(figure, "Share of attention")
    widths = [bar.get_width() for bar in by_type.patches if bar.get_width() > 0]
    # Before and after, all attention is shown.
    assert sum(widths) == pytest.approx(2, abs=1e-4)
    dots = panel(figure, "After").collections[0]
    assert len(dots.get_offsets()) == 10
    assert dots.get_sizes().sum() == pytest.approx(10 * attention.EVEN_AREA, rel=1e-4)


def test_donors_of_another_section_do_not_stand_among_the_cells_of_this_one():
    places = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2) * 20
    cells = pd.DataFrame(np.tile(places, (2, 1)), columns=["x_um", "y_um"])
    cells["sample"], cells["cell_type"] = np.repeat(["one", "two"], len(places)), "a"
    weights = np.full((1, 3, 1), 1 / 3)
    before = np.array([14]), np.array([[13, 15, 20]]), weights
    # The third donor is of the other section, at the place of the first.
    after = np.array([14]), np.array([[13, 15, 36 + 13]]), weights
    figure = attention.compose(cells, before, after, "demo", "made")
    spans = {}
    for name in attention.PANELS[:2]:
        spans[name] = np.ptp(panel(figure, name).collections[0].get_offsets(), axis=0).max()
    assert spans[attention.PANELS[0]] <= 40
    assert spans[attention.PANELS[1]] >= 100


def test_names_of_many_types_do_not_overlap():
    cells = pd.DataFrame(np.random.default_rng(0).uniform(0, 99, (60, 2)), columns=["x_um", "y_um"])
    cells["sample"], cells["cell_type"] = "one", [f"type {i // 2:02}" for i in range(60)]
    heard = np.array([0]), np.array([[1, 2, 3]]), np.full((1, 3, 1), 1 / 3)
    figure = attention.compose(cells, heard, heard, "demo", "made")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in panel(figure, "Share of attention").get_yticklabels()]
    assert len(boxes) == 30
    assert all(below.y1 <= above.y0 for above, below in zip(boxes, boxes[1:], strict=False))


def test_the_cell_that_is_shown_is_in_the_middle_of_its_own_section():
    """Sections have coordinates of their own: the middle of all focal cells is a place between two of them."""
    around = np.array([[0.0, 0], [100, 0], [0, 100], [100, 100], [50, 55]])
    cells = pd.DataFrame(np.concatenate([around, around[:4] + 1000]), columns=["x_um", "y_um"])
    cells["sample"], cells["cell_type"] = np.repeat(["one", "two"], [5, 4]), "a"
    focal = np.arange(9)
    heard = focal, (focal[:, None] + 1) % 9, np.ones((9, 1, 1))
    figure = attention.compose(cells, heard, heard, "demo", "made")
    # Sections are set side by side, and stay what they are.
    shown = panel(figure, "Before").lines[-1].get_xydata()[0]
    corners = attention.arrange(cells).xy[:4]
    np.testing.assert_allclose(shown - corners[0], [50, 55])


def test_a_slide_without_questions_and_a_model_that_failed_give_the_reason(question, manifest, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(style, "save_reason", lambda reason, *_: written.append(reason))
    inputs = {"slide": question.slide, "folds": tmp_path / "folds.tsv", "manifest": None}
    table = pd.read_csv(question.folds, sep="\t")
    table["left_out"] = "too few cells"
    table.to_csv(inputs["folds"], sep="\t", index=False)
    attention.draw_files(inputs | {"question": [], "predictions": []}, files_of(tmp_path))
    assert pd.read_csv(tmp_path / "tsv", sep="\t").columns.tolist() == attention.SHARES
    assert written == ["too few cells"]
    other = Question(tmp_path / "q", small_slide(n_cells=300, n_genes=12))
    other.predict("mean_shift")
    files = {"question": [other.file], "predictions": [other.folder / "predictions.h5ad"]}
    attention.draw_files(inputs | files, files_of(tmp_path))
    assert "no donor rule found donors in right" in written[1]


def test_shares_are_means_over_the_cells_that_hear_anybody():
    types = pd.Series(["a", "b", "b", "c"])
    neighbors = np.array([[1, 2, -1], [0, 3, -1], [-1, -1, -1]])
    weights = np.zeros((3, 3, 2))
    weights[0, :2, -1], weights[1, :2, -1] = [0.9, 0.1], [0.2, 0.8]
    table = attention.shares(types, neighbors, weights)
    assert table["attention"].to_dict() == pytest.approx({"a": 0.1, "b": 0.5, "c": 0.4})
    assert table["cells"].to_dict() == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25})
