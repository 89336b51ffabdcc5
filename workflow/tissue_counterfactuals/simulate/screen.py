"""A spatial screen whose spill-over is known: clones of tumour cells that carry guides, and recipients between them.

How a cell comes to its counts (u: cell, k: lost gene, l: signal, g: gene):

1. Place. Cells lie uniformly in a square; a share of them are recipients (T cells), the others tumour cells. A clone is
   a tumour cell and its nearest ones; all of it has lost the clone's gene, or, with a control guide, nothing. Of each
   member the guide is seen or missed (`missed`); a clone always keeps one call.
2. Secretion. Tumour cells secrete s_ul = smooth patches * noise, times exp(signal_change direction_kl) where k is lost;
   each signal raises two ligand genes of its sender. `shared` turns the directions of all losses into one.
3. Reception. r_ul = sum_v W_uv s_vl / sum_v W_uv over the tumour neighbours v, Gaussian weights of 20 micrometres.
4. Response. Recipients: log rate_ug = base + spillover sum_l log r_ul programmes_lg + region_effect patches_ug.
            Tumour cells: log rate_ug = base + ligands_gl log s_ul + autonomous own_kg + region_effect patches_ug.
   With `measured` the last genes are the lost ones: no gene of a programme; in tumour cells log rate -= direction_k log
   s_u, and _GONE more where k is lost.
   Patches of the recipients are smooth in space and know nothing of guides, but clones are patches too: near one guide
   the tissue differs from near another, whatever the guide does.
5. Counts. A share `spill` of what a cell is read to hold comes from its tumour neighbours, if it has any; then negative
   binomial at depth.

The truth stays with the slide: obs `target_true` (the lost gene of every member of a clone, called or not), `clone`,
and obsm["simulation_change"], the change of the log rate of each recipient against the same cell with no gene lost.
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

from tissue_counterfactuals.simulate.settings import LIGAND_GENES_PER_SIGNAL, ScreenSettings
from tissue_counterfactuals.simulate.tissue import patchwork
from tissue_counterfactuals.slide import make_slide
from tissue_counterfactuals.streams import stream

CONTROL = "Control"
TUMOUR, RECIPIENT = "cancer", "T cells"
_REACH_UM, _FARTHEST_UM = 20.0, 45.0
_SIGNALS, _REGIONS = 4, 3
_OVERDISPERSION, _DEPTH_NOISE, _SECRETION_NOISE, _PATCHINESS = 0.2, 0.4, 0.5, 0.3
_RESPONDING, _OWN = 0.4, 0.3
# Fall of the log rate of a lost gene.
_GONE = 5.0


def simulate_screen(**knobs: float) -> AnnData:
    """Simulate one section; the text of this module says how.

    Args:
        knobs: the keys of `ScreenSettings`, which says what they mean.

    Returns:
        A slide: `cell_type` cancer or T cells, `domain` as the authors of Cellina label it (perturbed: a tumour cell
        with any guide, and any other cell with such a neighbour), obs `target_raw` the called guide's gene, Control or
        "", and `guide_raw` the guide.

    Raises:
        InputError: unknown knobs, or knobs out of their range.
    """
    told = ScreenSettings.read(knobs, "screen")
    knobs, n = told.model_dump(), told.n_cells
    rng = stream(told.seed, "screen")
    names = [f"KO{k + 1}" for k in range(told.n_targets)]
    place = rng.uniform(0, np.sqrt(n / told.density_per_um2), (n, 2))
    recipient = rng.random(n) < told.recipient_share
    tumour = np.flatnonzero(~recipient)
    lost, clone = _grow_clones(rng, place, tumour, told)
    # Two guides for each target and four controls, as published; a clone carries one of them.
    guide = np.where(lost == 0, 1 + clone % 4, 1 + clone % 2)
    called = _call_guides(rng, lost, clone, told.missed)
    weights, touching = _tumour_weights(place, tumour)

    direction = rng.standard_normal((told.n_targets, _SIGNALS))
    direction = (1 - told.shared) * direction + told.shared * direction[0]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    log_secretion = np.stack([patchwork(rng, place[tumour]) for _ in range(_SIGNALS)], axis=1)
    log_secretion *= _PATCHINESS
    log_secretion += _SECRETION_NOISE * rng.standard_normal(log_secretion.shape)
    with_loss = log_secretion.copy()
    knocked_out = lost[tumour] > 0
    with_loss[knocked_out] += told.signal_change * direction[lost[tumour][knocked_out] - 1]
    log_received, without = (np.log(np.maximum(weights @ np.exp(s), 1e-6)) for s in (with_loss, log_secretion))

    g = told.n_genes
    n_ligands = LIGAND_GENES_PER_SIGNAL * _SIGNALS
    programmes = rng.standard_normal((_SIGNALS, g)) * (rng.random((_SIGNALS, g)) < _RESPONDING)
    programmes[:, :n_ligands] = 0
    own = rng.standard_normal((told.n_targets, g)) * (rng.random((told.n_targets, g)) < _OWN)
    lost_genes = np.arange(g - told.n_targets, g) if told.measured else np.arange(0)
    programmes[:, lost_genes] = own[:, lost_genes] = 0
    base = 0.7 * rng.standard_normal((2, g))
    regions = rng.standard_normal((2, _REGIONS, g)) / np.sqrt(_REGIONS)
    log_rate = np.empty((n, g))
    change = told.spillover * (log_received - without) @ programmes
    heard = recipient & touching
    change[~heard] = 0
    for code, members in enumerate((recipient, ~recipient)):
        patches = np.stack([patchwork(rng, place[members]) for _ in range(_REGIONS)], axis=1)
        log_rate[members] = base[code] + told.region_effect * patches @ regions[code]
    log_rate[heard] += told.spillover * without[heard] @ programmes + change[heard]
    log_rate[tumour, :n_ligands] += np.repeat(with_loss, LIGAND_GENES_PER_SIGNAL, axis=1)
    log_rate[tumour[knocked_out]] += told.autonomous * own[lost[tumour][knocked_out] - 1]
    for code, gene in enumerate(lost_genes, start=1):
        log_rate[tumour, gene] -= with_loss @ direction[code - 1] + _GONE * (lost[tumour] == code)
    counts = _draw_counts(rng, log_rate, weights, tumour, touching, told)

    target = np.array([CONTROL, *names], dtype=object)
    called_name, true_name = (np.where(codes >= 0, target[codes], "") for codes in (called, lost))
    beside = cKDTree(place[called >= 0]).query(place, distance_upper_bound=_FARTHEST_UM)[0]
    obs = pd.DataFrame(
        {
            "cell_type": np.where(recipient, RECIPIENT, TUMOUR),
            "domain": np.where(np.isfinite(beside), "perturbed", "control"),
            "sample": "screen",
            "target_raw": called_name,
            "guide_raw": np.where(called >= 0, called_name + np.char.mod("_%d", guide), ""),
            "target_true": true_name,
            "clone": clone,
        },
        index=[f"cell_{i}" for i in range(n)],
    )
    obs.loc[~recipient, "domain"] = np.where(called[tumour] >= 0, "perturbed", "control")
    genes = [f"ligand_{i}" for i in range(n_ligands)] + [f"gene_{i}" for i in range(g - n_ligands)]
    genes[len(genes) - len(lost_genes) :] = names[: len(lost_genes)]
    provenance = {"source": "simulated screen", "simulation": knobs, "filters": "[]"}
    slide = make_slide(counts, obs, pd.Index(genes), place, provenance)
    slide.obsm["simulation_change"] = change
    slide.uns["simulation"] = knobs
    return slide


def _grow_clones(rng, place, tumour, told):
    """(n,) lost gene of each cell (-1 no clone, 0 a control guide, 1.. the targets) and (n,) its clone (-1 none)."""
    n_clones = told.n_targets * told.clones_per_target
    kinds = np.repeat(np.arange(1, told.n_targets + 1), told.clones_per_target)
    n_control = round(told.control_share * n_clones)
    kinds = np.concatenate([kinds, np.zeros(n_control, int)])
    sizes = 1 + rng.poisson(told.clone_size - 1, len(kinds))
    lost, clone = (np.full(len(place), -1) for _ in range(2))
    most = 4 * int(sizes.max()) + 8
    seeds = rng.choice(tumour, len(kinds), replace=False)
    _, nearest = cKDTree(place[tumour]).query(place[seeds], k=min(most, len(tumour)))
    nearest = tumour[nearest]
    for number in rng.permutation(len(kinds)):
        free = nearest[number][clone[nearest[number]] < 0][: sizes[number]]
        lost[free], clone[free] = kinds[number], number
    return lost, clone


def _call_guides(rng, lost, clone, missed):
    """(n,) `lost` where the guide is seen, -1 elsewhere; each clone keeps the call of one member at least."""
    members = np.flatnonzero(clone >= 0)
    chance = rng.random(len(members))
    order = members[np.lexsort((chance, clone[members]))]
    first = np.unique(clone[order], return_index=True)[1]
    seen = np.zeros(len(lost), bool)
    seen[members[chance >= missed]] = True
    seen[order[first]] = True
    return np.where(seen, lost, -1)


def _tumour_weights(place, tumour):
    """(n, tumour) mean over the tumour neighbours of each cell but itself, and (n,) whether it has any."""
    pairs = cKDTree(place).sparse_distance_matrix(cKDTree(place[tumour]), _FARTHEST_UM, output_type="coo_matrix")
    apart = pairs.row != tumour[pairs.col]
    weight = np.exp(-0.5 * (pairs.data[apart] / _REACH_UM) ** 2)
    graph = sparse.csr_array((weight, (pairs.row[apart], pairs.col[apart])), shape=pairs.shape)
    degree = graph.sum(axis=1)
    scale = np.divide(1, degree, out=np.zeros_like(degree), where=degree > 0)
    return sparse.csr_array(sparse.diags_array(scale) @ graph), degree > 0


def _draw_counts(rng, log_rate, weights, tumour, touching, told):
    share = np.exp(log_rate - log_rate.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    if told.spill > 0:
        around = weights @ share[tumour]
        share[touching] = (1 - told.spill) * share[touching] + told.spill * around[touching]
    depth = told.depth * np.exp(_DEPTH_NOISE * rng.standard_normal(len(share)))
    mean = depth[:, None] * share
    mean *= rng.standard_gamma(1 / _OVERDISPERSION, mean.shape) * _OVERDISPERSION
    return sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
