"""A user's own question as a question file: nothing is held out, and neighbours are replaced or altered as the user says.

What is asked becomes donors, cell by cell, or factors of the neighbours' genes, so that every method that is told new or
altered neighbours can answer it.
"""

import difflib
import math

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.donors import edge_perturbation
from tissue_counterfactuals.question.folds import FEWEST_CELLS, Fold, Split, cells_of
from tissue_counterfactuals.question.nodes import NodePerturbation
from tissue_counterfactuals.question.question import DONORS, NODE, Question, fingerprint
from tissue_counterfactuals.question.settings import INTERVENTIONS
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
    validation_fraction: float = 0.1,
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
    focal = cells_of(slide, cell_type, domain)
    nothing = np.zeros(slide.n_obs, dtype=bool)
    validation = nothing.copy()
    n_validation = int(slide.n_obs * validation_fraction)
    rng = stream(seed, "validation_cells_of_question")
    validation[rng.choice(slide.n_obs, n_validation, replace=False)] = True
    split = Split(~validation, validation, nothing)
    rng = stream(seed, "donors_of_question", name)
    kind = DONORS
    if what == "shift_genes":
        kind, target, rule = NODE, domain, what
        found = _shifted(slide if genes is None else slide[:, genes], asked)
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
        target, rule = domain, what
        found = _donors(slide, graph, asked, focal, n_donors, rng)
    return Question(
        *(Fold(cell_type, domain, (target,)), split, focal, {(kind, target, rule): found}),
        *(protocol, seed, switches, graph_settings, fingerprint(slide), genes),
    )


def check_own(slide: AnnData, asked: dict) -> None:
    """Refuse a question about cells that the slide has not.

    Raises:
        InputError: one sentence.
    """
    types, domains = (slide.obs[c].astype(str) for c in ("cell_type", "domain"))
    senders = [*(asked["composition"] or {}), asked["remove_sender"], asked["add_sender"]]
    senders.append(asked["senders"])
    for key, label, present in (
        ("cell_type", asked["cell_type"], types),
        ("domain", asked["domain"], domains),
        ("move_to", asked["move_to"], domains),
        *(("composition or sender", label, types) for label in senders),
    ):
        known = sorted(present.unique())
        if label is not None and label not in known:
            near = difflib.get_close_matches(label, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise InputError(
                f"question {asked['name']}: {key} names {label!r}, which no cell of the slide has; {meant}"
            )
    n_focal = int(((types == asked["cell_type"]) & (domains == asked["domain"])).sum())
    if n_focal < FEWEST_CELLS:
        raise InputError(
            f"question {asked['name']}: the slide has {n_focal} cells of type {asked['cell_type']!r} in domain "
            f"{asked['domain']!r}, and at least {FEWEST_CELLS} are needed: ask about another type or domain."
        )


def _shifted(slide: AnnData, asked: dict) -> NodePerturbation:
    """The neighbours' counts of some genes, multiplied by a factor.

    Raises:
        InputError: a name that is neither a gene of the slide nor a gene set with one.
    """
    names, chosen = slide.var_names.astype(str), []
    for name in asked["shift_genes"]:
        genes = [name] if name in names else _set_of(name, names)
        if not genes:
            near = difflib.get_close_matches(name, names, n=3) or list(names[:3])
            raise InputError(
                f"question {asked['name']}: shift_genes names {name!r}, which is neither a gene of the slide nor a bundled "
                f"gene set that holds one; the nearest names are {', '.join(near)}."
            )
        chosen += genes
    types = slide.obs["cell_type"].cat.categories.astype(str)
    shifted = np.ones(len(types), bool) if asked["senders"] is None else types == asked["senders"]
    shift = np.zeros((len(types), len(names)), dtype=np.float32)
    shift[np.ix_(shifted, names.isin(chosen))] = (
        math.log(asked["factor"]) if asked["factor"] else -np.inf
    )
    return NodePerturbation(shift, scale="counts")


def _set_of(name: str, genes) -> list[str]:
    from tissue_counterfactuals import gene_sets
    from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS

    members = gene_sets.collect(BUNDLED_GENE_SETS).get(name, [])
    return [gene for gene in members if gene in genes]


def _donors(slide, graph, asked, focal, n_donors, rng) -> np.ndarray:
    """Donors (m, d) of a composition, or of the cells' own neighbourhood with a sender taken out or added."""
    if asked["composition"]:
        shares = np.array([*asked["composition"].values()], dtype=float)
        pools = [_pool(slide, label, asked["domain"]) for label in asked["composition"]]
        counts = rng.multinomial(n_donors, shares / shares.sum(), size=len(focal))
        return np.stack(
            [
                np.concatenate([_draw(rng, p, n) for p, n in zip(pools, row, strict=True)])
                for row in counts
            ]
        )
    removed, added = asked["remove_sender"], asked["add_sender"]
    is_removed = (slide.obs["cell_type"].astype(str) == removed).to_numpy()
    others = np.flatnonzero((slide.obs["domain"] == asked["domain"]).to_numpy() & ~is_removed)
    pool = None if added is None else _pool(slide, added, asked["domain"])
    n_added = 0 if added is None else max(1, round(asked["share"] * n_donors))
    rows = []
    for cell in focal:
        start, end = graph.indptr[cell : cell + 2]
        near, weight = graph.indices[start:end], graph.data[start:end].astype(float)
        weight = weight * ~is_removed[near]
        # Drawn as often as they weigh; where nobody is left, anybody of the domain.
        if weight.sum() > 0:
            kept = rng.choice(near, n_donors - n_added, p=weight / weight.sum())
        else:
            kept = _draw(rng, others, n_donors - n_added)
        rows.append(np.concatenate([kept, _draw(rng, pool, n_added)]) if n_added else kept)
    return np.stack(rows)


def _pool(slide, label, domain) -> np.ndarray:
    here = cells_of(slide, label, domain)
    return here if len(here) else np.flatnonzero((slide.obs["cell_type"] == label).to_numpy())


def _draw(rng, pool: np.ndarray, n: int) -> np.ndarray:
    return rng.choice(pool, n, replace=n > len(pool)) if n else np.empty(0, dtype=np.int64)
