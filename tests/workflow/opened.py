"""Which files each job of a run opens, seen from inside its Python, and which of them its rule does not declare.

A Python of its own starts with an audit hook: also what the workflow starts (scripts, guests) runs under it.
"""

import base64
import json
import os
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runs import ROOT, Run

# Besides the folder of the run: what a job may read of the workflow that is no code.
_WATCHED = [ROOT / name for name in ("resources", "config", "envs")]
# Checksums and times that stand beside a file: they are proofs of it and bear no result.
RECORDS = (".sha256", ".checked")

_HOOK = '''
import importlib.abc, importlib.util, os, sys

NOTES, UNDER = os.environ.get("OPENED_FILES"), os.environ.get("OPENED_UNDER", "")
if NOTES:
    notes = os.open(os.path.join(NOTES, str(os.getpid())), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(notes, f"parent\\t{os.getppid()}\\n".encode())

    def note(kind, path):
        if isinstance(path, (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(path))
            if path.startswith(tuple(UNDER.split(os.pathsep))):
                os.write(notes, f"{kind}\\t{path}\\n".encode())

    def hook(event, arguments):
        if event == "open":
            path, _, flags = arguments
            note("write" if (flags or 0) & (os.O_WRONLY | os.O_RDWR) else "read", path)
        elif event == "os.rename":
            note("write", arguments[1])

    sys.addaudithook(hook)

    class OfH5py(importlib.abc.MetaPathFinder):
        """HDF5 opens files below Python, where no hook sees it."""

        def find_spec(self, name, path, target=None):
            if name != "h5py":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                begin = module.File.__init__

                def init(self, file, mode="r", *more, **settings):
                    note("read" if mode == "r" else "write", file)
                    begin(self, file, mode, *more, **settings)

                module.File.__init__ = init

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, OfH5py())
'''


@contextmanager
def watched(folder: Path) -> Iterator[Run]:
    """A run in an empty folder below `folder`, whose jobs note what they open while the block lasts."""
    run, notes = Run(folder / "run", python=_watching_python(folder / "python")), folder / "opened"
    run.folder.mkdir()
    notes.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENED_FILES", str(notes))
        patch.setenv("OPENED_UNDER", os.pathsep.join(map(str, (run.folder, *_WATCHED))))
        yield run


def check_declared(run: Run, allowed: dict[str, set[str]]) -> None:
    """Every rule of a watched run that has inputs was watched, and what it read beside them is what is allowed."""
    jobs = _declared(run.folder)
    missing, seen = _undeclared(jobs, run.folder.parent / "opened")
    assert missing == allowed
    assert seen == {job["rule"] for job in jobs.values() if job["input"]}


def _watching_python(folder: Path) -> str:
    """A Python with the packages of this one that notes what it opens, where OPENED_FILES names a folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    # Not as sitecustomize: Debian's Python has one of its own, which would be taken instead.
    (site / "note_opened_files.py").write_text(_HOOK)
    (site / "note_opened_files.pth").write_text("import note_opened_files\n")
    return str(folder / "bin/python")


def _opened(notes: Path) -> dict[str, list[str]]:
    """Log of a job -> the files that its processes read, without those that they wrote themselves."""
    parents, read, written = {}, defaultdict(list), defaultdict(set)
    for file in notes.iterdir():
        for line in file.read_text().splitlines():
            kind, _, value = line.partition("\t")
            if kind == "parent":
                parents[file.name] = value
            elif kind == "write":
                written[file.name].add(value)
            elif value not in written[file.name]:
                read[file.name].append(value)
    found = defaultdict(list)
    for process in read | written:
        # A process without a log works for the one that started it.
        above, log = process, None
        while above in parents and log is None:
            log = next((path for path in written[above] if path.endswith(".log") and "/results/logs/" in path), None)
            above = parents[above]
        if log:
            found[log] += read[process]
    return found


def _declared(run: Path) -> dict[str, dict]:
    """Log of a job -> its rule, inputs and outputs, as Snakemake recorded them."""
    jobs = {}
    for file in (run / ".snakemake/metadata").rglob("*"):
        if not file.is_file():
            continue
        name = "".join(part for part in file.relative_to(run / ".snakemake/metadata").parts)
        record = json.loads(file.read_text())
        for log in record["log"]:
            job = jobs.setdefault(str(run / log), {"rule": record["rule"], "output": []})
            job["input"] = [str((run / path).resolve()) for path in record["input"]]
            job["output"].append(str((run / base64.b64decode(name).decode()).resolve()))
    return jobs


def _undeclared(jobs: dict[str, dict], notes: Path) -> tuple[dict[str, set[str]], set[str]]:
    """Rule -> names of files that a job of it read and that are no input of it; and the rules that read an input.

    Folders are opened to be written to the disk for good, and what is gone since was the job's own.
    """
    missing, seen = defaultdict(set), set()
    for log, paths in _opened(notes).items():
        job = jobs.get(log)
        if job is None:
            continue
        for path in map(Path, paths):
            real = path.resolve()
            own = {str(real), *map(str, real.parents)}
            if own & set(job["input"]):
                seen.add(job["rule"])
            elif (
                path.is_file()
                and not path.name.endswith(RECORDS)
                and ".snakemake" not in path.parts
                and not own & set(job["output"])
            ):
                missing[job["rule"]].add(path.name)
    return dict(missing), seen
