"""A tissue with a known causal mechanism, so that the true counterfactual of every cell exists.

How a cell comes to its counts (u: cell, t: its type, d: its domain, l: signal, g: gene):

1. Place. Cells lie uniformly in a square. Domains are bands side by side with wavy borders. A cell's type follows
   the composition of its domain, which drifts smoothly from patch to patch.
2. Secretion. s_ul = level[t, d, l] * smooth patches * noise of the cell. Every signal has two sender types; the
   level of the first depends on the domain.
3. Reception. r_ul = sum_v W_uv s_vl / sum_v W_uv over the neighbours v in the Gaussian graph of `graph.py` (its
   defaults: 100 micrometres, 200 neighbours, cutoff 0.1), and occupancy o_ul = r_ul / (r_ul + half_saturation[l]).
4. Response. log rate_ug = base[t, g] + sum_l ligands[g, l] log s_ul
                         + sum_l receptors[t, l] (o_ul - resting[l]) programmes[g, l] + direct[g, d].
   Programmes are shared by all types, receptors are not; `direct` is 0 unless `domain_effect` is set.
5. Counts. x_ug ~ negative binomial with mean library_u * softmax_g(log rate_u), variance m + overdispersion_g m^2.
6. Troubles, by default none. Counts spill into near cells; cells bear the label of another type. The truth is that of
   the cell itself: of its own type, without what spilled.

A counterfactual replaces r_u by what other donors give; type, own secretion, domain and library stay the cell's own.
Ligand genes tell a neighbour's secretion from its expression, so a model that sees only the expression around a cell
has all it needs while `domain_effect` is 0. A cell's own ligand genes (two per signal that its type sends) are the
one thing that differs between domains and no neighbour carries.

What the truth needs travels in the slide and survives the loss of cells or genes: uns["simulation"], var and varm
columns and obsm arrays whose names begin with "simulation".
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import gaussian_graph
from tissue_counterfactuals.simulate.mechanism import Mechanism, draw_mechanism, store_mechanism, stored_mechanism
from tissue_counterfactuals.simulate.settings import TissueSettings
from tissue_counterfactuals.streams import stream

# Standard deviation of the patches' covariance: about the kernel's, so that what cells receive still differs from
# place to place within a domain, and yet a domain holds many patches.
_PATCH_LENGTH_UM = 120.0
_WAVES_PER_PATCHWORK = 32
_GAP_BETWEEN_SLIDES_UM = 1000.0
# Knobs that spoil what is seen of a tissue, and not the tissue.
TROUBLES = ("confounding", "label_noise", "spill")
_NEAREST_OF_SPILL = 3
# Cells whose counts are drawn together by one generator; part of the result, so not a knob.
_CELLS_PER_BLOCK = 1000


def simulate_tissue(
    n_cells: int = 10_000, n_genes: int = 300, seed: int = 0, n_threads: int | None = None, **knobs: float
) -> AnnData:
    """Simulate slides that share one mechanism; the text of this module says which.

    With the defaults one half of the cells of a type in a domain predicts the other half with a Pearson correlation of
    0.97 on average over the 50 most changed genes between domain_0 and domain_1. Seeds differ: where two domains happen
    to send nearly the same signals it can be 0.75 (12 seeds, 120 comparisons; below 0.9 in 7).

    Args:
        n_cells, n_genes, seed, knobs: the keys of `TissueSettings`, which says what they mean.
        n_threads: default is $OMP_NUM_THREADS or all cores; the result does not depend on it.

    Returns:
        A slide of n_cells x n_genes, slide by slide, placed side by side 1 mm apart; cells without neighbours receive
        no signal.

    Raises:
        InputError: unknown knobs, or knobs out of their range.
    """
    given = {"n_cells": n_cells, "n_genes": n_genes, "seed": seed} | knobs
    told = TissueSettings.read(given, "simulation")
    if n_threads is None:
        n_threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))

    mechanism = draw_mechanism(told)
    sizes = [len(part) for part in np.array_split(np.arange(told.n_cells), told.n_slides)]
    slides, blocks, left_um = [], [], 0.0
    for number, size in enumerate(sizes):
        rng = stream(told.seed, "tissue_cells", number)
        side_um = np.sqrt(size / told.density_per_um2)
        cells = _place_cells(mechanism, rng, size, side_um, told.secretion_noise, told.patchiness)
        cells["received"] = _receive(gaussian_graph(cells["place"], n_threads=n_threads), cells["secretion"])
        noise = np.exp(told.library_noise * rng.standard_normal(size))
        cells["library"] = told.library_size * noise
        blocks += _draw_counts(mechanism, cells, told.seed, number, n_threads)
        cells["place"][:, 0] += left_um
        left_um += side_um + _GAP_BETWEEN_SLIDES_UM
        slides.append(cells)
    counts = _stack_blocks(blocks, told.n_genes)
    cells = {key: np.concatenate([slide[key] for slide in slides]) for key in slides[0]}
    if told.spill:
        counts = _spill(counts, cells["place"], told.spill, stream(told.seed, "tissue_spill"))
    slide_of = np.repeat(np.arange(told.n_slides), sizes)
    # Troubles that are off leave no trace.
    knobs = told.model_dump(exclude={name for name in TROUBLES if not getattr(told, name)})
    slide = _as_slide(mechanism, counts, cells, slide_of, knobs)
    if told.label_noise:
        slide.obsm["simulation_type"] = cells["type"][:, None]
        rng = stream(told.seed, "tissue_labels")
        wrong = rng.random(told.n_cells) < told.label_noise
        label = cells["type"] + wrong * rng.integers(1, told.n_types, told.n_cells)
        slide.obs["cell_type"] = pd.Categorical.from_codes(label % told.n_types, mechanism.types)
    return slide


def true_counterfactual(slide: AnnData, focal: np.ndarray, donors) -> np.ndarray:
    """Expected counts of focal cells, had they stood among the given donors.

    Exact: the mean over endless redraws of the counts, at the focal cells' own library (the sum of their counts over
    the genes of `slide`). Cells and genes may have been dropped since the simulation.

    Args:
        slide: simulated, n cells.
        focal: (m,) indices of cells.
        donors: (m, d) indices of cells, each of the same weight, a cell given twice counting twice; or a sparse (m, n)
            matrix of weights >= 0, whose rows are divided by their sums. A row without donors receives no signal.

    Returns:
        (m, n_genes) float32.

    Raises:
        InputError: the slide is not simulated, or an index or a weight is out of range.
    """
    focal = _checked_indices(slide, focal, "focal")
    if sparse.issparse(donors):
        weights = sparse.csr_array(donors)
        if weights.shape != (len(focal), slide.n_obs):
            raise InputError(
                f"donors: the weights have shape {weights.shape}, and ({len(focal)}, {slide.n_obs}) is needed: one row "
                "per focal cell, one column per cell of the slide."
            )
        if not (weights.data >= 0).all():
            raise InputError(
                f"donors: a weight is {weights.data[np.argmin(weights.data >= 0)]}: give weights from 0 up."
            )
    else:
        donors = _checked_indices(slide, donors, "donors")
        if donors.ndim != 2 or len(donors) != len(focal):
            raise InputError(
                f"donors: the indices have shape {donors.shape}, and ({len(focal)}, d) is needed: one row per focal "
                "cell."
            )
        m, d = donors.shape
        weights = sparse.csr_array((np.ones(m * d), donors.ravel(), np.arange(m + 1) * d), shape=(m, slide.n_obs))
    mechanism = stored_mechanism(slide)
    return _expected_counts(slide, mechanism, focal, _receive(weights, slide.obsm["simulation_secretion"]))


def true_expression(slide: AnnData, cells: np.ndarray | None = None) -> np.ndarray:
    """Expected counts of cells where they are, among all the neighbours that they had when they were simulated.

    Args:
        slide: simulated; cells and genes may have been dropped since.
        cells: (m,) indices; None is all.

    Returns:
        (m, n_genes) float32, at the cells' own library as in `true_counterfactual`.

    Raises:
        InputError: the slide is not simulated, or an index is out of range.
    """
    cells = np.arange(slide.n_obs) if cells is None else _checked_indices(slide, cells, "cells")
    mechanism = stored_mechanism(slide)
    return _expected_counts(slide, mechanism, cells, slide.obsm["simulation_received"][cells])


def true_altered(
    slide: AnnData, focal: np.ndarray, weights: sparse.csr_array, shift: np.ndarray, cells: np.ndarray | None = None
) -> np.ndarray:
    """Expected counts of focal cells whose neighbours express something else.

    Neighbours send through their ligand genes alone: a signal is sent as many times over as its ligand genes, on
    average, are expressed. Other genes of neighbours change nothing.

    Args:
        slide: simulated, n cells. focal: (m,) indices.
        weights: (m, n) who stands around the focal cells.
        shift: (types, genes) change of the log rate of neighbours, types in the order of the slide's categories.
        cells: indices of those that are altered; None is all.

    Returns:
        (m, n_genes) float32, at the cells' own library as in `true_counterfactual`.
    """
    focal, mechanism = _checked_indices(slide, focal, "focal"), stored_mechanism(slide)
    n_ligands = np.maximum(mechanism.ligands.sum(axis=0), 1)
    factors = 1 + (np.exp(shift, dtype=np.float64) - 1) @ mechanism.ligands / n_ligands
    factors = factors[slide.obs["cell_type"].cat.codes.to_numpy()]
    if cells is not None:
        factors[np.setdiff1d(np.arange(slide.n_obs), cells)] = 1
    secretion = np.asarray(slide.obsm["simulation_secretion"])
    before, after = (_receive(weights, x) for x in (secretion, secretion * factors))
    # Neighbours that were dropped since the simulation change as those that are there.
    ratio = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    received = slide.obsm["simulation_received"][focal] * ratio
    return _expected_counts(slide, mechanism, focal, received)


def _expected_counts(slide: AnnData, mechanism: Mechanism, cells: np.ndarray, received: np.ndarray) -> np.ndarray:
    types = _codes(slide.obs["cell_type"], mechanism.types)[cells]
    if "simulation_type" in slide.obsm:
        types = np.asarray(slide.obsm["simulation_type"])[cells, 0]
    domains = _codes(slide.obs["domain"], mechanism.domains)[cells]
    secretion = np.asarray(slide.obsm["simulation_secretion"])[cells]
    library = np.asarray(slide.X[cells].sum(axis=1, dtype=np.float64)).reshape(-1, 1)
    expected = np.empty((len(cells), slide.n_vars), dtype=np.float32)
    for start in range(0, len(cells), _CELLS_PER_BLOCK):
        part = slice(start, start + _CELLS_PER_BLOCK)
        share = mechanism.proportions(types[part], domains[part], secretion[part], received[part])
        expected[part] = library[part] * share
    return expected


def _receive(weights: sparse.csr_array, secretion: np.ndarray) -> np.ndarray:
    """Degree-normalised weighted mean of the secretion of each row's cells, (m, L) float64; 0 without any."""
    weights = weights.astype(np.float64)
    degree = weights.sum(axis=1)
    total = weights @ secretion
    return np.divide(total, degree[:, None], out=np.zeros_like(total), where=degree[:, None] > 0)


def _place_cells(
    mechanism: Mechanism,
    rng: np.random.Generator,
    n_cells: int,
    side_um: float,
    secretion_noise: float,
    patchiness: float,
) -> dict[str, np.ndarray]:
    """Position, domain, type and secretion of the cells of one slide."""
    n_domains, n_types = mechanism.composition.shape
    n_signals = mechanism.levels.shape[2]
    place = rng.uniform(0, side_um, (n_cells, 2))
    domains = np.zeros(n_cells, dtype=np.int64)
    for border in range(1, n_domains):
        # Borders keep within 0.3 bands of their straight course, so they never cross.
        phases, cycles = rng.uniform(0, 2 * np.pi, 3), np.array([1, 2, 3])
        wave = np.sin(2 * np.pi * place[:, 1, None] / side_um * cycles + phases).mean(axis=1)
        domains += place[:, 0] > side_um / n_domains * (border + 0.3 * wave)

    log_share = np.log(mechanism.composition)[domains]
    for cell_type in range(n_types):
        log_share[:, cell_type] += patchiness * patchwork(rng, place)
    # The largest of (log share + Gumbel noise) is a draw by the shares.
    types = (log_share + rng.gumbel(size=log_share.shape)).argmax(axis=1)

    secretion = mechanism.levels[types, domains]
    for signal in range(n_signals):
        log_noise = patchiness * patchwork(rng, place)
        log_noise += secretion_noise * rng.standard_normal(n_cells)
        # Noise of mean 1.
        secretion[:, signal] *= np.exp(log_noise - (patchiness**2 + secretion_noise**2) / 2)
    return {"place": place, "domain": domains, "type": types, "secretion": secretion}


def patchwork(rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """A smooth random field (n,) of variance 1 at the places (n, 2), micrometres: random waves, whose sum has a
    Gaussian covariance.
    """
    waves = rng.standard_normal((_WAVES_PER_PATCHWORK, 2)) / _PATCH_LENGTH_UM
    phases = rng.uniform(0, 2 * np.pi, _WAVES_PER_PATCHWORK)
    field = np.zeros(len(place))
    for wave, phase in zip(waves, phases, strict=True):
        field += np.cos(place[:, 0] * wave[0] + place[:, 1] * wave[1] + phase)
    return field * np.sqrt(2 / _WAVES_PER_PATCHWORK)


def _draw_counts(mechanism: Mechanism, cells: dict, seed: int, slide_number: int, n_threads: int) -> list:
    """Counts of the cells as CSR parts (counts float32, genes int32, number per cell), block by block in threads."""
    shape = 1 / np.maximum(mechanism.overdispersion, np.finfo(float).tiny)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = stream(seed, "tissue_counts", slide_number, number)
        part = slice(number * _CELLS_PER_BLOCK, (number + 1) * _CELLS_PER_BLOCK)
        mean = mechanism.proportions(*(cells[key][part] for key in ("type", "domain", "secretion", "received")))
        mean *= cells["library"][part, None]
        if mechanism.overdispersion.any():
            # Negative binomial = Poisson whose mean varies as a gamma of mean 1.
            mean *= rng.standard_gamma(shape, mean.shape)
            mean *= mechanism.overdispersion
        counts = rng.poisson(mean)
        filled = np.flatnonzero(counts)
        genes = (filled % counts.shape[1]).astype(np.int32)
        return counts.ravel()[filled].astype(np.float32), genes, np.count_nonzero(counts, axis=1)

    n_blocks = -(-len(cells["type"]) // _CELLS_PER_BLOCK)
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(draw, range(n_blocks)))


def _stack_blocks(blocks: list, n_genes: int) -> sparse.csr_matrix:
    """Join the parts, freeing each as it is copied; the list is emptied."""
    per_cell = np.concatenate([number for _, _, number in blocks])
    indptr = np.concatenate([[0], np.cumsum(per_cell)])
    index_type = np.int32 if indptr[-1] < 2**31 else np.int64
    data = np.empty(indptr[-1], np.float32)
    indices = np.empty(indptr[-1], index_type)
    filled = 0
    blocks.reverse()
    while blocks:
        counts, genes, _ = blocks.pop()
        data[filled : filled + len(counts)] = counts
        indices[filled : filled + len(counts)] = genes
        filled += len(counts)
    return sparse.csr_matrix((data, indices, indptr.astype(index_type)), shape=(len(per_cell), n_genes))


def _spill(counts: sparse.csr_matrix, place: np.ndarray, share: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Each count stays with chance 1 - share, and else is found in one of the cell's nearest cells."""
    near = cKDTree(place).query(place, _NEAREST_OF_SPILL + 1)[1]
    spilled, left = counts.copy(), rng.binomial(counts.data.astype(np.int64), share)
    spilled.data -= left
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    for number in range(1, _NEAREST_OF_SPILL + 1):
        moved = rng.binomial(left, 1 / (_NEAREST_OF_SPILL + 1 - number))
        found = (moved.astype(np.float32), (near[cell, number], counts.indices))
        spilled = spilled + sparse.coo_matrix(found, shape=counts.shape).tocsr()
        left = left - moved
    spilled.eliminate_zeros()
    spilled.sort_indices()
    return spilled


def _as_slide(
    mechanism: Mechanism, counts: sparse.csr_matrix, cells: dict, slide_of: np.ndarray, knobs: dict
) -> AnnData:
    within = np.concatenate([np.arange(size) for size in np.bincount(slide_of)])
    n_genes = counts.shape[1]
    slides = [f"slide_{number}" for number in range(slide_of.max() + 1)]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(cells["type"], mechanism.types),
            "domain": pd.Categorical.from_codes(cells["domain"], mechanism.domains),
            "sample": pd.Categorical.from_codes(slide_of, slides),
        },
        index=pd.Index([f"slide_{s}_cell_{i}" for s, i in zip(slide_of, within, strict=True)]),
    )
    var = pd.DataFrame(index=[f"gene_{gene:0{len(str(n_genes - 1))}d}" for gene in range(n_genes)])
    slide = AnnData(
        counts,
        obs=obs,
        var=var,
        obsm={
            "spatial": cells["place"],
            "simulation_secretion": cells["secretion"],
            "simulation_received": cells["received"],
        },
        uns={"provenance": {"source": "simulated", "simulation": knobs}},
    )
    store_mechanism(mechanism, slide)
    return slide


def _codes(labels: pd.Series, names: np.ndarray) -> np.ndarray:
    codes = pd.Index(names.astype(str)).get_indexer(labels.astype(str))
    if (codes < 0).any():
        cell = labels.index[(codes < 0).argmax()]
        raise InputError(
            f"cell {cell!r} of the simulated slide has {labels.name} {labels[cell]!r}, which the simulation does not "
            f"know ({', '.join(names)}): keep the labels as they were simulated."
        )
    return codes


def _checked_indices(slide: AnnData, indices: np.ndarray, what: str) -> np.ndarray:
    indices = np.asarray(indices)
    if not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"{what}: type {indices.dtype}, and whole numbers (indices of cells) are needed.")
    outside = (indices < 0) | (indices >= slide.n_obs)
    if outside.any():
        raise InputError(
            f"{what}: there is no cell {indices[outside][0]}, the slide has {slide.n_obs} cells counted from 0."
        )
    return indices
