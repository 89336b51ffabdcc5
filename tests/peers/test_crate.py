"""The crate beside a run's results, checked by the validator of the RO-Crate community."""

import json
import subprocess
from pathlib import Path

import pytest

from absent import peer
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.results import manifest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def validate():
    python = peer("rocrate")

    def issues(folder: Path) -> list[str]:
        done = subprocess.run([python, HERE / "validate_crate.py", folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    return issues


def test_the_crate_is_valid_and_a_broken_one_is_not(validate, tmp_path):
    for name in ("tables/d/scores.tsv", "figures/d/map.png", "celcomen/d/forces.npz"):
        with atomic_path(tmp_path / name) as path:
            path.write_text(name)
    manifest.write(tmp_path, {"seeds": [0]})
    # Who publishes the folder only its publisher knows.
    assert validate(tmp_path) == [
        "RECOMMENDED The Root Data Entity SHOULD have a `publisher` property (Organization or Person)"
    ]

    crate = json.loads((tmp_path / manifest.CRATE).read_text())
    (root,) = (entity for entity in crate["@graph"] if entity["@id"] == "./")
    del root["datePublished"]
    (tmp_path / manifest.CRATE).write_text(json.dumps(crate))
    assert any(line.startswith("REQUIRED") for line in validate(tmp_path))
