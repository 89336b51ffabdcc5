"""SpatialProp, re-implemented: a cell's expression predicted from its neighbours alone, by two graph layers.

The published package is on no package index; this is written from descriptions of the method, not from its code. Counts
are scaled to a total of one per gene and not logged. A centre's own expression is set to 0 and its neighbours within
two hops are left as they are; two GIN layers (sum over neighbours) and a linear head give the centre's expression back,
under an absolute error in which expressed genes weigh ten times.

Only the centre is masked, so what a neighbour sees differs from centre to centre by that one cell: sums over neighbours
are taken once for the slide, and the centre's share is taken off again.

Source: Cellina, appendix F, and the settings with which its authors ran SpatialProp.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import Delaunay
from torch import nn

from tissue_counterfactuals.models.training import n_batches

EXPRESSED_WEIGHT = 10.0
SIZE_PENALTY = 1e-3


def delaunay_graph(
    coords_um: np.ndarray, sample: np.ndarray, cells: np.ndarray, longest_um: float | None
) -> sparse.csr_array:
    """Who touches whom: Delaunay triangles of each sample.

    Args:
        coords_um: (n, 2). sample: (n,) labels.
        cells: (n,) bool, the cells that take part; the others are nobody's neighbours.
        longest_um: edges longer than this are cut; None keeps all (the published pruning removes none).

    Returns:
        (n, n) CSR float32 of 0 and 1, symmetric, without loops.
    """
    ends = []
    for label in np.unique(sample):
        own = np.flatnonzero((sample == label) & cells)
        if len(own) < 4:
            continue
        triangles = Delaunay(coords_um[own]).simplices
        ends.append(own[np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])])
    n = len(coords_um)
    if not ends:
        return sparse.csr_array((n, n), dtype=np.float32)
    a, b = np.concatenate(ends).T
    if longest_um is not None:
        near = np.linalg.norm(coords_um[a] - coords_um[b], axis=1) <= longest_um
        a, b = a[near], b[near]
    edges = sparse.csr_array((np.ones(2 * len(a), np.float32), (np.r_[a, b], np.r_[b, a])), (n, n))
    edges.data[:] = 1
    return edges


def scale_to_genes(counts: sparse.csr_matrix, total: np.ndarray | None = None) -> sparse.csr_array:
    """(n, g) float32: every cell scaled to a total of g, empty cells stay 0.

    Args:
        total: (n,) counts of each cell before they were altered; None: those that it has.
    """
    scaled = sparse.csr_array(counts, dtype=np.float32, copy=True)
    total = np.asarray(scaled.sum(axis=1)).ravel() if total is None else total
    total = np.maximum(total, 1e-8)
    scaled.data *= np.repeat((scaled.shape[1] / total).astype(np.float32), np.diff(scaled.indptr))
    return scaled


def training_centres(
    graph: sparse.csr_array,
    cell_type: np.ndarray,
    sample: np.ndarray,
    cells: np.ndarray,
    per_type: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Up to `per_type` cells of each type in each sample, and all cells within two hops of them.

    Args:
        graph: (n, n). cell_type, sample: (n,) labels.
        cells: (n,) bool, the cells that may be taken.

    Returns:
        (k,) indices, ascending.
    """
    chosen = np.zeros(len(cells), dtype=bool)
    for group in np.unique(sample):
        for label in np.unique(cell_type):
            own = np.flatnonzero(cells & (sample == group) & (cell_type == label))
            chosen[rng.choice(own, min(per_type, len(own)), replace=False)] = True
    near = chosen.astype(np.float32)
    for _ in range(2):
        near = near + graph @ near
    return np.flatnonzero((near > 0) & cells)


@dataclass(frozen=True)
class Scene:
    """Centres and who stands around each: neighbours of centre i are `indices[indptr[i]:indptr[i + 1]]`.

    `touching` says of each neighbour whether the centre is among its own neighbours, and so in its sum.
    """

    centres: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    touching: np.ndarray

    @classmethod
    def in_place(cls, graph: sparse.csr_array, centres: np.ndarray) -> "Scene":
        """Centres (m,) among their real neighbours in the graph (n, n)."""
        rows = graph[centres]
        return cls(centres, rows.indptr, rows.indices, np.ones(len(rows.indices), dtype=bool))

    @classmethod
    def moved(cls, graph: sparse.csr_array, centres: np.ndarray, donors: np.ndarray) -> "Scene":
        """Centres among donors (m, d), of which each takes the first, as many as it had neighbours: the layers add them
        up. A centre that has none in the graph takes as many as cells have there. None takes itself.
        """
        degree = np.diff(graph.indptr)
        usual = round(degree[degree > 0].mean()) if degree.any() else 1
        own = np.where(degree[centres] > 0, degree[centres], usual).clip(1, donors.shape[1])
        others = donors != centres[:, None]
        taken = others & (np.cumsum(others, axis=1) <= own[:, None])
        indptr = np.concatenate([[0], np.cumsum(taken.sum(axis=1))])
        # A donor keeps its own neighbours, and the centre may be one of them.
        of, n = np.arange(len(centres)), graph.shape[1]
        edges = np.repeat(of, degree[centres]) * n + graph[centres].indices
        touching = np.isin(of[:, None] * n + donors, edges)
        return cls(centres, indptr, donors[taken], touching[taken])

    def part(self, start: int, stop: int) -> "Scene":
        """Some of the centres."""
        first, last = self.indptr[start], self.indptr[stop]
        return Scene(
            self.centres[start:stop],
            self.indptr[start : stop + 1] - first,
            self.indices[first:last],
            self.touching[first:last],
        )


class SpatialProp(nn.Module):
    """Two GIN layers and a linear head.

    Args:
        n_genes: g. n_hidden: width. dropout: before the head.
    """

    def __init__(self, n_genes: int, n_hidden: int = 64, dropout: float = 0.1):
        super().__init__()

        def layer(n_in: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(n_in, n_hidden), nn.BatchNorm1d(n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_hidden)
            )

        self.first, self.second = layer(n_genes), layer(n_hidden)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(n_hidden, n_genes)

    def forward(self, received: torch.Tensor, centre_of: torch.Tensor, is_centre: torch.Tensor) -> torch.Tensor:
        """Expression of the centres (m, g).

        Args:
            received: (k, g) what each cell of each scene adds up from itself and its neighbours, centre masked; the
                centres come last.
            centre_of: (k,) the centre in whose scene it stands. is_centre: (k,) bool.
        """
        hidden = torch.relu(self.first(received))
        # A cell takes part in its own sum twice: as itself, and by the loop that the graph has on every cell.
        weight = 1.0 + is_centre.to(hidden.dtype)
        total = hidden.new_zeros(int(is_centre.sum()), hidden.shape[1])
        added = hidden * weight[:, None]
        if added.is_cuda:
            # There `index_add_` adds in an order that differs from run to run; this one sorts first.
            total.index_put_((centre_of,), added, accumulate=True)
        else:
            total.index_add_(0, centre_of, added)
        return self.head(self.dropout(self.second(total)))


def masked_inputs(
    expression: sparse.csr_array, sums: sparse.csr_array, scene: Scene
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Arguments of the network for a scene.

    Args:
        expression: (n, g). sums: (n, g), A @ expression + 2 * expression.
    """
    m = len(scene.centres)
    owner = np.repeat(np.arange(m), np.diff(scene.indptr))
    around = sums[scene.indices].toarray()
    # A neighbour's sum holds the centre once if they touch.
    shares = expression[scene.centres[owner]].toarray()
    around -= shares * scene.touching[:, None]
    # The centre itself, as 0, receives its neighbours only.
    pick = sparse.csr_array(
        (np.ones(len(scene.indices), np.float32), scene.indices, scene.indptr), (m, expression.shape[0])
    )
    received = np.concatenate([around, (pick @ expression).toarray()])
    centre_of = torch.as_tensor(np.concatenate([owner, np.arange(m)]))
    is_centre = torch.zeros(len(received), dtype=torch.bool)
    is_centre[len(around) :] = True
    return torch.as_tensor(received, dtype=torch.float32), centre_of, is_centre


def receive(graph: sparse.csr_array, expression: sparse.csr_array) -> sparse.csr_array:
    """(n, g) what each cell adds up: its neighbours, and twice itself (as itself and by its loop)."""
    return sparse.csr_array(graph @ expression + 2 * expression)


def loss(predicted: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Weighted absolute error of predicted expression (m, g), in which expressed genes weigh ten times, and a small
    penalty on its size; a scalar.
    """
    weight = torch.where(observed != 0, EXPRESSED_WEIGHT, 1.0)
    error = (weight * (predicted - observed).abs()).mean()
    return error + SIZE_PENALTY * predicted.square().mean()


def train(
    network: SpatialProp,
    expression: sparse.csr_array,
    graph: sparse.csr_array,
    centres: np.ndarray,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Fit with Adam; the mean loss of every epoch. No early stopping, the last weights count, as published.

    Args:
        expression: (n, g), from `scale_to_genes`. graph: (n, n), without held-out cells.
        centres: (m,) indices of the cells that train. batch_size: in centres.
    """
    network.to(device).train()
    sums = receive(graph, expression)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    history = []
    for epoch in range(epochs):
        order, total = rng.permutation(centres), 0.0
        for batch in np.array_split(order, n_batches(len(order), batch_size)):
            inputs = masked_inputs(expression, sums, Scene.in_place(graph, batch))
            observed = torch.as_tensor(expression[batch].toarray(), device=device)
            optimiser.zero_grad()
            error = loss(network(*(x.to(device) for x in inputs)), observed)
            error.backward()
            optimiser.step()
            total += float(error.detach()) * len(batch)
        history.append(total / len(order))
        if epoch % 10 == 0 or epoch == epochs - 1:
            report(f"epoch {epoch + 1} of {epochs}: loss {history[-1]:.4f}")
    return history


@torch.no_grad()
def predict(
    network: SpatialProp,
    expression: sparse.csr_array,
    graph: sparse.csr_array,
    scene: Scene,
    device: torch.device,
    batch_size: int = 512,
) -> np.ndarray:
    """Expected expression of the centres (m, g), float32, not below 0, scaled as `expression` (n, g) is."""
    network.to(device).eval()
    sums = receive(graph, expression)
    parts = []
    for start in range(0, len(scene.centres), batch_size):
        part = scene.part(start, min(start + batch_size, len(scene.centres)))
        inputs = masked_inputs(expression, sums, part)
        parts.append(network(*(x.to(device) for x in inputs)).clamp_(min=0).cpu().numpy())
    return np.concatenate(parts)
