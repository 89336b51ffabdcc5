"""The steps of the workflow, from files to files; each can be called from Python without Snakemake.

    prepare -> build_graph -> write_folds -> write_question -> fit, predict (see methods/run.py) -> score -> tabulate
    -> figures (see results/figures)

`dataset` is one entry of the validated configuration. Files of results are written beside and renamed.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.files import atomic_path, slug, slugs
from tissue_counterfactuals.methods import METHODS, seeing_answers
from tissue_counterfactuals.metrics import Interval, Noise
from tissue_counterfactuals.metrics.fold import UNKNOWN, FoldScorer
from tissue_counterfactuals.metrics.populations import mean_expression
from tissue_counterfactuals.question.asked import ask_nothing, ask_own
from tissue_counterfactuals.question.folds import check_folds, fold_of, list_folds, patients_of, read_folds
from tissue_counterfactuals.question.named import too_many_neighbors
from tissue_counterfactuals.question.predictions import PredictionReader, read_predictions
from tissue_counterfactuals.question.question import ask
from tissue_counterfactuals.question.question import write_question as write_question_file
from tissue_counterfactuals.question.support import support_of
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.patients import patients_of_slides
from tissue_counterfactuals.results.tables import COLUMNS, TWIN, gains, read_scores, read_table, summarize, write_tsv
from tissue_counterfactuals.slide import VARIABLE, read_slide, write_slide
from tissue_counterfactuals.streams import stream

DIAGNOSTIC_COLUMNS = [
    *("dataset", "kind", "slide", "cell_type", "target", "method", "variant", "protocol", "seed"),
    *("name", "value"),
]

# Value of `fit` of a data set.
LEAVE_PATIENT_OUT = "leave_patient_out"

# Source of a simulated data set -> module, function, and the section of the data set that holds its arguments.
SIMULATORS = {
    "simulated": ("simulate.tissue", "simulate_tissue", "simulation"),
    "simulated_field": ("simulate.field", "simulate_field", "field"),
    "simulated_lesions": ("simulate.lesions", "simulate_lesions", "lesions"),
    "simulated_screen": ("simulate.screen", "simulate_screen", "screen"),
}


def prepare(dataset: dict, files: dict[str, Path], samples: list[str] | None, output: Path, shapes: Path) -> None:
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
    prepared = prepare_slide(slide, **dataset["preprocess"], hold_out=held_out_masks(dataset))
    for sentence in json.loads(prepared.uns["provenance"].get("notes", "[]")):
        print(f"note: {sentence}")
    table = compare_shapes(dataset, slide, prepared)
    # The slide comes last: where it is, the job was not cut off.
    write_tsv(table, shapes, sort=False)
    write_slide(prepared, output)


def held_out_masks(dataset: dict) -> Callable[[anndata.AnnData], dict[str, np.ndarray]] | None:
    """From a slide to the held-out cells of each fold, by the name that paths are made of."""
    if "cellina" not in dataset["experiments"] or dataset["control_domain"] is None:
        return None

    def masks(slide: anndata.AnnData) -> dict[str, np.ndarray]:
        folds = _folds(slide, "", dataset)
        asked = folds[folds["left_out"] == ""].groupby(["patient", "cell_type"])
        found = [fold_of(rows) for _, rows in asked]
        return {slug(fold.label): fold.held_out(slide) for fold in found}

    return masks


def _folds(slide: anndata.AnnData, name: str, dataset: dict) -> pd.DataFrame:
    """The folds of a slide of a data set, see `list_folds`."""
    patients = None
    if dataset.get("fit") == LEAVE_PATIENT_OUT:
        patients = patients_of(slide.obs["sample"].astype(str), dataset["patients"])
    holdout = dataset["holdout"]
    return list_folds(
        *(slide, name, dataset["control_domain"], dataset["target_domains"]),
        *(holdout["cell_types"], holdout["min_cells"], patients),
    )


def build_graph(slide: Path, settings: dict, output: Path) -> None:
    """Slide to graph of all its cells: who really stands around whom.

    Raises:
        InputError: a sample with no more cells than `max_neighbors`: everybody would be everybody's neighbour.
    """
    # numba, which other steps do without.
    from tissue_counterfactuals.graph import slide_graph

    cells = read_slide(slide, check=False)
    for sample, size in cells.obs["sample"].value_counts().items():
        for fault in too_many_neighbors("graph.max_neighbors", settings["max_neighbors"], f"sample {sample!r}", size):
            raise InputError(f"slide {Path(slide).stem}: {fault}")
    graph = slide_graph(cells, **settings)
    with atomic_path(output) as temporary:
        sparse.save_npz(temporary, graph, compressed=False)


def take_cells(slide: Path, subset: str, n_cells: int, output: Path) -> None:
    """Some cells of a slide, all where it has fewer: `random` ones, or `contiguous`, those nearest to their sample's
    middle.
    """
    cells = read_slide(slide, check=False)
    if subset == "random":
        order = stream(0, "cells_to_take").permutation(cells.n_obs)
    else:
        places = pd.DataFrame(np.asarray(cells.obsm["spatial"]))
        middle = places.groupby(cells.obs["sample"].astype(str).to_numpy()).transform("median")
        order = np.argsort(((places - middle) ** 2).sum(axis=1).to_numpy(), kind="stable")
    taken = cells[np.sort(order[:n_cells])].copy()
    for column in ("cell_type", "domain", "sample"):
        taken.obs[column] = taken.obs[column].cat.remove_unused_categories()
    write_slide(taken, output)


def write_folds(slide: Path, name: str, dataset: dict, output: Path, alone: bool = False) -> None:
    """Slide to the table of its folds: what is held out, and the forms of the names that paths are made of.

    What is left out has its reason and no such form.

    Args:
        alone: the data set has no other slide, so that what cannot be asked here cannot be asked at all.
    """
    folds = _folds(read_slide(slide, check=False, counts=False), name, dataset)
    asked = folds["left_out"] == ""
    labels = [fold_of(folds.iloc[[row]]).label for row in range(len(folds))]
    paths = slugs(np.array(labels, dtype=object)[asked], f"slide {name}: the held-out cell types")
    forms = {label: path for path, label in paths.items()}
    folds.insert(0, "fold", pd.Series(labels).map(forms).where(asked, ""))
    for sentence in folds["left_out"][~asked]:
        print(f"left out: {sentence}")
    if alone:
        check_folds(name, {name: folds}, dataset["holdout"]["cell_types"])
    write_tsv(folds, output)


def write_checked_folds(dataset: str, tables: dict[str, Path], cell_types: str | list[str], output: Path) -> None:
    """The folds of all slides of a data set in one table, if they are what was asked for.

    Args:
        tables: slide -> its table of folds.
        cell_types: setting holdout.cell_types.

    Raises:
        InputError: see `check_folds`.
    """
    folds = {slide: read_folds(table) for slide, table in tables.items()}
    check_folds(dataset, folds, cell_types)
    write_tsv(pd.concat(folds, names=["slide"]).reset_index("slide"), output)


def write_question(slide: Path, graph: Path, folds: Path, fold: str, seed: int, settings: dict, output: Path) -> None:
    """Slide, graph and table of folds to one question: the split and the donors, drawn once for everybody.

    Args:
        fold: path form of the held-out type, as in the table of folds.
        settings: protocol, switches (name -> value), graph, validation_fraction, donor_rules, n_donors, node.
    """
    table = read_folds(folds)
    held_out = fold_of(table[table["fold"] == fold])
    cells = read_slide(slide, check=False)
    neighbors, graph_settings = _graph_of(cells, graph, settings)
    drawing = {key: settings[key] for key in ("donor_rules", "n_donors", "validation_fraction")}
    protocol, switches = settings["protocol"], settings["switches"]
    of_all = switches["variable_genes"] == "all_cells"
    chosen = cells.var.get(VARIABLE if of_all else f"{VARIABLE}_without_{fold}")
    genes = None if chosen is None else np.flatnonzero(chosen)
    question = ask(
        *(cells, neighbors, held_out, protocol, seed, switches, graph_settings),
        **drawing,
        genes=genes,
        node=settings.get("node"),
    )
    write_question_file(question, output)


def write_own_question(slide: Path, graph: Path, asked: dict, seed: int, settings: dict, output: Path) -> None:
    """Slide and graph to a user's question (`asked`: keys of `UserQuestion`); `settings` as in `write_question`."""
    cells = read_slide(slide, check=False)
    drawing = {key: settings[key] for key in ("n_donors", "validation_fraction")}
    chosen = cells.var.get(VARIABLE)
    genes = None if chosen is None else np.flatnonzero(chosen)
    neighbors, graph_settings = _graph_of(cells, graph, settings)
    question = ask_own(
        *(cells, neighbors, asked, settings["protocol"], seed),
        *(settings["switches"], graph_settings),
        **drawing,
        genes=genes,
    )
    write_question_file(question, output)


def write_question_of_all(slide: Path, seed: int, settings: dict, output: Path) -> None:
    """The question behind models of a whole slide, in which nobody is held out; `settings` as in `write_question`."""
    cells = read_slide(slide, check=False)
    chosen = cells.var.get(VARIABLE)
    question = ask_nothing(
        *(cells, settings["protocol"], seed, settings["switches"], _graph_settings(cells, settings)),
        settings["validation_fraction"],
        genes=None if chosen is None else np.flatnonzero(chosen),
    )
    write_question_file(question, output)


def _graph_settings(slide: anndata.AnnData, settings: dict) -> dict:
    return protocols.cellina.graph_as_run(settings["graph"], slide.uns["provenance"], settings["switches"])


def _graph_of(slide: anndata.AnnData, graph: Path, settings: dict) -> tuple[sparse.csr_array, dict]:
    """Who stands around whom under a protocol, and the settings behind it: as in the file, or as run."""
    as_run = _graph_settings(slide, settings)
    if as_run == settings["graph"]:
        return sparse.csr_array(sparse.load_npz(graph)), as_run
    from tissue_counterfactuals.graph import slide_graph

    return slide_graph(slide, **as_run), as_run


def score(
    predictions: list[Path],
    task: Task,
    switches: dict[str, str],
    names: dict,
    n_deg: int,
    output: Path,
    diagnostics: Path,
) -> None:
    """Score every prediction of a fold against the observed target cells; one tidy table.

    Args:
        predictions: what methods of different environments predicted, see `question/predictions.py`.
        task: slide and question.
        switches: of the metrics.
        names: dataset, kind, slide, protocol, seed: the columns that are the same in every row.
        output: the scores; a failed method has one row with its reason.
        diagnostics: what methods said about their predictions, such as whether the spatial latent is used; under method
            `-`, how far the question is from what was seen (see question/support.py).
    """
    names = names | {"cell_type": task.fold.cell_type}
    # A model over all samples is asked about one patient at a time.
    if task.fold.patient:
        names["slide"] = task.fold.patient
    scorer = _Scorer(task, switches, n_deg, _truths(predictions))
    rows, notes = [], _supports(task, names)
    for path in predictions:
        with read_predictions(path) as made:
            if list(made.genes) != list(task.slide.var_names):
                raise InputError(f"predictions {path}: their genes are not the slide's: delete the file and run again.")
            rows += [names | {"status": "failed"} | failure for failure in made.notes["failures"]]
            rows += scorer.rows(made, names)
            notes += [names | note for note in made.notes["diagnostics"]]
    # The scores come last: where they are, the job was not cut off.
    write_tsv(pd.DataFrame(notes).reindex(columns=DIAGNOSTIC_COLUMNS), diagnostics)
    write_tsv(pd.DataFrame(rows).reindex(columns=COLUMNS), output)


def _supports(task: Task, names: dict) -> list[dict]:
    """Rows of diagnostics about the question itself: how far each of its perturbations is from what was seen."""
    rows = []
    for target in task.fold.targets:
        for rule, support in support_of(task, target).items():
            print(
                f"{task.fold.cell_type} to {target}, {rule}: {support.inside:.0%} of the asked neighbourhoods as in "
                f"training, at {support.distance:.1f} times the usual distance"
            )
            own = names | {"method": "-", "target": target, "variant": rule}
            rows += [own | {"name": name, "value": value} for name, value in vars(support).items()]
    return rows


def _truths(predictions: list[Path]) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Of a simulated tissue: method (`truth`, `truth_in_place`) and target -> variant -> mean CP10K (genes,)."""
    found = {}
    for path in predictions:
        with read_predictions(path) as made:
            for method, target, variants in made.questions():
                if "truth" in METHODS[method].needs:
                    values = {v: mean_expression(made.values(method, target, v)) for v in variants}
                    found[method, target] = values
    return found


class _Scorer:
    """Scores against target cells of a fold; what depends on these cells alone is computed once."""

    def __init__(self, task: Task, switches: dict[str, str], n_deg: int, truths: dict):
        self.task, self.truths = task, truths
        self.fold = FoldScorer(task, switches, n_deg)

    def rows(self, made: PredictionReader, names: dict) -> list[dict]:
        """A row per prediction of a file and metric."""
        task, rows = self.task, []
        reserved = {
            (r["method"], r["target"]): task.slide.obs_names.get_indexer(r["cells"]) for r in made.notes["target_cells"]
        }
        told = {(i["method"], i["target"], i["variant"]): i for i in made.notes.get("intervals", [])}
        scatter = {
            (n["method"], n["target"], n["variant"]): Noise(n["dispersion"] and np.array(n["dispersion"]))
            for n in made.notes.get("noise", [])
        }  # fmt: skip
        for method, target, variants in made.questions():
            cells = reserved.get((method, target), task.target_cells(target))
            twin = made.values(method, target, TWIN) if TWIN in variants else None
            for variant in variants:
                predicted = twin if variant == TWIN else made.values(method, target, variant)
                common = names | {"method": method, "target": target, "variant": variant}
                common |= {"n_control": len(task.focal), "n_target": len(cells)}
                common |= {"n_predicted": len(predicted), "status": "ok"}
                key = method, target, variant
                limits = told.get(key)
                interval = limits and Interval(*(np.array(limits[k]) for k in Interval._fields))
                own_twin = None if variant == TWIN else twin
                truths = self._truths_of(target, variant)
                noise = scatter.get(key, UNKNOWN)
                scores = self.fold.score(target, cells, predicted, noise, own_twin, interval, truths)
                rows += [common | {"metric": m, "value": v} for m, v in scores.items()]
        return rows

    def _truths_of(self, target: str, variant: str) -> dict[str, np.ndarray]:
        """The true profiles that a variant is compared with: a twin with those among its own neighbours, what has no
        donors with those of the first donor rule.
        """
        found = {}
        for (truth, where), values in self.truths.items():
            first = next((v for v in values if v != TWIN), None)
            name = variant if variant in values else first
            if where == target and name is not None:
                found[truth] = values[name]
        return found


def tabulate(
    scores: list[Path], slides: list[Path], folds: list[Path], name: str, config: dict, outputs: dict[str, Path]
) -> None:
    """All scores of a data set in one table, its summary, the paired gains, and where they come from.

    Args:
        scores: files that `score` wrote; each has a `.diagnostics.tsv` beside it.
        slides, folds: the slides they belong to, and the tables of their folds.
        outputs: files for scores, summary, gains, diagnostics, deviations (TSV) and provenance (JSON).
    """
    table, patients = read_scores(scores), patients_of_slides(config["datasets"][name])
    write_tsv(table, outputs["scores"])
    write_tsv(summarize(table, patients), outputs["summary"])
    sighted = {name: seeing_answers(protocols.resolve(name, config["switches"])) for name in config["protocols"]}
    write_tsv(gains(table, patients, sighted), outputs["gains"])
    notes = [read_table(Path(path).with_suffix(".diagnostics.tsv")) for path in scores]
    write_tsv(pd.concat(notes, ignore_index=True), outputs["diagnostics"])
    write_tsv(protocols.deviations("cellina"), outputs["deviations"], sort=False)
    record = provenance.record(name, config, [read_slide(path, check=False, counts=False) for path in slides])
    left_out = pd.concat(map(read_folds, folds))["left_out"]
    record["left_out"] = left_out[left_out != ""].tolist()
    with atomic_path(outputs["provenance"]) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
