"""What a GPU changes: whether methods answer as on a CPU, what training costs on either, and where a step's time goes.

    PYTHONPATH=workflow python tests/bench/bench_devices.py --output FOLDER                    # a machine with a GPU
    PYTHONPATH=workflow python tests/bench/bench_devices.py --output FOLDER --gpu cpu --small  # a trial without one

Three parts, each of which can be asked for alone (`--parts`):

- `answers`: every method that can use a GPU, trained and asked on a small simulated tissue through
  `tissue_counterfactuals.methods.run`, on both devices. One model asked on both may differ by rounding alone, bound
  1e-4 of a gene's mean; models that draw at random when asked differ by their draws as well. Trainings differ by
  rounding and, where the network draws on its device (dropout, latents), by other draws of the same seed: how alike
  their predictions are stands beside the same for two seeds on a CPU.
- `steps`: Cellina and Cellina-GAT on 100,000 cells x 2,000 genes, alone on the machine and with all its cores: batches
  alone, steps on one batch alone, both together.
- `costs`: one epoch in batches of 2,048 on random cells of a slide of 400,000 cells x 100 genes (Cellina, Fig. A6), a
  thread each, `--lanes` trainings side by side on CPUs and `--gpu-lanes` on the card.

A training that did not end, or whose packages are missing, is a row with its reason. Tables are printed, and rows are
added to FOLDER as they are known. The exit status says whether the bound of `answers` was kept.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench_cellina_gat as gat
import numpy as np
import torch

from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import Config
from tissue_counterfactuals.graph import gaussian_graph, neighborhood_features
from tissue_counterfactuals.methods import CORE, METHODS
from tissue_counterfactuals.models import cellina, training
from tissue_counterfactuals.models.receptive_field import hops
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.slide import log_normalize, write_slide

BOUND = 1e-4
ON_GPU = [name for name, method in METHODS.items() if method.gpu]
# Long enough that a method has learnt something, short enough for all of them.
TRAININGS = {
    "cellina": {"epochs": 60},
    "cellina_gat": {"epochs": 15},
    "spatialprop": {"epochs": 40},
    "concert": {"epochs": 150},
    "scvi": {"max_epochs": 30},
    "scgen": {"max_epochs": 30},
    "cpa": {"max_epochs": 30},
}
GRAPH = {"bandwidth_um": 100, "max_neighbors": 200, "cutoff": 0.1}


def settings_of(method: str, **changed) -> dict:
    """A method's section of the configuration; of what is changed, the keys that it has."""
    section = Config.model_fields[METHODS[method].settings].default.model_dump(exclude={"time_limit_minutes"})
    return section | {key: value for key, value in changed.items() if key in section}


def run_step(step: str, device: str, minutes: float, log: Path, *arguments) -> str:
    """One command of the workflow with one thread; its complaint, empty if it ended well."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tissue_counterfactuals.methods.run", step, "--device", device, "--log", str(log)]
    command += ["--time-limits", json.dumps(dict.fromkeys(ON_GPU, minutes)), *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    return "" if ended.returncode == 0 else (ended.stdout + ended.stderr).strip().rpartition("\n")[2]


def fit(method: str, device: str, slide: Path, question: Path, folder: Path, settings: dict, minutes: float) -> dict:
    """Train a method into FOLDER/METHOD/RUN; its status, with `job_seconds` of the whole command."""
    model, started = folder / method / "run", time.perf_counter()
    given = ("--method", method, "--slide", slide, "--question", question, "--output", model)
    given += ("--settings", json.dumps({method: settings}), "--checkpoint", folder / f"{method}.pt")
    fault = run_step("fit", device, minutes, folder / f"{method}.log", *given, "--memory-is-asked")
    if fault:
        return {"status": "stopped", "reason": fault}
    return json.loads((model / "status.json").read_text()) | {"job_seconds": time.perf_counter() - started}


# --- answers --------------------------------------------------------------------------------------------------------


def write_small_task(folder: Path, cells: int) -> tuple[Path, Path, Path]:
    """A tissue of three slides, and a question about it with seeds 0 and 1."""
    folder.mkdir(parents=True, exist_ok=True)
    slide, graph, folds = (folder / name for name in ("slide.h5ad", "graph.npz", "folds.tsv"))
    write_slide(simulate_tissue(n_cells=cells, n_genes=100, seed=0), slide)
    near = GRAPH | {"max_neighbors": 30}
    steps.build_graph(slide, near, graph)
    dataset = {"control_domain": "domain_0", "target_domains": ["domain_1"]}
    steps.write_folds(slide, "s", dataset | {"holdout": {"cell_types": ["type_0"], "min_cells": 2}}, folds)
    drawn = {"protocol": "corrected", "switches": protocols.resolve("corrected"), "graph": near}
    drawn |= {"donor_rules": ["published"], "n_donors": 20, "validation_fraction": 0.1}
    questions = [folder / f"question{seed}.npz" for seed in (0, 1)]
    for seed, question in enumerate(questions):
        steps.write_question(slide, graph, folds, "type_0", seed, drawn, question)
    return slide, *questions


def compare_answers(options) -> bool:
    """Train, ask and compare, side by side, the methods in the order given; whether the bound was kept."""
    folder = options.output / "answers"
    slide, *questions = write_small_task(folder, 600 if options.small else 3000)
    # name -> device, seed, where it is asked; `again` is the same training once more
    trainings = {
        "cpu": ("cpu", 0, ("cpu", options.gpu)),
        "gpu": (options.gpu, 0, ("cpu", options.gpu)),
        "again": (options.gpu, 0, (options.gpu,)),
        "seed1": ("cpu", 1, ("cpu",)),
    }

    def answered(method: str, name: str) -> tuple[dict, dict, dict]:
        (device, seed, devices), section = trainings[name], METHODS[method].settings
        lengths = dict.fromkeys(TRAININGS[section], 2) if options.small else TRAININGS[section]
        own = settings_of(method, **lengths)
        status = fit(method, device, slide, questions[seed], folder / name, own, options.minutes)
        answers, faults = {}, {}
        for device in {*devices} if status["status"] == "ok" else ():
            output = folder / name / f"{method}_on_{device}.h5ad"
            given = ("--slide", slide, "--question", questions[seed], "--output", output)
            given += ("--settings", json.dumps({method: own}), "--models", folder / name / method / "run")
            fault = run_step("predict", device, options.minutes, output.with_suffix(".log"), *given)
            if fault:
                faults[f"{method}, {name} on {device}"] = fault
                continue
            with read_predictions(output) as made:
                for failure in made.notes["failures"]:
                    faults[f"{method}, {name} on {device}"] = failure["reason"]
                for _, target, variants in made.questions():
                    for variant in variants:
                        answers[name, device, variant] = np.asarray(made.values(method, target, variant))
        return status, answers, faults

    kept, rows = True, {}
    print("answers: method; trained on CPU, GPU; device; one model on both devices, trained on CPU, on GPU (largest "
          "difference over the gene's mean); the same seed twice on the GPU; a training on the CPU against one on the "
          "GPU, against another seed: correlation of predicted changes, median relative difference of genes' means; "
          "reason", flush=True)  # fmt: skip
    with ThreadPoolExecutor(options.lanes) as pool:
        jobs = {key: pool.submit(answered, *key) for key in itertools.product(options.methods, trainings)}
        for method in options.methods:
            found = {name: jobs[method, name].result() for name in trainings}
            fits = {name: status for name, (status, _, _) in found.items()}
            answers = {key: values for _, made, _ in found.values() for key, values in made.items()}
            faults = {key: reason for _, _, reasons in found.values() for key, reason in reasons.items()}
            row, good = row_of_answers(method, options.gpu, fits, answers)
            kept &= good
            rows[method] = {"row": row, "fits": fits, "faults": faults}
            record(options, "answers.json", rows)
            print(f"| {' | '.join(row)} |", flush=True)
            for key, reason in faults.items():
                print(f"not predicted: {key}: {reason}", flush=True)
    return kept


def row_of_answers(method: str, gpu: str, fits: dict, answers: dict) -> tuple[list[str], bool]:
    """A method's row; whether it kept the bound: it answered, or draws when asked."""
    variants = sorted({variant for _, _, variant in answers})

    def differ(one: tuple, other: tuple) -> float:
        pairs = [(answers.get((*one, v)), answers.get((*other, v))) for v in variants]
        return max((difference(*pair) for pair in pairs if pair[0] is not None and pair[1] is not None), default=np.nan)

    same_model = [differ((name, "cpu"), (name, gpu)) for name in ("cpu", "gpu")]
    again = differ(("gpu", gpu), ("again", gpu))
    row = [method, f"{fits['cpu']['status']}, {fits['gpu']['status']}"]
    row.append(f"{fits['gpu'].get('device', '-')}, {fits['gpu'].get('peak_gpu_memory_mb', 0):,} MB")
    row += [f"{x:.1e}" for x in same_model] + ["same bytes" if again == 0 else f"{again:.1e}"]
    for other in (("gpu", gpu), ("seed1", "cpu")):
        row.append("{:.3f}, {:.1%}".format(*likeness(answers, ("cpu", "cpu"), other)))
    row.append(fits["gpu"]["reason"] or fits["cpu"]["reason"])
    # scvi-tools' predictions are means over draws.
    return row, METHODS[method].settings == "scvi" or bool(np.max(same_model) <= BOUND)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two predictions (m, g), over the gene's mean."""
    return float((np.abs(one - other).max(axis=0) / np.maximum(one.mean(axis=0), 1e-6)).max())


def likeness(answers: dict, one: tuple, other: tuple) -> tuple[float, float]:
    """How alike two models are: correlation over genes of what they say that changes, the log of the means against
    their twin's; median over genes of the relative difference of the means.
    """
    moved = next((v for *_, v in answers if v != "no_intervention"), None)
    keys = [(*key, v) for key in (one, other) for v in (moved, "no_intervention")]
    if not all(key in answers for key in keys):
        return np.nan, np.nan
    means = [answers[key].mean(axis=0) for key in keys]
    logs = np.log(np.array(means) + 1e-3)
    correlation = np.corrcoef(logs[0] - logs[1], logs[2] - logs[3])[0, 1]
    return float(correlation), float(np.median(np.abs(means[2] - means[0]) / np.maximum(means[0], 1e-6)))


# --- steps ----------------------------------------------------------------------------------------------------------


def measure_steps(options) -> None:
    """Cellina and Cellina-GAT on one large slide, first on the GPU, then with all cores."""
    size = argparse.Namespace(cells=2_000 if options.small else 100_000, genes=2000, neighbors=50)
    counts, coords, graph = gat._slide(size)
    codes = np.random.default_rng(1).integers(gat.N_TYPES, size=size.cells)
    domain = (gat.N_DOMAINS * coords[:, 0] / coords[:, 0].max()).astype(int) % gat.N_DOMAINS
    features = neighborhood_features(gaussian_graph(coords, **GRAPH), log_normalize(counts))
    told_of, lines = {}, []
    for device in (options.gpu, "cpu"):
        torch.set_num_threads(os.cpu_count())
        data = cellina.CellData(counts, features, codes, domain, np.zeros(size.cells, int), device)
        cells = np.random.default_rng(2).permutation(size.cells)[: 20 * 2048]
        network = cellina.CellinaNetwork(size.genes, gat.N_TYPES, gat.N_DOMAINS)
        chosen = training.TrainingSettings(epochs=3, batch_size=2048, patience=10**6)
        cut = training.batches_of(cells, 2048)
        lines.append([f"Cellina, {device}", *time_parts(data, network, cut, chosen, told_of, device)])
        lines[-1].append(f"{epoch_rate(network, data, cells, chosen):,.0f}")

        model = gat.cellina_gat.CellinaGAT(device=device)
        around = model.surroundings(graph, counts)
        labels = codes, domain, np.zeros(size.cells, int)
        data = gat.cellina_gat.TissueData(counts, around, *labels, coords, model.settings, 3, device)
        cells = gat._chosen(coords, model.settings, (5 if device == "cpu" else 40) * gat.BATCH)
        network = gat.cellina_gat.CellinaGATNetwork(size.genes, gat.N_TYPES, gat.N_DOMAINS, n_layers=3)
        cut = training.batches_of(cells, gat.BATCH)
        chosen = gat.cellina_gat.GATSettings(epochs=3, batch_size=gat.BATCH, patience=10**6)
        lines.append([f"Cellina-GAT, {device}", *time_parts(data, network, cut[:10], chosen, told_of, device)])
        data.order = lambda rng, chosen: chosen
        lines[-1].append(f"{epoch_rate(network, data, cells, chosen):,.0f}")

        started = time.perf_counter()
        fields = [hops(around.graph, piece, 3) for piece in cut[:5]]
        found = (time.perf_counter() - started) / 5
        inputs = [gat.cellina_gat.Inputs(around.expression, field.cells, device, data._buffer) for field in fields]
        started = time.perf_counter()
        for one in inputs:
            list(one.pieces())
        dense = (time.perf_counter() - started) / 5
        lines[-1].append(f"field {1e3 * found:.1f}, dense {1e3 * dense:.1f} ms of {len(fields[0].cells):,} cells")
        record(options, "steps.json", {"rows": lines})
    told("steps: model, device; ms for a batch alone; for a step on one batch alone; MB of the card; cells/s of an "
         "epoch; parts", lines)  # fmt: skip
    for name, table in told_of.items():
        (options.output / f"profile_{name}.txt").write_text(table)


def time_parts(data, network, batches: list[np.ndarray], settings, told_of: dict, device: str) -> list[str]:
    """Milliseconds to make a batch and to take a step on one, and the card's memory; a profile of two whole steps."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    network.to(device).train()
    state = training._State(network, settings)

    def step(batch):
        training._step(network, batch, settings, state, 1, False)

    for cells in batches[:2]:
        step(data.batch(cells))
    wait()
    started = time.perf_counter()
    for cells in batches:
        data.batch(cells)
    wait()
    made = (time.perf_counter() - started) / len(batches)
    batch = data.batch(batches[0])
    started = time.perf_counter()
    for _ in batches:
        step(batch)
    wait()
    stepped = (time.perf_counter() - started) / len(batches)
    if device != "cpu":
        with torch.profiler.profile() as profiled:
            for cells in batches[:2]:
                step(data.batch(cells))
            wait()
        of_steps = profiled.key_averages()
        name = type(network).__name__
        told_of[name] = of_steps.table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60)
        told_of[name] += of_steps.table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else 0
    return [f"{1e3 * made:.1f}", f"{1e3 * stepped:.1f}", f"{peak:,.0f}"]


def epoch_rate(network, data, cells, settings) -> float:
    """Cells per second of a training epoch, without validation: median of all but the first, which only measures."""
    validate, training._validate = training._validate, lambda *_: {"validation_loss": 0.0}
    try:
        seconds = training.train(network, data, cells, cells[:2], settings)["seconds"]
    finally:
        training._validate = validate
    return len(cells) / float(np.median(seconds.iloc[1:]))


# --- costs ----------------------------------------------------------------------------------------------------------


def write_large_tasks(folder: Path, sizes: list[int], genes: int) -> dict[int, tuple[Path, Path]]:
    """Random cells of one simulated slide, and the question about nothing that models of whole slides are trained for;
    what is there already is not made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {size: (folder / f"slide{size}.h5ad", folder / f"question{size}.npz") for size in sizes}
    if all(question.exists() for _, question in tasks.values()):
        return tasks
    largest = max(sizes)
    write_slide(simulate_tissue(n_cells=largest, n_genes=genes, n_slides=1, seed=0), tasks[largest][0])
    drawn = {"protocol": "corrected", "switches": protocols.resolve("corrected"), "graph": GRAPH}
    for size, (slide, question) in tasks.items():
        if size != largest:
            steps.take_cells(tasks[largest][0], "random", size, slide)
        steps.write_question_of_all(slide, 0, drawn | {"validation_fraction": 0.1}, question)
    return tasks


def measure_costs(options) -> None:
    """Trainings of all methods and sizes on both devices, side by side."""
    folder = options.output / "costs"
    tasks = write_large_tasks(options.tasks or folder, options.sizes, 100)
    ends = time.monotonic() + 60 * options.minutes_of_costs
    rows = {}

    def trained(device: str, method: str, size: int) -> dict:
        left = (ends - time.monotonic()) / 60
        if left < 0.25:
            return {"status": "not tried", "reason": "no time was left"}
        own = settings_of(method, epochs=1, max_epochs=1, batch_size=2048)
        own |= {key: 0 for key in ("pretrain_epochs",) if key in own}
        return fit(method, device, *tasks[size], folder / f"{device}{size}", own, min(options.minutes, left))

    # What takes longest begins first, own methods before guests.
    order = sorted(itertools.product(options.sizes, options.methods), key=lambda k: (-k[0], METHODS[k[1]].environment))
    order.sort(key=lambda k: -k[0] if METHODS[k[1]].environment == CORE else -k[0] / 2)
    with ThreadPoolExecutor(options.lanes) as on_cpu, ThreadPoolExecutor(options.gpu_lanes) as on_gpu:
        pools = {options.gpu: on_gpu, "cpu": on_cpu}
        jobs = {
            (device, method, size): pool.submit(trained, device, method, size)
            for device, pool in pools.items()
            for size, method in order
        }
        for key, job in jobs.items():
            rows["/".join(map(str, key))] = job.result()
            record(options, "costs.json", rows)

    def cell(device: str, method: str, size: int) -> str:
        found = rows[f"{device}/{method}/{size}"]
        if "seconds" not in found:
            return f"- {found['reason'][:60]}"
        failed = "" if found["status"] == "ok" else f" x {found['reason'][:60]}"
        memory = f"{found['peak_memory_mb']:,}"
        if found["peak_gpu_memory_mb"]:
            memory += f", {found['peak_gpu_memory_mb']:,}"
        return f"{found['seconds']:.1f} / {found['job_seconds']:.1f}; {memory}{failed}"

    told(
        f"costs: method, device; seconds of training / of the job; MB, MB of the card; at {options.sizes} cells",
        [
            [f"{method}, {device}", *(cell(device, method, size) for size in options.sizes)]
            for method in options.methods
            for device in pools
        ],
    )


def told(title: str, lines: list[list[str]]) -> None:
    """Print a table."""
    print(f"\n{title}\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines), flush=True)


def record(options, name: str, content: dict) -> None:
    """Leave what is known so far."""
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / name).write_text(json.dumps(content, indent=1))


PARTS = {"answers": compare_answers, "steps": measure_steps, "costs": measure_costs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--methods", nargs="+", choices=ON_GPU, default=ON_GPU)
    parser.add_argument("--gpu", choices=["cuda", "cpu"], default="cuda", help="`cpu` to try the script without one")
    parser.add_argument("--small", action="store_true", help="so small that nothing is learnt and nothing measured")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1_000, 10_000, 100_000, 400_000])
    parser.add_argument("--tasks", type=Path, help="folder with the slides and questions of `costs`, made if absent")
    parser.add_argument("--only-tasks", action="store_true", help="make these and end")
    parser.add_argument("--minutes", type=float, default=10, help="of one training at most")
    parser.add_argument("--minutes-of-costs", type=float, default=60, help="of the part `costs` at most")
    parser.add_argument("--lanes", type=int, default=os.cpu_count())
    parser.add_argument("--gpu-lanes", type=int, default=1)
    options = parser.parse_args()
    if options.only_tasks:
        write_large_tasks(options.tasks, options.sizes, 100)
        return 0
    card = torch.cuda.get_device_name() if options.gpu == "cuda" else "no GPU"
    print(f"{card}, {os.cpu_count()} cores, torch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    kept = True
    for part in options.parts:
        started = time.perf_counter()
        kept &= PARTS[part](options) is not False
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
