"""Small slides for tests, made without the simulator so that its faults cannot hide others."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals.slide import make_slide


def small_slide(
    n_cells: int = 400,
    n_genes: int = 20,
    types: tuple[str, ...] = ("A", "B", "C"),
    domains: tuple[str, ...] = ("left", "right"),
    samples: tuple[str, ...] = ("one",),
    seed: int = 0,
) -> AnnData:
    """Cells at random places; the domain is where a cell stands along x, the type is random."""
    rng = np.random.default_rng(seed)
    spatial = rng.uniform(0, 600, size=(n_cells, 2))
    domain = np.array(domains)[(spatial[:, 0] / 600 * len(domains)).astype(int)]
    cell_type = rng.choice(types, n_cells)
    rate = 0.5 + rng.gamma(1.0, 2.0, size=(len(types), n_genes))
    # The last domain doubles every other gene.
    shift = np.where((domain == domains[-1])[:, None] & (np.arange(n_genes) % 2 == 0), 2.0, 1.0)
    counts = rng.poisson(rate[[types.index(t) for t in cell_type]] * shift)
    labels = pd.DataFrame(
        {"cell_type": cell_type, "domain": domain, "sample": rng.choice(samples, n_cells)},
        index=[f"cell_{i}" for i in range(n_cells)],
    )
    genes = pd.Index([f"gene_{i}" for i in range(n_genes)])
    return make_slide(sparse.csr_matrix(counts), labels, genes, spatial, {"source": "test"})
