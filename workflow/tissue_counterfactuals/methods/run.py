"""The command line of a guest: train one method, or predict with some, in whatever interpreter this runs in.

    python -m tissue_counterfactuals.methods.run fit --method NAME --slide S --question Q --output FOLDER ...
    python -m tissue_counterfactuals.methods.run predict --controls NAME ... --models FOLDER ... --output FILE ...
    python -m tissue_counterfactuals.methods.run latents --models FOLDER ... --output FILE ...

It needs numpy, scipy and anndata, and what the methods themselves need. A step runs in a child process, because not all
that goes wrong in a method is an exception. What the method did is a result, told from what happened to it:

- a failed row, with its reason: an exception, a crash by signal, a prediction of the wrong genes or shape or with NaN,
  a step that does not end within the method's time limit;
- the job stops with one sentence and is tried again by the next run: a disk that is full or fails, a file that is
  damaged, a package that is missing, a kill from outside, and whatever goes wrong around the method.

Memory that runs out is the one or the other. The workflow's own methods (environment `core`) hold what grows with the
cells and no more, so that the machine is too small for the data: the job stops. A guest in an environment of its own
holds what its authors chose, a matrix of all cells by all cells for one: that is what the method did, a failed row.
Where it is asked what a training costs (`fit --memory-is-asked`, for Cellina's Fig. A6) any method is such a guest.
"""

import argparse
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path

from tissue_counterfactuals.devices import card_of_its_own, cards
from tissue_counterfactuals.errors import DamagedFile, InputError, memory_fault, no_memory
from tissue_counterfactuals.files import atomic_folder, atomic_path, remove
from tissue_counterfactuals.jobs import job
from tissue_counterfactuals.methods import CORE, METHODS

# Signals by which a process ends itself; any other came from outside.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STATUS = "status.json"


# --- the steps --------------------------------------------------------------------------------------------------


def load_task(slide: Path, question: Path, device: str = "auto"):
    """The slide, in the genes of the question, and the question about it, without settings of a method.

    Raises:
        InputError: a file that is absent or damaged, or a question about another slide.
    """
    from tissue_counterfactuals.question.question import read_question
    from tissue_counterfactuals.question.task import Task
    from tissue_counterfactuals.slide import read_slide

    cells, asked = read_slide(slide, check=False), read_question(question)
    asked.check(cells, str(question))
    if asked.genes is not None:
        cells = cells[:, asked.genes].copy()
    return Task(cells, asked, device=device)


def fit(
    method: str,
    task,
    folder: Path,
    checkpoint: Path,
    resumed: Callable[[float], None] = lambda seconds: None,
    memory_is_asked: bool = False,
) -> None:
    """Train one method; `folder` ends with status.json and, if all went well, what the adapter left there.

    Args:
        resumed: told the seconds of training that an earlier process has done, where this one goes on.
        memory_is_asked: whether memory that runs out is an answer, whatever the method; see the module's text.

    Raises:
        InputError: what the user or the machine must mend; then there is no folder.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    seconds_before = 0.0

    def go_on(seconds: float) -> None:
        nonlocal seconds_before
        seconds_before = seconds
        resumed(seconds)

    task.checkpoint, task.resumed = checkpoint, go_on
    started = time.perf_counter()
    # Snakemake does not see that a job behind a checkpoint was cut off: the folder must appear whole or not at all.
    with atomic_folder(folder) as draft:
        reason = ""
        try:
            METHODS[method].adapter.fit(task, draft)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            reason = reason_of(error, method, "fit", draft, memory_is_asked)
        write_status(draft, task.fold.cell_type, reason, time.perf_counter() - started, seconds_before)
    remove(checkpoint)


def predict(
    folders: dict[str, Path | None],
    task,
    output: Path,
    settings: dict[str, dict] | None = None,
    failed: dict[str, str] | None = None,
    begin: Callable[[str], None] = lambda method: None,
) -> None:
    """All variants of some methods for all targets of a question, in one h5ad: a row per method, target, variant, cell.

    `uns` holds, as JSON: `failures`, what could not be predicted and why; `diagnostics`, numbers about predictions;
    `target_cells`, the cells to compare with where these are not all target cells; `intervals`, where a method gives
    them, the limits of mean CP10K and what else is said per gene; `cells`, where a method gives them, changes cell by
    cell of the genes that change most; `noise`, of predictions that keep counting noise, for which `dispersion` is
    null, or model it (see `Prediction`).

    Args:
        folders: method -> what `fit` left; None for methods that are not learned.
        settings: method -> its section of the configuration.
        failed: method -> why it is not asked again.
        begin: told of each method before it is asked.

    Raises:
        InputError: what the machine must mend; then there is no file.
    """
    from tissue_counterfactuals.question.predictions import write_predictions

    names = task.slide.obs_names
    with write_predictions(output, task.slide.var_names) as writer:
        notes = writer.notes = {
            "failures": [],
            "diagnostics": [],
            "target_cells": [],
            "intervals": [],
            "cells": [],
            "noise": [],
        }
        for method, folder in folders.items():
            begin(method)
            task.settings = (settings or {}).get(method, {})
            for target in task.fold.targets:
                if method in (failed or {}):
                    variants = {"-": failed[method]}
                else:
                    variants = _variants(method, task, folder, target, output.parent)
                for variant, prediction in variants.items():
                    key = {"method": method, "target": target, "variant": variant}
                    if isinstance(prediction, str):
                        notes["failures"].append(key | {"reason": prediction})
                        continue
                    writer.add(key, names[prediction.cells], prediction.values)
                    if prediction.attention is not None:
                        writer.add_attention(key, prediction.cells, *prediction.attention)
                    if prediction.keeps_noise or prediction.dispersion is not None:
                        modelled = None if prediction.keeps_noise else prediction.dispersion.tolist()
                        notes["noise"].append(key | {"dispersion": modelled})
                    notes["diagnostics"] += [key | {"name": k, "value": v} for k, v in prediction.diagnostics.items()]
                    if prediction.interval is not None:
                        lower, upper = prediction.interval
                        told = {"lower": lower, "upper": upper, "abstained": prediction.abstained}
                        told |= prediction.per_gene
                        notes["intervals"].append(key | {k: v.tolist() for k, v in told.items()})
                    if prediction.per_cell:
                        told = {k: v.round(4).tolist() for k, v in prediction.per_cell.items()}
                        notes["cells"].append(key | told)
                    if prediction.target_cells is not None:
                        reserved = names[prediction.target_cells].tolist()
                        notes["target_cells"].append(key | {"cells": reserved})


def latents(
    folders: dict[str, Path],
    task,
    output: Path,
    settings: dict[str, dict] | None = None,
    failed: dict[str, str] | None = None,
    begin: Callable[[str], None] = lambda method: None,
) -> None:
    """Latents of all cells by some methods: an npz with METHOD/LATENT (n, d) float32, NaN for cells that were not seen.

    Its text `failures` is JSON: method -> why it gives none.

    Args, Raises: as `predict`.
    """
    import numpy as np

    found, failures = {}, {}
    for method, folder in folders.items():
        begin(method)
        task.settings = (settings or {}).get(method, {})
        made = (failed or {}).get(method) or _latents_of(method, task, folder, output.parent)
        if isinstance(made, str):
            failures[method] = made
        else:
            found |= {f"{method}/{name}": np.asarray(x, np.float32) for name, x in made.items()}
    with atomic_path(output) as temporary:
        np.savez_compressed(temporary, failures=json.dumps(failures), **found)


def _latents_of(method, task, folder, scratch) -> dict | str:
    """A method's latents, or why there are none."""
    import numpy as np

    status = read_status(folder)
    if status["status"] != "ok":
        return status["reason"]
    try:
        found = METHODS[method].adapter.latents(task, folder)
        seen = ~task.split.held_out
        for name, values in found.items():
            if len(values) != task.slide.n_obs or not np.isfinite(values[seen]).all():
                raise ValueError(f"latent {name} is not finite for all cells that were seen")
    except DamagedFile as error:
        raise _remove_model(folder, error) from error
    except (Exception, SystemExit) as error:
        return reason_of(error, method, "latents", scratch)
    return found


def _variants(method, task, folder, target, scratch) -> dict:
    """A method's predictions for one target; what it does wrong becomes the reason of a failed variant."""
    if folder is not None:
        status = read_status(folder)
        if status["status"] != "ok":
            return {"-": status["reason"]}
    try:
        variants = METHODS[method].adapter.predict(task, folder, target)
        for prediction in variants.values():
            if not isinstance(prediction, str):
                prediction.check(task.slide)
    except DamagedFile as error:
        raise _remove_model(folder, error) from error
    except (Exception, SystemExit) as error:
        return {"-": reason_of(error, method, "predict", scratch)}
    return variants


def write_status(
    folder: Path, cell_type: str, reason: str, seconds: float, seconds_before: float, device: str | None = None
) -> None:
    """Leave beside a fit how it went: ok or failed, reason, seconds, peak memory, device, versions.

    The seconds are those of a training that nobody killed: what came after the last checkpoint was done twice and
    counts once.

    Args:
        reason: why it failed; empty if it did not.
        seconds: that it took in this process.
        seconds_before: that the epochs took with which an earlier process has left it.
        device: what it computed on; default: what this process has used.
    """
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    status = {
        "cell_type": cell_type,
        "status": "failed" if reason else "ok",
        "reason": reason,
        "seconds": round(seconds_before + seconds, 1),
        "seconds_before": round(seconds_before, 1),
        "peak_memory_mb": round(max(own, children) / (1 << (20 if sys.platform == "darwin" else 10))),
        "peak_gpu_memory_mb": round(_gpu_memory() / (1 << 20)),
        "device": device or _device(),
        "python": sys.version.split()[0],
        "versions": _versions(),
    }
    (folder / STATUS).write_text(json.dumps(status, indent=1))


def read_status(folder: Path) -> dict:
    """What `write_status` wrote.

    Raises:
        InputError: it is absent or damaged; the folder is removed, so that the next run trains again.
    """
    try:
        return json.loads((Path(folder) / STATUS).read_text())
    except (FileNotFoundError, ValueError) as error:
        raise _remove_model(folder, error) from None


def _remove_model(folder: Path, error: Exception) -> InputError:
    """Make room for the next run to train again; the error says so."""
    shutil.rmtree(folder, ignore_errors=True)
    return InputError(
        f"model {folder}: it was damaged ({error}) and is now removed: run again, and it is trained anew."
    )


def _device() -> str:
    """What was computed on, as far as this process has used it."""
    return sys.modules["torch"].cuda.get_device_name() if _gpu_memory() else "cpu"


def _gpu_memory() -> int:
    """Most bytes that PyTorch has held on a GPU in this process; 0 where it has used none."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available()
    return torch.cuda.max_memory_allocated() if used else 0


def _versions() -> dict[str, str]:
    """Versions of the packages that this process has loaded."""
    versions = {}
    for name in sorted({module.partition(".")[0] for module in list(sys.modules)}):
        try:
            versions[name] = metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            # Part of Python, or named otherwise than its distribution.
            own = vars(sys.modules[name]).get("__version__") if name in sys.modules else None
            if isinstance(own, str) and name not in sys.stdlib_module_names:
                versions[name] = own
    return versions


def reason_of(error: BaseException, method: str, step: str, folder: Path, memory_is_asked: bool = False) -> str:
    """What a failed row says about an error that came out of a method in a step.

    Args:
        folder: one on the disk that the step writes to.
        memory_is_asked: see `fit`.

    Raises:
        InputError: the machine is at fault and not the method.
    """
    traceback.print_exc()
    if sentence := memory_fault(error):
        if METHODS[method].environment == CORE and not memory_is_asked:
            raise InputError(f"{method}: {sentence}") from error
        return f"{step}: memory ran out {error}".strip()
    if sentence := _machine_fault(error, folder):
        raise InputError(sentence) from error
    if isinstance(error, InputError):
        return str(error)
    return f"{step}: {type(error).__name__}: {error}"


def _machine_fault(error: BaseException, folder: Path) -> str | None:
    """What to do about an error that no method can be blamed for; None for all others."""
    if isinstance(error, ImportError):
        return f"a package is missing or broken in this environment ({error}): install the environment again."
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        what = f"no room is left on the disk{place}" if error.errno in _FULL else f"a file{place} could not be used"
        return f"{what} ({error}): mend that and run again; a training goes on where it was."
    # Libraries turn a failed write into errors of their own, so the disk itself is asked.
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 20))
            probe.flush()
    except OSError as full:
        return f"the disk cannot be written ({full}): mend that and run again; a training goes on where it was."
    return None


# --- the child process ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """How a child ended: the last that it said of itself, and why it failed if it did."""

    said: dict
    reason: str = ""


def _supervise(work: Callable, limit: Callable[[dict], float | None], memory_is_asked: bool = False) -> _End:
    """Run `work(say)` in a child process until it ends or has said nothing new for too long.

    Args:
        work: says `method` when it asks one.
        limit: seconds that the child may take from what it said last to its next word or its end; None: any time.
        memory_is_asked: see `fit`.

    Raises:
        InputError: the child found something that must be mended, or was ended from outside.
    """
    ours, theirs = multiprocessing.Pipe()
    # Forked, and not started anew: nothing large is loaded yet, and a second start of Python costs as much as a step.
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_child, args=(work, ours, theirs))
    killed_before = _killed_for_memory()
    child.start()
    theirs.close()
    said, since = {}, time.monotonic()
    try:
        while child.is_alive() or ours.poll():
            # Waits a second at most: children of the child may keep the pipe open when it is gone.
            if wait([ours], timeout=1):
                try:
                    said, since = ours.recv(), time.monotonic()
                except EOFError:
                    break
                if "stop" in said:
                    child.join()
                    raise InputError(said["stop"])
            allowed = limit(said)
            if allowed is not None and time.monotonic() - since > allowed:
                _kill(child)
                return _End(said, f"it did not end within its time limit of {allowed / 60:g} minutes")
    except KeyboardInterrupt:
        _kill(child)
        raise
    child.join()
    if child.exitcode == 0:
        return _End(said)
    if child.exitcode > 0:
        return _End(said, f"it ended its process with exit code {child.exitcode}")
    name = signal.Signals(-child.exitcode).name
    if name in _CRASHES:
        return _End(said, f"it crashed ({name})")
    if name == "SIGKILL" and _killed_for_memory() > killed_before:
        method = said.get("method")
        if method is None or (METHODS[method].environment == CORE and not memory_is_asked):
            raise InputError(f"{method or 'the job'}: {no_memory('the system killed it')}")
        return _End(said, "it was killed because memory ran out")
    raise InputError(f"the job was ended from outside ({name}): run again; a training goes on where it was.")


def _kill(child: multiprocessing.Process) -> None:
    """End a child and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


def _child(work, ours, theirs) -> None:
    # A group of its own, that what a method starts ends with it; an interrupt from the keyboard no longer comes here.
    os.setpgid(0, 0)
    ours.close()
    threading.Thread(target=_end_with_parent, args=(theirs,), daemon=True).start()
    # What native code prints goes to the log as well.
    sys.stdout.flush()
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    try:
        work(theirs.send)
    except InputError as error:
        theirs.send({"stop": str(error)})
    except Exception as error:
        traceback.print_exc()
        sentence = memory_fault(error) or _machine_fault(error, Path.cwd())
        theirs.send({"stop": sentence or f"{type(error).__name__}: {error} (the log says where)"})


def _end_with_parent(connection) -> None:
    """A child whose parent was killed must not go on and write files that the next run is making again."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _killed_for_memory() -> int:
    """How many processes the kernel has killed for memory so far; 0 where it does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters["oom_kill"])
    except (OSError, KeyError, ValueError):
        return 0


# --- the command line -------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run a step; see the module's text."""
    options = _parser().parse_args(arguments)
    if options.environment is not None:
        _change_interpreter(options.environment)
    inputs = [options.slide, options.question, *options.models]
    with (
        job(options.log, options.threads, inputs),
        card_of_its_own(options.device if _wants_card(options) else "cpu", print),
    ):
        options.run(options)


def _wants_card(options) -> bool:
    """Whether a method of the job computes on a GPU where there is one."""
    methods = [getattr(options, "method", None), *(folder.parent.name for folder in options.models)]
    return any(METHODS[name].gpu for name in methods if name is not None)


def _run_fit(options) -> None:
    method, started = options.method, time.perf_counter()

    def work(say):
        task = load_task(options.slide, options.question, options.device)
        task.settings, task.steps = options.settings.get(method, {}), options.steps
        said = {"cell_type": task.fold.cell_type, "method": method}
        say(said)
        told = lambda seconds: say(said | {"seconds_before": seconds})  # noqa: E731
        fit(method, task, options.output, options.checkpoint, told, options.memory_is_asked)

    end = _supervise(work, lambda said: _seconds(options, method), options.memory_is_asked)
    if end.reason:
        reason = f"fit: {end.reason}"
        print(reason)
        with atomic_folder(options.output) as draft:
            seconds = time.perf_counter() - started
            before = end.said.get("seconds_before", 0.0)
            # The process that knew what it computed on is gone.
            device = "unknown" if _wants_card(options) and options.device != "cpu" and cards() else "cpu"
            write_status(draft, end.said.get("cell_type", ""), reason, seconds, before, device)


def _ask(options, step: Callable) -> None:
    """Ask all methods of a job something; one that takes the process with it fails alone."""
    folders = dict.fromkeys(options.controls) | {folder.parent.name: folder for folder in options.models}
    failed = {}

    def work(say):
        task = load_task(options.slide, options.question, options.device)
        begin = lambda method: say({"method": method})  # noqa: E731
        step(folders, task, options.output, options.settings, failed, begin)

    # A method that takes the process with it is left out, and the others are asked again.
    while (end := _supervise(work, lambda said: _seconds(options, said.get("method")))).reason:
        method = end.said.get("method")
        if method is None or method in failed:
            raise InputError(f"the job failed around its methods ({end.reason}): run again.")
        failed[method] = f"{step.__name__}: {end.reason}"
        print(f"{method}: {failed[method]}")


def _seconds(options, method: str | None) -> float | None:
    minutes = options.time_limits.get(method)
    return None if minutes is None else 60 * minutes


def _change_interpreter(record: Path) -> None:
    """Go on as the same process in the interpreter of an environment that was built for a guest."""
    python = json.loads(record.read_text())["interpreter"]
    arguments = [*sys.argv[1:]]
    at = arguments.index("--environment")
    del arguments[at : at + 2]
    os.execv(python, [python, "-m", "tissue_counterfactuals.methods.run", *arguments])


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--slide", type=Path, required=True, help="h5ad in the slide contract")
    common.add_argument("--question", type=Path, required=True, help="npz, see question/question.py")
    common.add_argument("--output", type=Path, required=True)
    common.add_argument("--log", type=Path, required=True)
    common.add_argument("--settings", type=json.loads, default={}, help="JSON: method -> its settings")
    common.add_argument("--time-limits", type=json.loads, default={}, help="JSON: method -> minutes")
    common.add_argument("--device", default="auto")
    common.add_argument("--threads", type=int, default=1)
    common.add_argument(
        "--environment", type=Path, help="record of methods/environments.py to run in; default: this interpreter"
    )
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(required=True)
    one = steps.add_parser("fit", parents=[common], help="train one method; leaves a folder")
    one.add_argument("--method", required=True, choices=METHODS)
    one.add_argument("--checkpoint", type=Path, required=True)
    one.add_argument("--steps", type=int, help="optimiser steps; default: what the settings say")
    one.add_argument(
        "--memory-is-asked", action="store_true", help="memory that runs out is a failed row, not an error"
    )
    one.set_defaults(run=_run_fit, models=[])
    all_of_fold = steps.add_parser("predict", parents=[common], help="predict; leaves an h5ad")
    all_of_fold.add_argument("--controls", nargs="*", default=[], choices=METHODS)
    all_of_fold.add_argument("--models", nargs="*", type=Path, default=[], help="folders of `fit`: .../METHOD/RUN")
    all_of_fold.set_defaults(run=lambda options: _ask(options, predict))
    spaces = steps.add_parser("latents", parents=[common], help="latents of all cells; leaves an npz")
    spaces.add_argument("--models", nargs="+", type=Path, required=True, help="folders of `fit`")
    spaces.set_defaults(run=lambda options: _ask(options, latents), controls=[])
    return parser


if __name__ == "__main__":
    main()
