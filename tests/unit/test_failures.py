"""What the logs of a failed run say, gathered for the end of the screen."""

import os

from tissue_counterfactuals.failures import reasons, show_at_exit

SENTENCE = "error: slide s: no cell has the domain 'gone'; the domains are left, right"


def test_each_reason_is_given_once_and_old_logs_give_none(tmp_path):
    texts = {
        "fit/a.log": f"epoch 1\n{SENTENCE}\n",
        "fit/b.log": f"{SENTENCE}\n",
        "verify.log": "error: the results are not those of this run:\nfile a: it is gone.\n",
        "score/c.log": "Traceback (most recent call last)\n  File x\nKeyError: 'lfc'\n",
        "score/well.log": "all right\n",
        "old.log": "error: mended since\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (2000, 2000))
    os.utime(tmp_path / "old.log", (1000, 1000))
    assert reasons(tmp_path, since=1500) == [
        SENTENCE,
        f"error: KeyError: 'lfc' (a fault of this program; all of it: {tmp_path / 'score/c.log'})",
        "error: the results are not those of this run:\nfile a: it is gone.",
    ]


def test_a_killed_job_is_told_though_it_left_no_reason(tmp_path, monkeypatch, capfd):
    (tmp_path / "fit.log").write_text("epoch 1\n")
    monkeypatch.setattr("atexit.register", lambda show: show())
    show_at_exit(tmp_path, since=0)
    assert "error: a job ended without a reason in its log" in capfd.readouterr().err
    (tmp_path / "fit.log").write_text(f"{SENTENCE}\n")
    show_at_exit(tmp_path, since=0)
    assert capfd.readouterr().err.strip() == SENTENCE
