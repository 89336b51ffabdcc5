"""What stands under results about the code that made them."""

import json
import re
import subprocess

from tissue_counterfactuals import __version__
from tissue_counterfactuals.results.provenance import commit, read_joined


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
    # Code that git does not know changes what is computed as well; notes and what is ignored do not.
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / ".gitignore").write_text("ignored.py\n.gitignore\n")
    (tmp_path / "ignored.py").write_text("a = 1\n")
    assert commit(tmp_path) == clean
    (tmp_path / "package").mkdir()
    for text in ("b = 1\n", "b = 2\n"):
        (tmp_path / "new one.py").write_text(text)
        told.append(commit(tmp_path / "package"))
    assert len({*told}) == 5
    assert all(re.fullmatch(rf"{clean}\+[0-9a-f]{{6}}", text) for text in [*told[:3], *told[4:]])


def test_results_of_several_commits_and_configurations_name_them_all(tmp_path):
    paths = []
    for seed, commit_of in enumerate(("old", "new", "old")):
        manifest = {"samples": ["s"], "slide": {}, "n_cells": 9, "seeds": [seed]}
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(json.dumps(manifest | {"commit": commit_of, "config_hash": f"of {commit_of}"}))
    joined = read_joined(paths)
    assert (joined["commit"], joined["config_hash"]) == ("old, new", "of old, of new")
    assert (joined["seeds"], joined["n_cells"], joined["n_slides"]) == ([0, 1, 2], 9, 1)
