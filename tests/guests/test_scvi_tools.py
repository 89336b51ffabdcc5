"""Methods of other groups, trained and asked in their own environment, over the command line that the workflow uses."""

import numpy as np
import pandas as pd
import pytest
from guest import Guest

from slides import poisoned, small_slide
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.metrics.latents import conservation
from tissue_counterfactuals.question.folds import Fold

SMALL = {"n_latent": 4, "max_epochs": 3, "batch_size": 64}
SCVI = SMALL | {
    "n_hidden": 8,
    "n_layers": 1,
    "gene_likelihood": "nb",
    "early_stopping_patience": None,
    "n_samples": 2,
    "n_neighbors": 5,
}
CPA = {
    "learning_rate": 1e-3,
    "pretrain_epochs": 1,
    "adversary_warmup_epochs": 1,
    "check_every": 1,
    "early_stopping_patience": 5,
}
SETTINGS = {
    "scvi": SCVI,
    "scanvi": SCVI,
    "scviva": SCVI,
    "scgen": SMALL | {"early_stopping_patience": None, "n_draws": 2},
    "cpa": SMALL | CPA,
}
SIMVI = {"simvi": SMALL | {"n_neighbors": 5, "independence_weight": 10.0}}


@pytest.fixture(scope="module")
def both(tmp_path_factory, scvi):
    """Predictions of all guests on a slide, and on one whose held-out cells hold other counts."""
    slide, made = small_slide(n_cells=400), []
    for asked in (slide, poisoned(slide)):
        guest = Guest(tmp_path_factory.mktemp("guest"), asked, scvi, SETTINGS)
        for method in SETTINGS:
            guest.fit(method)
        made.append((guest, guest.predict(*SETTINGS)))
    return made


def test_every_guest_of_the_environment_is_asked():
    here = {m.name for m in METHODS.values() if m.environment == "scvi"}
    assert here == {*SETTINGS, "simvi"}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_guest_predicts_its_counterfactual_and_its_twin(both, method):
    guest, made = both[0]
    task = guest.question.task
    library = np.asarray(task.slide.X[task.focal].sum(axis=1)).ravel()
    values = {variant: v for (name, variant), v in made.items() if name == method}
    assert set(values) == {"-", "no_intervention"}
    for predicted in values.values():
        np.testing.assert_allclose(predicted.sum(axis=1), library, rtol=1e-3)
    # The domain that was exchanged changes the answer.
    assert np.abs(values["-"] - values["no_intervention"]).max() > 1e-3
    history = (guest.folder / method / "corrected.seed0/history.tsv").read_text().splitlines()
    assert len(history) >= 3


def test_every_guest_is_scored_beside_its_twin(both):
    guest, made = both[0]
    assert guest.scored() == set(made)


@pytest.mark.parametrize("method", SETTINGS)
def test_what_held_out_cells_express_reaches_no_guest(both, method):
    (_, clean), (_, dirty) = both
    for variant in ("-", "no_intervention"):
        # Trainings in processes of their own differ by rounding.
        np.testing.assert_allclose(clean[method, variant], dirty[method, variant], rtol=1e-3, atol=1e-4)


def test_as_run_held_out_cells_move_those_of_scgen_and_train_nothing(both):
    guest, made = both[1]
    guest.question.switches = {"scgen_difference": "all_cells"}
    assert guest.question.task.switches["scgen_difference"] == "all_cells"
    again = guest.predict("scgen")
    np.testing.assert_allclose(again["scgen", "no_intervention"], made["scgen", "no_intervention"], rtol=1e-5)
    assert np.abs(again["scgen", "-"] - made["scgen", "-"]).max() > 0.01


def test_a_guest_predicts_cells_of_a_patient_it_never_saw(tmp_path, scvi):
    """Each from what it shows itself: none of them is among the cells that the guest knows."""
    slide, patient = small_slide(n_cells=300, samples=("one", "two")), Fold("A", "left", ("right",), "two", ("two",))
    guest = Guest(tmp_path, slide, scvi, SETTINGS, fold=patient, n_donors=5)
    task = guest.question.task
    assert task.split.held_out[task.focal].all()
    methods = ("scanvi", "scviva", "cpa")
    for method in methods:
        guest.fit(method)
    made = guest.predict(*methods)
    library = np.asarray(task.slide.X[task.focal].sum(axis=1)).ravel()
    for method in methods:
        moved, twin = (made[method, variant] for variant in ("-", "no_intervention"))
        np.testing.assert_allclose(moved.sum(axis=1), library, rtol=1e-3)
        assert np.abs(moved - twin).max() > 1e-3
        shares = twin / library[:, None]
        assert len(np.unique(shares.round(5), axis=0)) > 0.9 * len(shares), method


def test_simvi_leaves_latents_of_the_cells_it_may_see_and_reads_no_other(tmp_path, scvi):
    slide, latents = small_slide(n_cells=200), {}
    for name, asked in (("clean", slide), ("dirty", poisoned(slide))):
        guest = Guest(tmp_path / name, asked, scvi, SIMVI)
        with np.load(guest.fit("simvi") / "latents.npz") as stored:
            latents[name] = dict(stored)
    seen = np.flatnonzero(~guest.question.task.split.held_out)
    for values in latents.values():
        assert values["cells"].tolist() == seen.tolist()
        assert values["z"].shape == values["s"].shape == (len(seen), 4)
    types = pd.factorize(slide.obs["cell_type"])[0][seen]
    for name in "zs":
        # Trainings in processes of their own differ by rounding.
        np.testing.assert_allclose(latents["clean"][name], latents["dirty"][name], rtol=1e-3, atol=1e-4)
        assert 0 < conservation(latents["clean"][name], types, np.zeros(len(seen), int), 0)["bio_conservation"] < 1


def test_every_model_gives_latents_of_the_cells_it_may_see(both):
    guest, _ = both[0]
    names = ("scvi", "scanvi", "scviva")
    folders = [guest.folder / name / "corrected.seed0" for name in names]
    guest.run("latents", "--models", *folders, "--output", guest.folder / "latents.npz")
    held_out = guest.question.task.split.held_out
    with np.load(guest.folder / "latents.npz") as file:
        assert str(file["failures"]) == "{}"
        for name in names:
            values = file[f"{name}/latent"]
            assert values.shape == (len(held_out), SMALL["n_latent"])
            np.testing.assert_array_equal(np.isnan(values[:, 0]), held_out)
            assert np.ptp(values[~held_out], axis=0).min() > 0


def test_cells_that_scgen_and_cpa_move_express_what_their_new_domain_does(tmp_path, scvi):
    """Domain `right` expresses the first half of the genes and `left` the second: moved cells must change sides.

    CPA takes an equal budget: so many steps, which patience does not end. Of its seeds one in a few learns to leave the
    domain in the cell, and moves nobody; which one depends on the machine, so that the middle of three must move.
    """
    slide = small_slide(n_cells=600)
    right = (slide.obs["domain"] == "right").to_numpy()[:, None]
    first = (np.arange(slide.n_vars) < slide.n_vars // 2)[None]
    slide.X = type(slide.X)(slide.X.toarray() + np.where(right == first, 20, 0).astype(np.float32))
    settings = {
        "scgen": SETTINGS["scgen"] | {"max_epochs": 20},
        "cpa": SETTINGS["cpa"] | {"max_epochs": 15, "early_stopping_patience": 1},
    }
    shares = {"scgen": [], "cpa": []}
    for seed in range(3):
        guest = Guest(tmp_path / str(seed), slide, scvi, settings, seed=seed)
        folder, asked = guest.fit("cpa", "--steps", 120), ["cpa"]
        n_batches = -(-int(guest.question.task.split.train.sum()) // SMALL["batch_size"])
        assert len(pd.read_csv(folder / "history.tsv", sep="\t")["epoch"].unique()) == round(120 / n_batches)
        if seed == 0:
            guest.fit("scgen")
            asked.append("scgen")
        made = guest.predict(*asked)
        for method in asked:
            both = (made[method, variant] for variant in ("-", "no_intervention"))
            shares[method].append([float((v[:, first[0]].sum(axis=1) / v.sum(axis=1)).mean()) for v in both])
    for method, found in shares.items():
        moved, twin = np.transpose(found)
        assert twin.max() < 0.3, method
        assert np.median(moved) > 0.7, method
