"""What MintFlow's adapter hands over, and the function that stands in for a compiled one; the package is not needed."""

from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch

from slides import poisoned, small_slide
from tasks import FOLD, make_task
from tissue_counterfactuals.methods import mintflow
from tissue_counterfactuals.methods.scvi_tools import Seen
from tissue_counterfactuals.question.folds import Fold


def test_held_out_cells_are_in_no_file_that_mintflow_reads(tmp_path):
    slide = small_slide(n_cells=200, samples=("one", "two"))
    read = []
    for name, asked in (("clean", slide), ("poisoned", poisoned(slide))):
        task, folder = make_task(asked), tmp_path / name
        folder.mkdir()
        files = mintflow._sections(Seen.of(task), folder)
        assert len(files) == 2
        read.append([anndata.read_h5ad(file) for file in files])
        cells = [cell for section in read[-1] for cell in section.obs_names]
        assert sorted(cells) == sorted(slide.obs_names[~task.split.held_out])
    for clean, dirty in zip(*read, strict=True):
        assert clean.obs["sample"].nunique() == 1
        assert (clean.X != dirty.X).nnz == 0
        assert clean.obs.equals(dirty.obs)
    # The poison is one.
    assert (slide.X != poisoned(slide).X).nnz


@pytest.mark.parametrize("fold", [FOLD, Fold("A", "left", ("right",), "two", ("two",))])
def test_own_neighbours_are_the_nearest_cells_of_the_sample_that_are_no_answers(fold):
    slide = small_slide(n_cells=150, samples=("one", "two"))
    task = make_task(slide, fold, n_donors=5)
    found = mintflow._own_neighbors(task, task.focal, 4)
    places, sample = slide.obsm["spatial"], slide.obs["sample"].to_numpy()
    answers = (slide.obs["cell_type"] == "A") & (slide.obs["domain"] == "right")
    for cell, neighbors in zip(task.focal, found, strict=True):
        others = np.flatnonzero((sample == sample[cell]) & ~answers)
        others = others[others != cell]
        distance = np.linalg.norm(places[others] - places[cell], axis=1)
        assert set(neighbors) == set(others[np.argsort(distance)[:4]])


@pytest.mark.parametrize("n_coincident", [3, 9])
def test_no_cell_is_its_own_neighbour_where_cells_stand_in_one_place(n_coincident):
    slide = small_slide(n_cells=150)
    task = make_task(slide, n_donors=5)
    together = task.focal[:n_coincident]
    slide.obsm["spatial"][together] = slide.obsm["spatial"][together[0]]
    found = mintflow._own_neighbors(task, task.focal, 4)
    assert not (found == task.focal[:, None]).any()
    assert all(len(set(row)) == 4 for row in found)
    assert np.isin(together, found[0]).sum() == min(n_coincident - 1, 4)


class Generator:
    """Stands in for the package: it remembers what it is to draw."""

    def __init__(self, sections):
        self.data, self.asked = (
            {"train_list_tissue_section": SimpleNamespace(map_Batchname_to_inflowBatchID=sections)},
            [],
        )

    def generate_insilico_ST_data(self, adata, batch_index_trainingdata, **told):
        assert told["estimate_spatial_sizefactors_on_sections"] == [batch_index_trainingdata]
        self.asked.append((batch_index_trainingdata, adata))
        draw = np.zeros(adata.shape)
        draw[:, batch_index_trainingdata] = 1
        names = ("MintFlow_Generated_Xint", "MintFLow_Generated_Xmic")
        return {"list_generated_realisations_ie_expressions": [dict.fromkeys(names, draw)]}


def answered(task, monkeypatch, folder) -> tuple[dict, list]:
    """What is predicted, and what the package was asked: section and tissue of each drawing."""
    sections = sorted(set(Seen.of(task).counts().obs["sample"]))
    package = Generator({name: f"inflow_BatchID_{i}" for i, name in enumerate(sections)})
    stored = {"data_mintflow": package.data, "dict_all4_configs": {}, "model": None}
    monkeypatch.setattr(mintflow, "_package", lambda: package)
    monkeypatch.setattr(mintflow, "seed_everything", lambda _: None)
    monkeypatch.setattr(torch, "load", lambda *_, **__: stored)
    task.settings = {"n_neighbors": 5, "n_draws": 1}
    return mintflow.predict(task, folder, "right"), package.asked


def test_the_few_donors_that_it_takes_are_of_the_types_of_all(monkeypatch, tmp_path):
    slide = small_slide(n_cells=900, types=("A", "B", "C", "D", "E"))
    task = make_task(slide, donor_rules=("matched",))
    _, ((_, tissue), _) = answered(task, monkeypatch, tmp_path)
    around = tissue.obsp["spatial_connectivities"][: len(task.focal)]
    assert (np.diff(around.indptr) == 5).all()
    # Codes of types are in their order.
    types = slide.obs["cell_type"].to_numpy()[task.question.donors("right")["matched"]]
    drawn = tissue.obs["cell_type"].to_numpy()[around.indices]
    for i, label in enumerate("ABCDE"):
        assert (drawn == f"c{i}").mean() == pytest.approx((types == label).mean(), abs=0.06)


def test_cells_are_drawn_in_the_section_of_their_sample_and_without_one_in_all(monkeypatch, tmp_path):
    samples = ("one", "three", "two")
    slide = small_slide(n_cells=400, samples=samples)
    library = np.asarray(slide.X.sum(axis=1)).ravel()
    task = make_task(slide, n_donors=5)
    made, _ = answered(task, monkeypatch, tmp_path)
    section = np.array([samples.index(s) for s in slide.obs["sample"].iloc[task.focal]])
    assert set(made) == {"published", "no_intervention"}
    for prediction in made.values():
        expected = library[task.focal, None] * (section[:, None] == np.arange(3))
        np.testing.assert_allclose(prediction.values[:, :3], expected, rtol=1e-5)
    task = make_task(slide, Fold("A", "left", ("right",), "two", ("two",)), n_donors=5)
    made, asked = answered(task, monkeypatch, tmp_path)
    assert [index for index, _ in asked] == [0, 1, 0, 1]
    for prediction in made.values():
        np.testing.assert_allclose(prediction.values[:, :2], library[task.focal, None] / 2 * np.ones(2), rtol=1e-5)


def test_sampling_of_neighbours():
    # 0 <- 1, 2, 3; 1 <- 0; 2 <- 4; a node hears those it points back to.
    colptr, row = torch.tensor([0, 3, 4, 5, 5, 5]), torch.tensor([1, 2, 3, 0, 4])

    def sampled(seeds, hops, directed=True):
        nodes, source, target, number = mintflow.neighbor_sample(
            colptr, row, torch.tensor(seeds), hops, False, directed
        )
        edges = {(int(nodes[s]), int(nodes[t])) for s, t in zip(source, target, strict=True)}
        assert [int(row[e]) for e in number] == [int(nodes[s]) for s in source]
        return nodes.tolist(), edges

    nodes, edges = sampled([0], [-1])
    assert nodes == [0, 1, 2, 3]
    assert edges == {(1, 0), (2, 0), (3, 0)}
    assert sampled([0], [-1], directed=False)[1] == edges | {(0, 1)}
    assert sampled([0], [-1, -1]) == ([0, 1, 2, 3, 4], edges | {(0, 1), (4, 2)})
    assert sampled([3], [-1]) == ([3], set())
    drawn = [frozenset(sampled([0], [2])[1]) for _ in range(30)]
    assert {len(edges) for edges in drawn} == {2}
    assert len(set(drawn)) == 3


def test_latents_of_a_section_go_to_the_cells_of_its_sample(monkeypatch, tmp_path):
    # They begin with the sample that comes last by its name.
    slide = small_slide(n_cells=200, samples=("one", "two"))
    task = make_task(slide, settings={"n_neighbors": 4})
    seen = Seen.of(task)
    codes = seen.counts().obs["sample"].astype(str).to_numpy()
    assert codes[0] != min(codes)
    sections = {}
    for number, name in enumerate(sorted(set(codes))):
        n = (codes == name).sum()
        sections[name] = {"MintFlow_Z": np.full((n, 2), number), "MintFlow_S_in": np.full((n, 2), 10 + number)}
    monkeypatch.setattr(mintflow, "_package", lambda: SimpleNamespace(predict=lambda *_, **__: sections))
    monkeypatch.setattr(mintflow, "seed_everything", lambda _: None)
    stored = dict.fromkeys(("data_mintflow", "dict_all4_configs", "model"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: stored)
    found = mintflow.latents(task, tmp_path)
    number = np.unique(codes, return_inverse=True)[1]
    np.testing.assert_array_equal(found["z"][seen.cells, 0], number)
    np.testing.assert_array_equal(found["s"][seen.cells, 0], 10 + number)
    assert np.isnan(found["z"][task.split.held_out]).all()


def test_training_and_evaluation_are_told_the_same_files_graph_and_window():
    def defaults(num_tissue_sections_training, num_tissue_sections_evaluation):
        def of(loader):
            n = range(num_tissue_sections_training)
            return {"list_tissue": {str(i): {loader: {"width_window": 700, "num_neighbors": 5}} for i in n}}

        return of("config_dataloader_train"), of("config_dataloader_test"), {}, {}

    same = lambda config, **_: config  # noqa: E731
    steps = ("config_data_train", "config_data_evaluation", "config_model", "config_training")
    package = SimpleNamespace(
        get_default_configurations=defaults, **{f"verify_and_postprocess_{step}": same for step in steps}
    )
    settings = {"n_neighbors": 4, "window_um": 250.0, "adversary_steps": 3}
    task = make_task(small_slide(n_cells=200), settings=settings)
    made = mintflow._configuration(package, task, [Path("one.h5ad"), Path("two.h5ad")])
    for config, loader in (("data_train", "config_dataloader_train"), ("data_evaluation", "config_dataloader_test")):
        sections = list(made[f"config_{config}"]["list_tissue"].values())
        assert [section["file"] for section in sections] == ["one.h5ad", "two.h5ad"]
        assert [section[loader]["width_window"] for section in sections] == [250.0] * 2
        assert {section["config_neighbourhood_graph"]["n_neighs"] for section in sections} == {4}
    loaders = [s["config_dataloader_train"] for s in made["config_data_train"]["list_tissue"].values()]
    assert [loader["num_neighbors"] for loader in loaders] == [4] * 2
    assert made["config_training"]["numiters_updateduals_seprately_perepoch"] == 3
