"""Environments of guests where no conda makes them: a virtual environment from the same pins, built once.

A method names its environment in the table of methods; envs/NAME.yaml says which Python and which packages it is, for
conda and for here.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from filelock import FileLock

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path

DEFINITIONS = Path(__file__).resolve().parents[3] / "envs"
# Written into a finished environment last: without it a build was interrupted.
_DONE = "built.json"


def pins(definition: Path) -> tuple[str, list[str]]:
    """Version of Python and pip's requirements of an environment file; NAME.post-deploy.sh beside it may add to them.

    Raises:
        InputError: packages that only conda has.
    """
    dependencies = yaml.safe_load(definition.read_text(encoding="utf-8"))["dependencies"]
    python, requirements, others = "", [], []
    for entry in dependencies:
        if isinstance(entry, dict):
            requirements += entry["pip"] or []
            continue
        name, _, version = entry.partition("=")
        if name.strip() == "python":
            python = version.strip("= ")
        elif name.strip() != "pip":
            others.append(entry)
    if others:
        raise InputError(
            f"environment {definition.name}: {', '.join(others)} can only be had from conda: run with --use-conda, or "
            "leave its methods out of `methods`."
        )
    return python, requirements


def build(name: str, record: Path, definition: Path | None = None) -> Path:
    """Build an environment unless it is there, and record where it is; returns its interpreter.

    Several processes may ask at once: one builds, the others wait. What an interrupted build left is built anew.

    Args:
        name: the environment's name.
        record: JSON to write: interpreter, Python, requirements, size and seconds; the environment stands beside it.
        definition: the environment file; default: that of the name.

    Raises:
        InputError: no such Python, or a package that cannot be installed.
    """
    definition = definition or DEFINITIONS / f"{name}.yaml"
    python, requirements = pins(definition)
    # As Snakemake does after conda.
    finish = definition.with_suffix(".post-deploy.sh")
    script = finish.read_text(encoding="utf-8") if finish.is_file() else ""
    digest = hashlib.sha256(json.dumps([python, requirements, script]).encode()).hexdigest()[:10]
    folder = record.parent.resolve() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            started = time.perf_counter()
            _run(name, [_interpreter(name, python), "-m", "venv", *([] if requirements else ["--without-pip"]), folder])
            if requirements:
                pip = [folder / "bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
                _run(name, [*pip, *requirements])
            if script:
                own = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
                _run(name, ["bash", finish], os.environ | own)
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            made = {
                "interpreter": str(folder / "bin/python"),
                "python": python,
                "requirements": requirements,
                "size_mb": round(size / 1e6, 1),
                "seconds": round(time.perf_counter() - started, 1),
            }
            with atomic_path(folder / _DONE) as temporary:
                temporary.write_text(json.dumps(made, indent=1))
            print(f"built {name}: {made['size_mb']} MB in {made['seconds']} s")
        text = (folder / _DONE).read_text()
        with atomic_path(record) as temporary:
            temporary.write_text(text)
    return Path(json.loads(text)["interpreter"])


def _interpreter(name: str, version: str) -> str:
    """An interpreter of the wanted version, this one if it fits."""
    if not version or version == ".".join(map(str, sys.version_info[: version.count(".") + 1])):
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise InputError(
            f"environment {name}: there is no python{version} here; install it, run with --use-conda, or leave the "
            "methods of this environment out of `methods`."
        )
    return found


def _run(name: str, command: list, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    print(done.stdout)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"environment {name}: it could not be built ({last}); the log says why. Mend that and run again, or leave "
            "its methods out of `methods`."
        )


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
