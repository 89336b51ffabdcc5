"""What a run would otherwise find out after hours: settings against the cells and genes that are known beforehand.

Of simulated data the configuration says how many cells and which genes there are; of a file at hand its header does.
What is still to be downloaded is not known, and is checked where it is read.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tissue_counterfactuals.config.dataset import samples_of
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import EXPERIMENTS
from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS
from tissue_counterfactuals.files import slugs
from tissue_counterfactuals.question.named import (
    FEWEST_CELLS,
    gene_faults,
    label_faults,
    nearest,
    no_such_label,
    too_few_cells,
    too_many_neighbors,
)
from tissue_counterfactuals.simulate.settings import KNOCKOUTS
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.columns import open_h5ad, read_labels
from tissue_counterfactuals.sources.labels import are_ids

_READ_A_GRAPH = {"cellina", *(experiment.name for experiment in EXPERIMENTS if "graph" in experiment.inputs)}
# Layouts of instruments: their files know neither types nor domains, unless somebody added columns.
_WITHOUT_LABELS = ("xenium", "visium", "cosmx_flat", "merscope")
# Stands for a panel that is not known.
_MANY = range(10**9)


def known_faults(config: dict, raw: dict) -> Iterator[str]:
    """Faults of a configuration whose keys are resolved, one sentence each; `raw` is what was given."""
    # Left at its default it may be more than a small panel has: then all genes are taken.
    n_deg = (raw.get("metrics") or {}).get("n_deg", 0)
    sections = config["celcomen"]
    used = {of for entry in config["datasets"].values() for of in entry["experiments"]}
    for tissue, key in (
        ("spleen", "clusters"),
        ("glioblastoma", "clusters"),
        ("glioblastoma", "enrichment"),
    ):
        if f"celcomen_{tissue}" in used:
            yield from _gene_set_faults(f"celcomen.{tissue}.{key}", sections[tissue][key])
    weights = config["cellina_experiments"]["application"]["pathway_weights"]
    if weights and "cellina_application" in used:
        from tissue_counterfactuals.pathways import read_weights  # slow to import, and seldom needed

        try:
            read_weights(weights)
        except InputError as error:
            yield f"config: cellina_experiments.application.pathway_weights: {error}"
    for name, entry in config["datasets"].items():
        files, absent = _files_at_hand(entry)
        yield from (f"config: datasets.{name}: {fault}" for fault in absent)
        coded, genes = _coded(entry, files), _panel(entry, files)
        # Known only up to what may be asked for: a table of cells need not be counted to its end.
        wanted = max(entry["graph"]["max_neighbors"], sections["spleen"]["n_neighbors"])
        smallest = _smallest_sample(name, entry, coded, files, wanted + 1)
        kept = min(len(genes or _MANY), entry["preprocess"]["n_top_genes"] or len(_MANY))
        if smallest and (_READ_A_GRAPH & {*entry["experiments"]} or entry["questions"]):
            key, neighbors = f"config: datasets.{name}.graph.max_neighbors", entry["graph"]["max_neighbors"]
            yield from too_many_neighbors(key, neighbors, *smallest)
        if "cellina" in entry["experiments"]:
            yield from _too_few_genes("metrics.n_deg", n_deg, name, kept)
        if _unlabelled(entry, files):
            yield (
                f"config: datasets.{name}.labels is not given, so that cells of source {entry['source']} have neither "
                "a type nor a domain; name a table (CSV, TSV or parquet) with columns cell_id, cell_type and domain."
            )
        labels = _labels(entry, coded)
        yield from _question_faults(name, entry, labels, genes, coded)
        if labels:
            yield from _benchmark_faults(name, entry, labels, coded)
        if "celcomen_spleen" in entry["experiments"]:
            settings = sections["spleen"]
            if smallest:
                yield from too_many_neighbors("config: celcomen.spleen.n_neighbors", settings["n_neighbors"], *smallest)
            modelled = min(settings["n_top_genes"], kept)
            yield from _too_few_genes(
                "celcomen.spleen.clusters.n_clusters", settings["clusters"]["n_clusters"], name, modelled
            )
        if "celcomen_glioblastoma" in entry["experiments"]:
            settings = sections["glioblastoma"]
            yield from _too_few_genes(
                "celcomen.glioblastoma.clusters.n_clusters", settings["clusters"]["n_clusters"], name, kept
            )
            yield from _unknown_gene("celcomen.glioblastoma.knockout.gene", settings["knockout"]["gene"], name, genes)
        if "celcomen_perturbmap" in entry["experiments"]:
            known = KNOCKOUTS if entry["source"] == "simulated_lesions" else genes
            for gene in sections["perturbmap"]["knockouts"]:
                yield from _unknown_gene("celcomen.perturbmap.knockouts", gene, name, known)


def may_choose_genes(entry: dict) -> bool:
    """Whether a slide may hold more genes than `preprocess.n_top_genes`; only where its genes are known can it not."""
    wanted = entry["preprocess"]["n_top_genes"]
    if wanted is None:
        return False
    genes = _panel(entry, _files_at_hand(entry)[0])
    return genes is None or len(genes) > wanted


def _smallest_sample(
    name: str, entry: dict, coded: dict[str, tuple] | None, files: dict[str, Path], enough: int
) -> tuple[str, int] | None:
    """The smallest sample that is read, in words, and how many cells it has at most, counted up to `enough`; None where
    that is not known.

    Reading leaves out cells without a type or domain and may leave out more, and adds none.
    """
    if entry["source"] == "simulated":
        return f"a sample of {name}", entry["simulation"]["n_cells"] // entry["simulation"]["n_slides"]
    if entry["source"] == "simulated_field":
        return f"a sample of {name}", entry["field"]["n_cells"] // entry["field"]["n_samples"]
    if not coded:
        sizes = _from_headers(entry, files, lambda reader: reader.adapter.cells(files, entry, enough))
        return _smallest(name, entry, (sizes or {}).items())
    columns = [coded[c][0] >= 0 for c in ("cell_type", "domain", "sample") if c in coded]
    if len({len(column) for column in columns}) > 1:
        return None  # a damaged file, for the reader to tell
    labelled = np.logical_and.reduce(columns)
    if "sample" not in coded:
        return name, int(labelled.sum())
    codes, samples = coded["sample"]
    sizes = np.bincount(codes[labelled], minlength=len(samples))
    if are_ids(np.count_nonzero(sizes), len(codes)):
        return None  # for the reader to tell
    return _smallest(name, entry, zip(samples, sizes.tolist(), strict=True))


def _smallest(name: str, entry: dict, sizes: Iterable[tuple[str, int]]) -> tuple[str, int] | None:
    # No cell at all is for the reader to tell.
    read = [
        (f"sample {sample!r} of {name}", size)
        for sample, size in sizes
        if size and (entry["samples"] is None or sample in entry["samples"])
    ]
    return min(read, key=lambda one: one[1], default=None)


def _from_headers(entry: dict, files: dict[str, Path], ask: Callable):
    """What a reader answers about files at hand; None where it cannot tell, or they are for it to refuse."""
    try:
        return ask(READERS[entry["source"]]) if files else None
    except (InputError, OSError, KeyError, ValueError, TypeError, AttributeError):
        return None


def _files_at_hand(entry: dict) -> tuple[dict[str, Path], list[str]]:
    """Role -> file of what need not be fetched first, and what of it is missing, a sentence each.

    The unit of coordinates is for the reader to check: all of them must be read to tell.
    """
    if entry["source"] not in READERS or not entry["path"] or "://" in entry["path"]:
        return {}, []
    reader = READERS[entry["source"]]
    try:
        files = reader.locate(entry["path"])
        return files, reader.adapter.absent(files, entry) if hasattr(reader.adapter, "absent") else []
    except InputError as error:
        return {}, [str(error)]


def _panel(entry: dict, files: dict[str, Path]) -> list[str] | None:
    """Names of the genes; None where they are not known, or their file is for the reader to refuse."""
    if entry["source"] in ("simulated", "simulated_field"):
        n = entry["simulation" if entry["source"] == "simulated" else "field"]["n_genes"]
        return [f"gene_{gene:0{len(str(n - 1))}d}" for gene in range(n)]
    return _from_headers(entry, files, lambda reader: reader.genes(files, entry))


def _question_faults(
    name: str, entry: dict, labels: dict | None, genes: list[str] | None, coded: dict[str, tuple] | None
) -> Iterator[str]:
    """What users' questions name and the slides have not, as far as that is known before they are read."""
    for place, asked in enumerate(entry["questions"]):
        faults = label_faults(asked, labels) if labels else []
        # Columns of different lengths are for the reader to tell.
        if coded and not faults and len({len(codes) for codes, _ in coded.values()}) == 1:
            faults = too_few_cells(asked, _n_focal(asked, coded)) or _on_one_slide(asked, name, entry, coded)
        faults += gene_faults(asked, genes) if genes else []
        yield from (f"config: datasets.{name}.questions[{place}].{fault}" for fault in faults)


def _on_one_slide(asked: dict, name: str, entry: dict, coded: dict[str, tuple]) -> list[str]:
    """What a question names that is in the file and not on each slide that it is asked about."""
    if entry["fit"] != "per_sample" or "sample" not in coded:
        return []
    codes, known = coded["sample"]
    for samples in _slides(name, entry):
        if samples is None or asked["sample"] not in (None, *samples):
            continue
        there = np.isin(codes, [known.index(sample) for sample in samples])
        own = {column: (values[there], labels) for column, (values, labels) in coded.items()}
        present = {c: [labels[k] for k in np.unique(values[values >= 0])] for c, (values, labels) in own.items()}
        if faults := label_faults(asked, present) or too_few_cells(asked, _n_focal(asked, own)):
            told = ", ".join(map(repr, samples))
            return [f"{faults[0]} So it is in sample {told}; name the one that is asked about under sample."]
    return []


def _n_focal(asked: dict, coded: dict[str, tuple]) -> int:
    """How many cells a question is about at most: reading leaves out cells and adds none."""
    chosen = {key: asked[key] for key in ("cell_type", "domain", "sample") if asked[key] and key in coded}
    masks = [coded[c][0] == coded[c][1].index(str(value)) for c, value in (chosen | asked["where"]).items()]
    return int(np.logical_and.reduce(masks).sum())


def _benchmark_faults(name: str, entry: dict, labels: dict, coded: dict | None) -> Iterator[str]:
    """Domains and held-out types that no cell has, types that are too small to be held out anywhere, and two that
    files cannot tell apart.
    """
    if entry["control_domain"] is None or "cellina" not in entry["experiments"]:
        return
    key = f"config: datasets.{name}."
    domains, types = [entry["control_domain"], *entry["target_domains"]], entry["holdout"]["cell_types"]
    absent = [
        no_such_label(f"{key}{'target_domains' if place else 'control_domain'}", domain, labels["domain"])
        for place, domain in enumerate(domains)
        if domain not in labels["domain"]
    ]  # fmt: skip
    if types != "auto":
        absent += [
            no_such_label(f"{key}holdout.cell_types", t, labels["cell_type"])
            for t in types
            if t not in labels["cell_type"]
        ]
    if absent or not coded:
        yield from absent
        return
    # Columns of different lengths are for the reader to tell.
    if len({len(codes) for codes, _ in coded.values()}) > 1:
        return
    there, known = " and in ".join(map(repr, domains)), labels["cell_type"]
    sizes = _sizes_of_types(name, entry, labels, coded, domains)
    if not len(sizes):
        return
    most = sizes.max(axis=0, initial=0)
    if types != "auto":
        for cell_type in types:
            if (n := most[known.index(cell_type)]) < FEWEST_CELLS:
                yield (
                    f"{key}holdout.cell_types names {cell_type!r}, of which no slide has {FEWEST_CELLS} cells in "
                    f"{there}, the fewest that scores can compare (at most {n}): take it out, or choose other domains."
                )
        return
    least = entry["holdout"]["min_cells"]
    if most.max(initial=0) < least:
        largest = f"; the largest is {known[most.argmax()]!r} with {most.max()}" if len(most) else ""
        yield (
            f"{key}holdout.min_cells is {least}, and no cell type has so many cells in {there}{largest}: lower it, or "
            "choose other domains."
        )
    # Of patients left out the slide says who has enough of which type.
    elif entry["fit"] != "leave_patient_out":
        for own in sizes:
            try:
                slugs([t for t, n in zip(known, own, strict=True) if n >= least], f"{key[:-1]}: the held-out types")
            except InputError as error:
                yield str(error)
                return


def _slides(name: str, entry: dict) -> list[list[str] | None]:
    """The samples of each slide; none where they are for the plan to refuse."""
    try:
        return list(samples_of(name, entry).values())
    except InputError:
        return []


def _sizes_of_types(name: str, entry: dict, labels: dict, coded: dict, domains: list[str]) -> np.ndarray:
    """Cells (slides, types) of each type in that of the domains where it has fewest, at most: reading leaves out cells
    and adds none.
    """
    (types, _), (places, _) = coded["cell_type"], coded["domain"]
    slides = [None] if "sample" not in coded else _slides(name, entry)
    rows = []
    for samples in slides:
        here = (types >= 0) & (places >= 0)
        if samples is not None:
            codes, known = coded["sample"]
            here &= np.isin(codes, [known.index(sample) for sample in samples])
        sizes = np.zeros((len(labels["cell_type"]), len(labels["domain"])), int)
        np.add.at(sizes, (types[here], places[here]), 1)
        rows.append(sizes[:, [labels["domain"].index(domain) for domain in domains]].min(axis=1))
    return np.array(rows).reshape(len(rows), len(labels["cell_type"]))


def _coded(entry: dict, files: dict[str, Path]) -> dict[str, tuple] | None:
    """Column of obs -> codes and values of a file at hand; None where they are not known, or for the reader to
    refuse.
    """
    if entry["source"] != "h5ad" or not files:
        return None
    columns = {key: entry["columns"][key] for key in ("cell_type", "domain", "sample")}
    columns |= {name: name for name in entry["keep_columns"] or []}
    try:
        with open_h5ad(files["h5ad"]) as file:
            return {key: read_labels(file["obs"][c]) for key, c in columns.items() if c}
    except (InputError, OSError, KeyError, ValueError, TypeError, AttributeError):
        return None


def _unlabelled(entry: dict, files: dict[str, Path]) -> bool:
    """Whether types or domains are asked for of a bundle of an instrument that has none, and nobody names a table."""
    asked = entry["questions"] or entry["control_domain"]
    if entry["source"] not in _WITHOUT_LABELS or not files or entry["labels"] or not asked:
        return False
    from tissue_counterfactuals.sources.text_tables import column_names  # slow to import, and seldom needed

    wanted = {entry["columns"][label] for label in ("cell_type", "domain")}
    tables = [path for key, path in files.items() if key.rpartition("/")[2] in ("cells", "metadata")]
    own = _from_headers(entry, files, lambda _: [column_names(path) for path in tables])
    return own is not None and not wanted & {c for names in own for c in names}


def _labels(entry: dict, coded: dict[str, tuple] | None) -> dict[str, list[str]] | None:
    """Column of obs -> its values; None where they are not known."""
    if entry["source"] == "simulated":
        told = entry["simulation"]
        numbers = {"cell_type": "n_types", "domain": "n_domains", "sample": "n_slides"}
        stems = {"cell_type": "type", "domain": "domain", "sample": "slide"}
        return {c: [f"{stems[c]}_{i}" for i in range(told[key])] for c, key in numbers.items()}
    if coded is None:
        return None
    # Without a column for it there is one sample, and it has the name of the file.
    return {"sample": [Path(entry["path"]).stem]} | {key: found[1] for key, found in coded.items()}


def _gene_set_faults(key: str, settings: dict) -> Iterator[str]:
    for place, source in enumerate(settings["gene_sets"]):
        if source in BUNDLED_GENE_SETS:
            continue
        from tissue_counterfactuals.gene_sets import read_gmt  # slow to import, and seldom needed

        try:
            read_gmt(source)
        except InputError as error:
            yield f"config: {key}.gene_sets[{place}]: {error}"


def _too_few_genes(key: str, wanted: int, name: str, genes: int) -> Iterator[str]:
    if wanted > genes:
        yield f"config: {key} is {wanted}, but {genes} genes of {name} are left at most; lower it."


def _unknown_gene(key: str, gene: str, name: str, genes: list[str] | None) -> Iterator[str]:
    if genes is not None and gene not in genes:
        near = nearest(gene, genes, n=1) or genes[:1]
        yield (
            f"config: {key} names {gene!r}, but {name} has no such gene; name one of its {len(genes)}, such as "
            f"{near[0]!r}."
        )
