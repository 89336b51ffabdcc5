"""What is written into every layout: a small tissue, and what a reader must give back."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Tissue:
    """Cells and their counts, known in full.

    Attributes:
        cells: ids, (n,); genes: symbols, (g,).
        counts: (n, g) int64.
        places_um: (n, 2) micrometres.
        cell_type, domain: (n,) text.
    """

    cells: list[str]
    genes: list[str]
    counts: np.ndarray
    places_um: np.ndarray
    cell_type: np.ndarray
    domain: np.ndarray


def make_tissue(n_cells: int = 90, n_genes: int = 12, seed: int = 0) -> Tissue:
    """Cells about 10 um apart, sparse counts, two types and two domains."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n_cells)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    places = 10.0 * grid[:n_cells] + rng.uniform(-2, 2, (n_cells, 2)) + 50
    return Tissue(
        cells=[f"cell_{i}" for i in rng.permutation(n_cells)],
        genes=[f"GENE{i}" for i in range(n_genes)],
        counts=rng.negative_binomial(0.6, 0.4, (n_cells, n_genes)),
        places_um=places.round(3),
        cell_type=rng.choice(["neuron", "glia"], n_cells),
        domain=np.where(places[:, 0] > places[:, 0].mean(), "inside", "outside"),
    )


def assert_is(slide, tissue: Tissue) -> None:
    """A slide is the tissue, cell by cell in its order; places to a millionth of a micrometre."""
    assert list(slide.obs_names) == list(tissue.cells)
    assert list(slide.var_names) == list(tissue.genes)
    np.testing.assert_array_equal(slide.X.toarray(), tissue.counts)
    np.testing.assert_allclose(slide.obsm["spatial"], tissue.places_um, atol=1e-6)
    assert list(slide.obs["cell_type"]) == list(tissue.cell_type)
    assert list(slide.obs["domain"]) == list(tissue.domain)


def shuffled(n: int, seed: int) -> np.ndarray:
    """An order of n rows that is not their own."""
    return np.random.default_rng(seed + 1000).permutation(n)
