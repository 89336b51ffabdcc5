"""Does the demo run, and with the same numbers, on every Python that the pins are for? The record is pythons.tsv.

    for v in 3.11 3.12 3.13; do git clone . ../py$v && make -C ../py$v demo PYTHON=python$v; done
    python tests/recorded/pythons.py ../py3.11 ../py3.12 ../py3.13

Each folder is a checkout in which `make demo` went through. A row says which Python, that every pin is what is
installed there, and the SHA-256 of the demo's scores, their summary and the gains.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_suffix(".tsv")
TABLES = ("scores.tsv", "summary.tsv", "gains.tsv")
_INSTALLED = """
import json, platform, sys
from importlib.metadata import version
print(json.dumps([platform.python_version(), {name: version(name) for name in sys.argv[1:]}]))
"""


def pins(checkout: Path) -> dict[str, str]:
    """Version by package, as requirements.txt has them."""
    lines = (checkout / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def digest_of(pinned: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(pinned.items())).encode()).hexdigest()


def row(checkout: Path) -> dict[str, str]:
    """What was found in a checkout; ValueError where a package is not as pinned, OSError where there are no results."""
    pinned = pins(checkout)
    asked = [checkout / ".venv/bin/python", "-c", _INSTALLED, *pinned]
    python, found = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
    # A build may say where it was made: 2.13.0+cpu.
    wrong = [f"{k} {v}" for k, v in found.items() if v.split("+")[0] != pinned[k]]
    if wrong:
        raise ValueError(f"{checkout}: not as pinned: {', '.join(wrong)}")
    folder = checkout / "results/tables/simulated"
    digests = {t: hashlib.sha256((folder / t).read_bytes()).hexdigest() for t in TABLES}
    commit = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, capture_output=True, check=True, text=True).stdout.strip()
    return {"python": python, "commit": commit, "pins": digest_of(pinned), **digests}


if __name__ == "__main__":
    rows = pd.DataFrame([row(Path(folder)) for folder in sys.argv[1:]])
    rows.to_csv(TABLE, sep="\t", index=False)
    print(rows[["python", "commit"]].to_string(index=False))
