"""Cells per second of Cellina's full training step, beside scVI's and beside the matrix products alone.

    python tests/bench/bench_training_step.py --peer-python PATH

PATH is the Python of an environment of its own with tests/bench/scvi-requirements.txt installed. Both train on the
same counts, in processes of their own, in turns: ours runs `training.train` (two encoders, decoder, classifier,
adversary with its own optimiser; everything an epoch holds but for validation, which gets two cells), the peer
`scvi.model.SCVI.train` (one encoder; the same layers, latents, likelihood and batch), given dense counts, its faster
form. Bound: at least twice the peer's cells per second; the exit status says whether it was kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import sparse

BOUND = 2.0
N_TYPES, N_DOMAINS = 8, 3
N_HIDDEN, N_LATENT, BATCH = 128, 64, 2048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of the environment that has scvi-tools")
    parser.add_argument("--cells", type=int, default=10 * BATCH)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs of one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return 0

    pythons = {"ours": sys.executable, "matmul": sys.executable}
    if options.peer_python:
        pythons["peer"] = options.peer_python
    rates = {worker: [] for worker in pythons}
    with tempfile.TemporaryDirectory() as folder:
        options.data = Path(folder) / "counts.npz"
        counts = _counts(options.cells, options.genes)
        sparse.save_npz(options.data, counts)
        for _ in range(options.turns):
            for worker, python in pythons.items():
                rates[worker] += _run(worker, python, options)

    filled = counts.nnz / np.prod(counts.shape)
    print(
        f"{options.cells:,} cells x {options.genes:,} genes, {filled:.1%} non-zero, batch {BATCH:,}, "
        f"{options.threads} threads (machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})"
    )
    median = {worker: float(np.median(values)) for worker, values in rates.items()}
    for worker, label in LABELS.items():
        if worker in rates:
            values = rates[worker]
            print(f"{label:42s} {median[worker]:8,.0f} cells/s (best {max(values):,.0f}, n = {len(values)})")
    print(f"ours / matrix products alone               {median['ours'] / median['matmul']:8.2f}")
    if "peer" not in median:
        return 0
    ratio = median["ours"] / median["peer"]
    print(f"ours / scVI                                {ratio:8.2f} (bound {BOUND:.1f})")
    return int(ratio < BOUND)


def _run(worker, python, options) -> list[float]:
    """Cells per second of each timed epoch of one turn."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    command = [python, __file__, "--worker", worker, "--data", str(options.data)]
    for key in ("cells", "genes", "threads", "epochs"):
        command += [f"--{key}", str(getattr(options, key))]
    answer = subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(answer.strip().splitlines()[-1])


def _counts(n_cells: int, n_genes: int) -> sparse.csr_array:
    """Negative binomial counts, about 15 % of them not 0, with genes and libraries of very different size."""
    rng = np.random.default_rng(0)
    gene_mean = np.exp(rng.normal(-2.25, 1.3, n_genes))
    blocks = []
    for start in range(0, n_cells, BATCH):
        size = np.exp(rng.normal(0, 0.5, (min(BATCH, n_cells - start), 1)))
        mean = size * gene_mean
        blocks.append(sparse.csr_array(rng.negative_binomial(1.0, 1 / (1 + mean)), dtype=np.float32))
    return sparse.vstack(blocks, format="csr")


def _ours(options) -> list[float]:
    import torch

    from tissue_counterfactuals.models.cellina import CellinaNetwork
    from tissue_counterfactuals.models.training import CellData, TrainingSettings, train

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    n_validation = 2
    counts = sparse.load_npz(options.data)
    counts = sparse.vstack([counts, counts[:n_validation]], format="csr")
    n_cells = counts.shape[0]
    data = CellData(
        counts,
        rng.random(counts.shape, dtype=np.float32),
        rng.integers(N_TYPES, size=n_cells),
        rng.integers(N_DOMAINS, size=n_cells),
        np.zeros(n_cells, dtype=np.int64),
        torch.device("cpu"),
    )
    network = CellinaNetwork(options.genes, N_TYPES, N_DOMAINS, 1, N_HIDDEN, 2, N_LATENT)
    # Epoch 0 only measures, and the one after it still warms up.
    settings = TrainingSettings(epochs=options.epochs + 2, batch_size=BATCH, patience=10**6)
    cells = np.arange(n_cells)
    history = train(network, data, cells[:-n_validation], cells[-n_validation:], settings)
    return list((n_cells - n_validation) / history["seconds"].iloc[2:])


def _peer(options) -> list[float]:
    import logging
    import warnings

    import lightning.pytorch as pl
    import scvi
    import torch
    from anndata import AnnData

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    scvi.settings.seed = 0
    times = []

    class Timer(pl.Callback):
        def on_train_epoch_start(self, *_):
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_):
            times.append(time.perf_counter() - self.start)

    slide = AnnData(sparse.load_npz(options.data).toarray())
    scvi.model.SCVI.setup_anndata(slide)
    model = scvi.model.SCVI(slide, n_layers=2, n_hidden=N_HIDDEN, n_latent=N_LATENT, gene_likelihood="nb")
    model.train(
        max_epochs=options.epochs + 1,
        batch_size=BATCH,
        train_size=1.0,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[Timer()],
    )
    return [slide.n_obs / seconds for seconds in times[1:]]


def _matmul(options) -> list[float]:
    """The matrix products of one of our steps, forward and backward, and nothing else."""
    import torch

    torch.set_num_threads(options.threads)
    encoder = [(options.genes, N_HIDDEN), (N_HIDDEN, N_HIDDEN)] + [(N_HIDDEN, N_LATENT)] * 2
    decoder = [(2 * N_LATENT, N_HIDDEN), (N_HIDDEN, N_HIDDEN), (N_HIDDEN, options.genes)]
    classifier = [(N_LATENT, 128), (128, N_TYPES)]
    discriminator = [(N_LATENT, 32), (32, 32), (32, N_DOMAINS)]
    layers = []
    for n_in, n_out in 2 * encoder + decoder + classifier + 2 * discriminator:
        tensors = [torch.randn(BATCH, n_in), torch.randn(n_out, n_in), torch.randn(BATCH, n_out)]
        layers.append((*tensors, *(torch.empty_like(tensor) for tensor in tensors)))

    def products():
        for x, weight, gradient, input_gradient, weight_gradient, y in layers:
            torch.mm(x, weight.t(), out=y)
            torch.mm(gradient.t(), x, out=weight_gradient)
            if x.shape[1] != options.genes:  # data needs no gradient
                torch.mm(gradient, weight, out=input_gradient)

    rates = []
    for _ in range(options.epochs + 1):
        start = time.perf_counter()
        for _ in range(10):
            products()
        rates.append(10 * BATCH / (time.perf_counter() - start))
    return rates[1:]


WORKERS = {"ours": _ours, "matmul": _matmul, "peer": _peer}
LABELS = {
    "ours": "Cellina, full step",
    "peer": "scVI 1.4.2",
    "matmul": "matrix products of Cellina's step alone",
}

if __name__ == "__main__":
    raise SystemExit(main())
