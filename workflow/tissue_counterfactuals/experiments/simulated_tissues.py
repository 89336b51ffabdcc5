"""Tissues with known forces, as the simulation of the Celcomen paper makes them and as they should be made.

`generate_tissues`: generation runs from noise and its end is taken for data, as published. `sample_tissues`: exact
draws from the Gaussian field, which is what inference assumes of data. Both yield, for each seed, a `Simulated`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_chart as chart
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import partial_correlations
from tissue_counterfactuals.models.celcomen_generation import (
    Held,
    build_field,
    climb,
    descend_in_angles,
    log_sphere_of_many,
    noise_angles,
)
from tissue_counterfactuals.models.celcomen_meanfield import first_forces, project
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.simulate.field import draw_forces, scale_forces
from tissue_counterfactuals.simulate.settings import N_NEIGHBORS
from tissue_counterfactuals.streams import stream

# In sampled tissues a gene's mean is so many of its standard deviations above 0, where dropout takes it.
LEVEL = 2.0
Forces = dict[str, np.ndarray]


@dataclass(frozen=True)
class Simulated:
    """One simulation.

    Attributes:
        seed: its seed.
        truth: forces `inter` and `intra` (g, g).
        fitted: what inference makes of the tissue, same form; None where it refused, for `reason`.
        tissue: (n, g) cells as inference saw them.
        noise: (n, g) cells without any forces.
    """

    seed: int
    truth: Forces
    fitted: Forces | None
    tissue: np.ndarray
    noise: np.ndarray
    reason: str = ""


def lattice(n_cells: int) -> sparse.csr_array:
    """Directed graph (n, n), CSR of ones, of the six nearest among cells on a lattice like a honeycomb, as run.

    Rows are stretched (their distance is the root of 1.25, not of 0.75): inside the lattice the six nearest are the
    right ones, along its border they are ties, which scikit-learn's search decides as it did in the paper.
    """
    from sklearn.neighbors import kneighbors_graph

    side = int(np.ceil(np.sqrt(n_cells)))
    row, column = np.divmod(np.arange(n_cells), side)
    places = np.column_stack([column + 0.5 * (row % 2 == 0), row * np.sqrt(1.25)])
    return sparse.csr_array(kneighbors_graph(places.astype(np.float32), N_NEIGHBORS))


# --- generated, as published ------------------------------------------------------------------------------------


def zero_one_forces(draw: np.random.RandomState, n_genes: int) -> np.ndarray:
    """Ones and zeros (g, g) for the pairs of genes, in a share drawn first, neither all nor none; ones on the
    diagonal.
    """
    share = draw.uniform(0, 1, size=1)[0]
    n_pairs = n_genes * (n_genes - 1) // 2
    pairs = np.zeros(n_pairs)
    while pairs.mean() in (0, 1):
        pairs = draw.binomial(1, share, size=n_pairs)
    forces = np.eye(n_genes)
    forces[np.triu_indices(n_genes, 1)] = pairs
    return np.maximum(forces, forces.T)


def generate_tissues(
    n_genes: int, n_cells: int, seeds: Sequence[int], settings: dict, switches: dict[str, str]
) -> Iterator[Simulated]:
    """Simulations as published, all at once.

    Args:
        settings: epochs and learning_rate, of generation and of inference.
        switches: of the steps inference, generation and celcomen_simulation.
    """
    draws = [np.random.RandomState(seed) for seed in seeds]
    inter = np.stack([zero_one_forces(draw, n_genes) for draw in draws])
    intra = inter
    if switches["true_forces"] == "independent":
        intra = np.stack([zero_one_forces(draw, n_genes) for draw in draws])
    graph = lattice(n_cells)
    angles = np.stack([noise_angles(n_cells, n_genes, seed) for seed in seeds])
    # The simulations have a decoder of their own, without the squared sine.
    noise, _ = chart.decode(angles, "sine")
    field = build_field(graph, inter, intra, switches, "float32")
    steps = settings["epochs"], settings["learning_rate"]
    if switches["chart"] == "angles":
        tissues = descend_in_angles(angles, field, *steps, switches | {"last_gene": "sine"}, Held())
    else:
        tissues = climb(noise, field, *steps, Held())
    if switches["log_partition"] == "paper":
        fits = [(f, "") for f in infer_side_by_side(tissues, graph, seeds, *steps, switches)]
    else:
        fits = [infer(tissue, graph, switches) for tissue in tissues]
    for k, seed in enumerate(seeds):
        truth = {"inter": inter[k], "intra": intra[k]}
        fitted, reason = fits[k]
        yield Simulated(seed, truth, fitted, tissues[k], noise[k], reason)


def infer_side_by_side(
    tissues: np.ndarray,
    graph: sparse.csr_array,
    seeds: Sequence[int],
    epochs: int,
    learning_rate: float,
    switches: dict[str, str],
) -> list[Forces]:
    """The mean field's steps on each of many tissues (tissues, n, g), as `fit_mean_field` takes them on one."""
    weights = interaction_weights(graph, switches["interaction_weights"])
    n_cells, n_genes = tissues.shape[1:]
    cells = tissues.astype(np.float64)
    q = weights.sum() / n_cells if switches["neighbour_number"] == "graph" else float(switches["neighbour_number"])
    pairs = 0.5 if switches["pair_sum"] == "unordered" else 1.0
    mean = cells.mean(axis=1)
    within = float(switches["temperature"]) * np.einsum("tna,tnb->tab", cells, cells)
    between = np.stack([x.T @ (weights @ x) for x in cells])
    between *= pairs * float(switches["temperature"])
    rate = learning_rate / (n_cells if switches["loss_unit"] == "cell" else 1)

    starts = [first_forces(n_genes, switches["first_forces"], seed) for seed in seeds]
    inter, intra = (project(np.stack(forces), switches["force_range"]) for forces in zip(*starts, strict=True))
    for _ in range(epochs):
        pull = np.einsum("tab,tb->ta", q * inter + 2 * intra, mean)
        _, ratio = log_sphere_of_many(np.linalg.norm(pull, axis=1))
        direction = 2 * ratio[:, None] * pull - mean
        of_log_z = n_cells * direction[:, :, None] * mean[:, None, :]
        inter = inter - rate * (q / 2 * of_log_z - between)
        intra = intra - rate * (of_log_z - within)
        inter, intra = (project(f, switches["force_range"]) for f in (inter, intra))
    return [{"inter": g, "intra": h} for g, h in zip(inter, intra, strict=True)]


# --- sampled ----------------------------------------------------------------------------------------------------


def sample_tissues(
    n_genes: int, n_cells: int, seeds: Sequence[int], switches: dict[str, str], noise: float = 0.0, dropout: float = 0.0
) -> Iterator[Simulated]:
    """Exact draws from the Gaussian field, measured with errors.

    Args:
        noise: standard deviation of measurement noise over that of the gene.
        dropout: share of the entries that read 0.
        switches: of the steps inference and celcomen_simulation.
    """
    graph = lattice(n_cells)
    weights = interaction_weights(graph, "symmetric")
    for seed in seeds:
        inter, intra, _ = draw_forces(n_genes, seed)
        if switches["true_forces"] == "shared":
            inter, intra = scale_forces(intra, intra, 0.7, 0.5)
        tissue = GaussianField(weights, inter, intra).sample(stream(seed, "sampled_tissues"))
        tissue = LEVEL + tissue / tissue.std(axis=0)
        rng = stream(seed, "sampled_tissues_noise")
        without = rng.standard_normal(tissue.shape)
        tissue += noise * rng.standard_normal(tissue.shape)
        tissue *= rng.random(tissue.shape) >= dropout
        fitted, reason = infer(tissue, graph, switches)
        yield Simulated(seed, {"inter": inter, "intra": intra}, fitted, tissue, without, reason)


def infer(tissue: np.ndarray, graph: sparse.csr_array, switches: dict[str, str]) -> tuple[Forces | None, str]:
    """Corrected inference from a tissue (n, g) and its graph (n, n), its Gaussian forces free of the genes' units; or
    None and why it refused.
    """
    chosen = protocols.of_step(switches, "inference")
    try:
        # As in the authors' simulations the tissue is used as it is.
        fit = fit_interactions([(tissue, graph)], switches=chosen | {"scale": "none"})
    except InputError as error:
        return None, str(error)
    inter, intra = fit.inter, fit.intra
    if switches["log_partition"] == "gaussian":
        inter, intra = partial_correlations(fit)
    return {"inter": inter, "intra": intra}, ""
