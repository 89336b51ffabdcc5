"""What a script of the workflow is wrapped in: its log, its threads, and how it fails."""

import errno
import os
import re
import subprocess
import sys

import pytest

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.jobs import job, python_without_spaces

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """`job` is for a process of its own and changes its environment: put it back."""
    for variable in (*THREAD_VARIABLES, "PYTHONPATH"):
        monkeypatch.setenv(variable, "7")


def test_what_is_printed_goes_to_the_log(tmp_path, capfd):
    log = tmp_path / "deep/er/step.log"
    with job(log):
        print("epoch 1")
        print("a warning", file=sys.stderr)
        # Lines can be followed while the job runs.
        assert log.read_text() == "epoch 1\na warning\n"
    print("later")
    assert log.read_text() == "epoch 1\na warning\n"
    assert capfd.readouterr() == ("later\n", "")


def test_a_second_run_writes_its_log_anew(tmp_path):
    for words in ("the first run, a long line", "second"):
        with job(tmp_path / "log"):
            print(words)
    assert (tmp_path / "log").read_text() == "second\n"


@pytest.mark.parametrize(("arguments", "expected"), [((), "1"), ((3,), "3")])
def test_threads_come_from_the_configuration_and_not_from_the_machine(tmp_path, arguments, expected):
    with job(tmp_path / "log", *arguments):
        assert {os.environ[variable] for variable in THREAD_VARIABLES} == {expected}


def test_the_wrapper_loads_nothing_that_reads_the_thread_variables():
    code = (
        "import sys, tissue_counterfactuals.jobs\n"
        "print([m for m in ('numpy', 'scipy', 'numba', 'torch') if m in sys.modules])"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_what_the_user_can_mend_is_one_sentence_on_the_screen_and_in_the_log(tmp_path, capfd):
    sentence = "slide s.h5ad: obs has no column 'domain'; name the column to use."
    with pytest.raises(SystemExit) as ended, job(tmp_path / "log"):
        raise InputError(sentence)
    assert ended.value.code == 1
    assert capfd.readouterr() == ("", f"error: {sentence}\n")
    assert (tmp_path / "log").read_text() == f"error: {sentence}\n"


def test_any_other_error_is_a_fault_of_the_program_and_is_logged_with_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), job(tmp_path / "log"):
        1 / 0  # noqa: B018
    log = (tmp_path / "log").read_text()
    assert log.startswith("Traceback (most recent call last):")
    assert log.endswith("ZeroDivisionError: division by zero\n")


def test_a_damaged_input_ends_the_job_before_it_begins(tmp_path, capfd):
    with atomic_path(tmp_path / "folds.tsv") as temporary:
        temporary.write_text("fold\nA\nB\n")
    (tmp_path / "folds.tsv").write_text("fold\nA\n")
    with pytest.raises(SystemExit), job(tmp_path / "log", 1, [tmp_path / "folds.tsv"]):
        raise AssertionError("never begun")
    screen = capfd.readouterr().err
    assert screen.startswith(f"error: file {tmp_path / 'folds.tsv'}: it is not what was written")
    assert screen.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_fault_of_the_disk_is_one_sentence(tmp_path, capfd, number):
    with pytest.raises(SystemExit), job(tmp_path / "log"):
        raise OSError(number, os.strerror(number), "table.tsv")
    sentence = f"error: file table.tsv: {os.strerror(number)}; see that there is room and the right to"
    assert capfd.readouterr().err.startswith(sentence)
    assert (tmp_path / "log").read_text().startswith(sentence)


def test_a_full_disk_below_hdf5_is_one_sentence_too(tmp_path, capfd):
    message = "Can't close file (file write failed: time = Thu\n, filename = 'a/s.h5ad', errno = 28)"
    with pytest.raises(SystemExit), job(tmp_path / "log"):
        raise OSError(errno.ENOSPC, message)
    screen = capfd.readouterr().err
    assert screen.startswith("error: file a/s.h5ad: No space left on device; see that there is")
    assert screen.count("\n") == 1


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory", "s.h5ad")])
def test_memory_that_ran_out_is_one_sentence_and_the_log_says_where(tmp_path, capfd, error):
    with pytest.raises(SystemExit), job(tmp_path / "log"):
        raise error
    screen = capfd.readouterr().err
    assert screen.startswith("error: memory ran out")
    assert "give the job more, or less to hold" in screen
    assert screen.count("\n") == 1
    log = (tmp_path / "log").read_text()
    assert log.startswith("Traceback (most recent call last):")
    assert log.endswith(screen)


def test_a_python_below_a_folder_with_a_space_is_called_without_one(tmp_path):
    (tmp_path / "sp ace").mkdir()
    environment = tmp_path / "sp ace/env"
    environment.symlink_to(sys.prefix)
    executable = python_without_spaces(str(environment / "bin/python"))
    assert " " not in executable
    told = subprocess.run(
        [executable, "-c", "import sys, numpy; print(sys.executable)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{executable}\n"
    assert python_without_spaces("/usr/bin/python3") == "/usr/bin/python3"


def test_where_temporary_files_have_a_space_too_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    (tmp_path / "a b").mkdir()
    with pytest.raises(InputError, match="cannot run a Python with a space in its path"):
        python_without_spaces("/opt/my code/.venv/bin/python")


def test_every_script_has_its_inputs_checked(root):
    # What `prepare` and `download` read is the user's, or checked against a published checksum.
    for path in sorted((root / "workflow/scripts").glob("*.py")):
        text = path.read_text()
        if "with job(" in text and path.stem not in ("prepare", "download"):
            assert re.search(r"with job\(snakemake.log\[0\], .*snakemake.input\):", text), path.name
