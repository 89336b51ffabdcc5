"""What a method did is a row, what happened to it stops the job: through the steps, and through the command line."""

import faulthandler
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from slides import small_slide
from tasks import Question
from tissue_counterfactuals import jobs
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import CORE, METHODS, run
from tissue_counterfactuals.methods import cellina as cellina_adapter
from tissue_counterfactuals.methods import cellina_ablated as ablated_adapter
from tissue_counterfactuals.methods import no_change as no_change_adapter
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.models import stored
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.question.settings import NodeSettings


@pytest.fixture
def question(tmp_path):
    return Question(tmp_path, small_slide(n_cells=500))


def raises(error):
    def adapter(*_, **__):
        raise error

    return adapter


def failures(question) -> dict[str, str]:
    """Method -> reason of the failed rows of the score table."""
    scores = question.score()
    failed = scores[scores["status"] == "failed"]
    return dict(zip(failed["method"], failed["reason"], strict=True))


# --- the steps --------------------------------------------------------------------------------------------------


def test_a_fit_that_fails_is_recorded_and_shown_as_failed(question, monkeypatch):
    error = FloatingPointError("the loss is not finite\nin epoch 3")
    monkeypatch.setattr(cellina_adapter, "fit", raises(error))
    folder = question.folder
    run.fit("cellina", question.task, folder / "cellina", folder / "checkpoint.pt")
    status = json.loads((folder / "cellina/status.json").read_text())
    assert status["status"] == "failed"
    folders = {"cellina": folder / "cellina", "no_change": None}
    run.predict(folders, question.task, folder / "predictions.h5ad")
    assert failures(question) == {"cellina": "fit: FloatingPointError: the loss is not finite in epoch 3"}


def test_the_status_says_what_a_fit_took_and_ran_in(question):
    status = json.loads((question.fit("cellina") / "status.json").read_text())
    assert (status["status"], status["reason"], status["cell_type"]) == ("ok", "", "A")
    assert 0 < status["seconds"] < 100
    assert status["seconds_before"] == 0
    # A process with torch in it takes more than 100 MB and less than 10 GB.
    assert 100 < status["peak_memory_mb"] < 10_000
    assert status["device"] == "cpu"
    assert status["versions"]["numpy"] == np.__version__
    assert status["python"].startswith("3.")


def test_what_the_user_can_mend_stops_the_run(question):
    question.drawn_from["validation_fraction"] = 0.0
    folder = question.folder
    with pytest.raises(InputError, match="training needs at least 2 training cells"):
        run.fit("cellina", question.task, folder / "m", folder / "c.pt")
    assert not (folder / "m").exists()


@pytest.mark.parametrize(
    ("values", "genes", "reason"),
    [
        (lambda x: x[:, :3], None, "ValueError: the prediction has shape ("),
        (lambda x: x - 10, None, "holds negative or non-finite"),
        (lambda x: x * np.nan, None, "holds negative or non-finite"),
        (lambda x: x, 1, "the prediction's genes are not the slide's: 'gene_1' is out of place"),
    ],
)
def test_nonsense_from_a_method_is_a_failure_not_a_score(question, monkeypatch, values, genes, reason):
    task = question.task
    observed = task.slide.X[task.focal].toarray()

    def nonsense(task, folder, target):
        names = None if genes is None else np.roll(task.slide.var_names, -genes).tolist()
        return {"-": Prediction(values(observed), task.focal, genes=names)}

    monkeypatch.setattr(no_change_adapter, "predict", nonsense)
    folders = {"no_change": None, "ceiling": None}
    run.predict(folders, task, question.folder / "predictions.h5ad")
    found = failures(question)
    assert found.keys() == {"no_change"}
    assert reason in found["no_change"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (RuntimeError("CUDA error"), "RuntimeError: CUDA error"),
    ],
)
def test_what_a_method_does_wrong_is_a_row(question, monkeypatch, error, reason):
    monkeypatch.setattr(cellina_adapter, "fit", raises(error))
    monkeypatch.setattr(no_change_adapter, "predict", raises(error))
    folder = question.folder
    run.fit("cellina", question.task, folder / "cellina", folder / "c.pt")
    folders = {"no_change": None, "cellina": folder / "cellina", "mean_shift": None}
    run.predict(folders, question.task, folder / "predictions.h5ad")
    assert failures(question) == {"cellina": f"fit: {reason}", "no_change": f"predict: {reason}"}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(28, "No space left on device", "model.pt"),
            "no room is left on the disk model.pt",
        ),
        (OSError(5, "Input/output error"), "a file could not be used"),
        (ModuleNotFoundError("No module named 'scvi'"), "a package is missing or broken"),
    ],
)
def test_what_happens_to_a_method_stops_the_job(question, monkeypatch, error, sentence):
    monkeypatch.setattr(cellina_adapter, "fit", raises(error))
    monkeypatch.setattr(no_change_adapter, "predict", raises(error))
    folder = question.folder
    with pytest.raises(InputError, match=sentence):
        run.fit("cellina", question.task, folder / "cellina", folder / "c.pt")
    assert not (folder / "cellina").exists()
    with pytest.raises(InputError, match=sentence):
        run.predict({"no_change": None}, question.task, folder / "predictions.h5ad")
    assert not (folder / "predictions.h5ad").exists()


def numpys(*_, **__):
    np.empty(1 << 50)


def torchs(*_, **__):
    torch.empty(1 << 50)


ON_A_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 42.60 GiB.")
OF_THE_SYSTEM = OSError(12, "Cannot allocate memory")


def test_memory_that_ran_out_stops_the_job_of_our_methods_and_is_a_row_of_a_guest(question, monkeypatch):
    """However it is told; whoever needs more than there is in an environment of its own fails alone."""
    folder, task, guest = question.folder, question.task, METHODS["scvi"].adapter
    predictions = folder / "predictions.h5ad"
    for runs_out in (raises(MemoryError()), numpys, torchs, raises(ON_A_CARD), raises(OF_THE_SYSTEM)):
        for adapter in (cellina_adapter, guest):
            for step in ("fit", "predict", "latents"):
                monkeypatch.setattr(adapter, step, runs_out)
        with pytest.raises(InputError, match="^cellina: memory ran out.*: give the job more, or less to hold"):
            run.fit("cellina", task, folder / "cellina", folder / "c.pt")
        assert not (folder / "cellina").exists()
        with pytest.raises(InputError, match="^cellina: memory ran out"):
            run.predict({"no_change": None, "cellina": None}, task, predictions)
        assert not predictions.exists()
        run.fit("cellina", task, folder / "cellina", folder / "c.pt", memory_is_asked=True)
        assert json.loads((folder / "cellina/status.json").read_text())["reason"].startswith("fit: memory ran out")
        shutil.rmtree(folder / "cellina")
        run.fit("scvi", task, folder / "scvi", folder / "c.pt")
        assert json.loads((folder / "scvi/status.json").read_text())["reason"].startswith("fit: memory ran out")
    run.predict({"no_change": None, "scvi": None}, task, predictions)
    assert failures(question).keys() == {"scvi"}
    assert failures(question)["scvi"].startswith("predict: memory ran out")
    (folder / "scvi/status.json").write_text('{"status": "ok"}')
    assert run._latents_of("scvi", task, folder / "scvi", folder).startswith("latents: memory ran out")
    with pytest.raises(InputError, match="^cellina: memory ran out"):
        run._latents_of("cellina", task, folder / "scvi", folder)


def test_a_full_disk_behind_another_error_is_seen(question, monkeypatch):
    """Libraries raise errors of their own where a write fails, as PyTorch does."""
    monkeypatch.setattr(cellina_adapter, "fit", raises(RuntimeError("unexpected pos 64 vs 0")))
    monkeypatch.setattr(run.tempfile, "TemporaryFile", raises(OSError(28, "No space left")))
    folder = question.folder
    with pytest.raises(InputError, match="the disk cannot be written"):
        run.fit("cellina", question.task, folder / "cellina", folder / "c.pt")
    assert not (folder / "cellina").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["model.pt", "status.json"])
def test_a_damaged_model_stops_the_job_and_is_made_again(question, name):
    folder = question.fit("cellina")
    truncate(folder / name)
    with pytest.raises(InputError, match="was damaged .* is now removed: run again"):
        run.predict({"cellina": folder}, question.task, question.folder / "predictions.h5ad")
    assert not folder.exists()
    assert not (question.folder / "predictions.h5ad").exists()
    assert ("cellina", "right", "published") in question.predict("cellina")


def test_a_checkpoint_that_cannot_be_read_is_thrown_away_and_training_starts_anew(question, monkeypatch):
    whole = question.predict("cellina")
    shutil.rmtree(question.folder / "cellina")
    checkpoint, lines = question.folder / "checkpoint.pt", []
    with monkeypatch.context() as patched:
        # The training is cut off before it leaves a model; its checkpoint stays.
        patched.setattr(Cellina, "save", raises(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            question.fit("cellina")
    truncate(checkpoint)
    task = question.task
    task.settings, task.report = question.settings["cellina"], lines.append
    run.fit("cellina", task, question.folder / "cellina", checkpoint)
    assert "the checkpoint found cannot be read and is thrown away" in lines[0]
    assert lines[1].startswith("epoch 1/3")
    assert not checkpoint.exists()
    for key, values in question.predict("cellina").items():
        assert np.array_equal(values, whole[key])


def test_a_damaged_question_or_one_about_another_slide_is_refused(question, tmp_path):
    assert question.task.seed == 0
    other = Question(tmp_path / "other", small_slide(n_cells=500, seed=1))
    assert other.task.seed == 0
    with pytest.raises(InputError, match="it was asked about another slide"):
        run.load_task(question.slide, other.file)
    truncate(question.file)
    with pytest.raises(InputError, match="was damaged .* and is now removed: run again"):
        run.load_task(question.slide, question.file)
    assert not question.file.exists()


# --- the command line -------------------------------------------------------------------------------------------


def command(question, step, *arguments, limits=None):
    """Run a step of the command line in a child of its own; what its last words on the screen were is in the log."""
    assert question.task.seed == 0
    # On the command line nothing large is loaded before the child is forked; here it is, and a pool of threads that
    # other tests have started would not be there in the child.
    torch.set_num_threads(1)
    common = ["--slide", question.slide, "--question", question.file, "--device", "cpu"]
    settings = dict.fromkeys(("cellina", "cellina_ablated"), question.settings["cellina"])
    common += ["--settings", json.dumps(settings), "--time-limits", json.dumps(limits or {})]
    run.main([str(a) for a in (step, *common, *arguments, "--log", question.folder / "log")])


def fit_command(question, method="cellina", *flags, **options):
    folder = question.folder
    paths = ("--output", folder / method / "run", "--checkpoint", folder / "checkpoint.pt")
    command(question, "fit", "--method", method, *flags, *paths, **options)
    return json.loads((folder / method / "run/status.json").read_text())


def predict_command(question, *methods, models=(), **options):
    folders = [question.folder / method / "run" for method in models]
    given = ("--controls", *methods, "--models", *folders)
    output = question.folder / "predictions.h5ad"
    command(question, "predict", *given, "--output", output, **options)


def ends_by(signal_number):
    def adapter(*_):
        # pytest's would print all of the stack to the screen.
        faulthandler.disable()
        os.kill(os.getpid(), signal_number)

    return adapter


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """`main` is for a process of its own: put back what it changes, and leave numba's threads, which may be running."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    monkeypatch.setattr(jobs, "_THREAD_VARIABLES", variables)
    for variable in variables:
        monkeypatch.setenv(variable, "1")


def test_the_command_line_gives_what_the_steps_give(question, capfd):
    expected = question.predict("cellina", "no_change")
    scores = question.score()
    shutil.rmtree(question.folder / "cellina")
    capfd.readouterr()
    assert fit_command(question)["status"] == "ok"
    predict_command(question, "no_change", models=["cellina"])
    assert capfd.readouterr().out == ""
    assert ("cellina", "right", "published") in expected
    # The command line works with one thread, this process with all: sums differ by rounding.
    again = question.score()
    assert again.drop(columns="value").equals(scores.drop(columns="value"))
    values, repeated = (pd.to_numeric(table["value"]) for table in (scores, again))
    np.testing.assert_allclose(repeated, values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("adapter", "minutes", "reason"),
    [
        (ends_by(signal.SIGSEGV), 5, "it crashed (SIGSEGV)"),
        (ends_by(signal.SIGABRT), 5, "it crashed (SIGABRT)"),
        (lambda *_: os._exit(7), 5, "it ended its process with exit code 7"),
        (lambda *_: time.sleep(600), 0.005, "it did not end within its time limit of 0.005 minutes"),
    ],
)
def test_a_method_that_takes_its_process_with_it_is_a_row(question, monkeypatch, adapter, minutes, reason):
    monkeypatch.setattr(cellina_adapter, "fit", adapter)
    monkeypatch.setattr(no_change_adapter, "predict", adapter)
    limits = {"cellina": minutes, "no_change": minutes}
    status = fit_command(question, limits=limits)
    assert (status["status"], status["reason"]) == ("failed", f"fit: {reason}")
    predict_command(question, "mean_shift", "no_change", models=["cellina"], limits=limits)
    assert failures(question) == {"no_change": f"predict: {reason}", "cellina": f"fit: {reason}"}
    assert set(question.score()["method"]) == {"no_change", "cellina", "mean_shift"}


@pytest.mark.parametrize(
    ("cards", "device", "recorded"), [(["0"], "auto", "unknown"), (["0"], "cpu", "cpu"), ([], "auto", "cpu")]
)
def test_a_training_that_took_its_process_with_it_says_no_device_that_nobody_saw(
    question, monkeypatch, cards, device, recorded
):
    monkeypatch.setattr(cellina_adapter, "fit", ends_by(signal.SIGSEGV))
    monkeypatch.setattr(run, "cards", lambda: cards)
    assert fit_command(question, "cellina", "--device", device)["device"] == recorded


def test_what_a_method_has_started_ends_with_it(question, monkeypatch):
    started = question.folder / "pid"

    def starts_another(*_):
        started.write_text(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
        time.sleep(600)

    monkeypatch.setattr(cellina_adapter, "fit", starts_another)
    assert fit_command(question, limits={"cellina": 0.1})["status"] == "failed"
    # Its parent is gone, and whoever took it over need not have waited for it: then it is a zombie.
    state = Path(f"/proc/{started.read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_seconds_are_those_of_the_whole_training_also_where_it_goes_on(question, monkeypatch):
    checkpoint = question.folder / "checkpoint.pt"
    with monkeypatch.context() as patched:
        # The training is cut off before it leaves a model; its checkpoint stays, here of epochs that took long.
        patched.setattr(Cellina, "save", raises(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            question.fit("cellina")
    left = stored.load(checkpoint, torch.device("cpu"))
    left["history"] = [row | {"seconds": 300.0} for row in left["history"]]
    stored.save(left, checkpoint)
    before = 300.0 * len(left["history"])
    status = fit_command(question)
    assert status["seconds_before"] == before
    assert before < status["seconds"] < before + 100
    shutil.rmtree(question.folder / "cellina")

    def goes_on_for_too_long(task, folder):
        task.resumed(before)
        time.sleep(600)

    monkeypatch.setattr(cellina_adapter, "fit", goes_on_for_too_long)
    status = fit_command(question, limits={"cellina": 0.1})
    assert (status["status"], status["seconds_before"]) == ("failed", before)
    assert before < status["seconds"] < before + 100


def test_memory_that_ran_out_is_told_from_a_kill_by_hand(question, monkeypatch, capfd):
    monkeypatch.setattr(cellina_adapter, "fit", ends_by(signal.SIGKILL))
    with pytest.raises(SystemExit):
        fit_command(question)
    said = capfd.readouterr().err
    assert said.startswith("error: the job was ended from outside (SIGKILL): run again")
    assert not (question.folder / "cellina/run").exists()
    monkeypatch.setattr(cellina_adapter, "fit", raises(MemoryError()))
    assert fit_command(question, "cellina", "--memory-is-asked")["reason"].startswith("fit: memory ran out")
    shutil.rmtree(question.folder / "cellina/run")
    monkeypatch.setattr(cellina_adapter, "fit", ends_by(signal.SIGKILL))
    # The kernel counts the processes that it kills for memory.
    counts = iter([4, 5] * 4)
    monkeypatch.setattr(run, "_killed_for_memory", lambda: next(counts))
    with pytest.raises(SystemExit):
        fit_command(question)
    assert capfd.readouterr().err.startswith("error: cellina: memory ran out (the system killed it): give the job more")
    assert not (question.folder / "cellina/run").exists()
    status = fit_command(question, "cellina", "--memory-is-asked")
    assert status["reason"] == "fit: it was killed because memory ran out"
    assert status["peak_memory_mb"] > 100
    monkeypatch.setattr(METHODS["scvi"].adapter, "fit", ends_by(signal.SIGKILL))
    assert fit_command(question, "scvi")["reason"] == "fit: it was killed because memory ran out"
    # Before a method is asked, nobody but the job can have used it up.
    here, load_task = os.getpid(), run.load_task

    def load(*arguments):
        return load_task(*arguments) if os.getpid() == here else ends_by(signal.SIGKILL)()

    monkeypatch.setattr(run, "load_task", load)
    with pytest.raises(SystemExit):
        fit_command(question, "scvi")
    assert capfd.readouterr().err.startswith("error: the job: memory ran out (the system killed it)")


def test_a_disk_that_is_full_in_training_stops_the_job_and_the_next_run_ends_as_if_it_had_not_been(
    question, monkeypatch, capfd
):
    """No file may grow beyond a size: what a disk without room does to PyTorch's writer as well."""
    whole = question.predict("cellina_ablated")

    def limited(task, folder):
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        return fit_ablated(task, folder)

    fit_ablated = ablated_adapter.fit
    shutil.rmtree(question.folder / "cellina_ablated")
    with monkeypatch.context() as patched:
        patched.setattr(ablated_adapter, "fit", limited)
        with pytest.raises(SystemExit) as ended:
            fit_command(question, "cellina_ablated")
    assert ended.value.code == 1
    assert capfd.readouterr().err.startswith("error: no room is left on the disk")
    assert not (question.folder / "cellina_ablated/run").exists()
    assert fit_command(question, "cellina_ablated")["status"] == "ok"
    again = question.folder / "cellina_ablated/run"
    run.predict({"cellina_ablated": again}, question.task, question.folder / "predictions.h5ad")
    with run_predictions(question) as made:
        for key, values in whole.items():
            assert np.array_equal(made.values(*key), values)


def run_predictions(question):
    from tissue_counterfactuals.question.predictions import read_predictions

    return read_predictions(question.folder / "predictions.h5ad")


def test_methods_say_what_they_need(question):
    """The flags of the table, against what the methods do."""
    rules = ("published", "any_type")
    question.drawn_from |= {"donor_rules": rules}
    question.drawn_from["node"] = NodeSettings(shifts=["node", "node_global"]).model_dump()
    here = [m for m in METHODS.values() if m.refusal(False) is None and m.environment == CORE]
    made = question.predict(*(m.name for m in here))
    for method in here:
        variants = {key[2] for key in made if key[0] == method.name}
        assert (set(rules) <= variants) is ("edge" in method.needs), method.name
        assert ({"node", "node_global"} <= variants) is ("node" in method.needs), method.name


def test_only_methods_that_say_so_read_in_training_what_is_asked(question):
    """Other donors and shifts are no reason to train the others again."""
    told = (
        {"n_donors": 5, "donor_rules": ("published",), "node": NodeSettings().model_dump()},
        {"n_donors": 9, "donor_rules": ("any_type", "matched"), "node": NodeSettings(shifts=["node"]).model_dump()},
    )
    for method in METHODS.values():
        if method.learned and method.refusal(False) is None and method.environment == CORE:
            left = []
            for one in told:
                question.drawn_from |= one
                folder = question.fit(method.name)
                files = sorted(path for path in folder.iterdir() if path.suffix in (".npz", ".pt"))
                left.append([path.read_bytes() for path in files])
                shutil.rmtree(folder)
            assert left[0]
            assert (left[0] != left[1]) is ("asked" in method.needs), method.name


def test_where_no_neighbour_is_altered_every_method_gives_its_twin(question):
    question.drawn_from["node"] = NodeSettings(shifts=["node"], share=0).model_dump()
    here = [
        m.name for m in METHODS.values() if "node" in m.needs and m.refusal(False) is None and m.environment == CORE
    ]
    made = question.predict(*here)
    assert len(here) >= 6
    for name in here:
        twin, node = made[name, "right", "no_intervention"], made[name, "right", "node"]
        np.testing.assert_allclose(node, twin, rtol=1e-4, atol=1e-4, err_msg=name)


def test_latents_of_all_cells_in_one_file_unseen_ones_unknown_and_failures_told(question):
    folders = {name: question.fit(name) for name in ("cellina", "cellina_ablated")}
    status = json.loads((folders["cellina_ablated"] / "status.json").read_text())
    failed = status | {"status": "failed", "reason": "fit: no memory"}
    (folders["cellina_ablated"] / "status.json").write_text(json.dumps(failed))
    output, task = question.folder / "latents.npz", question.task
    run.latents(folders, task, output, question.settings)
    with np.load(output, allow_pickle=False) as file:
        assert set(file.files) == {"failures", "cellina/z", "cellina/s"}
        assert json.loads(str(file["failures"])) == {"cellina_ablated": "fit: no memory"}
        z, s = file["cellina/z"], file["cellina/s"]
    assert z.shape == s.shape == (task.slide.n_obs, 3)
    assert np.ptp(z, axis=0).min() > 0
    assert not np.array_equal(z, s)
    run.latents({"cellina": folders["cellina"]}, task, output, {}, {"cellina": "it crashed"})
    with np.load(output, allow_pickle=False) as file:
        assert json.loads(str(file["failures"])) == {"cellina": "it crashed"}


def test_latents_from_the_command_line(question):
    fit_command(question)
    output = question.folder / "latents.npz"
    command(question, "latents", "--models", question.folder / "cellina/run", "--output", output)
    with np.load(output, allow_pickle=False) as file:
        assert set(file.files) == {"failures", "cellina/z", "cellina/s"}
