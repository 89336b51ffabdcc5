"""Small cells and graphs for the tests of Celcomen, and its inference written out as the paper has it: n x n."""

import numpy as np
import torch
from scipy import sparse

AS_RUN = {
    "log_partition": "paper",
    "neighbour_number": "6",
    "pair_sum": "ordered",
    "temperature": "0.1",
    "force_range": "unit_box",
    "first_forces": "shared",
    "loss_unit": "slide",
    "slide_steps": "shuffled",
}


def random_cells(n_cells, n_genes, seed=0, filled=0.6):
    rng = np.random.default_rng(seed)
    expression = rng.gamma(2.0, 1.0, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < filled)
    expression[expression.sum(axis=1) == 0, 0] = 1
    return expression / np.linalg.norm(expression, axis=1, keepdims=True)


def random_graph(n_cells, k=4, seed=0):
    """Directed: row i holds k cells, none of them i."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((n_cells, n_cells))
    for i in range(n_cells):
        others = np.delete(np.arange(n_cells), i)
        dense[i, rng.choice(others, k, replace=False)] = 1
    return sparse.csr_array(dense)


def random_forces(n_genes, seed=0, size=1.0):
    rng = np.random.default_rng(seed)
    inter, intra = size * rng.normal(size=(2, n_genes, n_genes))
    return (inter + inter.T) / 2, (intra + intra.T) / 2


def loss_over_pairs_of_cells(expression, weights, inter, intra, neighbours=6.0, temperature=0.1, pairs=1.0):
    """The loss with its n x n matrices, in torch, from the formulas: log Z of equation 49, energy of equation 5."""
    x, j = torch.tensor(expression), torch.tensor(weights)
    mean = x.mean(dim=0)
    strength = torch.linalg.vector_norm((neighbours * inter + 2 * intra) @ mean)
    log_z = len(x) * (
        torch.log((torch.exp(strength) - torch.exp(-strength)) / strength)
        - mean @ (intra + neighbours / 2 * inter) @ mean
    )
    between = torch.einsum("ia,ab,jb->ij", x, inter, x)
    within = torch.einsum("ia,ab,ib->", x, intra, x)
    return log_z - temperature * (pairs * (j * between).sum() + within)
