"""Gene sets: read them, sort genes by where their products act, and ask whether genes are rich in a set."""

import lzma
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS

RESOURCES = Path(__file__).resolve().parents[2] / "resources" / "gene_sets"
BUNDLED = {name: RESOURCES / f"{name}_human.gmt.xz" for name in BUNDLED_GENE_SETS}
# Weights of genes in pathways, see `pathways`.
WEIGHTS = {name: RESOURCES / f"{name}.tsv.xz" for name in ("progeny_human", "progeny_mouse")}
LOCALIZATIONS = ("secreted", "membrane", "cytoplasmic")
# What a table says where no set has enough of the genes: never an empty file.
NO_SETS = "not applicable: no gene set holds {least} to {most} of the {n} genes"
OVER_REPRESENTATION = ("term", "n_term", "n_overlap", "p_value", "q_value", "genes", "status")
PRERANK = ("term", "n_term", "enrichment", "normalized_enrichment", "leading_genes", "status")
# With fewer other rankings no p value of `rank_among` could be 0.05.
FEWEST_OTHERS = 19


def read_gmt(path: str | Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file, plain or compressed with xz: name -> symbols, each once, in the order of the file.

    Raises:
        InputError: no such file, an empty or damaged one or one of another kind, a line without a name, a description
            and a gene, or a name that another line has.
    """
    sets = {}
    for number, (name, _, *genes) in enumerate(_lines(path), start=1):
        if name in sets:
            raise InputError(f"gene sets {path}, line {number}: there is a set {name!r} above; give it another name.")
        sets[name] = list(dict.fromkeys(filter(None, genes)))
    return sets


def _lines(path: str | Path) -> Iterator[list[str]]:
    """The fields of each line."""
    path, is_empty = Path(path), True
    if not path.is_file():
        raise InputError(f"gene sets {path}: there is no such file; name a GMT file or one of {', '.join(BUNDLED)}.")
    opener = lzma.open if path.suffix == ".xz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                is_empty = False
                # Enrichr writes a weight behind each gene: TP53,1.0.
                name, *fields = (field.strip() for field in line.rstrip("\r\n").split("\t"))
                fields = [name, *fields[:1], *(field.split(",")[0] for field in fields[1:])]
                if len(fields) < 3:
                    raise InputError(
                        f"gene sets {path}, line {number}: it has {len(fields)} tab-separated fields; a GMT line has a "
                        "name, a description and at least one gene."
                    )
                yield fields
    except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
        raise InputError(
            f"gene sets {path}: it is no text{' compressed with xz' * (path.suffix == '.xz')}, or damaged ({error}); "
            "give a GMT file."
        ) from error
    if is_empty:
        raise InputError(f"gene sets {path}: it is empty; give a GMT file.")


def file_of(source: str) -> Path:
    """The GMT file of a source: a name of `BUNDLED`, or a path."""
    return Path(BUNDLED.get(source, source))


def collect(sources: Iterable[str], genes: Iterable[str] = ()) -> dict[str, list[str]]:
    """The gene sets of several sources; see `file_of`.

    Args:
        genes: where their symbols are those of mouse, the sets of `BUNDLED`, whose are human, are left out: the few
            symbols that both species spell alike are no sample of a set.

    Raises:
        InputError: as `read_gmt`, or a set of one source has the name of one of another.
    """
    sets, left_out = {}, BUNDLED if of_mouse(genes) else ()
    for source in dict.fromkeys(sources):
        if source not in left_out:
            own = read_gmt(file_of(source))
            for name in own.keys() & sets.keys():
                raise InputError(f"gene sets {source}: another source has a set {name!r} too; give it another name.")
            sets |= own
    return sets


def of_mouse(genes: Iterable[str]) -> bool:
    """Whether symbols are rather those of mouse than those of man."""
    # It stands on this module.
    from tissue_counterfactuals import pathways

    genes = set(genes)
    return bool(genes) and pathways.fitting(genes) == "progeny_mouse"


def within(sets: dict[str, list[str]], genes: Iterable[str], least: int, most: int) -> dict[str, list[str]]:
    """Sets cut down to some genes, those with `least` to `most` of them left."""
    genes = set(genes)
    cut = {name: [g for g in members if g in genes] for name, members in sets.items()}
    return {name: members for name, members in cut.items() if least <= len(members) <= most}


def localize(genes: pd.Index, labels: pd.Series | None = None) -> tuple[pd.DataFrame, str]:
    """Where the products of genes act.

    Args:
        genes: symbols, (g,).
        labels: a class of `LOCALIZATIONS` for each gene, for slides that bring their own (simulated ones); they are
            taken where there are any.
    Returns:
        Bool (g, 3): secreted (GO extracellular space), membrane (GO plasma membrane), cytoplasmic (neither). A gene in
        both lists counts in both, as in the authors' code. And the source of the classes, in words.
    Raises:
        InputError: no gene is in either list, symbols are those of mouse, or a label is unknown.
    """
    if labels is not None:
        labels = pd.Series(np.asarray(labels, dtype=str), index=genes)
        unknown = ~labels.isin(LOCALIZATIONS)
        if unknown.any():
            gene = labels.index[unknown.to_numpy().argmax()]
            raise InputError(
                f"slide: var column 'localization' holds {labels[gene]!r} for gene {gene!r}; allowed are "
                f"{', '.join(LOCALIZATIONS)}."
            )
        classes = pd.DataFrame({c: (labels == c).to_numpy() for c in LOCALIZATIONS}, index=genes)
        return classes, "column localization of the slide"
    lists = read_gmt(BUNDLED["go_cc"])
    classes = pd.DataFrame({c: genes.isin(lists[c]) for c in ("secreted", "membrane")}, index=genes)
    mouse = of_mouse(genes)
    if mouse or not classes.to_numpy().any():
        first = f"{len(genes)} genes (the first is {genes[0]!r})"
        fault = f"the symbols of its {first} are those of mouse" if mouse else f"none of its {first} is known"
        raise InputError(
            f"slide: {fault}: the lists of secreted and membrane genes hold human symbols; give such symbols, or a var "
            "column 'localization'."
        )
    classes["cytoplasmic"] = ~classes.any(axis=1)
    return classes, "GO:0005615 and GO:0005886 of 2022-07-01"


def over_representation(
    members: Iterable[str],
    background: Iterable[str],
    sets: dict[str, list[str]],
    least: int = 5,
    most: int = 500,
) -> pd.DataFrame:
    """Sets that some genes hold more of than chance: hypergeometric test against a background, Benjamini-Hochberg.

    Args:
        members: the genes in question, part of the background.
        background: all genes that could have been among them: those of the model, not the genome.
        least, most: how many genes of the background a set must hold to be tested.
    Returns:
        A row for each set that shares a gene with `members` (columns OVER_REPRESENTATION, smallest p first), or one
        row that says why there is none. q values count the tested sets that share no gene as well.
    """
    background, members = list(dict.fromkeys(background)), list(dict.fromkeys(members))
    tested = within(sets, background, least, most)
    if not tested:
        return _not_applicable(NO_SETS.format(least=least, most=most, n=len(background)), OVER_REPRESENTATION)
    import gseapy

    enriched = gseapy.enrich(members, tested, background=background, outdir=None, no_plot=True)
    found = getattr(enriched, "res2d", None)
    if found is None or len(found) == 0:
        return _not_applicable("not applicable: no gene of the cluster is in a gene set", OVER_REPRESENTATION)
    p_values = found["P-value"].to_numpy(np.float64)
    table = pd.DataFrame(
        {
            "term": found["Term"],
            "n_term": found["Term"].map(lambda name: len(tested[name])),
            "n_overlap": [int(text.split("/")[0]) for text in found["Overlap"]],
            "p_value": p_values,
            "q_value": benjamini_hochberg(p_values, len(tested)),
            "genes": [" ".join(sorted(text.split(";"))) for text in found["Genes"]],
            "status": "ok",
        }
    )
    return table.sort_values(["p_value", "term"], ignore_index=True)


def benjamini_hochberg(p_values: np.ndarray, n_tests: int | None = None) -> np.ndarray:
    """False discovery rates of p values, (n,); further tests up to `n_tests` count as having p = 1. NaN stays NaN and
    takes no part.
    """
    p_values = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    raised = p_values[order] * (n_tests or len(order)) / np.arange(1, len(order) + 1)
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return adjusted


def prerank(
    ranking: pd.Series,
    sets: dict[str, list[str]],
    least: int = 15,
    most: int = 500,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Gene set enrichment along a ranking of genes (GSEA, pre-ranked, gene permutation).

    No p value: GSEA's takes genes for independent, and calls sets of genes that go together significant too often; see
    `rank_among`.

    Args:
        ranking: finite value per gene, index = symbols; the highest come first.
        least, most: how many genes of the ranking a set must hold.
    Returns:
        A row for each tested set (columns PRERANK, largest absolute normalised enrichment first), or one row that says
        why there is none.
    """
    tested = within(sets, ranking.index, least, most)
    if not tested:
        return _not_applicable(NO_SETS.format(least=least, most=most, n=len(ranking)), PRERANK)
    if np.ptp(ranking.to_numpy()) == 0:
        return _not_applicable("not applicable: all genes have the same value, so they have no order", PRERANK)
    import gseapy

    # Ties would be broken by position; genes in alphabetical order make that independent of the slide.
    ordered = ranking.sort_index().sort_values(ascending=False, kind="stable")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = gseapy.prerank(
            ordered,
            tested,
            min_size=least,
            max_size=most,
            permutation_num=n_permutations,
            threads=1,
            seed=seed,
            outdir=None,
            no_plot=True,
        )
    found = done.res2d
    table = pd.DataFrame(
        {
            "term": found["Term"],
            "n_term": found["Term"].map(lambda name: len(tested[name])),
            "enrichment": found["ES"].astype(np.float64),
            "normalized_enrichment": found["NES"].astype(np.float64),
            "leading_genes": found["Lead_genes"].str.replace(";", " "),
            "status": "ok",
        }
    )
    order = table["normalized_enrichment"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def rank_among(found: pd.DataFrame, others: list[pd.DataFrame]) -> pd.DataFrame:
    """A table of `prerank` with p_value, q_value and smallest_p, which are blank with fewer than FEWEST_OTHERS others.

    p ranks the absolute normalised enrichment of a set among those of the same set in other rankings (tables of
    `prerank`), of which this one is none in particular under the null; q is Benjamini-Hochberg's over the sets.
    """
    null = {i: other.set_index("term")["normalized_enrichment"].abs() for i, other in enumerate(others)}
    null = pd.DataFrame(null, index=found["term"], dtype=float).to_numpy()
    own = found["normalized_enrichment"].abs().to_numpy(float)
    n = np.isfinite(null).sum(axis=1)
    smallest = np.where((n >= FEWEST_OTHERS) & np.isfinite(own), 1 / (1 + n), np.nan)
    p_value = smallest * (1 + (null >= own[:, None]).sum(axis=1))
    return found.assign(p_value=p_value, q_value=benjamini_hochberg(p_value), smallest_p=smallest)


def _not_applicable(reason: str, columns: tuple[str, ...]) -> pd.DataFrame:
    row = dict.fromkeys(columns, np.nan) | {"term": "-", "status": reason}
    texts = {c: "" for c in ("genes", "leading_genes") if c in columns}
    return pd.DataFrame([row | texts], columns=list(columns))
