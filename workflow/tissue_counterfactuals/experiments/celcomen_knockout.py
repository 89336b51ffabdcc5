"""Fig. 3c-e of the Celcomen paper: knock a gene out of cells of a tumour and see what changes in and around them.

As run: one cell, read against the state at the start. Corrected: many cells that are far from each other, read against
a twin without knock-out. Under the gaussian log Z the exact counterfactual of the field stands beside the generated
one.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from scipy.spatial import KDTree

from tissue_counterfactuals import gene_sets
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import celcomen_glioblastoma as tumour
from tissue_counterfactuals.experiments import force_statistics, preparation
from tissue_counterfactuals.models.celcomen_counterfactual import Counterfactual, counterfactual
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_interventions import KnockOut
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, scale_cells
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.streams import stream

# Groups of cells around a knock-out, from the inside out; rings are one radius wide.
GROUPS = ("knocked_out", "neighbours_0", "neighbours_1", "rest")
# Of the genes that tell expressing cells from others the first is dropped, as run: it is the knocked-out one.
N_SIGNATURE = 25
# The authors' table of scores starts at this epoch.
FIRST_EPOCH_AS_RUN = 5
# The signature was chosen in this tissue for going along with the gene: it has a score along the change, and no p
# value.
OWN_SIGNATURE = "SIGNATURE_OF_{gene}"
NO_FIELD = "not applicable: only the gaussian log Z has an exact counterfactual"
_SPACING_RADII = 4
# Cells x genes that generation can hold, several times over: 1.6 GB each time.
_MOST_ENTRIES = 200_000_000


def knocked_out_cells(
    slide: AnnData, gene: str, graph: sparse.csr_array, settings: dict, switches: dict[str, str], seed: int
) -> np.ndarray:
    """Cells (k,) to knock the gene out of, ascending indices.

    Under `knockout_cells: one` a single draw among all expressing cells, with NumPy's older generator as run. Under
    `many` cells in random order, each with a neighbour and at least four radii from the ones before, so that their
    rings do not overlap, until there are `n_cells`.

    Args:
        settings: radius_um, knockout.n_cells.
    Raises:
        InputError: the slide has no such gene, or no cell that expresses it.
    """
    if gene not in slide.var_names:
        some = ", ".join(slide.var_names[:5])
        raise InputError(
            f"slide: the gene to knock out, {gene!r}, is not among its {slide.n_vars} genes ({some}, ...); change "
            "celcomen.glioblastoma.knockout.gene."
        )
    expressing = np.flatnonzero(_column(slide, gene) > 0)
    if not len(expressing):
        raise InputError(
            f"slide: no cell of the crop expresses {gene!r}; change celcomen.glioblastoma.knockout.gene or crop_um."
        )
    if switches["knockout_cells"] == "one":
        return np.random.RandomState(seed).choice(expressing, size=1)
    candidates = expressing[np.diff(graph.indptr)[expressing] > 0]
    if not len(candidates):
        raise InputError(
            f"slide: no cell that expresses {gene!r} has a neighbour; widen celcomen.glioblastoma.radius_um."
        )
    coords = slide.obsm["spatial"]
    tree = KDTree(coords)
    free, chosen = np.ones(slide.n_obs, bool), []
    for cell in stream(seed, "knockout_cells").permutation(candidates):
        if free[cell]:
            chosen.append(cell)
            free[tree.query_ball_point(coords[cell], _SPACING_RADII * settings["radius_um"])] = False
        if len(chosen) == settings["knockout"]["n_cells"]:
            break
    return np.sort(np.array(chosen))


def group_cells(slide: AnnData, cells: np.ndarray, radius_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Group of each cell (place in GROUPS), (n,), and the nearest knocked-out cell (place in `cells`), (n,).

    A cell nearer than one radius is in neighbours_0, nearer than two in neighbours_1.
    """
    distance, nearest = KDTree(slide.obsm["spatial"][cells]).query(slide.obsm["spatial"])
    group = np.where(distance < radius_um, 1, np.where(distance < 2 * radius_um, 2, 3))
    group[cells] = 0
    return group, nearest


def signature(slide: AnnData, gene: str, among: np.ndarray) -> list[str]:
    """Genes that mark the cells which express a gene: Wilcoxon test on log expression, best 25, the gene left out.

    Args:
        among: bool (n,), the cells to look at.
    Raises:
        InputError: all or none of these cells express the gene.
    """
    cells = slide[among].copy()
    positive = _column(cells, gene) > 0
    if min(positive.sum(), (~positive).sum()) < 2:
        raise InputError(
            f"slide: {positive.sum()} of {len(positive)} cells express {gene!r}, so nothing tells them from the "
            "others; change celcomen.glioblastoma.knockout.gene."
        )
    cells.obs["expresses"] = pd.Categorical(np.where(positive, "yes", "no"))
    # Scanpy asks how the logarithm was taken.
    cells.uns["log1p"] = {"base": None}
    sc.tl.rank_genes_groups(cells, "expresses", groups=["yes"], reference="no", method="wilcoxon")
    best = cells.uns["rank_genes_groups"]["names"]["yes"][:N_SIGNATURE]
    return [g for g in best if g != gene][: N_SIGNATURE - 1]


def scores(expression: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean over the signature's genes, (n,)."""
    return expression[:, columns].mean(axis=1, dtype=np.float64)


def by_site(values: np.ndarray, group: np.ndarray, nearest: np.ndarray) -> pd.DataFrame:
    """Mean of a value per group: over the cells around each knock-out first, then over knock-outs.

    The knocked-out cells are the unit: cells around one of them are not independent.

    Args:
        values: (n,). group, nearest: (n,), from `group_cells`.
    Returns:
        A row per group: group, n_cells, n_sites, effect, low, high: 95 % interval over sites (`mean_interval`, which
        tells none of few sites); NaN for the rest, whose cells are no sites.
    """
    rows = []
    for number, name in enumerate(GROUPS):
        members = group == number
        # The rest is one population, not something around a site.
        sites = nearest[members] if name != "rest" else np.arange(members.sum())
        means = pd.Series(values[members]).groupby(sites).mean().to_numpy()
        low = high = np.nan
        if name != "rest":
            low, high = force_statistics.mean_interval(means)
        rows.append(
            {
                "group": name,
                "n_cells": int(members.sum()),
                "n_sites": len(means),
                "effect": means.mean() if len(means) else np.nan,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def trajectories(done: Counterfactual, columns: np.ndarray, group: np.ndarray, nearest: np.ndarray) -> pd.DataFrame:
    """Signature score of each group at each epoch that was kept.

    Args:
        done: its snapshots after the first may be of the signature's genes alone. columns: these genes.
    Returns:
        A row for each epoch and group: `knocked_out` and `twin`, mean scores over the group's cells; `effect` with
        `low` and `high`, their difference over sites (see `by_site`); `z_as_run`, the score with knock-out z-scored
        over all epochs from 5 on and all groups, as in the published figure (empty before).
    """
    with_knockout, without = (_scores_by_epoch(run, columns) for run in (done.edited, done.twin))
    rows = []
    for epoch, own in with_knockout.items():
        pair = own, without[epoch]
        table = by_site(pair[0] - pair[1], group, nearest)
        table.insert(0, "epoch", epoch)
        for name, values in zip(("knocked_out", "twin"), pair, strict=True):
            table[name] = [
                values[group == number].mean() if (group == number).any() else np.nan for number in range(len(GROUPS))
            ]
        rows.append(table)
    table = pd.concat(rows, ignore_index=True)
    shown = table["epoch"] >= FIRST_EPOCH_AS_RUN
    values = table["knocked_out"][shown]
    table["z_as_run"] = ((values - values.mean()) / (values.std(ddof=0) or 1.0)).reindex(table.index)
    return table


def _scores_by_epoch(generation, columns: np.ndarray) -> dict[int, np.ndarray]:
    """Epoch -> `scores`; the result counts as the last epoch."""
    kept = {h["epoch"]: h["expression"] for h in generation.history if "expression" in h}
    kept |= {max(h["epoch"] for h in generation.history): generation.expression}
    whole = generation.expression.shape
    return {epoch: scores(x, columns if x.shape == whole else np.arange(len(columns))) for epoch, x in kept.items()}


def rank_genes(effect: np.ndarray, group: np.ndarray, genes: pd.Index, gene: str) -> pd.DataFrame:
    """Mean change of each gene in each group minus that in the rest (genes, groups), without the knocked-out gene."""
    rest = effect[group == GROUPS.index("rest")].mean(axis=0)
    columns = {
        name: effect[group == number].mean(axis=0) - rest
        for number, name in enumerate(GROUPS[:-1])
        if (group == number).any()
    }
    return pd.DataFrame(columns, index=genes).drop(index=gene)


def run(
    slide: Path, forces: Path, manifest: Path, settings: dict, switches: dict[str, str], outputs: dict[str, Path]
) -> None:
    """Knock out, and write cells, signature, trajectories, placebo, changes, enrichment and diagnostics (TSV).

    Args:
        settings: section celcomen.glioblastoma of the configuration.
        switches: of the steps inference, generation and celcomen_glioblastoma.
    Raises:
        InputError: the crop has too many cells to generate, or the gene cannot be knocked out in it.
    """
    fitted, record = preparation.read_forces(forces), json.loads(Path(manifest).read_text())
    tissue = tumour.prepare(read_slide(slide, check=False), settings, switches)
    if tissue.n_obs * tissue.n_vars > _MOST_ENTRIES:
        raise InputError(
            f"slide: {tissue.n_obs:,} cells x {tissue.n_vars} genes are too many to generate; set "
            "celcomen.glioblastoma.crop_um to a part of the slide."
        )
    graph = tumour.contacts(tissue, settings)
    sets = gene_sets.collect(settings["enrichment"]["gene_sets"], tissue.var_names)
    tables = {name: [] for name in outputs}
    for place, seed in enumerate(record["seeds"]):
        own = _knock_out(
            tissue, graph, fitted["inter"][place], fitted["intra"][place], sets, settings, switches, seed
        )  # fmt: skip
        for name, table in own.items():
            tables[name].append(preparation.keyed(table, record, seed))
    for name, path in outputs.items():
        write_tsv(pd.concat(tables[name], ignore_index=True), path, sort=False)


def _knock_out(tissue, graph, inter, intra, sets, settings, switches, seed):
    """The tables of one seed, by name."""
    gene, radius_um = settings["knockout"]["gene"], settings["radius_um"]
    cells = knocked_out_cells(tissue, gene, graph, settings, switches, seed)
    group, nearest = group_cells(tissue, cells, radius_um)
    # As run the signature is found in the cells it is scored in, the knocked-out one included.
    among = np.ones(tissue.n_obs, bool)
    if switches["knockout_cells"] == "many":
        among = group == GROUPS.index("rest")
    marks = signature(tissue, gene, among)
    columns = tissue.var_names.get_indexer(marks)
    place = int(tissue.var_names.get_loc(gene))
    done = counterfactual(
        sparse.csr_array(tissue.X),
        graph,
        inter,
        intra,
        [KnockOut(cells, [place])],
        epochs=settings["knockout"]["epochs"],
        learning_rate=settings["knockout"]["learning_rate"],
        switches=switches,
        columns=columns,
    )
    tracks = trajectories(done, columns, group, nearest)
    changes = {"generation": rank_genes(done.effect, group, tissue.var_names, gene)}
    tracks.insert(0, "method", "generation")
    exact, placebo, rankings = [], pd.DataFrame([{"gene": gene, "status": NO_FIELD}]), {}
    if switches["log_partition"] == "gaussian":
        field = ExactField(tissue, graph, inter, intra, switches)
        effect = field.effect(cells, place)
        changes["exact"] = rank_genes(effect, group, tissue.var_names, gene)
        exact = [by_site(scores(effect, columns), group, nearest).assign(method="exact")]

        def effect_of(other: str) -> pd.DataFrame:
            table, rankings[other] = knock_out_effect(tissue, graph, field, other, settings, switches, seed)
            return table

        candidates, n_placebo = placebo_genes(tissue, gene), settings["knockout"]["n_placebo"]
        placebo = compare_with_placebo(gene, candidates, n_placebo, effect_of).assign(status="ok", method="exact")
        del rankings[gene]
    x, y = tissue.obsm["spatial"].T
    everything = sets | {OWN_SIGNATURE.format(gene=gene): marks}
    return {
        "cells": pd.DataFrame({"x_um": x, "y_um": y, "group": np.array(GROUPS)[group], "gene": gene}),
        "signature": pd.DataFrame({"place": range(1, len(marks) + 1), "gene": marks}),
        "trajectories": pd.concat([tracks, *exact], ignore_index=True),
        "placebo": placebo,
        "changes": _long(changes),
        "enrichment": enrich(changes, list(rankings.values()), everything, gene, settings["enrichment"], seed),
        "diagnostics": _diagnostics(done),
    }


class ExactField:
    """What the Gaussian field itself changes in a tissue when a gene is held at 0: no steps, and no twin needed.

    On scaled cells, as the forces were fitted.
    """

    def __init__(self, tissue: AnnData, graph, inter, intra, switches: dict[str, str]):
        weights = interaction_weights(graph, switches["interaction_weights"])
        self.field = GaussianField(weights, inter, intra)
        self.cells = scale_cells(sparse.csr_array(tissue.X), switches["scale"]).toarray()

    def effect(self, cells: np.ndarray, gene: int) -> np.ndarray:
        """Change (n, g) of every entry with a gene (column) held at 0 in some cells (rows)."""
        clamp = np.zeros(self.cells.shape, bool)
        clamp[cells, gene] = True
        return self.field.counterfactual(self.cells, np.zeros_like(self.cells), clamp) - self.cells


def knock_out_effect(
    tissue: AnnData, graph, field: ExactField, gene: str, settings: dict, switches: dict, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the field makes of a knock-out in cells that express the gene: of its own signature (see `by_site`), and of
    every other gene (see `rank_genes`).

    Raises:
        InputError: no cell with a neighbour expresses it, or all do.
    """
    cells = knocked_out_cells(tissue, gene, graph, settings, switches, seed)
    group, site = group_cells(tissue, cells, settings["radius_um"])
    columns = tissue.var_names.get_indexer(signature(tissue, gene, group == GROUPS.index("rest")))
    effect = field.effect(cells, int(tissue.var_names.get_loc(gene)))
    return by_site(scores(effect, columns), group, site), rank_genes(effect, group, tissue.var_names, gene)


def placebo_genes(tissue: AnnData, gene: str) -> list[str]:
    """All other genes, the nearest in mean expression first."""
    mean = pd.Series(np.asarray(tissue.X.mean(axis=0)).ravel(), index=tissue.var_names)
    return list((mean - mean[gene]).abs().drop(gene).sort_values(kind="stable").index)


def compare_with_placebo(
    gene: str, candidates: Iterable[str], n_placebo: int, effect_of: Callable[[str], pd.DataFrame]
) -> pd.DataFrame:
    """A gene's knock-out among knock-outs of other genes, each through the whole procedure.

    A signature is chosen for going along with its gene, so it falls with it, whatever the gene. Each placebo therefore
    has cells and a signature of its own, as the gene has: where the gene is none in particular, each rank among them is
    equally likely (a test holds this against simulated tissues).

    Args:
        candidates: placebos, the first choice first; one whose knock-out is refused is passed over.
        effect_of: gene -> first table of its `knock_out_effect`.
    Returns:
        The rows of all effects with `gene`, `role` (gene or placebo), and `rank` of the effect in its group, 1 being
        the largest loss, among `n_ranked`.
    """
    tables, left = [effect_of(gene).assign(gene=gene, role="gene")], iter(candidates)
    while len(tables) <= n_placebo and (other := next(left, None)) is not None:
        try:
            tables.append(effect_of(other).assign(gene=other, role="placebo"))
        except InputError:
            continue
    table = pd.concat(tables, ignore_index=True)
    by_group = table.groupby("group")["effect"]
    return table.assign(rank=by_group.rank(method="min"), n_ranked=by_group.transform("count"))


def enrich(
    changes: dict[str, pd.DataFrame], placebos: list[pd.DataFrame], sets: dict, gene: str, settings: dict, seed: int
) -> pd.DataFrame:
    """GSEA of each group's ranking, with p values from knock-outs of other genes (see `gene_sets.rank_among`).

    Only the exact counterfactual of the field is made for other genes, so only it has p values; the signature has none
    (see OWN_SIGNATURE).

    Args:
        changes: method -> its table of `rank_genes`. placebos: the same of other genes, by the exact counterfactual.
        settings: min_size, max_size, n_permutations.
    """

    def scored(ranking: pd.Series, sets: dict) -> pd.DataFrame:
        limits = settings["min_size"], settings["max_size"]
        return gene_sets.prerank(ranking, sets, *limits, settings["n_permutations"], seed)

    own = OWN_SIGNATURE.format(gene=gene)
    rest, tables = {name: members for name, members in sets.items() if name != own}, []
    for method, ranking in changes.items():
        for group in ranking:
            others = [scored(other[group], rest) for other in placebos if method == "exact" and group in other]
            found = gene_sets.rank_among(scored(ranking[group], rest), others)
            signature = scored(ranking[group], {own: sets[own]})
            tables += [table.assign(method=method, group=group) for table in (signature, found)]
    return pd.concat(tables, ignore_index=True)


def _long(changes: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each method, gene and group."""
    tables = []
    for method, table in changes.items():
        long = table.rename_axis("gene").reset_index().melt("gene", var_name="group", value_name="change")
        tables.append(long.assign(method=method))
    return pd.concat(tables, ignore_index=True)


def _diagnostics(done: Counterfactual) -> pd.DataFrame:
    """What generation did to the tissue, with and without knock-out: after the last epoch that was recorded."""
    names = ("loss", "collapsed_cells", "negative_fraction", "constant_genes")
    rows = []
    for run_name, generation in (("knocked_out", done.edited), ("twin", done.twin)):
        last = generation.history[-1]
        drift = np.linalg.norm(generation.expression - generation.history[0]["expression"], axis=1)
        found = {name: last[name] for name in names} | {"mean_drift": drift.mean()}
        rows += [{"run": run_name, "name": k, "value": float(v)} for k, v in found.items()]
    return pd.DataFrame(rows)


def _column(slide: AnnData, gene: str) -> np.ndarray:
    """One gene's expression, (n,)."""
    return np.asarray(slide[:, gene].X.todense()).ravel()
