"""Does it hold? Published numbers and statements beside those of a run, and the run's answer in a few lines.

    published   what the papers print, from resources/published/
    tolerance   how far two honest runs may be apart, from the spread of seeds and folds
    numbers     the table of numbers: published | newer run of the authors | ours | tolerance | verdict
    statements  the table of statements, each with a test and a verdict
    opening     what the report opens with
    methods     text and settings to paste into a paper
    page        all of it as one page with tables to sort and filter, and a gallery of the figures

Nothing is computed here that is not read from tables of the run: comparing is cheap.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd

from tissue_counterfactuals.files import atomic_path, slugs
from tissue_counterfactuals.sources import published_as

_TABLES = "results/tables/{dataset}"
# Experiment -> the tables of a run that are read here, by name.
READ = {
    "cellina": {name: f"{_TABLES}/{name}.tsv" for name in ("scores", "summary", "gains")}
    | {"table_1": f"{_TABLES}/table_1.{{target}}.{{protocol}}.tsv"},
    "cellina_gene_range": {"figure_cellina_a7": f"{_TABLES}/figure_cellina_a7.{{target}}.{{protocol}}.tsv"},
    "celcomen_simulation": {"correlations": "results/celcomen/simulation/correlations.{protocol}.tsv"},
    "celcomen_recovery": {"recovery": "results/celcomen/recovery/recovery.tsv"},
} | {
    experiment: {name: f"{_TABLES}/{experiment}.{{protocol}}.{name}.tsv" for name in names}
    for experiment, names in {
        "celcomen_spleen": ("agreement", "summary", "cluster_terms"),
        "celcomen_glioblastoma": (
            "shapes",
            "localization_tests",
            "signature",
            "cluster_terms",
            "placebo",
            "knockout_terms",
        ),
        "celcomen_perturbmap": ("summary",),
        "cellina_in_vivo": ("compared",),
    }.items()
}


class Tables:
    """The tables of a run that are compared, and its configuration.

    Args:
        config: the validated configuration.
        paths: the files there are, as the workflow names them ("results/tables/...").
    """

    def __init__(self, config: dict, paths: Iterable[str | Path]):
        self.config = config
        self.paths = frozenset(map(str, paths))
        self._read: dict[str, pd.DataFrame] = {}

    def table(self, path: str) -> pd.DataFrame | None:
        """A table of the run; None where this run did not make it."""
        if path not in self.paths:
            return None
        if path not in self._read:
            from tissue_counterfactuals.results.tables import read_scores, read_table

            self._read[path] = read_scores([path]) if path.endswith("scores.tsv") else read_table(path)
        return self._read[path]

    def of(self, experiment: str, name: str, **keys: str) -> pd.DataFrame | None:
        """A table of an experiment, by its name in READ."""
        return self.table(READ[experiment][name].format(**keys))

    def ran(self, experiment: str) -> bool:
        """Whether this run has tables of an experiment."""
        folder = f"results/celcomen/{experiment.removeprefix('celcomen_')}/"
        alone = experiment in READ and any(path.startswith(folder) for path in self.paths)
        return alone or bool(self.datasets(experiment))

    def datasets(self, experiment: str) -> list[tuple[str, dict]]:
        """Data sets, by name, with a table of an experiment in this run; none for one that is not compared."""
        first = next(iter(READ.get(experiment, {"": ""}).values()))

        def has_first(name: str, entry: dict) -> bool:
            targets = slugs(entry["target_domains"], "target_domains") or [""]
            every = product(targets, self.config["protocols"])
            return any(first.format(dataset=name, target=t, protocol=p) in self.paths for t, p in every)

        return [
            (name, entry)
            for name, entry in self.config["datasets"].items()
            if experiment in entry["experiments"] and has_first(name, entry)
        ]

    def answers(self) -> list[tuple[str, dict, str, dict, str]]:
        """Data set, its entry, slide, question and its verdict in a word, for each question of the user's own with an
        answer.
        """
        found = []
        for path in sorted(path for path in self.paths if path.endswith("/answer.md")):
            name, slide, asked = Path(path).parts[-4:-1]
            entry = self.config["datasets"][name]
            (question,) = (own for own in entry["questions"] if own["name"] == asked)
            with open(path, encoding="utf-8") as text:
                found.append((name, entry, slide, question, text.readline().partition(": ")[2].strip()))
        return found


def label_of(name: str, entry: dict) -> str:
    """A data set as it is shown."""
    return entry["label"] or name


def kind_of(entry: dict) -> str:
    """`real` where published numbers hold for the data; else what they are. A user's own slide is `real, other
    data`.
    """
    if entry["kind"] != "real" or published_as(entry):
        return entry["kind"]
    return "real, other data"


def run(inputs: dict, config: dict, outputs: dict[str, Path]) -> None:
    """From the tables and figures of a run to everything that this room makes.

    Args:
        inputs: `tables`, answers to own questions among them, and `figures` for the gallery.
        outputs: files `numbers`, `statements` (TSV), `answer`, `opening` (Markdown, HTML), `methods` (Markdown), `page`
            (HTML).
    """
    from tissue_counterfactuals.compare import methods, numbers, opening, page, statements
    from tissue_counterfactuals.results.tables import write_tsv

    tables = Tables(config, inputs["tables"])
    found = {"numbers": numbers.build(tables), "statements": statements.build(tables)}
    for name, table in found.items():
        write_tsv(table, outputs[name], sort=False)
    answer = opening.build(tables, **found)
    texts = {
        "answer": opening.to_markdown(answer),
        "opening": opening.to_html(answer),
        "methods": methods.text(config, tables),
        "page": page.build(tables, found, inputs["figures"]),
    }
    for name, text in texts.items():
        with atomic_path(outputs[name]) as temporary:
            temporary.write_text(text, encoding="utf-8")
