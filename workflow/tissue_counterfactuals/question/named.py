"""What a question names or asks for, against what there is: a sentence for each that is not there.

Nothing slow is imported at the top: planning a run checks questions against the headers of files.
"""

import difflib
from collections.abc import Iterable

from tissue_counterfactuals.errors import InputError

# Ceilings and some scores halve a group, and a comparison needs two cells.
FEWEST_CELLS = 4


def label_faults(asked: dict, labels: dict[str, list[str]]) -> list[str]:
    """What a question names and the slide has not, a sentence each.

    Args:
        labels: column of obs -> its values, as text; of cell_type, domain and sample, and of further columns.
    """
    named = [
        ("cell_type", asked["cell_type"], "cell_type"),
        ("domain", asked["domain"], "domain"),
        ("sample", asked["sample"], "sample"),
        *((key, asked[key], "domain") for key in ("move_to", "shift_towards")),
        *(("composition", label, "cell_type") for label in asked["composition"] or {}),
        *((key, asked[key], "cell_type") for key in ("remove_sender", "add_sender", "senders")),
        *((f"where.{column}", str(value), column) for column, value in asked["where"].items()),
        *(("weights", label, "cell_type") for label in _types_of_weights(asked)),
    ]
    faults = []
    for key, label, column in named:
        if column not in labels:
            faults.append(f"{key}: the slide has no column {column!r}; name it under keep_columns of the data set.")
        elif label is not None and label not in labels[column]:
            faults.append(no_such_label(key, label, labels[column]))
    return faults


def too_few_cells(asked: dict, n_focal: int) -> list[str]:
    """A sentence where a question has fewer focal cells than it takes."""
    if n_focal >= FEWEST_CELLS:
        return []
    further = {"sample": asked["sample"]} if asked["sample"] else {}
    further |= asked["where"]
    told = [f"type {asked['cell_type']!r} in domain {asked['domain']!r}"]
    told += [f"{column} {value!r}" for column, value in further.items()]
    return [
        f"cell_type: the slide has {n_focal} cells of {', '.join(told)}, and at least {FEWEST_CELLS} are needed; ask "
        "about another type or domain."
    ]


def too_many_neighbors(key: str, wanted: int, of: str, cells: int) -> list[str]:
    """A sentence where a cell of a sample would have more neighbours than there are others."""
    if wanted < cells:
        return []
    return [
        f"{key} is {wanted}, but {of} has {cells} cells, so that everybody would be everybody's neighbour; lower it, "
        "or leave the sample out with `samples`."
    ]


def no_such_label(key: str, label: str, known: list[str]) -> str:
    """The sentence on a label that no cell has."""
    near = nearest(label, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)[:30])}."
    return f"{key} names {label!r}, which no cell of the slide has; {meant}"


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The names that are most like one, up to `n`, the same one in other capitals first; none where none is near."""
    by_folded: dict[str, list[str]] = {}
    for other in known:
        by_folded.setdefault(other.casefold(), []).append(other)
    near = difflib.get_close_matches(name.casefold(), by_folded, n=n)
    return [other for folded in near for other in by_folded[folded]][:n]


def gene_faults(asked: dict, genes: list[str], variable: bool = False) -> list[str]:
    """Genes, gene sets and pathways that a question names and the slide has not, a sentence each.

    Args:
        variable: `genes` are the variable ones alone; what others the data have is not known here.
    """
    faults, known = [], set(genes)
    place = f"among the {len(genes)} variable genes that are modelled" if variable else "a gene of the slide"
    more = " If the data have it, raise preprocess.n_top_genes (null keeps all genes)." if variable else ""
    for key in ("shift_genes", "knock_out"):
        for name in asked[key] or []:
            if name in known or (key == "shift_genes" and known & {*members_of_set(name, genes)}):
                continue
            if key == "shift_genes":
                neither = f"neither {place} nor a bundled gene set, of human symbols, that holds one"
            else:
                neither = f"not {place}" if variable else "no gene of the slide"
            near = nearest(name, genes)
            told = f"the nearest names are {', '.join(near)}" if near else f"the first are {', '.join(genes[:3])}"
            faults.append(f"{key} names {name!r}, which is {neither}; {told}.{more}")
    if asked["shift_pathway"]:
        try:
            pathway_change(asked, genes)
        except InputError as error:
            faults.append(str(error))
    return faults


def _types_of_weights(asked: dict) -> list[str]:
    """Types that have weights of their own; none of a table that cannot be read, which `gene_faults` tells."""
    if not (asked["shift_pathway"] and asked["weights"]):
        return []
    from tissue_counterfactuals import pathways

    try:
        table = pathways.read_weights(asked["weights"], by_type=True)
    except InputError:
        return []
    own = table[table["source"] == asked["shift_pathway"]]
    return [*own["cell_type"].unique()] if "cell_type" in own else []


def pathway_change(asked: dict, genes: list[str]):
    """Log change by gene (a frame) of a stimulated pathway, in the genes of the slide: a column for each type that has
    weights of its own, or one named "" for all types.

    Raises:
        InputError: no such pathway, or one of which the slide has no gene.
    """
    from tissue_counterfactuals import pathways

    source = asked["weights"] or pathways.fitting(genes)
    if source is None:
        raise InputError(
            f"shift_pathway: no gene of the slide is in PROGENy (the first is {genes[0]!r}); give weights of your own."
        )
    table = pathways.read_weights(source, by_type=True)
    known = sorted(table["source"].unique())
    if asked["shift_pathway"] not in known:
        near = nearest(asked["shift_pathway"], known, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
        raise InputError(f"shift_pathway names {asked['shift_pathway']!r}, of which {source} has no weights; {meant}")
    of_pathway = table[table["source"] == asked["shift_pathway"]]
    own = of_pathway[of_pathway["target"].isin(genes)]
    if not own["weight"].any():
        raise InputError(
            f"shift_pathway: of {asked['shift_pathway']} the slide has no gene with a weight; ask about another "
            "pathway."
        )
    if "cell_type" not in own:
        own = own.assign(cell_type="")
    order = own["weight"].abs().sort_values(ascending=False, kind="stable").index
    own = own.loc[order].groupby("cell_type").head(asked["top_genes"])
    wide = own.pivot(index="target", columns="cell_type", values="weight").fillna(0.0)
    # Log changes by type are taken as they are by one dose, whichever of their genes the slide has.
    of_dose = of_pathway if "cell_type" in table else own
    return wide / of_dose["weight"].abs().max() * asked["dose"]


def members_of_set(name: str, genes: Iterable[str]) -> list[str]:
    """The genes of a bundled set; none where there is no such set, or where `genes`, those of the slide, are those of
    mouse: the few symbols that it would share with a human set are not that set.
    """
    from tissue_counterfactuals import gene_sets
    from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS

    return gene_sets.collect(BUNDLED_GENE_SETS, genes).get(name, [])
