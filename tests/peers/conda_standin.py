"""Takes the place of `conda` where no channel can be reached: solves and links by rattler, from a channel made here.

The channel holds two packages, a copy of this machine's Python and pip. They are solved for and linked as conda does
it, with channel priority strict, so that an environment file that asks for something else is refused. What stands under
`pip:` is not fetched: each pin is looked for among the packages of the interpreter that runs the tests, which the
environment then sees. So the rules' wiring, the files and a solve are real; that conda-forge has these packages is not
shown.

    python conda_standin.py channel HOME INTERPRETER     make HOME/channel; conda is `python conda_standin.py HOME ...`
"""

import asyncio
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml
from rattler import Channel, install, solve
from rattler.index import index_fs

# Of the standard library, what no job needs.
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "idlelib", "turtledemo", "lib2to3", "ensurepip"}


def ask(interpreter: str, expression: str) -> str:
    """What a Python expression is in another interpreter."""
    code = f"import os, site, sys, sysconfig; from importlib import metadata; print({expression})"
    return subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def package(channel: Path, name: str, version: str, depends: list[str], files: dict[str, Path]) -> None:
    """Write a conda package: files by their places below the prefix."""
    paths = []
    with tarfile.open(channel / "linux-64" / f"{name}-{version}-0.tar.bz2", "w:bz2", compresslevel=1) as archive:
        for place, source in files.items():
            archive.add(source.resolve(), place)
            content = source.read_bytes()
            paths.append(
                {
                    "_path": place,
                    "path_type": "hardlink",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size_in_bytes": len(content),
                }
            )
        about = {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": depends,
            "subdir": "linux-64",
        }
        listed = {"index": about, "paths": {"paths": paths, "paths_version": 1}}
        for part, content in listed.items():
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(f"info/{part}.json")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))


def below(folder: Path, place: str) -> dict[str, Path]:
    found = (p for p in folder.rglob("*") if p.is_file() and not LEFT_OUT & set(p.relative_to(folder).parts))
    return {f"{place}/{path.relative_to(folder)}": path for path in sorted(found)}


def make_channel(home: Path) -> None:
    """A channel of this machine's Python and of the pip beside rattler."""
    (home / "channel/linux-64").mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    names = ("python", "python3", f"python{version}")
    interpreter = (base / f"bin/python{version}").resolve()
    files = {f"bin/{name}": interpreter for name in names}
    files |= below(base / f"lib/python{version}", f"lib/python{version}")
    package(home / "channel", "python", sys.version.split()[0], [], files)
    own = Path(ask(sys.executable, "sysconfig.get_path('purelib')"))
    place = ask(str(interpreter), "os.path.relpath(site.getsitepackages()[0], sys.prefix)")
    pip = ask(sys.executable, "metadata.version('pip')")
    package(home / "channel", "pip", pip, ["python"], below(own / "pip", f"{place}/pip"))
    asyncio.run(index_fs(home / "channel"))


async def link(specs: list[str], home: Path, prefix: Path) -> None:
    records = await solve([Channel((home / "channel").as_uri())], specs, platforms=["linux-64", "noarch"])
    await install(records, prefix, cache_dir=home / "cache", show_progress=False)


def create(definition: Path, prefix: Path, home: Path) -> None:
    """Make the environment of a file at a prefix."""
    content = yaml.safe_load(definition.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"], content["channels"]
    (pip,) = (entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict))
    specs = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    asyncio.run(link(specs, home, prefix))
    python, tests = str(prefix / "bin/python"), (home / "interpreter").read_text()
    for pin in pip:
        name, _, version = pin.partition("==")
        assert ask(tests, f"metadata.version({name!r})").partition("+")[0] == version, pin
    packages = Path(ask(python, "site.getsitepackages()[0]"))
    (packages / "of_the_tests.pth").write_text(ask(tests, "sysconfig.get_path('purelib')"))
    # Lines that begin with `import` are run when the interpreter starts: each leaves its command.
    ran = repr(str(home / "ran.txt"))
    says = f"import sys; print(sys.executable, *sys.orig_argv, file=open({ran}, 'a'))\n"
    (packages / "says_so.pth").write_text(says)
    with open(home / "made.txt", "a") as stream:
        print(definition.name, prefix, ask(python, "__import__('pip').__version__"), file=stream)


def main(home: Path, arguments: list[str]) -> None:
    """Answer one call of Snakemake's."""
    call = " ".join(arguments)
    if call == "info --json":
        print(json.dumps({"conda_prefix": str(home), "platform": "linux-64"}))
    elif call == "--version":
        print("conda 25.1.0")
    elif call.startswith("config --get channel_priority"):
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif match := re.fullmatch(r"env create .*--file (\S+) --prefix (\S+)", call):
        create(*(Path(path.strip("'\"")) for path in match.groups()), home)
    elif not call.startswith("clean"):
        sys.exit(f"conda: nobody taught me {call!r}")


if __name__ == "__main__":
    if sys.argv[1] == "channel":
        make_channel(Path(sys.argv[2]))
        (Path(sys.argv[2]) / "interpreter").write_text(sys.argv[3])
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
    # Without the interpreter's own end, in which rattler's threads were once seen to crash it.
    sys.stdout.flush()
    os._exit(0)
