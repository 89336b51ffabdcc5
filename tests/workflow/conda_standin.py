"""Takes the place of `conda` in a test: says what it was asked, and makes environments out of what is installed already.

An environment is a virtual environment that sees the packages of the interpreter that runs the tests, once every pin of
its file has been found there. So it shows that the rules name environments, that Snakemake makes and activates them, and
that jobs run in them; not that a channel of conda has the packages.
"""

import json
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import yaml

HOME = Path(__file__).resolve().parents[1]


def create(definition: Path, prefix: Path) -> None:
    """Make the environment of a file at a prefix."""
    content = yaml.safe_load(definition.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"], content["channels"]
    (pip,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    for pin in pip:
        name, _, version = pin.partition("==")
        assert metadata.version(name).partition("+")[0] == version, pin
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_paths()["purelib"])
    # Lines that begin with `import` are run when the interpreter starts: each leaves its command.
    ran = repr(str(HOME / "ran.txt"))
    (packages / "says_so.pth").write_text(
        f"import sys; print(*sys.orig_argv, file=open({ran}, 'a'))\n"
    )
    with open(HOME / "made.txt", "a") as stream:
        print(definition.name, prefix, file=stream)


def main(arguments: list[str]) -> None:
    """Answer one call of Snakemake's."""
    call = " ".join(arguments)
    if call == "info --json":
        print(json.dumps({"conda_prefix": str(HOME), "platform": "linux-64"}))
    elif call == "--version":
        print("conda 25.1.0")
    elif call.startswith("config --get channel_priority"):
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif match := re.fullmatch(r"env create .*--file (\S+) --prefix (\S+)", call):
        create(*(Path(path.strip("'\"")) for path in match.groups()))
    elif not call.startswith("clean"):
        sys.exit(f"conda: nobody taught me {call!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
