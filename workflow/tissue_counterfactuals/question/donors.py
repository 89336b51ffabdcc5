"""Edge perturbations as data: which cells stand around a focal cell afterwards. No model is involved.

A counterfactual question is "what would this control cell express if it stood in the target domain?". The edge
perturbation (Cellina, section 3.3) cuts the focal cell's edges and gives it donors instead. Who may be a donor is
not settled by the paper's text alone and changes the answer, so it is a named rule:

- `published`: neighbours of the held-out cells in the target domain, without the held-out type (the paper;
  `restrict_to_domain=False` repeats the authors' code, which crosses the border of the domain). Where the held-out
  type is its own main neighbour this asks a different question than the one that is scored.
- `any_type`: every training cell of the target domain, wherever it stands.
- `matched`: cell types in the proportions of the real neighbourhoods of the held-out cells. Training cells of the
  target domain stand for their type; the held-out type, which has none there, is stood for by its training cells
  of other domains.
"""

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.folds import Fold, Split, cells_of
from tissue_counterfactuals.streams import stream

DONOR_RULES = ("published", "any_type", "matched")


@dataclass(frozen=True)
class EdgePerturbation:
    """New neighbours: row i of `donors` (m, d) lists the cells around `focal[i]` (m,) afterwards."""

    focal: np.ndarray
    donors: np.ndarray

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """Donors (m, d), each row in an order of its own, for methods that take only the first few.

        Rules may list them type by type.
        """
        return rng.permuted(self.donors, axis=1)

    def graph(self, n_cells: int) -> sparse.csr_array:
        """The new edges as a (m, n_cells) matrix; every donor has weight 1, as run in the authors' code."""
        m, d = self.donors.shape
        return sparse.csr_array(
            (
                np.ones(m * d, np.float32),
                self.donors.astype(np.int32).ravel(),
                np.arange(0, m * d + 1, d),
            ),
            shape=(m, n_cells),
        )


def edge_perturbation(
    slide: AnnData,
    graph: sparse.csr_array,
    split: Split,
    cell_type: str,
    target: str,
    focal: np.ndarray,
    rule: str = "published",
    restrict_to_domain: bool = True,
    n_donors: int = 50,
    seed: int = 0,
    fold: Fold | None = None,
) -> EdgePerturbation:
    """Give every focal cell `n_donors` new neighbours under a donor rule.

    Args:
        slide: the slide, n cells.
        graph: (n, n) graph of all cells, held-out ones included: it says who stands around the held-out cells.
        split: held-out cells are never donors.
        cell_type, target: the held-out type and the domain it is imagined in.
        focal: indices (m,) of the cells to move, usually the control cells of the type.
        rule: one of `DONOR_RULES`.
        restrict_to_domain: for `published` only, see the module's text.
        n_donors: donors per focal cell, drawn without replacement; `matched` draws some twice where a type has fewer
            cells than it is to give.
        seed: of the draw; focal cells are served in order from one generator.
        fold: where a patient is left out whole, donors are this patient's own cells, though nobody trained on them:
            they are what is asked, not what is answered.

    Raises:
        InputError: an unknown rule; under `published` and `any_type` fewer donors than `n_donors`; under `matched`
            held-out cells without neighbours that somebody could stand for.
    """
    rng = stream(seed, "donors")
    held_out_here, available = cells_of(slide, cell_type, target), ~split.held_out
    if fold is not None and fold.samples:
        held_out_here = fold.cells(slide, target)
        available = fold.asked_about(slide) & ~fold.answers(slide)
    if rule == "matched":
        donors = _matched_donors(slide, graph, available, held_out_here, target, focal, n_donors, rng)
        return EdgePerturbation(focal, donors)
    if rule == "published":
        pool = np.unique(graph[held_out_here].indices)
        keep = (slide.obs["cell_type"].to_numpy()[pool] != cell_type) & available[pool]
        pool = pool[keep]
        if restrict_to_domain:
            pool = pool[slide.obs["domain"].to_numpy()[pool] == target]
    elif rule == "any_type":
        pool = np.flatnonzero((slide.obs["domain"] == target).to_numpy() & available)
    else:
        raise InputError(f"config: counterfactual.donor_rules holds {rule!r}; allowed are {', '.join(DONOR_RULES)}.")
    if len(pool) < n_donors:
        raise InputError(
            f"held-out type {cell_type!r} in {target!r}: donor rule {rule!r} finds {len(pool)} donors, and "
            f"{n_donors} are drawn for each cell: lower counterfactual.n_donors or choose another donor rule."
        )
    donors = np.stack([rng.choice(pool, n_donors, replace=False) for _ in range(len(focal))])
    return EdgePerturbation(focal, donors)


def _matched_donors(slide, graph, available, held_out_here, target, focal, n_donors, rng):
    """Donors whose types follow the composition around the held-out cells, weighted as the graph weighs them; of a type
    that has no cell to give in the target domain, from anywhere, the focal cell itself left out.
    """
    cell_type = slide.obs["cell_type"].astype("category")
    codes = cell_type.cat.codes.to_numpy()
    one_hot = sparse.csr_array(
        (np.ones(len(codes), np.float32), codes, np.arange(len(codes) + 1)),
        shape=(len(codes), len(cell_type.cat.categories)),
    )
    received = (graph[held_out_here] @ one_hot).sum(axis=0)
    in_target = available & (slide.obs["domain"] == target).to_numpy()
    pools = []
    for code in range(len(cell_type.cat.categories)):
        pool = np.flatnonzero(in_target & (codes == code))
        pools.append(pool if len(pool) else np.flatnonzero(available & (codes == code)))
    # In double precision: shares that add up to more than 1 by rounding are refused.
    share = received.astype(np.float64) * [len(pool) > np.isin(pool, focal).any() for pool in pools]
    if share.sum() == 0:
        raise InputError(
            f"domain {target!r}: the held-out cells have no neighbours whose composition donors could match: use "
            "another donor rule or a wider graph.bandwidth_um."
        )
    counts = rng.multinomial(n_donors, share / share.sum(), size=len(focal))
    donors = np.empty((len(focal), n_donors), dtype=np.int64)
    for i, per_type in enumerate(counts):
        donors[i] = np.concatenate([others(pools[code], focal[i], n, rng) for code, n in enumerate(per_type)])
    return donors


def others(pool: np.ndarray, cell: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` cells of a pool (ascending), twice only where it has fewer; nobody stands beside itself."""
    if not n:
        return np.empty(0, dtype=np.int64)
    at = np.searchsorted(pool, cell)
    # Its place is left out, and no copy made: a pool may be all cells, and there is a draw for each of them.
    itself = int(at < len(pool) and pool[at] == cell)
    places = rng.choice(len(pool) - itself, n, replace=n > len(pool) - itself)
    return pool[places + itself * (places >= at)]
