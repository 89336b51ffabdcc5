"""The table of experiments of both papers. Adding one is a row here, its settings in `settings.py`, and a module.

A row becomes a rule of the workflow, its function a job:

    function(<inputs by name>, settings=..., switches=..., <what `takes` names>, outputs={name: path})

Experiments on Celcomen read a data set as one slide, those on Cellina each of its slides. `cellina`, the benchmark of
counterfactuals, is no row: its steps are those of the methods. What is drawn of all of them stands in
`results/figures`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module

SLIDE = {"slide": "results/slides/{dataset}/pooled.h5ad"}


@dataclass(frozen=True)
class Experiment:
    """One step of an experiment.

    Attributes:
        name: of the rule.
        function: module of this package and function, "celcomen_spleen.run".
        section: where its settings stand in the configuration; `unread` are keys that it does not read, so that a
            change of them does not run it again.
        switches: those that it reads, by their names or by the steps that they belong to.
        inputs, outputs: name -> path, with wildcards; an input with `environment` stands for all of its methods.
        shown: output -> what the report calls it, above the text of workflow/report/CAPTION.rst.
        takes: further arguments: `entry` (the data set: name, kind, label, source, files), `domains` (its control and
            target domains), `protocol`, `seeds`, `overrides` (the switches that the configuration sets), `model` and
            `gat` (sections `cellina` and `cellina_gat`), `methods` (the sections of those that its settings name),
            `neighbors` (settings of the data set's graph), `n_deg`, `device`; and wildcards of its outputs, as text.
        axes: further wildcards of its outputs -> the key of its settings that lists their values; each value is a job.
        gene_sets: the key of its settings that names gene sets, or one of `gene_sets.BUNDLED`: their files are inputs
            of the rule, so that an edited one runs it again. The function finds them by the same names.
        weights: the key of its settings that names weights of pathways; the file, or those that come with the workflow,
            are inputs of the rule in the same way.
        compares: with what published runs found in real data; the table of that is an input of the rule too.
        published: the table in resources/published/ that its function reads: an input of the rule as well.
        pooled: whether it reads all slides of a data set as one.
        memory_mb: of a job; None where it grows with the slide. With `parallel` false it has one thread.
        gpu: whether it uses a GPU where there is one.
    """

    name: str
    function: str
    section: str
    switches: tuple[str, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    takes: tuple[str, ...] = ()
    axes: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    shown: dict[str, str] = field(default_factory=dict)
    caption: str = ""
    gene_sets: str = ""
    weights: str = ""
    compares: bool = False
    published: str = ""
    memory_mb: int | None = None
    parallel: bool = True
    pooled: bool = False
    gpu: bool = False

    def run(self, **arguments: object) -> None:
        """Call the function; its module is imported only now."""
        module, name = self.function.rsplit(".", 1)
        function: Callable = getattr(import_module(f"{__name__}.{module}"), name)
        function(**arguments)


def _files(stem: str, tables: tuple[str, ...], **fitted: str) -> dict[str, str]:
    """Tables of an experiment by name, and what it leaves for further steps as name -> suffix."""
    paths = {name: f"results/tables/{{dataset}}/{stem}.{{protocol}}.{name}.tsv" for name in tables}
    fits = f"results/celcomen/{{dataset}}/{stem}.{{protocol}}"
    return paths | {name: f"{fits}.{suffix}" for name, suffix in fitted.items()}


def _without_slides(folder: str, *tables: str, of: str = "") -> dict[str, str]:
    """Tables of an experiment that makes its own tissue, and where they come from."""
    paths = {name: f"results/{folder}/{name}{of}.tsv" for name in tables}
    return paths | {"provenance": f"results/{folder}/provenance{of}.json"}


def _clusters(tissue: str) -> Experiment:
    fits = f"results/celcomen/{{dataset}}/celcomen_{tissue}.{{protocol}}"
    tables = f"results/tables/{{dataset}}/celcomen_{tissue}.{{protocol}}"
    return Experiment(
        f"celcomen_{tissue}_clusters",
        "force_clusters.run",
        f"celcomen.{tissue}.clusters",
        switches=("inference", "comparison"),
        inputs={"forces": f"{fits}.npz", "manifest": f"{fits}.json"},
        outputs={
            "members": f"{tables}.clusters.tsv",
            "enrichment": f"{tables}.cluster_terms.tsv",
            "matrices": f"{fits}.clusters.npz",
        },
        gene_sets="gene_sets",
        parallel=False,
    )


_SPLEEN, _TUMOUR, _LESIONS = "celcomen_spleen", "celcomen_glioblastoma", "celcomen_perturbmap"
_IN_VIVO = "cellina_in_vivo"
_TUMOUR_FITS = "results/celcomen/{dataset}/celcomen_glioblastoma.{protocol}"
_TUMOUR_FORCES = {"forces": f"{_TUMOUR_FITS}.npz", "manifest": f"{_TUMOUR_FITS}.json"}
_TUMOUR_TABLES = "results/tables/{dataset}/celcomen_glioblastoma.{protocol}"
_NULL = "results/celcomen/perturbmap_null"

_ONE_SLIDE = "results/slides/{dataset}/{slide}.h5ad"
# A model of some cells of a slide, from which nobody is held out.
_ONE_FIT = "{dataset}/{slide}+{subset}+{n_cells}/all+/{method}/{protocol}.seed{seed}"


def is_tried(settings: dict, method: str = "", n_cells: int = 0, **others: str) -> bool:
    """Whether an experiment, which has `most_cells` in its settings, trains a method on so many cells of a slide."""
    return n_cells <= settings.get("most_cells", {}).get(method, n_cells)


def _stem(name: str, axes: Iterable[str] = ()) -> str:
    """What the files of an experiment on each slide begin with."""
    keys = "".join(f"{{{key}}}." for key in axes)
    return f"results/cellina/{{dataset}}/{{slide}}/{name}.{keys}{{protocol}}.seed{{seed}}"


def _scores(stem: str) -> dict[str, str]:
    return {"scores": f"{stem}.tsv", "manifest": f"{stem}.json"}


def _on_each_slide(
    name: str,
    *switches: str,
    takes: tuple[str, ...] = (),
    axes: dict[str, str] | None = None,
    tables: tuple[str, ...] = (),
    weights: str = "",
) -> Experiment:
    """An experiment that trains Cellina on a slide, with one protocol and seed a job; leaves tables and a manifest."""
    axes = axes or {}
    stem = _stem(name, axes)
    return Experiment(
        f"cellina_{name}",
        f"cellina_{name}.run",
        f"cellina_experiments.{name}",
        switches=("training", "latent", *switches),
        inputs={"slide": _ONE_SLIDE, "graph": "results/graphs/{dataset}/{slide}.npz"},
        outputs=_scores(stem) | {table: f"{stem}.{table}.tsv" for table in tables},
        takes=("entry", "protocol", "seed", "model", "device", *axes, *takes),
        axes=axes,
        unread=("slides", "seeds", *axes.values()),
        weights=weights,
        gpu=True,
    )


EXPERIMENTS = (
    _on_each_slide(
        *("application", "lfc", "node_renormalization", "node_scaling"),
        takes=("domains",),
        tables=("modules", "subdomains", "activities", "genes", "embedding", "shuffles"),
        weights="pathway_weights",
    ),
    _on_each_slide("gene_range", "metrics", "node_renormalization", takes=("domains", "n_deg")),
    _on_each_slide("weights", takes=("gat", "neighbors"), axes={"swept": "sweeps", "weight": "weights"}),
    Experiment(
        "cellina_disentanglement",
        "cellina_disentanglement.run",
        "cellina_experiments.disentanglement",
        switches=("training", "latent"),
        inputs={
            "slide": _ONE_SLIDE,
            "latents": "results/latents/{dataset}/{slide}/{protocol}.seed{seed}/{environment}.npz",
        },
        outputs=_scores(_stem("disentanglement")),
        takes=("entry", "protocol", "seed"),
        unread=("seeds",),
        pooled=True,
    ),
    Experiment(
        "cellina_scalability",
        "cellina_scalability.run",
        "cellina_experiments.scalability",
        switches=(),
        inputs={
            "slide": _ONE_SLIDE,
            "models": f"results/models/{_ONE_FIT}",
            "fits": f"results/benchmarks/fit/{_ONE_FIT}.tsv",
        },
        outputs=_scores(_stem("scalability")),
        takes=("entry", "protocol", "seed"),
        unread=("slides", "seeds"),
        parallel=False,
    ),
    Experiment(
        "celcomen_simulation",
        "celcomen_simulation.run",
        "celcomen.simulation",
        switches=("inference", "generation", "celcomen_simulation"),
        inputs={},
        outputs=_without_slides("celcomen/simulation", "correlations", "tests", of=".{protocol}"),
        takes=("protocol",),
        shown={"tests": "simulation: tests against noise"},
        caption="figure_celcomen_2",
        memory_mb=2000,
    ),
    Experiment(
        "celcomen_recovery",
        "celcomen_recovery.run",
        "celcomen.recovery",
        switches=("inference",),
        inputs={},
        outputs=_without_slides("celcomen/recovery", "recovery", "chains"),
        takes=("seeds",),
        shown={"recovery": "recovery of known forces: all tissues"},
        caption="figure_celcomen_recovery",
        memory_mb=3000,
    ),
    Experiment(
        _SPLEEN,
        "celcomen_spleen.run",
        "celcomen.spleen",
        switches=("inference", "comparison", "celcomen_spleen", "compared_entries"),
        inputs=SLIDE,
        outputs=_files(_SPLEEN, ("agreement", "summary", "curves", "diagnostics"), forces="npz", manifest="json"),
        takes=("entry", "protocol", "seeds"),
        unread=("clusters",),
        shown={"agreement": "agreement of samples"},
        caption="figure_celcomen_6",
    ),
    _clusters("spleen"),
    Experiment(
        _TUMOUR,
        "celcomen_glioblastoma.run",
        "celcomen.glioblastoma",
        switches=("inference", "comparison"),
        inputs=SLIDE,
        outputs=_files(_TUMOUR, ("diagnostics", "shapes"), forces="npz", manifest="json"),
        takes=("entry", "protocol", "seeds"),
        unread=("localization", "knockout", "enrichment", "clusters"),
        compares=True,
    ),
    _clusters("glioblastoma"),
    Experiment(
        "celcomen_localization",
        "celcomen_glioblastoma.localization",
        "celcomen.glioblastoma.localization",
        switches=("inference", "comparison", "celcomen_glioblastoma"),
        inputs=_TUMOUR_FORCES,
        outputs={"classes": f"{_TUMOUR_TABLES}.localization.tsv", "tests": f"{_TUMOUR_TABLES}.localization_tests.tsv"},
        shown={"tests": "localisation"},
        gene_sets="go_cc",
        caption="figure_celcomen_3",
        parallel=False,
    ),
    Experiment(
        "celcomen_knockout",
        "celcomen_knockout.run",
        "celcomen.glioblastoma",
        switches=("inference", "generation", "celcomen_glioblastoma"),
        inputs=SLIDE | _TUMOUR_FORCES,
        outputs={
            "cells": f"{_TUMOUR_FITS}.knockout_cells.tsv",
            "signature": f"{_TUMOUR_TABLES}.signature.tsv",
            "trajectories": f"{_TUMOUR_TABLES}.knockout.tsv",
            "placebo": f"{_TUMOUR_TABLES}.placebo.tsv",
            "changes": f"{_TUMOUR_TABLES}.knockout_genes.tsv",
            "enrichment": f"{_TUMOUR_TABLES}.knockout_terms.tsv",
            "diagnostics": f"{_TUMOUR_TABLES}.knockout_diagnostics.tsv",
        },
        unread=("localization", "clusters"),
        shown={"enrichment": "enrichment after knock-out"},
        gene_sets="enrichment.gene_sets",
        caption="figure_celcomen_3",
    ),
    Experiment(
        _LESIONS,
        "celcomen_perturbmap.run",
        "celcomen.perturbmap",
        switches=("inference", "generation", "celcomen_perturbmap"),
        inputs=SLIDE,
        outputs=_files(
            _LESIONS, ("correlations", "genes", "spots", "summary", "diagnostics", "effects"), manifest="json"
        ),
        takes=("entry", "protocol", "seeds"),
        unread=("null_test",),
        shown={
            "summary": "knock-outs against controls",
            "effects": "what lesions differ in, lesions as units",
        },
        caption="figure_celcomen_4_null",
    ),
    Experiment(
        "celcomen_perturbmap_null",
        "perturbmap_null.null_test",
        "celcomen.perturbmap",
        switches=(),
        inputs={},
        outputs={name: f"{_NULL}/{name}.tsv" for name in ("correlations", "summary", "switches")},
        takes=("overrides",),
        unread=("knockouts", "section", "boxes_um", "trim_um", "min_spots", "max_genes", "draws", "shuffled_fits"),
        shown={
            "summary": "knock-outs without effect",
            "switches": "knock-outs without effect, switch by switch",
        },
        caption="figure_celcomen_4_null",
        memory_mb=4000,
    ),
    Experiment(
        _IN_VIVO,
        "cellina_in_vivo.run",
        "cellina_experiments.in_vivo",
        switches=("counterfactual", "graph", "training"),
        inputs=SLIDE,
        outputs={
            name: f"results/tables/{{dataset}}/cellina_in_vivo.{{protocol}}.{name}.tsv"
            for name in ("effects", "scores", "components", "compared")
        }
        | {"manifest": "results/tables/{dataset}/cellina_in_vivo.{protocol}.json"},
        takes=("entry", "protocol", "seeds", "methods", "device"),
        shown={
            "effects": "a screen: what lost genes did",
            "scores": "a screen: predictions",
            "components": "a screen: what makes scores vary",
            "compared": "a screen: beside the published numbers",
        },
        caption="figure_cellina_in_vivo",
        published="cellina_in_vivo.tsv",
        gpu=True,
    ),
    Experiment(
        "screen",
        "screen_power.run",
        "celcomen.screen",
        switches=(),
        inputs={},
        outputs=_without_slides("celcomen/screen", "rates", "screens"),
        shown={"rates": "spatial screens: false positives and power"},
        caption="screen_power",
        memory_mb=3000,
        parallel=False,
    ),
    Experiment(
        "trust",
        "trust.run",
        "cellina_experiments.trust",
        switches=(),
        inputs={},
        outputs=_without_slides("cellina/trust", "errors", "latents"),
        takes=("methods",),
        shown={"errors": "when to trust an answer: all errors"},
        caption="when_to_trust",
        memory_mb=4000,
    ),
)
# What a configuration can ask for: of a data set (as one slide, or of each of its slides), and without one.
ON_SLIDES = (_SPLEEN, _TUMOUR, _LESIONS, _IN_VIVO)
ON_EACH_SLIDE = (
    "cellina_application",
    "cellina_gene_range",
    "cellina_weights",
    "cellina_disentanglement",
    "cellina_scalability",
)
WITHOUT_SLIDES = ("celcomen_simulation", "celcomen_recovery", "screen", "trust")
