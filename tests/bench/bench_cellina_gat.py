"""Cells per second of an epoch of Cellina-GAT, beside the same model with torch_geometric's layers; and its memory.

    python tests/bench/bench_cellina_gat.py                 # speed
    python tests/bench/bench_cellina_gat.py --device cuda   # on a GPU
    python tests/bench/bench_cellina_gat.py --memory        # peak memory against neighbours and cells

Both train on the same batches with the same receptive fields (`training.train`: encoders, decoder, both heads,
contrastive loss, optimisers); only the three layers of attention are exchanged, for `GATv2Conv` on the list of edges.
In turns, in one process. `NeighborLoader`, which the authors used, needs compiled extras and is left out, so that the
peer's batches cost as little as ours. Bound: three times the peer's cells per second, under both protocols.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from scipy import sparse
from torch_geometric.nn import GATv2Conv

from tissue_counterfactuals.graph import gaussian_graph
from tissue_counterfactuals.models import cellina_gat, training
from tissue_counterfactuals.models.receptive_field import in_patches

BOUND = 3.0
N_TYPES, N_DOMAINS, SPACING_UM = 8, 3, 10.0
N_HIDDEN, N_LATENT, BATCH = 128, 64, 256
PROTOCOLS = {
    "corrected": {},
    "as run": {"field": "induced", "edges": "transposed", "patch_cells": 1},
}


class PeerEncoder(cellina_gat.AttentionEncoder):
    """The same encoder with torch_geometric's layers."""

    def __init__(self, n_in, n_latent, n_hidden, n_layers, *others):
        super().__init__(n_in, n_latent, n_hidden, n_layers, *others)
        self.layers = torch.nn.ModuleList(
            GATv2Conv(n_hidden if i else n_in, n_hidden, concat=False, add_self_loops=False) for i in range(n_layers)
        )

    def states(self, around):
        hidden = torch.cat(list(around.inputs.pieces()))
        for i, (layer, n) in enumerate(zip(self.layers, around.field.n_receiving, strict=True)):
            receiver, place = torch.nonzero(around.table[:n] >= 0, as_tuple=True)
            edges = torch.stack([around.table[receiver, place].long(), receiver])
            hidden = layer((hidden, hidden[:n]), edges)
            hidden = self.norm[i](hidden) if i < len(self.norm) else hidden
            hidden = self.dropout(torch.relu(hidden))
        return hidden, []


class PeerNetwork(cellina_gat.CellinaGATNetwork):
    spatial_encoder = PeerEncoder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000, help="of the slide")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--batches", type=int, default=2, help="of an epoch")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if options.worker:
        print(json.dumps(_memory(options)))
        return 0
    return _compare_memory(options) if options.memory else _compare_speed(options)


def _slide(options):
    """Counts (n, g) of which 15 % are not 0, and the graph of cells at random places of a square."""
    rng = np.random.default_rng(0)
    n, per_cell = options.cells, int(0.15 * options.genes)
    # Gaps from 1 to twice the mean keep genes apart and in order.
    most = 2 * options.genes // per_cell - 1
    genes = np.cumsum(rng.integers(1, most, (n, per_cell), dtype=np.int32), axis=1, dtype=np.int32)
    genes = np.minimum(genes - 1, options.genes - per_cell + np.arange(per_cell, dtype=np.int32))
    values = rng.integers(1, 5, n * per_cell, dtype=np.int8).astype(np.float32)
    indptr = np.arange(0, n * per_cell + 1, per_cell)
    counts = sparse.csr_array((values, genes.ravel(), indptr), shape=(n, options.genes))
    coords = rng.uniform(0, SPACING_UM * n**0.5, (n, 2))
    return counts, coords, gaussian_graph(coords, max_neighbors=options.neighbors)


def _data(counts, coords, graph, settings, device="cpu"):
    rng = np.random.default_rng(1)
    n = len(coords)
    model = cellina_gat.CellinaGAT(device=device, **settings)
    around = model.surroundings(graph, counts)
    codes = rng.integers(N_TYPES, size=n), (N_DOMAINS * coords[:, 0] / coords.max()).astype(int) % N_DOMAINS
    labels = (*codes, np.zeros(n, int))
    data = cellina_gat.TissueData(counts, around, *labels, coords, model.settings, 3, device)
    return model, data


def _epoch(network_class, model, data, cells, n_epochs=2):
    """Seconds of each epoch, without validation; the first only measures."""
    torch.manual_seed(0)
    n_genes = data.counts.csr.shape[1]
    network = network_class(n_genes, N_TYPES, N_DOMAINS, 1, N_HIDDEN, 3, N_LATENT).to(data.device)
    settings = cellina_gat.GATSettings(
        **{**vars(model.settings), "epochs": n_epochs, "batch_size": BATCH, "patience": 10**6}
    )
    # The cells come in the order in which their batches were chosen.
    data.order = lambda rng, chosen: chosen
    validate, training._validate = training._validate, lambda *_: {"validation_loss": 0.0}
    try:
        return training.train(network, data, cells, cells[:2], settings)["seconds"]
    finally:
        training._validate = validate


def _chosen(coords, settings, n):
    """So many cells, in patches or one by one, from anywhere on the slide."""
    rng = np.random.default_rng(2)
    return in_patches(rng, coords, np.zeros(len(coords), int), settings.patch_cells)[:n]


def _compare_speed(options) -> int:
    counts, coords, graph = _slide(options)
    print(
        f"{options.cells:,} cells x {options.genes:,} genes, {options.neighbors} neighbours, batch {BATCH}, "
        f"{options.device}, {torch.get_num_threads()} threads (machine: {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f})"
    )
    worst = np.inf
    for name, settings in PROTOCOLS.items():
        model, data = _data(counts, coords, graph, settings, options.device)
        cells = _chosen(coords, model.settings, options.batches * BATCH)
        field = data.batch(cells[:BATCH]).features.field
        edges = [int((field.table[:n] >= 0).sum()) for n in field.n_receiving]
        seconds = {"ours": [], "torch_geometric": []}
        kinds = {"ours": cellina_gat.CellinaGATNetwork, "torch_geometric": PeerNetwork}
        _epoch(kinds["ours"], model, data, cells[:BATCH])  # compiles
        for _ in range(options.turns):
            for kind, network in kinds.items():
                started = time.process_time()
                wall = _epoch(network, model, data, cells).iloc[1:]
                seconds[kind] += list(wall)
                spent = time.process_time() - started
                print(f"  {name}, {kind}: {wall.iloc[0]:.2f} s an epoch, {spent:.1f} s of processor time in all")
        rates = {kind: len(cells) / np.median(found) for kind, found in seconds.items()}
        ratio = rates["ours"] / rates["torch_geometric"]
        worst = min(worst, ratio)
        print(
            f"{name}: {len(field.cells):,} cells and {'+'.join(f'{e:,}' for e in edges)} edges a batch; ours "
            f"{rates['ours']:.0f} cells/s, torch_geometric {rates['torch_geometric']:.0f}: {ratio:.2f} times (bound "
            f"{BOUND})"
        )
    return int(worst < BOUND)


def _memory(options) -> dict:
    """Of a process that trains two steps and then looks at a thousand validation cells."""
    counts, coords, graph = _slide(options)
    before = _peak_gb()
    model, data = _data(counts, coords, graph, {})
    cells = _chosen(coords, model.settings, 2 * BATCH)
    _epoch(cellina_gat.CellinaGATNetwork, model, data, cells)
    trained = _peak_gb()
    network = cellina_gat.CellinaGATNetwork(options.genes, N_TYPES, N_DOMAINS, 1, N_HIDDEN, 3, N_LATENT)
    with torch.no_grad():
        network.eval()
        for piece in data.pieces(np.arange(0, options.cells, max(1, options.cells // 1000)))[:1]:
            batch = data.batch(piece)
            network.encode(batch)
    return {"slide_gb": before, "training_gb": trained, "validation_gb": _peak_gb()}


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _compare_memory(options) -> int:
    for cells, neighbors in ((20_000, 20), (20_000, 50), (20_000, 100), (100_000, 50), (400_000, 50)):
        command = [sys.executable, __file__, "--worker", "--cells", str(cells)]
        command += ["--neighbors", str(neighbors), "--genes", str(options.genes)]
        answer = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
        found = json.loads(answer.splitlines()[-1])
        told = ", ".join(f"{name.removesuffix('_gb')} {gb:.2f} GB" for name, gb in found.items())
        print(f"{cells:,} cells x {options.genes:,} genes, {neighbors} neighbours: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
