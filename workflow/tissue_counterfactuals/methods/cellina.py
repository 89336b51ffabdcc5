"""Cellina: each focal cell keeps its z and gets the s of its donors (edge), or of its altered neighbours (node)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.models.settings import under_switches
from tissue_counterfactuals.models.training import TrainingSettings, batches_of, resolve_batch_size
from tissue_counterfactuals.slide import log_normalize, normalize_counts

# Below these the spatial latent is called unused: the counterfactual is then the twin, whatever the scores say.
MIN_KL_OF_S = 0.1
MIN_EFFECT = 0.01


def fit(task, folder: Path, **overrides) -> None:
    """Train; leaves model.pt and history.tsv."""
    settings = under_switches(task.settings, task.switches) | overrides
    fit_model(task, folder, Cellina, settings, task.masked_graph)


def fit_model(task, folder: Path, model_class: type[Cellina], settings: dict, graph) -> None:
    """Train one of Cellina's forms with the given arguments; leaves model.pt and history.tsv."""
    model = model_class(device=task.device, **settings)
    if task.steps is not None:
        model.settings = _in_budget(task, model.settings)
    model.fit(
        task.slide,
        graph,
        task.split,
        seed=task.seed,
        checkpoint=task.checkpoint,
        report=task.report,
        resumed=task.resumed,
    )
    model.history.to_csv(folder / "history.tsv", sep="\t", index=False, float_format="%.6g")
    model.save(folder / "model.pt")


def latents(task, folder: Path) -> dict[str, np.ndarray]:
    """z and s of all cells, each (n, n_latent): posterior means, as run one draw."""
    model = Cellina.load(folder / "model.pt", device=task.device)
    own = neighborhood_features(task.masked_graph, log_normalize(task.slide.X))
    return latents_among(task, model, own)


def latents_among(task, model: Cellina, around) -> dict[str, np.ndarray]:
    """z and s (n, n_latent) of all cells by one of Cellina's forms, given what it reads of where the cells stand."""
    cells = np.arange(task.slide.n_obs)
    latent = task.switches["latent"]
    return dict(zip("zs", model.latents(task.slide, cells, around, latent, task.seed), strict=True))


def predict(task, folder: Path, target: str) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin; diagnostics say whether s is used at all."""
    slide = task.slide
    new = bool(task.fold.samples)
    model = Cellina.load(folder / "model.pt", device=task.device, new_samples=new)
    log_expression = log_normalize(slide.X)
    donor_expression = log_expression if task.switches["donor_features"] == "log1p" else slide.X

    around = task.masked_graph[task.focal]

    def moved(perturbation):
        return neighborhood_features(perturbation.graph(slide.n_obs), donor_expression)

    def altered(node):
        return neighborhood_features(around, task.altered_log(node))

    own = neighborhood_features(around, log_expression)
    return variants(task, target, model, own, moved, altered)


def variants(
    task, target: str, model: Cellina, own, moved: Callable, altered: Callable, listen: Callable = lambda around: None
) -> dict:
    """What a model answers: one prediction per perturbation, and the twin.

    Args:
        own: what the model reads of the focal cells' surroundings; `moved` and `altered` give the same from an
            `EdgePerturbation` and from a `NodePerturbation`; `listen` says whom the focal cells attend to in it.
    """
    slide, focal = task.slide, task.focal

    def expected(around):
        return model.predict(slide, focal, around, latent=task.switches["latent"], seed=task.seed)

    def answer(values, around, **notes):
        attention = listen(around)
        return Prediction(values, focal, dispersion=model.dispersion, attention=attention, **notes)

    twin = expected(own)
    kl_of_s = model.kl_per_cell(slide, focal, own)[1]

    def among(around):
        values = expected(around)
        effect = _mean_change(values, twin)
        if kl_of_s < MIN_KL_OF_S or effect < MIN_EFFECT:
            task.report(
                f"warning: the spatial latent is hardly used (KL of s {kl_of_s:.3f} nats per cell, new neighbours "
                f"change log expression by {effect:.4f} on average), so this counterfactual is its own twin: give "
                "the model more steps (a smaller batch_size or more epochs in its section)"
            )
        notes = {"kl_s": kl_of_s, "donor_effect": effect}
        return answer(values, around, diagnostics=notes)

    among_altered = task.altered(target, lambda node: among(altered(node)))
    twin_of_both = {"no_intervention": answer(twin, own)}
    return task.counterfactuals(target, lambda p: among(moved(p))) | among_altered | twin_of_both


def _in_budget(task, settings: TrainingSettings) -> TrainingSettings:
    """As many epochs as make the steps; the KL terms reach the weight that they would have reached."""
    train = np.flatnonzero(task.split.train)
    size = resolve_batch_size(settings.batch_size, len(train), settings.epochs - settings.measuring_epochs)
    stepping = task.epochs(settings.epochs, len(batches_of(train, size)))
    epochs = stepping + settings.measuring_epochs
    return replace(
        settings,
        batch_size=size,
        epochs=epochs,
        kl_warmup_epochs=max(1, round(settings.kl_warmup_epochs * stepping / settings.epochs)),
        patience=task.patience(settings.patience, epochs),
    )


def _mean_change(values: np.ndarray, twin: np.ndarray) -> float:
    """Mean over genes of the absolute change of log(1 + mean counts per 10,000)."""
    profiles = [np.log1p(normalize_counts(x).mean(axis=0)) for x in (values, twin)]
    return float(np.abs(profiles[0] - profiles[1]).mean())
