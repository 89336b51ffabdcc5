"""Runs the published package `celcomen` 0.0.1 on arrays, in an environment of its own (celcomen-requirements.txt).

    python tests/peers/run_celcomen.py TASK INPUT.npz OUTPUT.npz [TASK INPUT.npz OUTPUT.npz ...] [--threads N]

Arrays go in and come out as npz, so that the product and the package never share an environment. The package computes
in the dtype of the arrays it is given (it was run in float32). Every slide k of the input has `expression_k` (n, g) and
`edges_k` (2, e), from -> to.

TASKS
    loss      loss and gradients of the inference at `inter`, `intra`, for each slide
    fit       the package's own training loop from `inter`, `intra`: `epochs`, `learning_rate`, `seed`, `projection`
              ("package": as the package ships it, matrices made symmetric only; "unit_box": its function for symmetric
              matrices clipped to 0 .. 1 with ones on the diagonal, as in the notebooks of the paper)
    generate  the package's own generation from the cells of slide 0 under fixed `inter`, `intra`: `epochs`,
              `learning_rate`; leaves `expression`, the cells before the last step, the last `angles`, and `losses`

Each leaves `seconds`, the time of the task without start-up.
"""

import argparse
import time

import numpy as np
import torch
from celcomen.models.celcomen import celcomen
from celcomen.models.simcomen import simcomen
from celcomen.training_plan import train as training
from celcomen.utils import helpers
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

TEMPERATURE = 0.1
NEIGHBORS = 6
PROJECTIONS = {"package": helpers.symmetrize_g2g, "unit_box": helpers.normalize_g2g}


def inference_model(arrays):
    n_genes = len(arrays["inter"])
    model = celcomen(n_genes, n_genes, NEIGHBORS, seed=0)
    model.set_g2g(torch.tensor(arrays["inter"]))
    model.set_g2g_intra(torch.tensor(arrays["intra"]))
    # The package makes its biases, which are zeros, in float32 whatever the forces are.
    return model.double() if arrays["inter"].dtype == np.float64 else model


def slides(arrays):
    n_slides = sum(name.startswith("expression_") for name in arrays)
    return [
        Data(
            x=torch.tensor(arrays[f"expression_{k}"]),
            edge_index=torch.tensor(arrays[f"edges_{k}"], dtype=torch.long),
        )
        for k in range(n_slides)
    ]


def run_loss(arrays):
    """The package writes its loss inside the training loop, so it is put together here from the model's outputs."""
    found = {}
    for k, slide in enumerate(slides(arrays)):
        model = inference_model(arrays)
        model.set_gex(slide.x)
        message, own_message, log_z = model(slide.edge_index, 1)
        energy = torch.trace(message @ slide.x.T) + torch.trace(own_message @ slide.x.T)
        loss = log_z - TEMPERATURE * energy
        loss.backward()
        found[f"loss_{k}"] = loss.item()
        found[f"inter_gradient_{k}"] = model.conv1.lin.weight.grad.numpy()
        found[f"intra_gradient_{k}"] = model.lin.weight.grad.numpy()
    return found


def run_fit(arrays):
    training.symmetrize_g2g = PROJECTIONS[str(arrays["projection"])]
    model = inference_model(arrays)
    loader = DataLoader(slides(arrays), batch_size=1, shuffle=True)
    losses = training.train(
        int(arrays["epochs"]), float(arrays["learning_rate"]), model, loader, TEMPERATURE, int(arrays["seed"])
    )  # fmt: skip
    return {
        "inter": model.conv1.lin.weight.detach().numpy(),
        "intra": model.lin.weight.detach().numpy(),
        "losses": np.array(losses),
    }


def run_generate(arrays):
    n_genes = len(arrays["inter"])
    slide = slides(arrays)[0]
    model = simcomen(n_genes, n_genes, NEIGHBORS, seed=0)
    model.set_g2g(torch.tensor(arrays["inter"]))
    model.set_g2g_intra(torch.tensor(arrays["intra"]))
    model.set_sphex(model.calc_sphex(slide.x))
    losses = training.train_simcomen(
        int(arrays["epochs"]), float(arrays["learning_rate"]), model, slide.edge_index, TEMPERATURE
    )
    return {
        "expression": model.gex.detach().numpy(),
        "angles": model.sphex.detach().numpy(),
        "losses": np.array(losses),
    }


TASKS = {"loss": run_loss, "fit": run_fit, "generate": run_generate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="TASK INPUT OUTPUT")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    jobs = options.jobs
    for task, given, output in zip(jobs[::3], jobs[1::3], jobs[2::3], strict=True):
        arrays = dict(np.load(given))
        started = time.perf_counter()
        found = TASKS[task](arrays)
        np.savez(output, **found, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
