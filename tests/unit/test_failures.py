"""What the logs of a failed run say, gathered for the end of the screen."""

import os

from tissue_counterfactuals.failures import reasons

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
