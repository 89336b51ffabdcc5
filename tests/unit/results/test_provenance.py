"""What stands under results about the code that made them."""

import re
import subprocess

from tissue_counterfactuals import __version__
from tissue_counterfactuals.results.provenance import commit


def test_two_changes_of_one_commit_are_told_apart(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    assert commit(tmp_path) == f"version {__version__}"
    git("init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{10}", clean)
    told = []
    for text in ("a = 2\n", "a = 3\n", "a = 2\n", "a = 1\n"):
        (tmp_path / "code.py").write_text(text)
        told.append(commit(tmp_path))
    assert told[3] == clean
    assert told[0] == told[2] != told[1]
    assert all(re.fullmatch(rf"{clean}\+[0-9a-f]{{6}}", text) for text in told[:3])
