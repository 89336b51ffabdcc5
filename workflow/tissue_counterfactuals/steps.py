"""The steps of the workflow, from files to files; each can be called from Python without Snakemake.

    prepare -> build_graph -> write_folds -> fit -> predict -> score -> tabulate -> figures (see drawing.py)

`dataset` is one entry of the validated configuration. Files of results are written beside and renamed.
"""

import json
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import slugs
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_folder, atomic_path, remove
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import METHODS, Prediction, Task
from tissue_counterfactuals.metrics import Reference
from tissue_counterfactuals.question.folds import Fold, list_folds, split_cells
from tissue_counterfactuals.question.predictions import read_predictions, write_predictions
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.tables import (
    COLUMNS,
    TWIN,
    gains,
    read_scores,
    summarize,
    write_tsv,
)
from tissue_counterfactuals.slide import read_slide, write_slide

DIAGNOSTIC_COLUMNS = [
    *("dataset", "kind", "slide", "cell_type", "target", "method", "variant", "protocol", "seed"),
    *("name", "value"),
]

# Source of a simulated data set -> module, function, and the section of the data set that holds its arguments.
SIMULATORS = {
    "simulated": ("simulate.tissue", "simulate_tissue", "simulation"),
    "simulated_field": ("simulate.field", "simulate_field", "field"),
    "simulated_lesions": ("simulate.lesions", "simulate_lesions", "lesions"),
}


def prepare(
    dataset: dict,
    files: dict[str, Path],
    samples: list[str] | None,
    output: Path,
    shapes: Path,
) -> None:
    """Source to slide: simulate or read, filter, select genes, check, write.

    Args:
        files: the files to read, by role (see `sources`); none for simulated tissue.
        samples: the samples to keep; None keeps all of them (a pooled fit).
        shapes: table of what the slide held before and after the filters, beside what published runs held.
    """
    from tissue_counterfactuals.sources import READERS
    from tissue_counterfactuals.sources.expected import compare_shapes
    from tissue_counterfactuals.sources.prepare import prepare_slide

    if dataset["source"] in SIMULATORS:
        module, simulate, knobs = SIMULATORS[dataset["source"]]
        module = import_module(f"tissue_counterfactuals.{module}")
        slide = getattr(module, simulate)(**dataset[knobs])
        if samples is not None:
            slide = slide[slide.obs["sample"].isin(samples)].copy()
    else:
        slide = READERS[dataset["source"]].open(files, dataset, samples)
    prepared = prepare_slide(slide, **dataset["preprocess"])
    for sentence in json.loads(prepared.uns["provenance"].get("notes", "[]")):
        print(f"note: {sentence}")
    table = compare_shapes(dataset, slide, prepared)
    # The slide comes last: where it is, the job was not cut off.
    write_tsv(table, shapes, sort=False)
    write_slide(prepared, output)


def build_graph(slide: Path, settings: dict, output: Path) -> None:
    """Slide to graph of all its cells: who really stands around whom.

    Raises:
        InputError: a sample with no more cells than `max_neighbors`: everybody would be everybody's neighbour.
    """
    cells = read_slide(slide, check=False)
    for sample, size in cells.obs["sample"].value_counts().items():
        if size <= settings["max_neighbors"]:
            raise InputError(
                f"slide {Path(slide).stem}: sample {sample!r} has {size} cells, too few for graph.max_neighbors "
                f"{settings['max_neighbors']}: lower graph.max_neighbors or leave the sample out with `samples`."
            )
    graph = slide_graph(cells, **settings)
    with atomic_path(output) as temporary:
        sparse.save_npz(temporary, graph, compressed=False)


def write_folds(slide: Path, name: str, dataset: dict, output: Path) -> None:
    """Slide to the table of its folds: what is held out, and the forms of the names that paths are made of."""
    folds = list_folds(
        read_slide(slide, check=False),
        name,
        dataset["control_domain"],
        dataset["target_domains"],
        **dataset["holdout"],
    )
    paths = slugs(folds["cell_type"], f"slide {name}: the held-out cell types")
    folds.insert(0, "fold", folds["cell_type"].map({label: path for path, label in paths.items()}))
    write_tsv(folds, output)


def load_task(
    slide: Path,
    graph: Path,
    folds: Path,
    fold: str,
    seed: int,
    settings: dict,
    report: Callable[[str], None] = print,
) -> Task:
    """Assemble the question that a method is asked.

    Args:
        fold: path form of the held-out type, as in the table of folds.
        settings: graph, cellina, device and switches (name -> value); for predictions also counterfactual.
    """
    table = pd.read_csv(folds, sep="\t", dtype=str, keep_default_na=False)
    rows = table[table["fold"] == fold]
    question = Fold(rows["cell_type"].iloc[0], rows["control"].iloc[0], tuple(rows["target"]))
    cells = read_slide(slide, check=False)
    cellina = dict(settings["cellina"])
    stored, graph_settings = sparse.load_npz(graph), _graph_as_run(cells, settings)
    if graph_settings != settings["graph"]:
        stored = slide_graph(cells, **graph_settings)
    split = split_cells(cells, question, seed, cellina.pop("validation_fraction"))
    return Task(
        slide=cells,
        graph=sparse.csr_array(stored),
        fold=question,
        split=split,
        switches=settings["switches"],
        seed=seed,
        graph_settings=graph_settings,
        settings=cellina,
        device=settings["device"],
        report=report,
        **settings.get("counterfactual", {}),
    )


def _graph_as_run(slide: anndata.AnnData, settings: dict) -> dict:
    """Settings of the graph; as run, a unit that the authors took the coordinates for changes the bandwidth.

    A bandwidth of 100 um, divided by the pixel size that they assumed, is so many units of the file, whatever these are.
    """
    assumed = slide.uns["provenance"].get("unit_um_as_run")
    if assumed is None or settings["switches"].get("brain_unit") != "pixels":
        return settings["graph"]
    factor = float(slide.uns["provenance"]["unit_um"]) / float(assumed)
    return settings["graph"] | {"bandwidth_um": settings["graph"]["bandwidth_um"] * factor}


def fit(method: str, task: Task, folder: Path, checkpoint: Path) -> None:
    """Train one method; `folder` ends with status.json and, if all went well, what the adapter left there.

    A method that fails is a result: it is recorded with its reason, and the others go on. What the user can mend
    (`InputError`) stops the run.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    task.checkpoint = checkpoint
    started = time.perf_counter()
    status = {"cell_type": task.fold.cell_type, "status": "ok", "reason": ""}
    # Snakemake does not see that a job behind a checkpoint was cut off: the folder must appear whole or not at all.
    with atomic_folder(folder) as draft:
        try:
            METHODS[method].adapter.fit(task, draft)
        except InputError:
            raise
        except Exception as error:
            traceback.print_exc()
            status |= {"status": "failed", "reason": f"fit: {type(error).__name__}: {error}"}
        status["seconds"] = round(time.perf_counter() - started, 1)
        (draft / "status.json").write_text(json.dumps(status, indent=1))
    remove(checkpoint)


def predict(folders: dict[str, Path | None], task: Task, output: Path) -> None:
    """All variants of some methods for all targets of a fold, in one h5ad: a row per method, target, variant, cell.

    `uns` holds, as JSON: `failures`, what could not be predicted and why; `diagnostics`, numbers about predictions;
    `target_cells`, the cells to compare with where these are not all target cells.

    Args:
        folders: method -> what `fit` left; None for controls.
    """
    with write_predictions(output, task.slide.var_names) as writer:
        notes = writer.notes = {"failures": [], "diagnostics": [], "target_cells": []}
        for method, folder in folders.items():
            for target in task.fold.targets:
                for variant, prediction in _variants(method, task, folder, target).items():
                    key = {"method": method, "target": target, "variant": variant}
                    if isinstance(prediction, str):
                        notes["failures"].append(key | {"reason": prediction})
                        continue
                    names = task.slide.obs_names
                    writer.add(key, names[prediction.cells], prediction.values)
                    notes["diagnostics"] += [
                        key | {"name": k, "value": v} for k, v in prediction.diagnostics.items()
                    ]
                    if prediction.target_cells is not None:
                        reserved = names[prediction.target_cells].tolist()
                        notes["target_cells"].append(key | {"cells": reserved})


def _variants(method, task, folder, target) -> dict[str, Prediction | str]:
    """A method's predictions for one target; whatever goes wrong becomes the reason of a failed variant."""
    if folder is not None:
        status = json.loads((Path(folder) / "status.json").read_text())
        if status["status"] != "ok":
            return {"-": status["reason"]}
    try:
        variants = METHODS[method].adapter.predict(task, folder, target)
        for prediction in variants.values():
            if not isinstance(prediction, str):
                _check_values(prediction, task)
    except Exception as error:
        traceback.print_exc()
        return {"-": f"predict: {type(error).__name__}: {error}"}
    return variants


def _check_values(prediction: Prediction, task: Task) -> None:
    """A method that returns nonsense fails here, not as a strange score."""
    expected = (len(prediction.cells), task.slide.n_vars)
    if prediction.values.shape != expected:
        raise ValueError(f"the prediction has shape {prediction.values.shape}, not {expected}")
    if not np.isfinite(prediction.values).all() or prediction.values.min() < 0:
        raise ValueError("the prediction holds negative or non-finite counts")


def score(
    predictions: Path, task: Task, names: dict, n_deg: int, output: Path, diagnostics: Path
) -> None:
    """Score every prediction of a fold against the observed target cells; one tidy table.

    Args:
        predictions: what `predict` wrote.
        names: dataset, kind, slide, protocol, seed: the columns that are the same in every row.
        output: the scores; a failed method has one row with its reason.
        diagnostics: what methods said about their predictions, such as whether the spatial latent is used.
    """
    names = names | {"cell_type": task.fold.cell_type}
    scorer = _Scorer(task, n_deg)
    with read_predictions(predictions) as made:
        rows = [names | {"status": "failed"} | failure for failure in made.notes["failures"]]
        notes = [names | note for note in made.notes["diagnostics"]]
        reserved = {
            (r["method"], r["target"]): task.slide.obs_names.get_indexer(r["cells"])
            for r in made.notes["target_cells"]
        }
        for method, target, variants in made.questions():
            cells = reserved.get((method, target), task.target_cells(target))
            twin = made.values(method, target, TWIN) if TWIN in variants else None
            for variant in variants:
                predicted = twin if variant == TWIN else made.values(method, target, variant)
                common = names | {"method": method, "target": target, "variant": variant}
                common |= {"n_control": len(task.focal), "n_target": len(cells)}
                common |= {"n_predicted": len(predicted), "status": "ok"}
                scores = scorer.score(cells, predicted, None if variant == TWIN else twin)
                rows += [common | {"metric": m, "value": v} for m, v in scores.items()]
    # The scores come last: where they are, the job was not cut off.
    write_tsv(pd.DataFrame(notes).reindex(columns=DIAGNOSTIC_COLUMNS), diagnostics)
    write_tsv(pd.DataFrame(rows).reindex(columns=COLUMNS), output)


class _Scorer:
    """Scores against target cells of a fold; what depends on these cells alone is computed once."""

    def __init__(self, task: Task, n_deg: int):
        self.task, self.n_deg = task, n_deg
        self.switches = protocols.of_step(task.switches, "metrics")
        self.references = {}

    def score(self, target_cells, predicted, twin) -> dict[str, float]:
        key = target_cells.tobytes()
        if key not in self.references:
            counts = self.task.slide.X
            self.references[key] = Reference(
                counts[self.task.focal],
                counts[target_cells],
                train=counts[self.task.split.train],
                n_deg=self.n_deg,
                seed=self.task.seed,
                **self.switches,
            )
        reference = self.references[key]
        return reference.score(predicted) | reference.unbiased_scores(predicted, twin)


def tabulate(
    scores: list[Path],
    slides: list[Path],
    name: str,
    config: dict,
    outputs: dict[str, Path],
) -> None:
    """All scores of a data set in one table, its summary, the paired gains, and where they come from.

    Args:
        scores: files that `score` wrote; each has a `.diagnostics.tsv` beside it.
        slides: the slides they belong to.
        outputs: files for scores, summary, gains, diagnostics, deviations (TSV) and provenance (JSON).
    """
    table = read_scores(scores)
    write_tsv(table, outputs["scores"])
    write_tsv(summarize(table), outputs["summary"])
    write_tsv(gains(table), outputs["gains"])
    notes = [pd.read_csv(Path(path).with_suffix(".diagnostics.tsv"), sep="\t", keep_default_na=False) for path in scores]  # fmt: skip
    write_tsv(pd.concat(notes, ignore_index=True), outputs["diagnostics"])
    write_tsv(protocols.deviations("cellina"), outputs["deviations"], sort=False)
    record = provenance.record(name, config, [read_slide(path, check=False) for path in slides])
    with atomic_path(outputs["provenance"]) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
