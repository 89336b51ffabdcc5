"""The table of figures. Adding one is a row here, a module and a caption, all of the same name.

The module draws from files to files:

    draw_files(inputs, output, <what `takes` names>)

`inputs` are paths by name, lists of paths where a figure joins several; `output` is a path, or paths by name. The
caption is workflow/report/NAME.rst, a template that sees the configuration and the wildcards. A row becomes a rule of
the workflow, and what the rule makes belongs to the results of `of`.
"""

from dataclasses import dataclass
from importlib import import_module

from tissue_counterfactuals.experiments import EXPERIMENTS

_TABLES = "results/tables/{dataset}"
_FIGURES = "results/figures/{dataset}"
_MANIFEST = {"manifest": f"{_TABLES}/provenance.json"}
_SCORES = {"scores": f"{_TABLES}/scores.tsv"} | _MANIFEST
_SLIDE = "results/slides/{dataset}/{slide}.h5ad"
_FOLDS = "results/folds/{dataset}/{slide}.tsv"
_RUN = "{dataset}/{slide}/{fold}/{protocol}.seed{seed}"
_QUESTION, _PREDICTIONS = f"results/questions/{_RUN}.npz", f"results/predictions/{_RUN}"
_MODELS = {"models": "results/models/{dataset}/{slide}/{fold}/{method}/{protocol}.seed{seed}"} | _MANIFEST
_OUTPUTS = {row.name: row.outputs for row in EXPERIMENTS}


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
            configuration. The picture is written in both formats, `beside` is the other one.
        takes: wildcards that `draw_files` is given.
        learned: whether it needs a method that is trained.
        methods: it needs all of these. any_of: and one of these, if there are any.
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
    any_of: tuple[str, ...] = ()
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

    def has_methods(self, run: list[str]) -> bool:
        """Whether the methods that are run are those that it needs."""
        return {*self.methods} <= {*run} and (not self.any_of or bool({*self.any_of} & {*run}))

    def draw(self, inputs: dict, output: object, **keys: str) -> None:
        """Draw it; its module, and matplotlib, are imported only now."""
        import_module(f"{__name__}.{self.name}").draw_files(inputs, output, **keys)


def _made_by(experiment: str, *names: str, **renamed: str) -> dict[str, str]:
    """Some of the files that an experiment makes, by their names there, and by other names those of `renamed`."""
    outputs = _OUTPUTS[experiment]
    return {name: outputs[name] for name in names} | {new: outputs[name] for new, name in renamed.items()}


def _of_experiment(name: str, experiment: str, title: str, inputs: dict[str, str]) -> Figure:
    """A figure of an experiment on a data set, for each protocol."""
    return Figure(name, experiment, title, inputs, f"{_FIGURES}/{name}.{{protocol}}.png")


def _clusters(name: str, experiment: str, title: str) -> Figure:
    tables = _made_by(f"{experiment}_clusters", "members", "enrichment")
    fitted = _made_by(experiment, "manifest") | _made_by(f"{experiment}_clusters", "matrices")
    return _of_experiment(name, experiment, title, tables | fitted)


def _on_each_slide(number: str, experiment: str, title: str, *takes: str) -> Figure:
    """A figure of an experiment on Cellina, of all its slides and seeds, and the table that it shows."""
    takes = (*takes, "protocol")
    stem = ".".join((f"figure_cellina_{number}", *(f"{{{key}}}" for key in takes)))
    inputs = _made_by(experiment, "scores", manifests="manifest")
    return Figure(f"figure_cellina_{number}", experiment, title, inputs, _with_table(stem), takes)


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
        _SCORES | {"slides": _SLIDE, "questions": _QUESTION, "predictions": f"{_PREDICTIONS}/{{environment}}.h5ad"},
        _with_table("intervals.{target}.{protocol}", "svg"),
        takes=("target", "protocol"),
    ),
    Figure(
        "figure_cellina_1",
        "cellina",
        "Cellina Figs. 1 and 2: the model and the question, as run",
        _MANIFEST,
        f"{_FIGURES}/schematic.{{protocol}}.png",
        takes=("protocol",),
        any_of=("cellina", "cellina_gat"),
    ),
    Figure(
        "figure_cellina_2",
        "cellina",
        "map",
        {"slide": _SLIDE, "folds": _FOLDS, "question": _QUESTION} | _MANIFEST,
        _with_table("map.{slide}"),
        first=("question",),
    ),
    Figure(
        "attention",
        "cellina",
        "whom cells listen to",
        {"slide": _SLIDE, "folds": _FOLDS, "question": _QUESTION, "predictions": f"{_PREDICTIONS}/core.h5ad"}
        | _MANIFEST,
        {"cell": f"{_TABLES}/attention.{{slide}}.cell.tsv"} | _with_table("attention.{slide}"),
        first=("question", "predictions"),
        methods=("cellina_gat",),
    ),
    Figure(
        "learning_curves",
        "cellina",
        "learning curves",
        _MODELS,
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
        {"slides": _SLIDE, "questions": _QUESTION, "predictions": f"{_PREDICTIONS}/core.h5ad"} | _MANIFEST,
        _with_table("metrics_under_test.{target}.{protocol}"),
        takes=("target", "protocol"),
        methods=("no_change",),
    ),
    Figure(
        "costs",
        "cellina",
        "costs of training",
        _MODELS,
        {kind: f"{_TABLES}/costs.{{protocol}}.{kind}" for kind in ("tsv", "png")},
        takes=("protocol",),
        learned=True,
    ),
    _on_each_slide("a1", "cellina_weights", "Cellina Fig. A1: weights of the loss"),
    _on_each_slide("a5", "cellina_disentanglement", "Cellina Fig. A5: what latents hold"),
    Figure(
        "figure_cellina_3",
        "cellina_application",
        "Cellina Fig. 3: subdomains of the target domain",
        _made_by("cellina_application", "scores", manifests="manifest")
        | _made_by("cellina_application", "modules", "subdomains", "activities", "genes", "embedding", "shuffles"),
        {what: f"{_TABLES}/figure_cellina_3.{what}.{{protocol}}.tsv" for what in ("null", "stability")}
        | _with_table("figure_cellina_3.{protocol}"),
        takes=("protocol",),
    ),
    _on_each_slide("a6", "cellina_scalability", "Cellina Fig. A6: costs by number of cells"),
    _on_each_slide("a7", "cellina_gene_range", "Cellina Fig. A7: genes that are shifted", "target"),
    Figure(
        "figure_celcomen_2",
        "celcomen_simulation",
        "Figure 2c: simulation",
        _OUTPUTS["celcomen_simulation"],
        "results/figures/celcomen/figure_celcomen_2.{protocol}.png",
        takes=("protocol",),
    ),
    Figure(
        "figure_celcomen_recovery",
        "celcomen_recovery",
        "recovery of known forces",
        _OUTPUTS["celcomen_recovery"],
        "results/figures/celcomen/recovery.png",
    ),
    Figure(
        "figure_cellina_in_vivo",
        "cellina_in_vivo",
        "a real intervention",
        _made_by("cellina_in_vivo", "effects", "scores", "manifest"),
        f"{_FIGURES}/cellina_in_vivo.png",
    ),
    Figure(
        "screen_power",
        "screen",
        "how many recipients must a spatial screen have?",
        _made_by("screen", "rates", "provenance"),
        "results/figures/celcomen/screen_power.png",
    ),
    Figure(
        "when_to_trust",
        "trust",
        "when to trust an answer",
        _OUTPUTS["trust"],
        "results/figures/cellina/when_to_trust.png",
    ),
    _of_experiment(
        "figure_celcomen_6",
        "celcomen_spleen",
        "Celcomen Fig. 6",
        _made_by("celcomen_spleen", "agreement", "curves", "summary", "manifest"),
    ),
    _clusters("figure_celcomen_8", "celcomen_spleen", "Celcomen Fig. 8"),
    _of_experiment(
        "figure_celcomen_3",
        "celcomen_glioblastoma",
        "Celcomen Fig. 3",
        _OUTPUTS["celcomen_localization"]
        | _made_by("celcomen_knockout", "trajectories", "placebo", "enrichment", "diagnostics", "cells")
        | _made_by("celcomen_glioblastoma", "manifest"),
    ),
    _clusters("figure_celcomen_7", "celcomen_glioblastoma", "Celcomen Fig. 7"),
    _of_experiment(
        "figure_celcomen_4",
        "celcomen_perturbmap",
        "Celcomen Fig. 4",
        _made_by("celcomen_perturbmap", "correlations", "genes", "spots", "manifest"),
    ),
    Figure(
        "figure_celcomen_4_null",
        "celcomen_perturbmap",
        "Celcomen Fig. 4: does it survive its null?",
        _made_by("celcomen_perturbmap", "correlations", "summary", "manifest")
        | _made_by("celcomen_perturbmap_null", null_correlations="correlations", null_switches="switches"),
        f"{_FIGURES}/figure_celcomen_4_null.png",
    ),
)
