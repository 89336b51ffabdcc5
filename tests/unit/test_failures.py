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
        show_at_exit(SimpleNamespace(scheduler=scheduler, executor_settings=None), since=0)
    assert capfd.readouterr() == ("", "")
    show_at_exit(SimpleNamespace(scheduler=SimpleNamespace(failed=[job("b")]), executor_settings=None), since=0)
    assert capfd.readouterr().err.strip() == SENTENCE


def test_what_slurm_ended_says_what_it_ran_out_of(job, tmp_path):
    lines = {
        ("fit", "a_b", 1): "slurmstepd: error: Job 1 exceeded memory limit (2 > 1), being killed\n",
        ("fit", "a_b", 2): "nothing\n",
        ("fit", "c", 3): "slurmstepd: error: *** JOB 3 CANCELLED AT 2026-11-26 DUE TO TIME LIMIT ***\n",
        ("fit", "old", 4): "slurmstepd: error: *** JOB 4 CANCELLED AT 2026-11-25 DUE TO TIME LIMIT ***\n",
        ("fit", "well", 5): "nothing\n",
    }
    for (rule, wildcards, number), text in lines.items():
        log = tmp_path / "slurm" / f"rule_{rule}" / wildcards / f"{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
        os.utime(log, (1000, 1000) if wildcards == "old" else (2000, 2000))

    def said(*wildcards):
        ended = job("killed")
        ended.name, ended.wildcards = "fit", wildcards
        (reason,) = reasons([ended], since=1500, slurm_logs=tmp_path / "slurm")
        return reason.removeprefix(f"error: {tmp_path / 'killed'}: this job ")

    assert said("a", "b") == (
        f"was ended by SLURM because it ran out of memory ({tmp_path}/slurm/rule_fit/a_b/1.log); ask for more mem_mb."
    )
    assert said("c").startswith("was ended by SLURM because it ran out of time")
    assert said("c").endswith("ask for more runtime.")
    for wildcards in (["old"], ["well"], ["not", "there"]):
        assert said(*wildcards).startswith("ended without a word")


def test_the_last_sentence_of_a_log_is_the_reason(job, tmp_path):
    """A log that goes on after a fault that was mended by itself."""
    (tmp_path / "a").write_text(f"error: the first try\nepoch 1\n{SENTENCE}\n")
    assert reasons([job("a")], since=0) == [SENTENCE]
