"""CPA (cpa-tools 0.8.8): the domain is a perturbation, the cell type a covariate; the counterfactual swaps the domain.

Settings are those with which the authors of Cellina ran it. cpa-tools asks for Python below 3.11 and scvi-tools 0.20;
it runs here with the names that scvi-tools and lightning have since removed (`scvi_tools.shim` and below).
"""

import copy
from pathlib import Path

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.methods.scvi_tools import Seen, accelerator, length, seed_everything, shim

# Networks and training as the authors of Cellina configured them.
_NETWORK = {
    "recon_loss": "nb",
    "doser_type": "linear",
    "n_hidden_encoder": 128,
    "n_layers_encoder": 2,
    "n_hidden_decoder": 512,
    "n_layers_decoder": 2,
    "use_batch_norm_encoder": True,
    "use_layer_norm_encoder": False,
    "use_batch_norm_decoder": False,
    "use_layer_norm_decoder": True,
    "dropout_rate_encoder": 0.0,
    "dropout_rate_decoder": 0.1,
    "variational": False,
}
_PLAN = {
    "n_epochs_kl_warmup": None,
    "n_epochs_mixup_warmup": 0,
    "mixup_alpha": 0.0,
    "adv_steps": None,
    "n_hidden_adv": 64,
    "n_layers_adv": 3,
    "use_batch_norm_adv": True,
    "use_layer_norm_adv": False,
    "dropout_rate_adv": 0.3,
    "reg_adv": 20.0,
    "pen_adv": 5.0,
    "wd": 4e-7,
    "adv_lr": 3e-4,
    "adv_wd": 4e-7,
    "adv_loss": "cce",
    "doser_lr": 3e-4,
    "doser_wd": 4e-7,
    "do_clip_grad": True,
    "gradient_clip_value": 1.0,
    "step_size_lr": 10,
}


def fit(task, folder: Path) -> None:
    """Train; leaves the model and history.tsv."""
    settings, seen = task.settings, Seen.of(task)
    if task.slide.obs["domain"].iloc[seen.cells].nunique() < 2:
        raise ValueError("CPA learns what differs between domains, and the cells that it may see are all of one")
    cpa = _package(task.device)
    model = cpa.CPA(_registered(cpa, task, seen, seen.cells), **_arguments(task))
    epochs, size = length(task)
    # In an equal budget the phases keep their shares of the training.
    share = epochs / settings["max_epochs"]
    seed_everything(task.seed)
    model.train(
        max_epochs=epochs,
        batch_size=size,
        plan_kwargs=_PLAN
        | {
            "lr": settings["learning_rate"],
            "n_epochs_pretrain_ae": round(share * settings["pretrain_epochs"]),
            "n_epochs_adv_warmup": round(share * settings["adversary_warmup_epochs"]),
        },
        save_path=False,
        check_val_every_n_epoch=settings["check_every"],
        early_stopping_patience=task.patience(settings["early_stopping_patience"], epochs),
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    model.epoch_history.to_csv(folder / "history.tsv", sep="\t", index=False, float_format="%.6g")
    model.save(str(folder / "model"), overwrite=True, save_anndata=False)


def predict(task, folder: Path, target: str) -> dict[str, Prediction]:
    """The focal cells with the target domain as their perturbation, and with their own (the twin)."""
    import torch

    seen = Seen.of(task)
    cpa = _package(task.device)
    # Focal cells of a patient who is left out are none that it was trained on.
    every = np.union1d(seen.cells, task.focal)
    cells = _registered(cpa, task, seen, every)
    model = cpa.CPA(cells, **_arguments(task))
    stored = torch.load(folder / "model" / "model.pt", map_location="cpu", weights_only=False)
    weights = {k: v for k, v in stored["model_state_dict"].items() if k != "pyro_param_store"}
    model.module.load_state_dict(weights)
    model.is_trained_ = True
    positions = np.searchsorted(every, task.focal)

    def expected(domain: str) -> Prediction:
        focal = cells[positions].copy()
        focal.obsm["perts"][:, 0] = model.pert_encoder[seen.domain(domain)]
        focal.obs[cpa._utils.CPA_REGISTRY_KEYS.CONTROL_KEY] = int(domain == task.fold.control)
        seed_everything(task.seed)
        model.predict(focal, batch_size=512)
        return Prediction(at_library(focal.obsm["CPA_pred"], task.slide, task.focal), task.focal)

    return {"-": expected(target), "no_intervention": expected(task.fold.control)}


def _arguments(task) -> dict:
    splits = {f"{name}_split": name for name in ("train", "valid", "test")}
    size = {"n_latent": task.settings["n_latent"], "seed": task.seed}
    return {"split_key": "split"} | splits | size | _NETWORK


def _registered(cpa, task, seen: Seen, indices: np.ndarray):
    """Cells, `indices` (n,) in the slide, in CPA's form.

    It keeps its codes of domains in the class, where they outlive a data set.
    """
    cpa.CPA.pert_encoder = cpa.CPA.covars_encoder = None
    cells = seen.counts(indices)
    cells.obs = cells.obs.astype(str)
    cells.obs["dose"] = 1.0
    cells.obs["split"] = np.where(task.split.validation[indices], "valid", "train")
    cpa.CPA.setup_anndata(
        cells,
        perturbation_key="domain",
        control_group=seen.domain(task.fold.control),
        dosage_key="dose",
        categorical_covariate_keys=["cell_type"],
        is_count_data=True,
        max_comb_len=1,
    )
    return cells


def _package(device: str):
    """cpa, made trainable with the scvi-tools and lightning of this environment."""
    shim()
    import lightning.pytorch.callbacks as callbacks
    import scvi
    import scvi.train
    import scvi.train._callbacks

    if not hasattr(scvi.settings, "dl_pin_memory_gpu_training"):
        scvi.settings.dl_pin_memory_gpu_training = False

    class SaveBestState(callbacks.Callback):
        """Keeps the weights of the best validation, as the class of this name in scvi-tools 0.20 did."""

        def __init__(self, monitor: str, mode: str = "max", period: int = 1, verbose: bool = False):
            super().__init__()
            self.monitor, self.sign = monitor, 1 if mode == "max" else -1
            self.best, self.state = -np.inf, None

        def on_validation_epoch_end(self, trainer, module):
            value = trainer.callback_metrics.get(self.monitor)
            if value is not None and self.sign * float(value) > self.best:
                self.best = self.sign * float(value)
                self.state = copy.deepcopy(module.module.state_dict())

        def on_train_end(self, trainer, module):
            if self.state is not None:
                module.module.load_state_dict(self.state)

    runner = scvi.train.TrainRunner

    class TrainRunner(runner):
        def __init__(self, *arguments, use_gpu=None, **options):
            super().__init__(*arguments, accelerator=accelerator(device), devices=1, **options)

    scvi.train._callbacks.SaveBestState = SaveBestState
    scvi.train.TrainRunner = TrainRunner
    import cpa
    import cpa._model
    import cpa._task

    cpa._model.TrainRunner = TrainRunner
    _hooks_of_today(cpa._task.CPATrainingPlan)
    return cpa


def _hooks_of_today(plan) -> None:
    """Lightning 2 no longer hands the outputs of the steps to the end of an epoch: they are collected here."""
    if "training_epoch_end" not in vars(plan):
        return
    for stage in ("training", "validation"):
        _collect(plan, stage)


def _collect(plan, stage: str) -> None:
    step, end = getattr(plan, f"{stage}_step"), getattr(plan, f"{stage}_epoch_end")
    delattr(plan, f"{stage}_epoch_end")
    hook = "on_train_epoch_end" if stage == "training" else "on_validation_epoch_end"
    kept = f"_outputs_of_{stage}"

    def collecting_step(self, batch, batch_idx):
        outputs = step(self, batch, batch_idx)
        numbers = {k: v.item() if hasattr(v, "item") else v for k, v in outputs.items()}
        self.__dict__.setdefault(kept, []).append(numbers)

    def end_of_epoch(self):
        outputs = self.__dict__.pop(kept, [])
        if outputs:
            end(self, outputs)

    setattr(plan, f"{stage}_step", collecting_step)
    setattr(plan, hook, end_of_epoch)
