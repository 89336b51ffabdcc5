"""MintFlow, trained and asked in its own environment, over the command line that the workflow uses."""

import numpy as np
import pytest
from guest import Guest

from slides import poisoned, small_slide

SETTINGS = {
    "mintflow": {
        "epochs": 1,
        "window_um": 300.0,
        "n_neighbors": 4,
        "adversary_steps": 3,
        "n_draws": 2,
    }
}


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=160, n_genes=10, samples=("one", "two"))


@pytest.fixture(scope="module")
def guest(tmp_path_factory, slide, mintflow):
    """Trained."""
    guest = Guest(tmp_path_factory.mktemp("guest"), slide, mintflow, SETTINGS)
    guest.fit("mintflow")
    return guest


def test_it_draws_the_focal_cells_among_their_donors_and_their_own_neighbours(guest):
    made = guest.predict("mintflow")
    assert set(made) == {("mintflow", "published"), ("mintflow", "no_intervention")}
    task = guest.question.task
    library = np.asarray(task.slide.X[task.focal].sum(axis=1)).ravel()
    for values in made.values():
        np.testing.assert_allclose(values.sum(axis=1), library, rtol=1e-3)
    assert not np.array_equal(*made.values())
    assert guest.scored() == set(made)
    # MintFlow's own clock is a seeded draw here: the same seed gives the same cells.
    again = guest.predict("mintflow")
    for key, values in made.items():
        np.testing.assert_allclose(again[key], values, rtol=1e-4)


def test_it_gives_latents_of_the_cells_it_may_see(guest):
    model, output = guest.folder / "mintflow/corrected.seed0", guest.folder / "latents.npz"
    guest.run("latents", "--models", model, "--output", output)
    held_out = guest.question.task.split.held_out
    with np.load(output) as file:
        assert str(file["failures"]) == "{}"
        z, s = file["mintflow/z"], file["mintflow/s"]
    assert z.shape[1] > 1
    for values in (z, s):
        np.testing.assert_array_equal(np.isnan(values[:, 0]), held_out)
    assert not np.array_equal(z[~held_out], s[~held_out])


def test_what_held_out_cells_express_reaches_no_prediction(guest, slide, tmp_path, mintflow):
    other = Guest(tmp_path, poisoned(slide), mintflow, SETTINGS)
    other.fit("mintflow")
    clean, dirty = guest.predict("mintflow"), other.predict("mintflow")
    for key, values in clean.items():
        # Trainings in processes of their own differ by rounding.
        np.testing.assert_allclose(dirty[key], values, rtol=1e-3, atol=1e-4)


def test_as_run_it_trains_on_all_cells_and_draws_those_to_be_predicted(tmp_path, mintflow):
    guest = Guest(tmp_path, small_slide(n_cells=160, n_genes=10), mintflow, SETTINGS)
    guest.question.switches = {"mintflow_cells": "all_cells"}
    task = guest.question.task
    model, output = guest.fit("mintflow"), tmp_path / "latents.npz"
    guest.run("latents", "--models", model, "--output", output)
    with np.load(output) as file:
        assert np.isfinite(file["mintflow/z"]).all()
    made, cells = guest.predict("mintflow"), task.target_cells("right")
    assert set(made) == {("mintflow", "-"), ("mintflow", "no_intervention")}
    library = np.asarray(task.slide.X[cells].sum(axis=1)).ravel()
    np.testing.assert_allclose(made["mintflow", "-"].sum(axis=1), library, rtol=1e-3)
    assert guest.scored() == set(made)
