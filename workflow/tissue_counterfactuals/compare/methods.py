"""A methods paragraph, a table of settings and the citations for a paper, from the configuration of a run."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain

from tissue_counterfactuals import __version__
from tissue_counterfactuals.compare import READ, Tables, label_of, published
from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.results.answer import in_words
from tissue_counterfactuals.results.harmless import markdown_line
from tissue_counterfactuals.sources import published_as
from tissue_counterfactuals.sources.downloads.table import read_datasets
from tissue_counterfactuals.steps import SIMULATORS

# Sections of the configuration that no result depends on, or that are told in the text.
_NOT_SETTINGS = {"datasets", "downloads", "device", "threads", "methods", "seeds", "protocols"}

_FITTED = {
    "per_sample": "A model was fitted to each sample",
    "pooled": "One model was fitted over all samples",
    "leave_patient_out": "Each patient in turn was left out as well: a model was fitted over the samples of all others",
}


def text(config: dict, tables: Tables) -> str:
    """Markdown: paragraphs to paste, the settings that differ between data sets and those of methods, citations."""
    used = _methods_used(tables)
    blocks = [
        "# Methods",
        "Made from the configuration of this run; check it, shorten it, and cite what is named at the end.",
        *_paragraphs(config, tables, used),
        "## Settings",
        _settings(config, tables, used),
        "## References",
        "\n".join(f"- {line}" for line in _references(config, tables, used)),
    ]
    return "\n\n".join(blocks) + "\n"


def _methods_used(tables: Tables) -> list[str]:
    names = []
    for name, _ in tables.datasets("cellina"):
        scores = tables.of("cellina", "scores", dataset=name)
        names += scores["method"].unique().tolist()
    for *_, question, _ in tables.answers():
        names += question["methods"]
    return [method for method in METHODS if method in names]


def _paragraphs(config: dict, tables: Tables, used: list[str]) -> list[str]:
    seeds = ", ".join(map(str, config["seeds"]))
    found = [
        f"Analyses were run with tissue-counterfactuals {__version__} (Snakemake {version('snakemake')}), "
        f"{'protocols' if len(config['protocols']) > 1 else 'protocol'} {' and '.join(config['protocols'])}, seeds "
        f"{seeds}."
    ]
    for name, entry in config["datasets"].items():
        for experiment in entry["experiments"]:
            if name in dict(tables.datasets(experiment)):
                found.append(_of_dataset(name, entry, experiment))
    if compared := [name for name in used if tables.ran("cellina")]:
        described = "; ".join(f"{name}, {METHODS[name].description}" for name in compared)
        counterfactual = config["counterfactual"]
        found.append(
            f"Compared were {described}. Each focal cell was given {counterfactual['n_donors']} new neighbours, "
            f"chosen by the rules {', '.join(counterfactual['donor_rules'])}. Predictions were scored against the "
            f"held-out cells of the target domain over the {config['metrics']['n_deg']} genes that change most; every "
            "score was put beside that of the same fitted model without intervention and beside controls without a "
            "model, paired by slide and cell type."
        )
    return [*found, *_of_questions(config, tables)]


def _of_questions(config: dict, tables: Tables) -> Iterator[str]:
    asked = [
        f"{markdown_line(in_words(question))} on slide {markdown_line(slide)} of "
        f"{markdown_line(label_of(name, entry))} (answered by {' and '.join(question['methods'])}, seeds "
        f"{', '.join(map(str, question['seeds'] or config['seeds']))})"
        for name, entry, slide, question, _ in tables.answers()
    ]
    if asked:
        yield (
            f"Asked were: {'; '.join(asked)}. For these nothing was held out. A change is the difference of log1p of "
            "mean counts per 10,000 between the predicted cells and the same method's prediction for the same cells "
            "left as they are; gene sets and pathways were tested against the errors of answers for other cell "
            "types, told without their own cells."
        )


def _of_dataset(name: str, entry: dict, experiment: str) -> str:
    kind = {"simulated": "simulated", "stand-in": "stand-in"}.get(entry["kind"], "real")
    label = markdown_line(label_of(name, entry))
    filters = entry["preprocess"]
    genes = filters["n_top_genes"]
    said = (
        f"{label} ({kind} data): cells with at least {filters['min_counts_per_cell']} counts and genes with at least "
        f"{filters['min_counts_per_gene']} were kept{f', and of these {genes} variable genes' if genes else ''}."
    )
    if experiment != "cellina":
        return f"{said} The experiment {experiment} was run on them."
    graph = entry["graph"]
    targets = ", ".join(markdown_line(target) for target in entry["target_domains"])
    return (
        f"{said} Neighbours were weighted by a Gaussian of {graph['bandwidth_um']:g} µm, at most "
        f"{graph['max_neighbors']} for a cell, weights of {graph['cutoff']:g} or less left out. One cell type at a "
        f"time was held out of {targets}; its cells in {markdown_line(entry['control_domain'])} were asked what they "
        f"would express there. {_FITTED[entry['fit']]}."
    )


def _settings(config: dict, tables: Tables, used: list[str]) -> str:
    """What results of this run depend on, a key a line: of methods and experiments those that were run."""
    sections = {METHODS[name].settings for name in used} - {None}
    known = {row.settings for row in METHODS.values()} - {None}
    ran = {name for name in config["celcomen"] if tables.ran(f"celcomen_{name}")}
    found = {
        section: {key: value[key] for key in sorted(ran)} if section == "celcomen" else value
        for section, value in config.items()
        if section not in _NOT_SETTINGS and (section not in known or section in sections)
    }
    for name, entry in config["datasets"].items():
        if entry["source"] in SIMULATORS and any(map(tables.ran, entry["experiments"])):
            section = SIMULATORS[entry["source"]][2]
            found[f"datasets.{name}.{section}"] = entry[section]
    rows = [
        f"| `{key}` | {markdown_line(json.dumps(leaf, ensure_ascii=False))} |"
        for section, value in found.items()
        for key, leaf in _leaves(value, section)
        if leaf != {}
    ]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])


def _leaves(value: object, name: str):
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{name}.{key}")
    else:
        yield name, value


def _references(config: dict, tables: Tables, used: list[str]) -> list[str]:
    """Citations of every method and data set that was used, each once."""
    known = published.references()
    wanted = [known.get(name, "") for name in used]
    if any(tables.ran(experiment) for experiment in READ if experiment.startswith("celcomen")):
        wanted.append(known["celcomen"])
    if any(tables.ran(experiment) for experiment in READ if experiment.startswith("cellina")):
        # Its benchmark, also where the model itself was not asked.
        wanted.append(known["cellina"])
    # Collections of gene sets that changes and clusters were looked up in.
    collections = {"hallmark", "go_bp", "progeny"} if tables.answers() else set()
    for name, own in config["celcomen"].items():
        if tables.ran(f"celcomen_{name}"):
            named = [leaf for key, leaf in _leaves(own, name) if key.endswith(".gene_sets")]
            collections |= set(BUNDLED_GENE_SETS).intersection(chain.from_iterable(named))
    wanted += [known[name] for name in sorted(collections)]
    for name, entry in config["datasets"].items():
        here = any(name in dict(tables.datasets(e)) for e in entry["experiments"])
        here |= any(name == answered for answered, *_ in tables.answers())
        if here and (own := published_as(entry)):
            # What a reader alone tells is no name in a table of the user's.
            rows = read_datasets(config["downloads"]["table"] if entry["files"] else None)[own]
            cited = dict.fromkeys(row.citation for row in rows if row.citation)
            wanted += [f"{markdown_line(label_of(name, entry))}: {citation}" for citation in cited]
        elif here and entry["kind"] != "simulated":
            wanted.append(f"{markdown_line(label_of(name, entry))}: cite those who made these data")
    return list(dict.fromkeys(filter(None, wanted)))
