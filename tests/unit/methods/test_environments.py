"""Environments of guests without conda: built once, from the pins, whoever asks and whatever was cut off."""

import json
import platform
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS, environments

VERSION = ".".join(map(str, sys.version_info[:2]))


def define(folder, *requirements, python=VERSION, more=""):
    path = folder / "guest.yaml"
    pins = "".join(f"\n      - {requirement}" for requirement in requirements)
    path.write_text(f"dependencies:\n  - python ={python}\n  - pip =26.0{more}\n  - pip:{pins}\n")
    return path


def wheel(folder):
    """A package of one module, as pip installs it."""
    with zipfile.ZipFile(folder / "guestpackage-1.5-py3-none-any.whl", "w") as archive:
        archive.writestr("guestpackage.py", "answer = 42\n")
        info = "guestpackage-1.5.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: guestpackage\nVersion: 1.5\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_every_environment_of_the_table_is_defined_and_can_be_read():
    for name in {method.environment for method in METHODS.values()}:
        python, requirements = environments.pins(environments.DEFINITIONS / f"{name}.yaml")
        assert python.startswith("3.")
        assert all("==" in requirement for requirement in requirements)


def test_no_two_environments_pin_a_package_differently():
    """A guest reads the files that the workflow writes, and its scores stand beside others."""
    versions = {}
    for path in sorted(environments.DEFINITIONS.glob("*.yaml")):
        _, requirements = environments.pins(path)
        finish = path.with_suffix(".post-deploy.sh")
        if finish.is_file():
            command, _, listed = finish.read_text().partition("<<'PINS'\n")
            assert "--require-hashes -r /dev/stdin" in command
            lines = listed.removesuffix("PINS\n").splitlines()
            # A package without a version would be another one tomorrow, and one without a checksum anybody's.
            found = [re.fullmatch(r"(\S+==\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
            assert all(found)
            later = [match[1] for match in found]
            assert len(later) > 3
            requirements = requirements + later
        for requirement in requirements:
            name, _, version = requirement.partition("==")
            versions.setdefault(name.lower(), {})[path.name] = version
    # All were read; what only some pin, torch too, is compared among these.
    assert len(versions["anndata"]) == len({method.environment for method in METHODS.values()})
    assert {n: v for n, v in versions.items() if len(set(v.values())) > 1} == {}


def test_the_pins_are_installed_and_what_it_took_is_recorded(tmp_path, monkeypatch):
    wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    definition = define(tmp_path, "guestpackage==1.5")
    finish = "python -c \"import sys, guestpackage; open(sys.prefix + '/finished', 'w')\"\n"
    (tmp_path / "guest.post-deploy.sh").write_text(finish)
    interpreter = environments.build("guest", tmp_path / "made/guest.json", definition)
    code = "import guestpackage, sys; print(guestpackage.answer, sys.prefix)"
    said = subprocess.run([interpreter, "-c", code], capture_output=True, text=True).stdout
    assert said.split() == ["42", str(interpreter.parents[1])]
    # What comes after pip is run in the environment.
    assert (interpreter.parents[1] / "finished").is_file()
    record = json.loads((tmp_path / "made/guest.json").read_text())
    assert record["requirements"] == ["guestpackage==1.5"]
    assert record["size_mb"] > 1
    assert record["seconds"] > 0
    with pytest.raises(InputError, match=r"environment guest: it could not be built \(ERROR: "):
        environments.build("guest", tmp_path / "made/guest.json", define(tmp_path, "guestpackage==2"))


def test_it_is_built_once_and_again_after_an_interruption(tmp_path, capsys):
    definition, record = define(tmp_path), tmp_path / "made/guest.json"

    def build(_):
        return environments.build("guest", record, definition)

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(build, range(3))
    assert others == [first, first]
    assert capsys.readouterr().out.count("built guest") == 1
    # Cut off before its end: there is a folder, and no word that it is whole.
    (first.parents[1] / "built.json").unlink()
    (first.parents[1] / "half").write_text("")
    assert build(0) == first
    assert capsys.readouterr().out.count("built guest") == 1
    assert not (first.parents[1] / "half").exists()
    # Other pins are another environment.
    assert environments.build("guest", record, define(tmp_path, python=platform.python_version())) != first


def test_what_cannot_be_built_is_said(tmp_path):
    record = tmp_path / "made/guest.json"
    with pytest.raises(InputError, match="there is no python9.9 here; install it, run with --use-conda"):
        environments.build("guest", record, define(tmp_path, python="9.9"))
    with pytest.raises(InputError, match="r-base =4.4 can only be had from conda"):
        environments.build("guest", record, define(tmp_path, more="\n  - r-base =4.4"))
    assert not record.exists()
