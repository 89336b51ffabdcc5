"""What the methods that run on scvi-tools share: the cells they may see, repeatable training, shims for older packages.

Only adapters import it, in the environment `scvi`. Held-out cells are not masked but absent: these packages compute
latents, niches and differences over all cells that they are given.
"""

import sys
import types
import typing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream_seed


@dataclass(frozen=True)
class Seen:
    """The cells of a question that a method may see, labels replaced by codes that no package takes apart.

    Attributes:
        task: the question.
        cells: (n,) indices in the slide, ascending: all but the held-out ones.
    """

    task: object
    cells: np.ndarray

    @classmethod
    def of(cls, task) -> "Seen":
        """What a method may see of a question: all cells but the held-out ones."""
        return cls(task, np.flatnonzero(~task.split.held_out))

    @cached_property
    def _codes(self) -> dict[str, dict[str, str]]:
        """Column -> label -> code; packages split labels at `_` and `+`, and compare parts of them."""
        obs = self.task.slide.obs
        return {
            column: {label: f"{column[0]}{i}" for i, label in enumerate(sorted(obs[column].astype(str).unique()))}
            for column in ("cell_type", "domain", "sample")
        }  # fmt: skip

    def domain(self, label: str) -> str:
        """Code of a domain."""
        return self._codes["domain"][label]

    def counts(self, cells: np.ndarray | None = None) -> AnnData:
        """Raw counts (CSR), codes in obs and places (micrometres) of some cells, indices (m,) in the slide, or of all
        that may be seen.
        """
        cells = self.cells if cells is None else cells
        slide = self.task.slide
        obs = pd.DataFrame(
            {
                column: pd.Categorical(slide.obs[column].astype(str).map(codes).to_numpy()[cells])
                for column, codes in self._codes.items()
            },
            index=slide.obs_names[cells],
        )
        return AnnData(
            slide.X[cells],
            obs=obs,
            var=pd.DataFrame(index=slide.var_names),
            obsm={"spatial": np.asarray(slide.obsm["spatial"][cells])},
        )

    def log_expression(self, cells: np.ndarray | None = None) -> AnnData:
        """The same with log1p of counts per 10,000, dense float32."""
        table = self.counts(cells)
        table.X = log_normalize(table.X).toarray()
        return table

    def positions(self, cells: np.ndarray) -> np.ndarray:
        """Where cells of the slide, indices (m,) or a mask, stand among those that may be seen.

        Raises:
            ValueError: some of them are held out.
        """
        place = np.full(self.task.slide.n_obs, -1)
        place[self.cells] = np.arange(len(self.cells))
        found = place[cells]
        if absent := int((found < 0).sum()):
            raise ValueError(f"{absent} of {len(found)} cells are held out, and not among those that are seen")
        return found

    def of_all(self, values: np.ndarray) -> np.ndarray:
        """Values (n, d) of the cells that may be seen, spread over all cells of the slide; NaN for the others."""
        spread = np.full((self.task.slide.n_obs, values.shape[1]), np.nan, dtype=np.float32)
        spread[self.cells] = values
        return spread

    @property
    def split(self) -> list[np.ndarray]:
        """Positions (k,) among `cells` of those that train, of those that validate, and of none that test."""
        masks = (self.task.split.train, self.task.split.validation)
        return [*map(self.positions, masks), np.array([], dtype=int)]


def seed_everything(seed: int, draw: int = 0) -> None:
    """Seed all that scvi-tools, lightning, NumPy and torch draw from."""
    import scvi
    from lightning.pytorch import seed_everything as seed_lightning

    number = stream_seed(seed, "scvi_tools", draw)
    scvi.settings.seed = number
    seed_lightning(number, workers=True, verbose=False)


def train(model, task, seen: Seen, stages: int = 1, warms_up: bool = True) -> None:
    """Train on the cells that train, watch those that validate.

    Args:
        stages: trainings that share an equal budget.
        warms_up: whether the weight of the KL terms rises with the epochs (over 400, scvi-tools' default).
    """
    settings, patience = task.settings, task.settings["early_stopping_patience"]
    epochs, size = length(task, stages)
    rest = {}
    if task.steps is not None:
        patience = None
        if warms_up:
            # They reach the weight that they would have reached.
            warmup = max(1, round(400 * epochs / settings["max_epochs"]))
            rest["plan_kwargs"] = {"n_epochs_kl_warmup": warmup}
    if patience is not None:
        rest["early_stopping_patience"] = patience
    seed_everything(task.seed)
    model.train(
        max_epochs=epochs,
        batch_size=size,
        early_stopping=patience is not None,
        datasplitter_kwargs={"external_indexing": seen.split},
        **quiet(task.device),
        **rest,
    )


def length(task, stages: int = 1) -> tuple[int, int]:
    """Epochs of a training, one of `stages` that share an equal budget, and cells in a batch."""
    n_train = int(task.split.train.sum())
    size = batch_size_for(task.settings["batch_size"], n_train)
    return task.epochs(task.settings["max_epochs"], -(-n_train // size), stages), size


def accelerator(device: str) -> str:
    """Lightning's name of where to train and predict; a model is loaded to where it shall run, else to any GPU."""
    return {"cpu": "cpu", "cuda": "gpu"}.get(device, "auto")


def quiet(device: str) -> dict:
    """Arguments of the trainer: where it runs, and nothing written anywhere."""
    return {
        "accelerator": accelerator(device),
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "logger": None,
    }


def batch_size_for(configured: int, n_train: int) -> int:
    """Batch normalisation cannot train on a last batch of a single cell: then batches are one cell smaller."""
    size = min(configured, n_train)
    while size > 2 and n_train % size == 1:
        size -= 1
    return size


def write_history(history: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write history.tsv: a row per epoch, a column per quantity that the package recorded.

    Args:
        history: quantity -> its values by epoch, in the first column, as scvi-tools keeps them.
    """
    columns = {name: table.iloc[:, 0] for name, table in history.items() if len(table)}
    table = pd.DataFrame(columns).rename_axis("epoch").reset_index()
    table.to_csv(folder / "history.tsv", sep="\t", index=False, float_format="%.6g")


def shim() -> None:
    """Let packages written for scvi-tools 0.16 to 0.20 (scgen 2.1.0, simvi 0.1.2, cpa-tools 0.8.8) import and train.

    Names that scvi-tools has since removed come back, packages that are imported and never called become empty. No
    package is edited, and nothing here computes a number.
    """
    import lightning.pytorch
    import scvi.data._anntorchdataset
    import scvi.model._utils
    import scvi.module.base
    import scvi.nn
    import torch

    def module(name: str, **names) -> types.ModuleType:
        made = sys.modules.setdefault(name, types.ModuleType(name))
        for key, value in names.items():
            setattr(made, key, value)
        return made

    def loss_recorder(loss, reconstruction_loss=None, kl_local=None, *_, **extra):
        extra.pop("kl_global", None)
        return scvi.module.base.LossOutput(
            loss=loss, reconstruction_loss=reconstruction_loss, kl_local=kl_local, extra_metrics=extra
        )

    module("scvi._compat", Literal=typing.Literal)
    if not hasattr(scvi.module.base, "LossRecorder"):
        scvi.module.base.LossRecorder = loss_recorder
    if not hasattr(scvi.nn, "one_hot"):
        scvi.nn.one_hot = lambda index, n: torch.nn.functional.one_hot(index.long().squeeze(-1), n).float()
    if not hasattr(scvi.model._utils, "parse_use_gpu_arg"):
        scvi.model._utils.parse_use_gpu_arg = lambda use_gpu=None, return_device=True: ("cpu", 1, torch.device("cpu"))
    dataset = scvi.data._anntorchdataset
    if not hasattr(dataset.AnnTorchDataset, "get_data"):
        dataset.AnnTorchDataset.get_data = lambda self, key: self.data[key]
    sys.modules.setdefault("scvi.dataloaders._anntorchdataset", dataset)
    module("scvi.model.base._utils", _de_core=None)
    module("pytorch_lightning", **vars(lightning.pytorch))
    sys.modules.setdefault("pytorch_lightning.callbacks", lightning.pytorch.callbacks)
    module("tkinter", N="n")
    module("rdkit.Chem", AllChem=module("rdkit.Chem.AllChem"))
    module("rdkit", Chem=sys.modules["rdkit.Chem"])
    module("cpa._tuner", run_autotune=None)
