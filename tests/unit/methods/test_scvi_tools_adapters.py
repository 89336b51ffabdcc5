"""What the adapters of packages on scvi-tools hand over, with stand-ins for the packages."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from slides import small_slide
from tasks import FOLD, SECTIONS, make_task
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import cpa, scanvi, scgen, scvi, scviva, simvi
from tissue_counterfactuals.methods import scvi_tools as shared
from tissue_counterfactuals.question.asked import ask_nothing
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.question.task import Task

LEFT_OUT = Fold("A", "left", ("right",), "two", ("two",))


@pytest.fixture(params=[FOLD, LEFT_OUT], ids=["type", "patient"])
def task(request):
    """A fold whose focal cells are seen, and one whose focal cells are held out with their patient."""
    made = make_task(small_slide(n_cells=300, samples=("one", "two")), request.param, n_donors=5)
    assert made.split.held_out[made.focal].all() == bool(request.param.samples)
    return made


@pytest.fixture(autouse=True)
def _no_seeds(monkeypatch):
    for adapter in (cpa, scvi):
        monkeypatch.setattr(adapter, "seed_everything", lambda *_: None)


def test_cells_that_are_held_out_have_no_place_among_the_seen():
    task = make_task(small_slide(n_cells=200))
    seen = shared.Seen.of(task)
    assert (seen.cells[seen.positions(task.focal)] == task.focal).all()
    with pytest.raises(ValueError, match="1 of 2 cells are held out"):
        seen.positions(np.array([task.focal[0], task.target_cells("right")[0]]))


class Echo:
    """A model that expects of each cell what the cell shows."""

    def __init__(self, adata):
        self.adata = adata

    def get_normalized_expression(self, adata=None, indices=None, **_):
        cells = self.adata if adata is None else adata
        assert set(cells.obsm) == set(self.adata.obsm)
        assert set(cells.obs["sample"]) <= set(self.adata.obs["sample"]) or "niche" not in cells.obsm
        return cells.X.toarray() if indices is None else cells.X[indices].toarray()


@pytest.mark.parametrize("adapter", [scvi, scanvi, scviva])
def test_the_focal_cells_are_predicted_from_what_they_show(task, adapter, monkeypatch, tmp_path):
    def load(task, _):
        seen = shared.Seen.of(task)
        cells = seen.counts()
        if adapter is scviva:
            cells.obsm["niche"] = pd.DataFrame(np.eye(cells.n_obs, 3), cells.obs_names, list("ABC"))
            cells.obsm["indexes"] = np.zeros((cells.n_obs, 5))
        return Echo(cells), seen

    monkeypatch.setattr(adapter, "_load", load)
    task.settings = {"n_samples": 1}
    for prediction in adapter.predict(task, tmp_path, "right").values():
        np.testing.assert_allclose(prediction.values, task.slide.X[task.focal].toarray(), rtol=1e-5)


@pytest.mark.parametrize("adapter", [scvi, scanvi, scviva])
def test_the_batch_is_what_is_exchanged_and_never_what_is_looked_for_in_latents(adapter, monkeypatch, tmp_path):
    """There is no setting for it: with any other batch nothing can be predicted in the target domain."""
    made = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}
    with pytest.raises(InputError, match=r"^config: unknown key scvi\.batch"):
        load_config({"datasets": {"made": made}, "scvi": {"batch": "sample"}})
    batches = []

    class Model:
        def __init__(self, cells, **_):
            self.cells, self.history = cells, {}

        from_scvi_model = classmethod(lambda cls, model, **_: model)
        preprocessing_anndata = staticmethod(lambda *_, **__: None)
        setup_anndata = staticmethod(lambda *_, batch_key, **__: batches.append(batch_key))
        save = train = lambda *_, **__: None

        def get_latent_representation(self):
            return np.zeros((self.cells.n_obs, 1))

    monkeypatch.setitem(sys.modules, "scvi.model", SimpleNamespace(SCVI=Model, SCANVI=Model))
    monkeypatch.setitem(sys.modules, "scvi.external", SimpleNamespace(SCVIVA=Model))
    for module in (scviva, shared):
        monkeypatch.setattr(module, "seed_everything", lambda *_: None)
    slide = small_slide(n_cells=200)
    asked = make_task(slide, settings=SECTIONS["scvi"])
    whole = ask_nothing(slide, "corrected", 0, asked.switches, {"max_neighbors": 30}, 0.1)
    for task, batch in ((asked, "domain"), (Task(slide, whole, SECTIONS["scvi"], "cpu"), "sample")):
        batches.clear()
        adapter.fit(task, tmp_path)
        assert set(batches) == {batch}


def test_niches_that_a_small_sample_cuts_down_are_reported_and_a_sample_of_one_cell_is_refused(monkeypatch):
    taken, lines = [], []
    model = SimpleNamespace(
        preprocessing_anndata=lambda *_, k_nn, **__: taken.append(k_nn), setup_anndata=lambda *_, **__: None
    )
    monkeypatch.setitem(sys.modules, "scvi.external", SimpleNamespace(SCVIVA=model))
    slide = small_slide(n_cells=200)
    task = make_task(slide, settings={"n_neighbors": 20}, report=lines.append)
    seen = np.flatnonzero(~task.split.held_out)

    def with_small_sample(n):
        label = np.full(200, "one")
        label[seen[:n]] = "two"
        slide.obs["sample"] = pd.Categorical(label)
        known = shared.Seen.of(task)
        scviva._with_niches(task, known, np.zeros((len(known.cells), 1)))

    with_small_sample(40)
    assert taken == [20]
    assert not lines
    with_small_sample(10)
    assert taken == [20, 9]
    assert len(lines) == 1
    assert lines[0].startswith("niches of 9 neighbours instead of 20")
    with pytest.raises(ValueError, match="at least 2 cells of every sample"):
        with_small_sample(1)


@pytest.mark.parametrize(("device", "accelerator"), [("cpu", "cpu"), ("cuda", "gpu"), ("auto", "auto")])
@pytest.mark.parametrize("adapter", [scvi, scanvi, scviva])
def test_a_model_is_loaded_to_the_device_that_is_asked_for(adapter, device, accelerator, monkeypatch, tmp_path):
    """Left to itself scvi-tools takes a GPU where it sees one, with `device: cpu` too."""
    loaded = []
    model = SimpleNamespace(load=lambda *_, adata, accelerator="auto": loaded.append(accelerator))
    monkeypatch.setitem(sys.modules, "scvi.model", SimpleNamespace(SCVI=model, SCANVI=model))
    monkeypatch.setitem(sys.modules, "scvi.external", SimpleNamespace(SCVIVA=model))
    monkeypatch.setattr(scviva, "_with_niches", lambda *_: None)
    np.save(tmp_path / "embedding.npy", np.zeros(1))
    task = make_task(small_slide(n_cells=200))
    task.device = device
    adapter._load(task, tmp_path)
    assert loaded == [accelerator]


def test_cpa_predicts_the_focal_cells_from_what_they_show(task, monkeypatch, tmp_path):
    class CPA:
        def __init__(self, cells, **_):
            self.module = SimpleNamespace(load_state_dict=lambda _: None)

        @classmethod
        def setup_anndata(cls, cells, **_):
            cls.pert_encoder = {name: i for i, name in enumerate(sorted(set(cells.obs["domain"])))}
            cells.obsm["perts"] = cells.obs["domain"].map(cls.pert_encoder).to_numpy()[:, None]

        def predict(self, cells, **_):
            # The domain is that of the question, not that of the cells.
            assert len(set(cells.obsm["perts"][:, 0])) == 1
            cells.obsm["CPA_pred"] = cells.X.toarray()

    package = SimpleNamespace(CPA=CPA, _utils=SimpleNamespace(CPA_REGISTRY_KEYS=SimpleNamespace(CONTROL_KEY="control")))
    monkeypatch.setattr(cpa, "_package", lambda _: package)
    monkeypatch.setattr("torch.load", lambda *_, **__: {"model_state_dict": {}})
    task.settings = {"n_latent": 2}
    for prediction in cpa.predict(task, tmp_path, "right").values():
        np.testing.assert_allclose(prediction.values, task.slide.X[task.focal].toarray(), rtol=1e-5)


def test_who_trains_and_who_validates_are_told_apart(task):
    seen = shared.Seen.of(task)
    train, validation, test = seen.split
    np.testing.assert_array_equal(seen.cells[train], np.flatnonzero(task.split.train))
    np.testing.assert_array_equal(seen.cells[validation], np.flatnonzero(task.split.validation))
    assert not len(test)


def test_cpa_says_that_it_needs_two_domains(task, tmp_path):
    task.slide = task.slide.copy()
    task.slide.obs["domain"] = "left"
    with pytest.raises(ValueError, match="the cells that it may see are all of one"):
        cpa.fit(task, tmp_path)


def test_cpa_knows_the_seen_and_the_focal_cells_alone_and_validates_on_those_that_validate(task, monkeypatch, tmp_path):
    registered = []

    class CPA:
        def __init__(self, cells, **_):
            self.module = SimpleNamespace(load_state_dict=lambda _: None)
            self.epoch_history = pd.DataFrame()

        @classmethod
        def setup_anndata(cls, cells, **_):
            registered.append(cells)
            cls.pert_encoder = {name: i for i, name in enumerate(sorted(set(cells.obs["domain"])))}
            cells.obsm["perts"] = cells.obs["domain"].map(cls.pert_encoder).to_numpy()[:, None]

        def predict(self, cells, **_):
            cells.obsm["CPA_pred"] = cells.X.toarray()

        train = save = lambda *_, **__: None

    package = SimpleNamespace(CPA=CPA, _utils=SimpleNamespace(CPA_REGISTRY_KEYS=SimpleNamespace(CONTROL_KEY="control")))
    monkeypatch.setattr(cpa, "_package", lambda _: package)
    monkeypatch.setattr("torch.load", lambda *_, **__: {"model_state_dict": {}})
    task.settings = SECTIONS["cpa"]
    cpa.fit(task, tmp_path)
    cpa.predict(task, tmp_path, "right")
    names, seen = task.slide.obs_names, ~task.split.held_out
    known = seen.copy()
    known[task.focal] = True
    for cells, wanted in zip(registered, (seen, known), strict=True):
        assert list(cells.obs_names) == list(names[wanted])
    # Nothing is fitted where focal cells are only looked up.
    validates = registered[0].obs_names[registered[0].obs["split"] == "valid"]
    assert list(validates) == list(names[task.split.validation])


def test_scgen_moves_the_focal_cells_by_the_mean_of_its_differences_from_control_to_target(monkeypatch, tmp_path):
    task = make_task(small_slide(n_cells=200), settings={"n_draws": 3})
    direction, drawn = np.linspace(0, 1, task.slide.n_vars), []

    class SCGEN:
        """Its latent space is that of the genes."""

        device = "cpu"
        module = SimpleNamespace(eval=lambda: None, generative=lambda z: {"px": z})
        load = classmethod(lambda cls, *_, **__: cls())

        def predict(self, ctrl_key, stim_key, adata_to_predict):
            drawn.append((ctrl_key, stim_key))
            return None, len(drawn) * direction

        def get_latent_representation(self, cells):
            return cells.X

    monkeypatch.setattr(scgen, "_package", lambda: SimpleNamespace(SCGEN=SCGEN))
    monkeypatch.setattr(scgen, "seed_everything", lambda *_: None)
    made = scgen.predict(task, tmp_path, "right")
    seen = shared.Seen.of(task)
    assert drawn == [(seen.domain("left"), seen.domain("right"))] * 3
    counts = task.slide.X[task.focal].toarray()
    np.testing.assert_allclose(made["no_intervention"].values, counts, rtol=1e-4, atol=1e-4)
    library = counts.sum(axis=1, keepdims=True)
    # Draws of 1, 2 and 3 times the direction, in the logarithm.
    moved = (counts / library * 1e4 + 1) * np.exp(2 * direction) - 1
    np.testing.assert_allclose(made["-"].values, moved / moved.sum(axis=1, keepdims=True) * library, rtol=1e-3)


def test_simvi_joins_no_samples_and_keeps_its_latents_apart(monkeypatch, tmp_path):
    task = make_task(small_slide(n_cells=200, samples=("one", "two")), settings=SECTIONS["simvi"])
    batches = []

    class SimVI:
        def __init__(self, cells, **_):
            self.n = cells.n_obs

        setup_anndata = staticmethod(lambda *_, **__: None)
        extract_edge_index = staticmethod(lambda cells, batch_key, n_neighbors: batches.append(batch_key))
        train = staticmethod(lambda *_, **__: ([3.0, 2.0], [4.0, 3.0]))

        def get_latent_representation(self, edges, representation_kind):
            return np.full((self.n, 2), {"intrinsic": 1.0, "interaction": 2.0}[representation_kind])

    monkeypatch.setitem(sys.modules, "simvi.model", SimpleNamespace(SimVI=SimVI))
    for name in ("shim", "seed_everything"):
        monkeypatch.setattr(simvi, name, lambda *_: None)
    simvi.fit(task, tmp_path)
    assert batches == ["sample"]
    found = simvi.latents(task, tmp_path)
    for name, value in {"z": 1, "s": 2}.items():
        np.testing.assert_array_equal(np.isnan(found[name]).all(axis=1), task.split.held_out)
        assert (found[name][~task.split.held_out] == value).all()
    history = pd.read_csv(tmp_path / "history.tsv", sep="\t")
    assert history.to_dict("list") == {"epoch": [0, 1], "train_loss": [3, 2], "validation_loss": [4, 3]}
