"""`make mutation`: change the code in one place at a time and see whether a test fails.

    python tests/mutation/run.py [--modules 'models/cellina.py' 'metrics/*'] [--sample 30] [--seed 0]

Works on a copy of the checkout; PyTorch and the others are imported once, and every mutant is tested in a fork. Tests
are those that ran the changed lines when nothing was changed (found once, kept in .mutation/), the fastest first, until
one fails. Results go to .mutation/results.jsonl, a line per mutant; `--report` prints the table of README.md from it.
"""

import argparse
import contextlib
import difflib
import fnmatch
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".mutation"
PACKAGE = Path("workflow/tissue_counterfactuals")
# What carries meaning, where a wrong value is a wrong result, and the tests that are asked to see it.
GROUPS = {
    "cellina": (
        (
            *("models/cellina*.py", "models/training.py", "models/likelihood.py"),
            *("models/kernels.py", "models/hierarchical.py", "models/concert.py"),
            *("models/spatialprop.py", "models/attention.py", "models/receptive_field.py"),
            *("models/marginal.py", "question/*.py", "methods/*.py", "metrics/*.py", "steps.py"),
            *("protocols/__init__.py", "protocols/cellina.py"),
        ),
        (
            *("models/test_[!c]*.py", "models/test_cellina*.py", "models/test_concert.py"),
            *("question", "methods", "metrics", "results/test_attention.py", "test_steps.py"),
            *("test_scoring_step.py", "test_switches.py", "test_protocols.py", "test_estimates.py"),
            *("simulate/test_simulate_field.py", "experiments/test_trust.py"),
            "sources/test_killed_preparation.py",
        ),
    ),
    "celcomen": (("models/celcomen*.py",), ("models/test_celcomen*.py",)),
    "experiments": (
        ("experiments/*.py", "protocols/celcomen.py", "pathways.py"),
        ("experiments", "test_protocols.py", "test_pathways.py", "results/test_answer.py"),
    ),
    "simulate": (("simulate/*.py",), ("simulate",)),
    "results": (
        ("results/answer.py", "results/patients.py", "results/tables.py", "compare/*.py"),
        (
            *("results/test_answer.py", "results/test_patients.py", "results/test_tables.py"),
            *("compare", "methods/test_environments.py"),
        ),
    ),
}
# These run in environments of their own, and so do their tests (tests/guests).
GUESTS = ("cpa", "mintflow", "scanvi", "scgen", "scvi", "scvi_tools", "scviva", "simvi")
# CPU seconds of the undisturbed tests that one mutant may cost at first, beside the first test; no test is cut short.
BUDGET_S = 10.0
# Where no line runs in a test, because it is compiled or a table that is read at import: the tests that are asked,
# beside those of the same name.
MIRRORS = {
    "models/kernels.py": ("models/test_likelihood",),
    "protocols/cellina.py": ("test_protocols", "test_switches"),
    "protocols/celcomen.py": ("test_protocols", "experiments/test_switches_of_experiments"),
    "experiments/__init__.py": ("experiments/test_switches_of_experiments",),
    "simulate/__init__.py": ("simulate/test_simulate",),
}
MEMORY_BYTES = 12 << 30
_PREPARE = """
import anndata, anndata.io, h5py, numba, numpy, pandas, pydantic, pytest, scipy.sparse, scipy.stats, scipy.optimize
import sklearn.cluster, sklearn.decomposition, sklearn.linear_model, torch, threadpoolctl, yaml, matplotlib.pyplot
import scanpy
"""


def stage(folder: Path) -> None:
    """A copy of what git knows of, with the changes of the working tree; numba's compiled code is kept."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if not source.is_file():
            target.unlink(missing_ok=True)
        elif not target.exists() or source.read_bytes() != target.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def in_fork(work, cpu_s: float = math.inf) -> tuple[int, bytes]:
    """Run `work` in a fork that is stopped after some CPU seconds; wait status, and the bytes that it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        if cpu_s < math.inf:
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        try:
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    # A mutant that waits for ever uses no CPU.
    limit = time.time() + (1800 if cpu_s == math.inf else 60 + 20 * cpu_s)
    content = b""
    os.set_blocking(reader, False)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            content += os.read(reader, 1 << 20)
        if done:
            while piece := os.read(reader, 1 << 20):
                content += piece
            os.close(reader)
            return status, content
        if time.time() > limit:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def run_pytest(folder: Path, arguments: list[str], plugin) -> int:
    import torch

    os.chdir(folder)
    torch.set_num_threads(1)
    sys.path[:0] = [str(folder / "workflow"), str(folder / "tests/unit")]
    common = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={folder}"]
    return int(pytest.main([*common, *arguments], plugins=[plugin]))


class _Watch:
    """CPU seconds of each test, what failed, and for the coverage which test or shared fixture runs."""

    def __init__(self, coverage=None):
        self.coverage, self.seconds, self.failed = coverage, {}, []
        self.context, self.users = "", defaultdict(list)

    def _switch(self, context):
        before, self.context = self.context, context
        if self.coverage is not None:
            self.coverage.switch_context(context)
        return before

    def pytest_collection_modifyitems(self, items):
        for item in items:
            for name in item.fixturenames:
                self.users[f"fixture {name}"].append(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        before = sum(os.times()[:4])
        self._switch(item.nodeid)
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = sum(os.times()[:4]) - before

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        """What a fixture of a module runs is run for every test that uses it, not for the first alone."""
        shared = fixturedef.scope != "function"
        before = self._switch(f"fixture {fixturedef.argname}" if shared else self.context)
        try:
            return (yield)
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def undisturbed(folder: Path, group: str, chosen: list[str] | None) -> dict:
    """Seconds of each test, and for each module its lines and the tests that run them."""
    names = (path for name in GROUPS[group][1] for path in (folder / "tests/unit").glob(name))
    files = (file for path in names for file in (sorted(path.rglob("test_*.py")) or [path]))
    tests = chosen or sorted(str(path.relative_to(folder)) for path in files)
    common = hashlib.sha256()
    for path in sorted([*(folder / PACKAGE).rglob("*.py"), *(folder / "tests/unit").glob("*.py")]):
        if not path.name.startswith("test_"):
            common.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    found = {"seconds": {}, "lines": defaultdict(lambda: defaultdict(list))}
    for test in tests:
        own = _undisturbed(folder, test, common.copy())
        found["seconds"] |= own["seconds"]
        for module, lines in own["lines"].items():
            for line, ids in lines.items():
                found["lines"][module][line] += ids
    return found


def _undisturbed(folder: Path, test: str, digest) -> dict:
    """The same for the tests of one file; kept until it or the package changes."""
    digest.update((folder / test.split("::")[0]).read_bytes())
    kept = WORK / "undisturbed" / f"{test.replace('/', '.')}.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["files"] == digest.hexdigest():
        return found

    def work():
        import coverage

        cov = coverage.Coverage(data_file=None, source=[str(folder / PACKAGE)], config_file=False)
        cov.start()
        watch = _Watch(cov)
        run_pytest(folder, [test], watch)
        cov.stop()
        data, lines = cov.get_data(), {}
        for file in data.measured_files():
            lines[str(Path(file).relative_to(folder / PACKAGE))] = {
                line: sorted({t for c in contexts if c for t in watch.users.get(c, [c])})
                for line, contexts in data.contexts_by_lineno(file).items()
            }
        made = {"seconds": watch.seconds, "failed": watch.failed, "lines": lines}
        return json.dumps(made).encode()

    started = time.time()
    _, content = in_fork(work)
    found = json.loads(content)
    if found["failed"]:
        raise SystemExit(f"tests fail already without a mutant: {', '.join(found['failed'][:5])}")
    found["files"] = digest.hexdigest()
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    print(f"undisturbed {time.time() - started:6.1f} s  {test}", flush=True)
    return found


def tests_of(module: str, lines: tuple[int, int], found: dict, budget_s: float) -> list[str]:
    """The tests to run, fastest first: those of the lines; of the whole module where the lines run at import or
    compiled.
    """
    by_line = found["lines"].get(module, {})
    tests = {t for line in range(lines[0], lines[1] + 1) for t in by_line.get(str(line), ())}
    if not tests:
        own = Path(module).with_name(f"test_{Path(module).name}")
        mirrors = (str(own), *MIRRORS.get(module, ()))
        tests = {t for contexts in by_line.values() for t in contexts}
        tests |= {t for t in found["seconds"] if t.startswith(tuple(f"tests/unit/{m}" for m in mirrors))}
    chosen, spent = [], 0.0
    for test in sorted(tests, key=lambda t: found["seconds"][t]):
        spent += found["seconds"][test]
        if chosen and spent > budget_s:
            break
        chosen.append(test)
    return chosen


def changes(original: str, mutant) -> list[str]:
    """Lines taken out and put in."""
    lines = difflib.unified_diff(original.splitlines(), mutant.source.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def outcome_of(folder: Path, module: str, mutant, found: dict, budget_s: float) -> dict:
    """Put the mutant into the copy, test it, take it out."""
    tests = tests_of(module, mutant.lines, found, budget_s)
    path = folder / PACKAGE / module
    original, stamps = path.read_text(), path.stat()
    record = {
        "module": module,
        "number": mutant.number,
        "line": mutant.lines[0],
        "diff": changes(original, mutant),
        "n_tests": len(tests),
    }
    if not tests:
        return record | {"outcome": "no test"}

    def work():
        watch = _Watch()
        code = run_pytest(folder, ["-x", *tests], watch)
        return json.dumps([code, watch.failed]).encode()

    path.write_text(mutant.source)
    started = time.time()
    try:
        cpu_s = 20 + 3 * sum(found["seconds"][t] for t in tests)
        _, content = in_fork(work, cpu_s)
    finally:
        path.write_text(original)
        os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    code, failed = json.loads(content) if content else (None, [])
    outcome = "timeout" if code is None else "survived" if code == 0 else "killed"
    return record | {"outcome": outcome, "by": failed[:1], "s": round(time.time() - started, 1)}


def interval(killed: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, killed / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def report(results: list[dict]) -> None:
    """The table of scores and the survivors, in Markdown."""
    by_module = defaultdict(list)
    for record in results:
        by_module[record["module"]].append(record)
    print("| module | mutants | tested | killed | score | 95 % interval |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    rows = [(name, by_module[name]) for name in sorted(by_module)]
    for name, records in [*rows, ("all", results)]:
        killed = sum(r["outcome"] in ("killed", "timeout") for r in records)
        low, high = interval(killed, len(records))
        of = {r["module"]: r["of"] for r in records}
        print(
            f"| {name} | {sum(of.values())} | {len(records)} | {killed} | {killed / len(records):.0%} "
            f"| {low:.0%} to {high:.0%} |"
        )
    print()
    for record in results:
        if record["outcome"] in ("survived", "no test"):
            print(f"- `{record['module']}` {record['line']} ({record['outcome']}):")
            print("\n".join(f"      {line}" for line in record["diff"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", nargs="*", help="patterns below the package; default: all that GROUPS names")
    parser.add_argument("--tests", nargs="*", help="test files to ask, in place of the group's")
    parser.add_argument("--sample", type=int, help="mutants of each module, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--again", action="store_true", help="test also what is in the results")
    parser.add_argument("--survivors", action="store_true", help="test those again, by all tests of their lines")
    parser.add_argument("--report", action="store_true", help="print the results, test nothing")
    options = parser.parse_args()
    log = WORK / "results.jsonl"
    known = {}
    if log.exists():
        for record in map(json.loads, log.read_text().splitlines()):
            known[record["module"], record["number"], *record["diff"]] = record
    groups = {
        group: sorted(
            str(path.relative_to(ROOT / PACKAGE))
            for pattern in patterns
            for path in (ROOT / PACKAGE).glob(pattern)
            if path.stem not in GUESTS
            if not options.modules or any(fnmatch.fnmatch(path.relative_to(ROOT / PACKAGE), m) for m in options.modules)
        )
        for group, (patterns, _) in GROUPS.items()
    }
    if options.report:
        wanted = {module for modules in groups.values() for module in modules}
        report([r for r in known.values() if r["module"] in wanted])
        return

    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    exec(_PREPARE, {})
    folder = WORK / "copy"
    folder.mkdir(parents=True, exist_ok=True)
    stage(folder)
    for group, modules in groups.items():
        if modules:
            found = undisturbed(folder, group, options.tests)
        for module in modules:
            test_module(module, folder, found, options, known, log)


def test_module(module, folder, found, options, known, log) -> None:
    """Test the mutants of a module, or a sample of them, and write them down one by one."""
    from mutate import mutants_of

    source = (ROOT / PACKAGE / module).read_text()
    mutants = mutants_of(source)
    n_all = len(mutants)
    if options.sample is not None and options.sample < n_all:
        mutants = random.Random(f"{options.seed} {module}").sample(mutants, options.sample)
    for mutant in sorted(mutants, key=lambda m: m.number):
        before = known.get((module, mutant.number, *changes(source, mutant)))
        survived = before is not None and before["outcome"] in ("survived", "no test")
        if survived if options.survivors else before is None or options.again:
            budget_s = math.inf if options.survivors else BUDGET_S
            record = outcome_of(folder, module, mutant, found, budget_s) | {"of": n_all}
        else:
            continue
        with log.open("a") as file:
            file.write(json.dumps(record) + "\n")
        change = " ".join(record["diff"])[:150]
        print(f"{record['outcome']:9} {module}:{record['line']} {change}", flush=True)


if __name__ == "__main__":
    main()
