"""A user's own question as a question file: nothing is held out, and neighbours are replaced or altered as the user
says.

What is asked becomes donors, cell by cell, or a change of what neighbours express, so that every method that is told
new or altered neighbours can answer it; or genes that are taken out of the focal cells themselves.
"""

import math

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question import INTERVENTIONS
from tissue_counterfactuals.question.donors import edge_perturbation, others
from tissue_counterfactuals.question.folds import Fold, Split, cells_of
from tissue_counterfactuals.question.named import (
    gene_faults,
    label_faults,
    members_of_set,
    pathway_change,
    too_few_cells,
)
from tissue_counterfactuals.question.nodes import NodePerturbation, altered_cells, pseudobulk_shift
from tissue_counterfactuals.question.question import DONORS, NODE, OWN, Question, fingerprint
from tissue_counterfactuals.streams import stream


def intervention_of(asked: dict) -> str:
    """Which of `INTERVENTIONS` a question of the configuration names."""
    return next(key for key in INTERVENTIONS if asked[key] is not None)


def ask_own(
    slide: AnnData,
    graph: sparse.csr_array,
    asked: dict,
    protocol: str,
    seed: int,
    switches: dict[str, str],
    graph_settings: dict[str, float],
    n_donors: int,
    validation_fraction: float,
    genes: np.ndarray | None = None,
) -> Question:
    """Draw the split and the donors of a user's question.

    Args:
        graph: (n, n) graph of all cells under `graph_settings`.
        asked: keys of `UserQuestion`.
        n_donors: new neighbours per focal cell, all of the same weight.

    Raises:
        InputError: the slide has not the cells that the question names, or too few of them.
    """
    name, what = asked["name"], intervention_of(asked)
    check_own(slide, asked)
    cell_type, domain = asked["cell_type"], asked["domain"]
    focal = np.flatnonzero(_focal(slide, asked))
    split = _split_all(slide.n_obs, seed, validation_fraction)
    rng = stream(seed, "donors_of_question", name)
    shown = slide if genes is None else slide[:, genes]
    if faults := gene_faults(asked, list(shown.var_names.astype(str)), genes is not None):
        raise InputError(f"question {name}: {faults[0]}")
    kind, target, rule = DONORS, domain, what
    if INTERVENTIONS[what] == "node":
        kind, found = NODE, _shifted(shown, graph, asked, focal, seed)
    elif what == "knock_out":
        kind, found = OWN, np.flatnonzero(_named(shown, asked, what))
    elif what == "move_to":
        target, rule = asked["move_to"], asked["donor_rule"]
        restricted = switches["donor_domain"] == "target_only"
        found = edge_perturbation(
            *(slide, graph, split, cell_type, target, focal, rule),
            restrict_to_domain=restricted,
            n_donors=n_donors,
            seed=seed,
        ).donors
    else:
        found = _donors(slide, graph, asked, focal, n_donors, rng)
    return Question(
        *(Fold(cell_type, domain, (target,)), split, focal, {(kind, target, rule): found}),
        *(protocol, seed, switches, graph_settings, fingerprint(slide), genes),
    )


def ask_nothing(
    slide: AnnData,
    protocol: str,
    seed: int,
    switches: dict[str, str],
    graph_settings: dict[str, float],
    validation_fraction: float,
    genes: np.ndarray | None = None,
) -> Question:
    """The question behind models of a whole slide, whose latents or costs are looked at: nobody is held out or moved.

    Its fold bears the name of the most frequent type and domain, because methods may name one.
    """
    kind, domain = (slide.obs[c].astype(str).value_counts().idxmax() for c in ("cell_type", "domain"))
    split = _split_all(slide.n_obs, seed, validation_fraction)
    nobody = np.empty(0, dtype=np.int32)
    rest = (protocol, seed, switches, graph_settings, fingerprint(slide), genes)
    return Question(Fold(kind, domain, ()), split, nobody, {}, *rest)


def _split_all(n_cells: int, seed: int, validation_fraction: float) -> Split:
    """Random cells validate, all others train."""
    nothing = np.zeros(n_cells, dtype=bool)
    validation = nothing.copy()
    rng = stream(seed, "validation_cells_of_question")
    validation[rng.choice(n_cells, int(n_cells * validation_fraction), replace=False)] = True
    return Split(~validation, validation, nothing)


def check_own(slide: AnnData, asked: dict) -> None:
    """Refuse a question about cells that the slide has not.

    Raises:
        InputError: one sentence.
    """
    columns = {"cell_type", "domain", "sample", *asked["where"]} & {*slide.obs}
    present = {c: [*slide.obs[c].dropna().astype(str).unique()] for c in columns}
    faults = label_faults(asked, present) or too_few_cells(asked, int(_focal(slide, asked).sum()))
    if faults:
        raise InputError(f"question {asked['name']}: {faults[0]}")


def _focal(slide: AnnData, asked: dict) -> np.ndarray:
    chosen = {key: asked[key] for key in ("cell_type", "domain", "sample") if asked[key]}
    mask = np.ones(slide.n_obs, dtype=bool)
    for column, value in (chosen | asked["where"]).items():
        mask &= (slide.obs[column].astype(str) == str(value)).to_numpy()
    return mask


def _named(slide: AnnData, asked: dict, key: str) -> np.ndarray:
    """Mask (genes,) of the genes, and genes of sets, that `shift_genes` or `knock_out` names."""
    names = slide.var_names.astype(str)
    return names.isin(sum(([n] if n in names else members_of_set(n, names) for n in asked[key]), []))


def _shifted(slide, graph, asked, focal, seed) -> NodePerturbation:
    """What neighbours express afterwards."""
    labels = slide.obs["cell_type"].cat.categories.astype(str)
    shift = np.zeros((len(labels), slide.n_vars), dtype=np.float32)
    if asked["shift_towards"]:
        nothing = np.zeros(slide.n_obs, dtype=bool)
        shift += asked["dose"] * pseudobulk_shift(
            *(slide, asked["domain"], asked["shift_towards"], nothing),
            n_genes=asked["top_genes"],
            by_type=asked["by_type"],
        )
    elif asked["shift_pathway"]:
        change = pathway_change(asked, list(slide.var_names.astype(str)))
        of_types = change.reindex(columns=[""] * len(labels) if "" in change else labels, fill_value=0.0)
        shift[:, slide.var_names.get_indexer(change.index)] = of_types.to_numpy().T
    else:
        chosen = _named(slide, asked, "shift_genes")
        shift[:, chosen] = math.log(asked["factor"]) if asked["factor"] else -np.inf
    senders = None
    if asked["senders"]:
        senders = (slide.obs["cell_type"].astype(str) == asked["senders"]).to_numpy()
        shift[labels != asked["senders"]] = 0
        if not shift.any():
            unknown = f"shift_towards: it has no cells in {asked['domain']!r} or none in {asked['shift_towards']!r}"
            why = unknown if asked["shift_towards"] else "weights: they have none of it"
            raise InputError(
                f"question {asked['name']}: senders names {asked['senders']!r}, whose change is not known from {why}; "
                "name another type."
            )
    scale = asked["scale"] or ("counts" if asked["shift_genes"] else "own")
    who = asked["cells"], asked["share_of_senders"]
    cells = altered_cells(*who, seed, graph, focal, asked["name"], senders=senders)
    if cells is not None and not len(cells):
        raise InputError(
            f"question {asked['name']}: share_of_senders is {asked['share_of_senders']:g}, which is none of the cells "
            "that could be altered; give a larger share, or name other senders."
        )
    # Not `by_type`: intervals hold better where types whose answer is known are asked with their own change.
    origin = {"towards": asked["shift_towards"], "dose": asked["dose"]} if asked["shift_towards"] else {}
    return NodePerturbation(shift, cells, scale, origin)


def _donors(slide, graph, asked, focal, n_donors, rng) -> np.ndarray:
    """Donors (m, d) of a composition, or of the cells' own neighbourhood with a sender taken out or added."""
    if asked["composition"]:
        shares = np.array([*asked["composition"].values()], dtype=float)
        pools = [_pool(slide, label, asked["domain"]) for label in asked["composition"]]
        counts = rng.multinomial(n_donors, shares / shares.sum(), size=len(focal))
        return np.stack(
            [
                np.concatenate(
                    [
                        _others(asked, f"composition names {label!r}", pool, cell, n, rng)
                        for label, pool, n in zip(asked["composition"], pools, row, strict=True)
                    ]
                )
                for cell, row in zip(focal, counts, strict=True)
            ]
        )
    removed, added = asked["remove_sender"], asked["add_sender"]
    is_removed = (slide.obs["cell_type"].astype(str) == removed).to_numpy()
    anybody = np.flatnonzero((slide.obs["domain"] == asked["domain"]).to_numpy() & ~is_removed)
    pool = None if added is None else _pool(slide, added, asked["domain"])
    n_added = 0 if added is None else round(asked["share"] * n_donors)
    if added is not None and (n_added == 0 or n_added == n_donors and asked["share"] < 1):
        raise InputError(
            f"question {asked['name']}: share is {asked['share']:g}, which is {'all' if n_added else 'none'} of "
            f"{n_donors} new neighbours; raise counterfactual.n_donors."
        )
    rows = []
    for cell in focal:
        start, end = graph.indptr[cell : cell + 2]
        near, weight = graph.indices[start:end], graph.data[start:end].astype(float)
        weight = weight * ~is_removed[near]
        # Drawn as often as they weigh; where nobody is left, anybody of the domain.
        if weight.sum() > 0:
            kept = rng.choice(near, n_donors - n_added, p=weight / weight.sum())
        else:
            without = f"domain names {asked['domain']!r}" if removed is None else f"remove_sender names {removed!r}"
            kept = _others(asked, without, anybody, cell, n_donors - n_added, rng)
        if n_added:
            kept = np.concatenate([kept, _others(asked, f"add_sender names {added!r}", pool, cell, n_added, rng)])
        rows.append(kept)
    return np.stack(rows)


def _others(asked, what, pool, cell, n, rng) -> np.ndarray:
    """`others`, or why nobody can stand around a cell."""
    if n and not (pool[:2] != cell).any():
        raise InputError(
            f"question {asked['name']}: {what}, and then no other cell is there to stand around a focal cell in "
            f"{asked['domain']!r}; name another type, or another domain."
        )
    return others(pool, cell, n, rng)


def _pool(slide, label, domain) -> np.ndarray:
    here = cells_of(slide, label, domain)
    return here if len(here) else np.flatnonzero((slide.obs["cell_type"] == label).to_numpy())
