"""What the project says about its environment is complete, pinned, and the same everywhere."""

import ast
import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tissue_counterfactuals.methods import CORE, METHODS


def read_pins(lines: list[str]) -> dict[str, str]:
    """Distribution -> version; any line that is no exact pin is refused."""
    pins = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line).groups()
        assert canonicalize_name(name) not in pins
        pins[canonicalize_name(name)] = version
    return pins


@pytest.fixture(scope="module")
def requirements(root) -> dict[str, str]:
    lines = (root / "requirements.txt").read_text().splitlines()
    return read_pins([line for line in lines if line and not line.startswith("#")])


@pytest.fixture(scope="module")
def core(root) -> dict[str, str]:
    """The pins of the conda environment of every step."""
    environment = yaml.safe_load((root / "envs/core.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    return read_pins(pip)


def test_torch_is_the_agreed_one(requirements):
    assert requirements["torch"] == "2.13.0"


def test_both_environments_have_the_same_pins(requirements, core):
    assert core == {name: requirements.get(name) for name in core}


def test_the_requirements_are_complete_and_fit_together(requirements):
    for name, pin in requirements.items():
        assert metadata.version(name).partition("+")[0] == pin
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            # A CUDA build of PyTorch pins its own companions.
            if name == "torch" and re.match(r"nvidia-|cuda-|triton", needed.name):
                continue
            pinned = requirements.get(canonicalize_name(needed.name))
            assert pinned is not None, f"{name} needs {needed}, which is not pinned"
            assert needed.specifier.contains(pinned, prereleases=True), f"{name} needs {needed}"


PACKAGE = "tissue_counterfactuals"


def imports_of(path, everywhere: bool = True) -> set[str]:
    """Dotted names that a Python file imports: anywhere in it, or as soon as it is loaded."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def others(names: set[str]) -> set[str]:
    """Top-level names of what is neither Python's own nor this package."""
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {PACKAGE}


def loaded_with(root, modules: set[str]) -> set[str]:
    """What these modules of the package import anywhere, and what all they lead to imports when it is loaded."""
    found, seen, todo = set(), set(), {(name, True) for name in modules}
    while todo:
        seen |= todo
        names = set()
        for name, everywhere in todo:
            file = root / "workflow" / name.replace(".", "/")
            for path in (file.with_suffix(".py"), file / "__init__.py"):
                names |= imports_of(path, everywhere) if path.is_file() else set()
            # A module is loaded with the packages it lies in.
            names.add(name.rpartition(".")[0])
        found |= names
        todo = {(n, False) for n in names if n.split(".")[0] == PACKAGE} - seen
    return others(found - {""})


def test_everything_the_package_and_the_scripts_import_is_pinned_for_their_rules(root, core):
    guests = {m.name for m in METHODS.values() if m.environment != CORE} | {"scvi_tools"}
    folders = [root / "workflow" / PACKAGE, root / "workflow/scripts"]
    imported = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        # Snakemake's own process alone loads this one: no rule's environment has Snakemake.
        assert path.name == "scheduling.py" or f"{PACKAGE}.scheduling" not in imports_of(path)
        if path.name != "scheduling.py" and (path.parent.name != "methods" or path.stem not in guests):
            imported |= others(imports_of(path))
    assert "snakemake" not in imported
    sources = metadata.packages_distributions()
    # Used where a user has installed it: a sentence asks for it where a file needs it. What unlocks runs in no rule.
    for module in imported - {"hdf5plugin", "psutil"}:
        pinned = {canonicalize_name(name) for name in sources[module]} & core.keys()
        assert pinned, f"{module} is imported and not pinned in envs/core.yaml"


# Module -> distribution, where they differ.
GUESTS = {"scvi": "scvi-tools", "cpa": "cpa-tools"}


def test_everything_guests_import_is_pinned_in_their_environment(root):
    followed = set()
    for name in {m.environment for m in METHODS.values()} - {CORE}:
        environment = yaml.safe_load((root / f"envs/{name}.yaml").read_text())
        (pip,) = [e["pip"] for e in environment["dependencies"] if isinstance(e, dict)]
        finish = root / f"envs/{name}.post-deploy.sh"
        afterwards = finish.read_text() if finish.is_file() else ""
        pins = read_pins(pip) | read_pins(re.findall(r"[a-z-]+==[0-9.]+", afterwards))
        own = {m.name for m in METHODS.values() if m.environment == name}
        imported = loaded_with(root, {f"{PACKAGE}.methods.{adapter}" for adapter in {*own, "run"}})
        # What a guest's command line loads besides its adapters, to see that it is followed.
        assert {"numpy", "pandas", "h5py"} <= imported
        followed |= imported
        for module in imported:
            assert canonicalize_name(GUESTS.get(module, module)) in pins, f"{name}: {module}"
    # What an adapter loads inside its functions is followed too.
    assert "torch" in followed


def test_no_file_names_a_folder_of_some_machine_or_the_host_of_a_registry(root):
    # Put together here, so that this file does not hold them either.
    folders = [f"/{name}/" for name in ("root", "home", "Users", "tmp", "work")]
    hosts = [
        ".".join(parts)
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("anaconda", "org"),
            ("download", "pytorch", "org"),
            ("npmjs", "org"),
            ("debian", "org"),
            ("golang", "org"),
        )
    ]
    forbidden = re.compile(rf"(?<![\w.}}])(?:{'|'.join(folders)})|{'|'.join(map(re.escape, hosts))}")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout.decode()
    found = []
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            text = (root / name).read_bytes().decode(errors="ignore")
            found += [f"{name}: {match}" for match in forbidden.findall(text)]
    assert found == []
