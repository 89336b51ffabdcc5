"""What the logs of failed jobs say, gathered for the end of the screen."""

import os
from types import SimpleNamespace

import pytest

from tissue_counterfactuals.failures import reasons, show_at_exit

SENTENCE = "error: slide s: no cell has the domain 'gone'; the domains are left, right"
TEXTS = {
    "a": f"epoch 1\n{SENTENCE}\n",
    "b": f"{SENTENCE}\n",
    "verify": "error: the results are not those of this run:\nfile a: it is gone.\n",
    "c": "Traceback (most recent call last)\n  File x\nKeyError: 'lfc'\n",
    "well": "all right\n",
    "killed": "epoch 1\n",
    "old": "error: mended since\n",
}


@pytest.fixture
def job(tmp_path):
    """A job, or a group of jobs, by the names of its logs."""
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1000, 1000) if name == "old" else (2000, 2000))
    return lambda *names: SimpleNamespace(log=[str(tmp_path / name) for name in names])


def test_each_reason_is_given_once_and_a_killed_job_is_named(job, tmp_path):
    def killed(log):
        return (
            f"error: {tmp_path / log}: this job ended without a word, as one does that is killed (memory, time); "
            "what ended it may stand above."
        )

    failed = [job(name) for name in ("verify", "b", "a", "c", "killed", "old", "never begun")]
    assert reasons(failed, since=1500) == sorted(
        [
            SENTENCE,
            f"error: KeyError: 'lfc' (a fault of this program; all of it: {tmp_path / 'c'})",
            "error: the results are not those of this run:\nfile a: it is gone.",
            *map(killed, ("killed", "old", "never begun")),
        ]
    )
    # A group fails with the jobs of it that say why, or as a whole.
    assert reasons([job("well", "a")], since=1500) == [SENTENCE]
    (whole,) = reasons([job("well", "killed")], since=1500)
    assert f"{tmp_path / 'well'}, {tmp_path / 'killed'}: this job ended" in whole


def test_where_no_job_failed_nothing_is_said(job, monkeypatch, capfd):
    """As where the user stopped the run, or where Snakemake has told why itself."""
    monkeypatch.setattr("atexit.register", lambda show: show())
    for scheduler in (None, SimpleNamespace(failed=set())):
        show_at_exit(SimpleNamespace(scheduler=scheduler), since=0)
    assert capfd.readouterr() == ("", "")
    show_at_exit(SimpleNamespace(scheduler=SimpleNamespace(failed=[job("b")])), since=0)
    assert capfd.readouterr().err.strip() == SENTENCE
