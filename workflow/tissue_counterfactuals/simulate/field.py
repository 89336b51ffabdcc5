"""Slides whose counts come from the Gaussian field, so that the forces within and between cells are known.

How a cell comes to its counts (i: cell, a: gene):

1. Forces. Within cells (intra) and between cells (inter), each a sparse symmetric matrix with signs, drawn
   independently of each other: about `n_partners` partners a gene and kind, of sizes from 0.5 to 1 before scaling.
   Each gene is secreted, membrane or cytoplasmic; forces between cells with a secreted gene are `secreted_factor` times
   as strong. Between cells a gene also acts on itself. The scaling sets how near to criticality each kind is.
2. Field. s ~ exp(sum_i s_i' g' s_i + sum_ij J_ij s_i' g s_j - 1/2 sum_i |s_i|^2), J the normalised graph of the six
   nearest cells (either way), drawn exactly (`models/celcomen_field.py`).
3. Counts. x_ia ~ negative binomial with mean depth_i share_a exp(log_rate_sd s_ia) and variance m + noise m^2; each
   count is then lost with probability `dropout`.

The truth travels in the slide: varm["simulation_inter"] and varm["simulation_intra"], whose columns are all genes as
simulated, named by uns["simulation"]["genes"]; var["localization"]; and the knobs in uns["simulation"].
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.gene_sets import LOCALIZATIONS
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, precision_of
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.settings import N_NEIGHBORS, FieldSettings
from tissue_counterfactuals.slide import make_slide, new_provenance
from tissue_counterfactuals.streams import stream

_SHARES = (0.25, 0.25, 0.5)
_GAP_BETWEEN_SAMPLES_UM = 1000.0
_BASE_SPREAD = 1.0
_CELLS_PER_BLOCK = 1000


def simulate_field(**knobs: float) -> AnnData:
    """Simulate samples that share their forces; the text of this module says how.

    Args:
        knobs: the keys of `FieldSettings`, which says what they mean. The forces follow from the seed alone, the cells
            of a sample from it and the sample's number.

    Returns:
        A slide of one cell type and one domain, its samples side by side 1 mm apart.

    Raises:
        InputError: unknown knobs or knobs out of their range, or samples of too few cells for six neighbours.
    """
    told = FieldSettings.read(knobs, "field")
    seed, n_genes = told.seed, told.n_genes
    inter, intra, localization = draw_forces(
        n_genes, seed, told.inter_strength, told.intra_strength, told.n_partners, told.secreted_factor
    )
    base = stream(seed, "field_base").normal(0, _BASE_SPREAD, n_genes)
    counts, places, left_um = [], [], 0.0
    sizes = [len(part) for part in np.array_split(np.arange(told.n_cells), told.n_samples)]
    for number, size in enumerate(sizes):
        side_um = np.sqrt(size / told.density_per_um2)
        place = stream(seed, "field_places", number).uniform(0, side_um, (size, 2))
        weights = interaction_weights(knn_graph(place, N_NEIGHBORS), "symmetric")
        field = GaussianField(weights, inter, intra).sample(stream(seed, "field_expression", number))
        counts.append(
            draw_counts(
                *(base + told.log_rate_sd * field, stream(seed, "field_counts", number)),
                *(told.depth, told.depth_noise, told.noise, told.dropout),
            )
        )
        place[:, 0] += left_um
        left_um += side_um + _GAP_BETWEEN_SAMPLES_UM
        places.append(place)
    sample = np.repeat([f"sample_{number}" for number in range(told.n_samples)], sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    labels = pd.DataFrame(
        {"cell_type": "cell", "domain": "tissue", "sample": sample},
        index=[f"{name}_cell_{i}" for name, i in zip(sample, within, strict=True)],
    )
    genes = pd.Index([f"gene_{gene:0{len(str(n_genes - 1))}d}" for gene in range(n_genes)])
    slide = make_slide(
        sparse.vstack(counts, format="csr"), labels, genes, np.concatenate(places), new_provenance("simulated field")
    )
    slide.var["localization"] = pd.Categorical(localization, LOCALIZATIONS)
    slide.varm["simulation_inter"], slide.varm["simulation_intra"] = inter, intra
    slide.uns["simulation"] = told.model_dump() | {"genes": genes.to_numpy(dtype=str)}
    return slide


def draw_forces(
    n_genes: int,
    seed: int,
    inter_strength: float = 0.7,
    intra_strength: float = 0.5,
    n_partners: float = 3.0,
    secreted_factor: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inter and intra forces (g, g), drawn independently, and the genes' localization (g,); see the module's text.

    The forces are those of the field whose weight of the norm is 1, on any graph with eigenvalues from -1 to 1.
    """
    rng = stream(seed, "field_forces")
    localization = rng.choice(LOCALIZATIONS, n_genes, p=_SHARES)
    intra = _sparse_symmetric(rng, n_genes, n_partners)
    inter = _sparse_symmetric(rng, n_genes, n_partners)
    inter += np.diag(rng.uniform(0, 1, n_genes))
    secreted = localization == "secreted"
    inter[secreted[:, None] | secreted[None, :]] *= secreted_factor
    return *scale_forces(inter, intra, inter_strength, intra_strength), localization


def scale_forces(
    inter: np.ndarray, intra: np.ndarray, inter_strength: float, intra_strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Multiples of both matrices (g, g) at given distances from criticality: 0 none, 1 critical.

    Forces within cells first: 2 g' then has the largest eigenvalue `intra_strength`. Then those between cells: on an
    eigenvalue 1 or -1 of the graph the softest combination of genes keeps 1 - `inter_strength` of its stiffness.
    """
    largest = np.abs(np.linalg.eigvalsh(intra)).max()
    intra = intra * (intra_strength / (2 * largest) if largest else 0)
    _, strength = diagonalise(*precision_of(inter, intra))
    largest = np.abs(strength).max()
    return inter * (inter_strength / (2 * largest) if largest else 0), intra


def draw_counts(
    log_rate: np.ndarray, rng: np.random.Generator, depth: float, depth_noise: float, noise: float, dropout: float
) -> sparse.csr_matrix:
    """Counts (n, g) float32 of cells with given log rates (n, g); see the module's text for the arguments.

    A gene's share is that of its mean log rate, so that `depth` is the counts of a cell at mean log rates.
    """
    share = log_rate.mean(axis=0)
    offset = np.log(np.exp(share - share.max()).sum()) + share.max()
    blocks = []
    for start in range(0, len(log_rate), _CELLS_PER_BLOCK):
        part = log_rate[start : start + _CELLS_PER_BLOCK]
        cell_depth = depth * np.exp(depth_noise * rng.standard_normal((len(part), 1)))
        mean = cell_depth * np.exp(part - offset)
        if noise:
            # Negative binomial = Poisson whose mean varies as a gamma of mean 1.
            mean = mean * rng.standard_gamma(1 / noise, mean.shape) * noise
        counts = rng.poisson(mean)
        if dropout:
            counts[rng.random(counts.shape) < dropout] = 0
        blocks.append(sparse.csr_matrix(counts, dtype=np.float32))
    return sparse.vstack(blocks, format="csr")


def _sparse_symmetric(rng: np.random.Generator, n_genes: int, n_partners: float) -> np.ndarray:
    """Signed sizes from 0.5 to 1 for a share of the pairs, 0 on the diagonal; at least one pair."""
    rows, columns = np.triu_indices(n_genes, 1)
    n_pairs = min(max(round(n_partners * n_genes / 2), 1 if n_partners else 0), len(rows))
    chosen = rng.choice(len(rows), n_pairs, replace=False)
    forces = np.zeros((n_genes, n_genes))
    forces[rows[chosen], columns[chosen]] = rng.choice([-1, 1], n_pairs) * rng.uniform(0.5, 1, n_pairs)
    return forces + forces.T
