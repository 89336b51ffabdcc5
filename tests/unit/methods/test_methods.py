"""The methods that are not learned, against their definitions."""

import inspect
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slides import small_slide
from tasks import SECTIONS, make_task
from tissue_counterfactuals import methods, protocols
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods import CORE, METHODS, applicable
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.question.donors import EdgePerturbation
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.simulate import simulate_tissue, true_expression
from tissue_counterfactuals.slide import log_normalize


@pytest.fixture(scope="module")
def task():
    return make_task(small_slide(n_cells=800))


def predict(task, name, target="right"):
    asked = replace(task, settings=SECTIONS.get(METHODS[name].settings, {}))
    return METHODS[name].adapter.predict(asked, None, target)


def cp10k(counts):
    return counts / counts.sum(axis=1, keepdims=True) * 1e4


@pytest.mark.parametrize("name", METHODS)
def test_every_adapter_has_the_same_functions(name):
    method = METHODS[name]
    assert hasattr(method.adapter, "predict") is ("latent_only" not in method.needs)
    assert hasattr(method.adapter, "latents") is ("latent" in method.needs)
    if "latent_only" in method.needs:
        return
    assert list(inspect.signature(method.adapter.predict).parameters) == [
        "task",
        "folder",
        "target",
    ]
    assert hasattr(method.adapter, "fit") is method.learned


def test_the_readme_says_what_each_learned_method_answers(root):
    words = {"edge": r"\bnew\b", "node": r"\baltered\b", "own": r"\bknock-out\b"}
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|.*\| ([^|]+) \| [^|]+ \|$", (root / "README.md").read_text(), re.M)
    said = {name: answers for names, answers in rows for name in re.findall(r"\w+", names) if name in METHODS}
    assert set(said) >= {name for name, method in METHODS.items() if method.learned}
    for name, answers in said.items():
        for need, word in words.items():
            assert bool(re.search(word, answers)) is (need in METHODS[name].needs), (name, need)


def text_of(name: str) -> str:
    """The adapter and the modules beside it that it imports; guests cannot be imported in every interpreter."""
    text = (Path(methods.__file__).parent / f"{name}.py").read_text()
    beside = re.findall(r"^from tissue_counterfactuals\.methods(?:\.(\w+))? import \(?\s*(\w+)", text, re.M)
    names = {module or imported for module, imported in beside} - {"settings"}
    return text + "".join(map(text_of, sorted(names)))


@pytest.mark.parametrize("name", METHODS)
def test_a_row_says_what_its_adapter_reads(name):
    method, text = METHODS[name], text_of(name)
    assert ("task.settings" in text) is (method.settings is not None)
    assert method.settings is None or method.settings in Config.model_fields
    own = (Path(methods.__file__).parent / f"{name}.py").read_text()
    # Guests are given the device by the training that they share, or not at all.
    shared = text if method.environment == CORE else own
    trained = re.search(r"scvi_tools import \(?[^()]*\btrain\b", own) is not None
    assert ("task.device" in shared or trained) is method.gpu
    # Some let scvi-tools' training count for them.
    counted = re.search(r"scvi_tools import \(?[^()]*\b(train|length)\b", own) is not None
    assert ("task.epochs" in shared or counted) is ("steps" in method.needs)
    packages = re.findall(r"^\s*(?:import|from) (\w+)", text, re.M)
    foreign = {package for package in packages if find_spec(package) is None}
    assert method.environment != CORE or not foreign
    assert (Path(__file__).parents[3] / f"envs/{method.environment}.yaml").is_file()


def test_methods_that_need_the_truth_are_for_simulated_tissue():
    names = [m.name for m in METHODS.values() if "latent_only" not in m.needs]
    assert [m.name for m in applicable(METHODS, simulated=True)] == names
    real = [m.name for m in applicable(names, simulated=False)]
    assert set(names) - set(real) == {"truth", "truth_in_place"}


def test_no_change_gives_the_observed_control_cells(task):
    prediction = predict(task, "no_change")["-"]
    obs = task.slide.obs.iloc[prediction.cells]
    assert ((obs["cell_type"] == "A") & (obs["domain"] == "left")).all()
    assert np.array_equal(prediction.values, task.slide.X[prediction.cells].toarray())


def test_mean_shift_is_the_published_formula(task):
    counts, train = task.slide.X.toarray().astype(float), task.split.train
    right = (task.slide.obs["domain"] == "right").to_numpy()
    mean_target, mean_rest = counts[train & right].mean(0), counts[train & ~right].mean(0)
    delta = np.log2((mean_target + 1e-8) / (mean_rest + 1e-8))
    expected = np.clip((counts[task.focal] + 1) * 2**delta - 1, 0, None)
    assert np.allclose(cp10k(predict(task, "mean_shift")["-"].values), cp10k(expected), rtol=1e-4)


def test_mean_shift_by_type_leaves_composition_out(task):
    slide, train = task.slide, task.split.train
    normalized = cp10k(slide.X.toarray().astype(float))
    deltas = []
    for other in ("B", "C"):
        means = [
            normalized[train & ((slide.obs["cell_type"] == other) & (slide.obs["domain"] == d)).to_numpy()].mean(0)
            for d in ("right", "left")
        ]  # fmt: skip
        deltas.append(np.log2((means[0] + 1) / (means[1] + 1)))
    expected = np.clip((normalized[task.focal] + 1) * 2 ** np.mean(deltas, axis=0) - 1, 0, None)
    values = predict(task, "mean_shift_by_type")["-"].values
    assert np.allclose(cp10k(values), cp10k(expected), rtol=1e-4)


def test_mean_shift_by_type_without_other_types_says_so():
    lonely = make_task(small_slide(types=("A",)))
    with pytest.raises(InputError, match="no other type has 10 training cells"):
        predict(lonely, "mean_shift_by_type")


def test_concert_says_nothing_of_a_domain_that_it_did_not_see(tmp_path):
    slide = small_slide(n_cells=200, domains=("left", "middle", "right"), samples=("one", "two"))
    slide.obs.loc[slide.obs["domain"] == "right", "cell_type"] = "A"
    fold = Fold("A", "left", ("middle", "right"))
    task = make_task(slide, fold, settings=SECTIONS["concert"] | {"epochs": 1}, report=lambda line: None)
    adapter = METHODS["concert"].adapter
    adapter.fit(task, tmp_path)
    made = {target: adapter.predict(task, tmp_path, target)["-"] for target in fold.targets}
    assert made["middle"].values.shape == (len(task.focal), slide.n_vars)
    assert made["right"] == "CONCERT was trained on no cell of 'right', and has no vector of this domain"
    cells, seen, _ = adapter._inputs(task)
    assert np.array_equal(cells.section, (slide.obs["sample"] == "two").to_numpy()[seen])


def test_the_mean_shifts_never_see_the_held_out_cells(task):
    other = task.slide.copy()
    counts = other.X.toarray()
    counts[task.split.held_out] = counts[task.split.held_out][:, ::-1] * 5
    other.X = type(task.slide.X)(counts)
    changed = make_task(other, task.fold)
    for name in ("mean_shift", "mean_shift_by_type"):
        assert np.array_equal(*(predict(t, name)["-"].values for t in (task, changed)))


def test_target_mean_is_the_answer_at_the_focal_libraries(task):
    prediction = predict(task, "target_mean")["-"]
    answer = cp10k(task.slide.X[task.target_cells("right")].toarray()).mean(axis=0)
    assert np.allclose(cp10k(prediction.values), answer / answer.sum() * 1e4, rtol=1e-4)
    library = np.asarray(task.slide.X[task.focal].sum(axis=1)).ravel()
    assert np.allclose(prediction.values.sum(axis=1), library, rtol=1e-5)


def test_the_ceiling_splits_the_target_cells_in_two(task):
    prediction = predict(task, "ceiling")["-"]
    halves = np.concatenate([prediction.cells, prediction.target_cells])
    assert np.array_equal(np.sort(halves), task.target_cells("right"))
    assert abs(len(prediction.cells) - len(prediction.target_cells)) <= 1


def test_truth_needs_no_model_and_differs_by_donor_rule():
    slide = simulate_tissue(n_cells=1500, n_genes=60, n_slides=1, seed=1)
    rules = ("published", "any_type", "matched")
    fold = Fold("type_0", "domain_0", ("domain_1",))
    task = make_task(slide, fold, donor_rules=rules, n_donors=20)
    variants = predict(task, "truth", "domain_1")
    assert set(variants) == {*rules, "no_intervention"}
    values = [variants[v].values for v in ("published", "matched", "no_intervention")]
    assert not np.allclose(values[0], values[1])
    assert not np.allclose(values[0], values[2])
    in_place = predict(task, "truth_in_place", "domain_1")["-"]
    assert np.array_equal(in_place.cells, task.target_cells("domain_1"))
    assert np.array_equal(in_place.values, true_expression(slide, in_place.cells))


def test_a_donor_rule_that_finds_too_few_gives_its_reason_and_spares_the_others():
    slide = simulate_tissue(n_cells=1500, n_genes=60, n_slides=1, seed=1)
    fold = Fold("type_0", "domain_0", ("domain_1",))
    task = make_task(slide, fold, donor_rules=("published", "matched"), n_donors=450)
    variants = predict(task, "truth", "domain_1")
    assert "donor rule 'published' finds" in variants["published"]
    assert variants["matched"].values.shape == (len(task.focal), 60)


def test_as_run_trains_as_published_whatever_the_settings_say(task, tmp_path):
    """Table A1: a run of the authors is no run of theirs with a demonstration's epochs or width."""
    settings = {"epochs": 1, "n_hidden": 8, "n_latent": 3, "batch_size": 128}
    models = {}
    for protocol in protocols.PROTOCOLS:
        folder = tmp_path / protocol
        folder.mkdir()
        question = replace(task.question, switches=protocols.resolve(protocol))
        asked = replace(task, settings=settings, question=question)
        METHODS["cellina_ablated"].adapter.fit(asked, folder)
        models[protocol] = Cellina.load(folder / "model.pt", device="cpu")
    ours, theirs = models["corrected"], models["as_run"]
    assert (ours.settings.epochs, ours.settings.batch_size, ours.shape["n_hidden"]) == (1, 128, 8)
    assert (theirs.settings.epochs, theirs.settings.batch_size) == (100, 2048)
    assert (theirs.settings.patience, theirs.settings.learning_rate) == (10, 1e-3)
    assert (theirs.settings.kl_warmup_epochs, theirs.settings.weight_decay) == (400, 1e-6)
    assert theirs.shape == {"n_hidden": 128, "n_layers": 2, "n_latent": 64, "dropout": 0.1}
    # What makes a method, and what the protocol's other switches say, stays.
    assert theirs.settings.lambda_adversary == theirs.settings.lambda_classifier == 0
    assert (theirs.settings.restore, theirs.settings.monitor) == ("last", "current_beta")
    history = pd.read_csv(tmp_path / "as_run" / "history.tsv", sep="\t")
    assert len(history) > 10


def test_donors_stand_on_the_scale_that_the_protocol_says(task, tmp_path):
    settings = {"epochs": 2, "n_hidden": 8, "n_latent": 3, "batch_size": 128}
    learner = replace(task, settings=settings)
    adapter = METHODS["cellina_ablated"].adapter
    adapter.fit(learner, tmp_path)
    model = Cellina.load(tmp_path / "model.pt", device="cpu")
    donors = task.question.donors("right")["published"]
    new = EdgePerturbation(task.focal, donors).graph(task.slide.n_obs)
    counts = task.slide.X
    predictions = {}
    for value, donors in (("log1p", log_normalize(counts)), ("raw_counts", counts)):
        switches = task.switches | {"donor_features": value}
        asked = replace(learner, question=replace(task.question, switches=switches))
        predictions[value] = adapter.predict(asked, tmp_path, "right")["published"].values
        features = neighborhood_features(new, donors)
        assert np.array_equal(predictions[value], model.predict(task.slide, task.focal, features))
    assert not np.allclose(predictions["log1p"], predictions["raw_counts"])
    assert protocols.resolve("corrected")["donor_features"] == "log1p"
    assert protocols.resolve("as_run")["donor_features"] == "raw_counts"
