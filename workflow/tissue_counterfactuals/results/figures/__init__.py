"""The table of figures. Adding one is a row here, a module and a caption, all of the same name.

The module draws from files to files:

    draw_files(inputs, output, <what `takes` names>)

`inputs` are paths by name, lists of paths where a figure joins several; `output` is a path, or paths by name. The
caption is workflow/report/NAME.rst, a template that sees the configuration and the wildcards. A row becomes a rule of
the workflow, and what the rule makes belongs to the results of `of`.
"""

from dataclasses import dataclass
from importlib import import_module

from tissue_counterfactuals.experiments import EXPERIMENTS, stem_on_each_slide

_TABLES = "results/tables/{dataset}"
_FIGURES = "results/figures/{dataset}"
_FITS = "results/celcomen/{dataset}"
_SCORES = {"scores": f"{_TABLES}/scores.tsv", "manifest": f"{_TABLES}/provenance.json"}


def _with_table(stem: str, suffix: str = "png") -> dict[str, str]:
    """A picture and the table that it shows."""
    return {"tsv": f"{_TABLES}/{stem}.tsv", "png": f"{_FIGURES}/{stem}.{suffix}"}


@dataclass(frozen=True)
class Figure:
    """One figure, or one table that is drawn.

    Attributes:
        name: of the rule, the module and the caption.
        of: `cellina`, or the experiment, whose results it shows.
        title: what the report calls it.
        inputs: name -> path. Wildcards that the output does not have stand for all their values, or for the first where
            the input is named by `first`; those of slides for the slides that the experiment is run on.
        output: a path, or name -> path with the picture last, as `png`; its wildcards are all values of the
            configuration.
            The picture is written in both formats, `beside` is the other one.
        takes: wildcards that `draw_files` is given.
        learned: whether it needs a method that is trained.
        methods: it needs all of these.
        several_targets: it needs more than one target domain.
    """

    name: str
    of: str
    title: str
    inputs: dict[str, str]
    output: str | dict[str, str]
    takes: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    learned: bool = False
    methods: tuple[str, ...] = ()
    several_targets: bool = False

    @property
    def beside(self) -> str:
        """The picture in the other format: every picture is written as PNG and as SVG."""
        stem, _, suffix = self._own[-1].rpartition(".")
        return f"{stem}.{'png' if suffix == 'svg' else 'svg'}"

    @property
    def outputs(self) -> list[str]:
        """All files that it makes, the picture that the report shows last."""
        return [*self._own[:-1], self.beside, self._own[-1]]

    @property
    def _own(self) -> list[str]:
        return list(self.output.values()) if isinstance(self.output, dict) else [self.output]

    def draw(self, inputs: dict, output: object, **keys: str) -> None:
        """Draw it; its module, and matplotlib, are imported only now."""
        import_module(f"{__name__}.{self.name}").draw_files(inputs, output, **keys)


def _of_experiment(name: str, experiment: str, title: str, **inputs: str) -> Figure:
    """A figure of an experiment on a slide, from its tables (TSV) and its manifest."""
    tables = {key: f"{_TABLES}/{experiment}.{{protocol}}.{file}.tsv" for key, file in inputs.items()}
    manifest = {"manifest": f"{_FITS}/{experiment}.{{protocol}}.json"}
    output = f"{_FIGURES}/{name}.{{protocol}}.png"
    return Figure(name, experiment, title, tables | manifest, output)


def _clusters(name: str, experiment: str, title: str) -> Figure:
    figure = _of_experiment(name, experiment, title, members="clusters", enrichment="cluster_terms")
    figure.inputs["matrices"] = f"{_FITS}/{experiment}.{{protocol}}.clusters.npz"
    return figure


def _on_each_slide(number: str, experiment: str, title: str, *takes: str) -> Figure:
    """A figure of an experiment on Cellina, of all its slides and seeds, and the table that it shows."""
    (row,) = (row for row in EXPERIMENTS if row.name == f"cellina_{experiment}")
    stem = stem_on_each_slide(experiment, row.axes)
    name = f"figure_cellina_{number}"
    keys = "".join(f".{{{key}}}" for key in (*takes, "protocol"))
    return Figure(
        name,
        f"cellina_{experiment}",
        title,
        {"scores": f"{stem}.tsv", "manifests": f"{stem}.json"},
        {"tsv": f"{_TABLES}/{name}{keys}.tsv", "png": f"{_FIGURES}/{name}{keys}.png"},
        takes=(*takes, "protocol"),
    )


FIGURES = (
    Figure(
        "table_cellina_1",
        "cellina",
        "Table 1",
        _SCORES,
        {kind: f"{_TABLES}/table_1.{{target}}.{{protocol}}.{kind}" for kind in ("tsv", "md", "png")},
        takes=("target", "protocol"),
    ),
    Figure(
        "table_cellina_2",
        "cellina",
        "Table 2: average over targets",
        _SCORES,
        {kind: f"{_TABLES}/table_2.{{protocol}}.{kind}" for kind in ("tsv", "md", "png")},
        takes=("protocol",),
        several_targets=True,
    ),
    Figure(
        "figure_cellina_a2",
        "cellina",
        "scores by held-out type",
        _SCORES,
        _with_table("cell_types.{target}.{protocol}"),
        takes=("target", "protocol"),
    ),
    Figure(
        "intervals",
        "cellina",
        "coverage of intervals",
        _SCORES
        | {
            "slides": "results/slides/{dataset}/{slide}.h5ad",
            "questions": "results/questions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.npz",
            "predictions": "results/predictions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}/{environment}.h5ad",
        },
        _with_table("intervals.{target}.{protocol}", "svg"),
        takes=("target", "protocol"),
    ),
    Figure(
        "figure_cellina_1",
        "cellina",
        "Cellina Figs. 1 and 2: the model and the question, as run",
        {"manifest": f"{_TABLES}/provenance.json"},
        f"{_FIGURES}/schematic.{{protocol}}.png",
        takes=("protocol",),
        methods=("cellina",),
    ),
    Figure(
        "figure_cellina_2",
        "cellina",
        "map",
        {
            "slide": "results/slides/{dataset}/{slide}.h5ad",
            "graph": "results/graphs/{dataset}/{slide}.npz",
            "folds": "results/folds/{dataset}/{slide}.tsv",
            "question": "results/questions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.npz",
            "manifest": f"{_TABLES}/provenance.json",
        },
        _with_table("map.{slide}"),
        first=("question",),
    ),
    Figure(
        "attention",
        "cellina",
        "whom cells listen to",
        {
            "slide": "results/slides/{dataset}/{slide}.h5ad",
            "folds": "results/folds/{dataset}/{slide}.tsv",
            "question": "results/questions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.npz",
            "predictions": "results/predictions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}/core.h5ad",
            "manifest": f"{_TABLES}/provenance.json",
        },
        {"cell": f"{_TABLES}/attention.{{slide}}.cell.tsv"} | _with_table("attention.{slide}"),
        first=("question", "predictions"),
        methods=("cellina_gat",),
    ),
    Figure(
        "learning_curves",
        "cellina",
        "learning curves",
        {
            "models": "results/models/{dataset}/{slide}/{fold}/{method}/{protocol}.seed{seed}",
            "manifest": f"{_TABLES}/provenance.json",
        },
        _with_table("learning_curves.{protocol}"),
        takes=("protocol",),
        learned=True,
    ),
    Figure(
        "metric_agreement",
        "cellina",
        "which metric ranks methods as the truth does",
        _SCORES,
        _with_table("metric_agreement.{target}.{protocol}", "svg"),
        takes=("target", "protocol"),
        methods=("truth", "truth_in_place"),
    ),
    Figure(
        "metrics_under_test",
        "cellina",
        "which metric tells the truth from a control",
        {
            "slides": "results/slides/{dataset}/{slide}.h5ad",
            "questions": "results/questions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}.npz",
            "predictions": "results/predictions/{dataset}/{slide}/{fold}/{protocol}.seed{seed}/core.h5ad",
            "manifest": f"{_TABLES}/provenance.json",
        },
        _with_table("metrics_under_test.{target}.{protocol}"),
        takes=("target", "protocol"),
        methods=("no_change",),
    ),
    Figure(
        "costs",
        "cellina",
        "costs of training",
        {
            "models": "results/models/{dataset}/{slide}/{fold}/{method}/{protocol}.seed{seed}",
            "manifest": f"{_TABLES}/provenance.json",
        },
        {kind: f"{_TABLES}/costs.{{protocol}}.{kind}" for kind in ("tsv", "png")},
        takes=("protocol",),
        learned=True,
    ),
    _on_each_slide("a1", "weights", "Cellina Fig. A1: weights of the loss"),
    _on_each_slide("a5", "disentanglement", "Cellina Fig. A5: what latents hold"),
    Figure(
        "figure_cellina_3",
        "cellina_application",
        "Cellina Fig. 3: subdomains of the target domain",
        {
            name: "results/cellina/{dataset}/{slide}/application.{protocol}.seed{seed}" + suffix
            for name, suffix in {
                "scores": ".tsv",
                "manifests": ".json",
                **{
                    table: f".{table}.tsv"
                    for table in (
                        *("modules", "subdomains", "activities", "genes", "embedding"),
                        "shuffles",
                    )
                },
            }.items()
        },
        {
            "null": f"{_TABLES}/figure_cellina_3.null.{{protocol}}.tsv",
            "stability": f"{_TABLES}/figure_cellina_3.stability.{{protocol}}.tsv",
            "tsv": f"{_TABLES}/figure_cellina_3.{{protocol}}.tsv",
            "png": f"{_FIGURES}/figure_cellina_3.{{protocol}}.png",
        },
        takes=("protocol",),
    ),
    _on_each_slide("a6", "scalability", "Cellina Fig. A6: costs by number of cells"),
    _on_each_slide("a7", "gene_range", "Cellina Fig. A7: genes that are shifted", "target"),
    Figure(
        "figure_celcomen_2",
        "celcomen_simulation",
        "Figure 2c: simulation",
        {
            "correlations": "results/celcomen/simulation/correlations.{protocol}.tsv",
            "tests": "results/celcomen/simulation/tests.{protocol}.tsv",
            "provenance": "results/celcomen/simulation/provenance.{protocol}.json",
        },
        "results/figures/celcomen/figure_celcomen_2.{protocol}.png",
        takes=("protocol",),
    ),
    Figure(
        "figure_celcomen_recovery",
        "celcomen_recovery",
        "recovery of known forces",
        {
            "recovery": "results/celcomen/recovery/recovery.tsv",
            "chains": "results/celcomen/recovery/chains.tsv",
            "provenance": "results/celcomen/recovery/provenance.json",
        },
        "results/figures/celcomen/recovery.png",
    ),
    Figure(
        "figure_cellina_in_vivo",
        "cellina_in_vivo",
        "a real intervention",
        {
            name: f"{_TABLES}/cellina_in_vivo.{{protocol}}.{file}"
            for name, file in {
                "effects": "effects.tsv",
                "scores": "scores.tsv",
                "manifest": "json",
            }.items()
        },
        f"{_FIGURES}/cellina_in_vivo.png",
    ),
    Figure(
        "screen_power",
        "screen",
        "how many recipients must a spatial screen have?",
        {
            "rates": "results/celcomen/screen/rates.tsv",
            "provenance": "results/celcomen/screen/provenance.json",
        },
        "results/figures/celcomen/screen_power.png",
    ),
    Figure(
        "when_to_trust",
        "trust",
        "when to trust an answer",
        {
            "errors": "results/cellina/trust/errors.tsv",
            "latents": "results/cellina/trust/latents.tsv",
            "provenance": "results/cellina/trust/provenance.json",
        },
        "results/figures/cellina/when_to_trust.png",
    ),
    _of_experiment(
        *("figure_celcomen_6", "celcomen_spleen", "Celcomen Fig. 6"),
        agreement="agreement",
        curves="curves",
        summary="summary",
    ),
    _clusters("figure_celcomen_8", "celcomen_spleen", "Celcomen Fig. 8"),
    Figure(
        "figure_celcomen_3",
        "celcomen_glioblastoma",
        "Celcomen Fig. 3",
        {
            name: f"{_TABLES}/celcomen_glioblastoma.{{protocol}}.{file}.tsv"
            for name, file in {
                "classes": "localization",
                "tests": "localization_tests",
                "trajectories": "knockout",
                "placebo": "placebo",
                "enrichment": "knockout_terms",
                "diagnostics": "knockout_diagnostics",
            }.items()
        }
        | {
            "cells": f"{_FITS}/celcomen_glioblastoma.{{protocol}}.knockout_cells.tsv",
            "manifest": f"{_FITS}/celcomen_glioblastoma.{{protocol}}.json",
        },
        f"{_FIGURES}/figure_celcomen_3.{{protocol}}.png",
    ),
    _clusters("figure_celcomen_7", "celcomen_glioblastoma", "Celcomen Fig. 7"),
    _of_experiment(
        *("figure_celcomen_4", "celcomen_perturbmap", "Celcomen Fig. 4"),
        correlations="correlations",
        genes="genes",
        spots="spots",
    ),
    Figure(
        "figure_celcomen_4_null",
        "celcomen_perturbmap",
        "Celcomen Fig. 4: does it survive its null?",
        {
            "correlations": f"{_TABLES}/celcomen_perturbmap.{{protocol}}.correlations.tsv",
            "summary": f"{_TABLES}/celcomen_perturbmap.{{protocol}}.summary.tsv",
            "manifest": f"{_FITS}/celcomen_perturbmap.{{protocol}}.json",
            "null_correlations": "results/celcomen/perturbmap_null/correlations.tsv",
            "null_switches": "results/celcomen/perturbmap_null/switches.tsv",
        },
        f"{_FIGURES}/figure_celcomen_4_null.png",
    ),
)
