"""Samplers that share no code with the product: a Gibbs sampler of the Gaussian field, and one of the paper's
sphere.
"""

import numpy as np
from scipy import sparse


def lattice(side: int) -> sparse.csr_array:
    """Cells of a square lattice without border (torus) and their eight neighbours, each of weight 1/8."""
    row, column = np.divmod(np.arange(side * side), side)
    rows, columns = [], []
    for up in (-1, 0, 1):
        for right in (-1, 0, 1):
            if up or right:
                rows.append(np.arange(side * side))
                columns.append((row + up) % side * side + (column + right) % side)
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array((np.full(len(rows), 1 / 8), (rows, columns)), shape=(side**2, side**2))


def colours(weights: sparse.csr_array) -> list[np.ndarray]:
    """Sets of cells, no two of which are neighbours: greedy colouring."""
    colour = np.full(weights.shape[0], -1)
    for cell in range(len(colour)):
        taken = set(colour[weights.indices[weights.indptr[cell] : weights.indptr[cell + 1]]])
        colour[cell] = next(c for c in range(len(colour)) if c not in taken)
    return [np.flatnonzero(colour == c) for c in range(colour.max() + 1)]


def gibbs_gaussian(weights, inter, intra, sweeps, burn_in, seed):
    """States (sweeps, n, g) of the Gaussian field with norm weight 1: each cell from its law given all others."""
    rng = np.random.default_rng(seed)
    n, g = weights.shape[0], len(inter)
    covariance = np.linalg.inv(np.eye(g) - 2 * intra)
    root = np.linalg.cholesky(covariance)
    state, states = np.zeros((n, g)), []
    sets = [(cells, weights[cells]) for cells in colours(weights)]
    for sweep in range(burn_in + sweeps):
        for cells, around in sets:
            pull = 2 * (around @ state) @ inter
            state[cells] = pull @ covariance + rng.standard_normal((len(cells), g)) @ root.T
        if sweep >= burn_in:
            states.append(state.copy())
    return np.array(states)


def metropolis_sphere(weights, inter, intra, sweeps, seed, width=0.5):
    """One state (n, g) of the paper's model: unit cells with P ~ exp(sum s_i'g's_i + sum J_ij s_i'g s_j).

    A cell is moved by a normal step that is put back on the sphere (symmetric), and kept or not by Metropolis.
    """
    rng = np.random.default_rng(seed)
    n, g = weights.shape[0], len(inter)
    state = rng.standard_normal((n, g))
    state /= np.linalg.norm(state, axis=1, keepdims=True)
    sets = [(cells, weights[cells]) for cells in colours(weights)]

    def energy(cells, pull):
        return np.einsum("ia,ab,ib->i", cells, intra, cells) + (cells * pull).sum(axis=1)

    for _ in range(sweeps):
        for cells, around in sets:
            pull = 2 * (around @ state) @ inter
            old = state[cells]
            new = old + width * rng.standard_normal(old.shape)
            new /= np.linalg.norm(new, axis=1, keepdims=True)
            kept = np.log(rng.random(len(cells))) < energy(new, pull) - energy(old, pull)
            state[cells[kept]] = new[kept]
    return state


def random_forces(n_genes, strength_inter, strength_intra, seed):
    """Dense symmetric normal matrices (inter, intra) whose largest eigenvalues in size are as given."""
    rng = np.random.default_rng(seed)
    result = []
    for strength in (strength_inter, strength_intra):
        matrix = rng.standard_normal((n_genes, n_genes))
        matrix = matrix + matrix.T
        result.append(matrix * strength / np.abs(np.linalg.eigvalsh(matrix)).max())
    return result
