"""The configuration: typed classes with every default and bound, every fault told in one sentence."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tissue_counterfactuals.config.dataset import POOLED, Dataset, is_url, samples_of
from tissue_counterfactuals.config.known import known_faults
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.settings import CelcomenSettings, CellinaExperimentSettings
from tissue_counterfactuals.files import MAX_LABEL, slug
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.methods.settings import (
    CelcomenFieldSettings,
    ConcertSettings,
    CpaSettings,
    HierarchicalSettings,
    MintflowSettings,
    NearestNeighborSettings,
    RidgeSettings,
    ScgenSettings,
    ScviSettings,
    SimviSettings,
    SpatialPropSettings,
)
from tissue_counterfactuals.models.settings import CellinaGATSettings, CellinaSettings
from tissue_counterfactuals.protocols import PROTOCOLS, resolve
from tissue_counterfactuals.question.settings import CounterfactualSettings, UserQuestion
from tissue_counterfactuals.settings import Block, Seed, Settings, Some, allowed, dotted, leaves, schema, show
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.downloads.settings import DownloadSettings
from tissue_counterfactuals.sources.downloads.table import download_faults, slides_in_table

__all__ = ["POOLED", "Config", "describe", "is_url", "load_config", "samples_of"]


class MetricSettings(Settings):
    """How predictions are scored."""

    n_deg: int = Field(50, ge=2, le=100_000)
    """Number of differential genes, those with the largest change, on which the correlations and precisions are
    taken.
    """


def _file_name(name: str) -> str:
    if name != slug(name) or "." in name:
        raise ValueError(" cannot name a data set; use letters, digits, _ and - only.")
    return name


def _known_switches(switches: dict[str, str | int]) -> dict[str, str]:
    faults = []
    for name, value in switches.items():
        try:
            resolve("corrected", {name: str(value)})
        except InputError as error:
            faults.append(str(error).removeprefix("config: switches"))
    if faults:
        raise ValueError(*faults)
    return {name: str(value) for name, value in switches.items()}


class Config(Settings):
    """What to run, on which slides, and how."""

    seeds: Some[Seed] = [0]
    """Seeds; the whole benchmark is repeated for each, and spreads are taken over them."""
    protocols: Some[Literal[*PROTOCOLS]] = ["corrected"]
    """`corrected` follows the papers with defects mended, `as_run` repeats the authors' code; both stand side by side
    in the tables."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models train; `auto` takes CUDA where it is usable, `cuda` stops the run where it is not. MintFlow and
    SIMVI train on the CPU all the same."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of one training job. Another number sums in another order: results differ by rounding (weights by up
    to 1e-4).
    """
    datasets: Annotated[dict[Annotated[str, AfterValidator(_file_name)], Dataset], Field(min_length=1), Block] = Field(
        {}, validate_default=True
    )
    """The slides to run on; the name of each entry becomes a folder of the results and a target of its own."""
    methods: Some[Literal[*METHODS]] = [m.name for m in METHODS.values() if m.by_default]
    """Methods and controls to run, each where it can be: the two truth methods on simulated slides only. Ridge
    regression, nearest neighbours and the methods of other groups run when they are named."""
    budget: Literal["own", "equal"] = "own"
    """How long methods train: `own` as the section of each says, by default as published; `equal` gives every scored
    method that takes optimiser steps `equal_steps` of them, with its own batches, without early stopping, and with its
    warm-ups stretched in proportion. Methods that train in stages share the steps out among them. Trainings end with
    whole epochs, one at least: each takes the number of steps nearest to its share, which its log holds."""
    equal_steps: int = Field(2000, ge=1, le=100_000_000)
    """Optimiser steps of each method where `budget` is equal, up to half an epoch more or fewer."""
    nearest_neighbor: NearestNeighborSettings = NearestNeighborSettings()
    ridge: RidgeSettings = RidgeSettings()
    cellina: CellinaSettings = CellinaSettings()
    cellina_gat: CellinaGATSettings = CellinaGATSettings()
    hierarchical: HierarchicalSettings = HierarchicalSettings()
    celcomen_field: CelcomenFieldSettings = CelcomenFieldSettings()
    spatialprop: SpatialPropSettings = SpatialPropSettings()
    concert: ConcertSettings = ConcertSettings()
    scvi: ScviSettings = ScviSettings()
    scgen: ScgenSettings = ScgenSettings()
    cpa: CpaSettings = CpaSettings()
    mintflow: MintflowSettings = MintflowSettings()
    simvi: SimviSettings = SimviSettings()
    counterfactual: CounterfactualSettings = CounterfactualSettings()
    metrics: MetricSettings = MetricSettings()
    downloads: DownloadSettings = DownloadSettings()
    cellina_experiments: CellinaExperimentSettings = CellinaExperimentSettings()
    celcomen: CelcomenSettings = CelcomenSettings()
    switches: Annotated[dict[str, str | int], Block, AfterValidator(_known_switches)] = {}
    """Protocol switches that shall differ from `corrected`, as name and value (`{scale: none}`); `as_run` takes none.
    All names, with both values and the reason, stand in `workflow/tissue_counterfactuals/protocols/`."""


def load_config(raw: dict) -> dict:
    """Validate a configuration and fill in every default.

    `kind`, `label` and `methods` of a data set come back resolved, never null; `samples` as text.

    Args:
        raw: what the YAML file holds; it is not changed.
    Returns:
        A new plain dict with every key of `Config`.
    Raises:
        InputError: all faults, one sentence a line, each with the full path of its key.
    """
    if not isinstance(raw, dict):
        raise InputError(f"config: it is {show(raw)}; give a file with keys at the top level.")
    faults = [f"config: {fault}" for fault in _text_faults(raw)]
    if faults:
        raise InputError("\n".join(faults))
    config = Config.read(raw, start="config: ").model_dump()
    for name, dataset in config["datasets"].items():
        _resolve(name, dataset, config["methods"])
    faults = [
        *_method_faults(config, raw),
        *_budget_faults(config),
        *_idle_faults(config, raw),
        *_patch_faults(config, raw),
        *_slide_faults(config),
        *download_faults(config),
        *known_faults(config, raw),
    ]
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    for dataset in config["datasets"].values():
        if dataset["files"] is not None and dataset["samples"] is None:
            table = config["downloads"]["table"]
            left_out = READERS[dataset["source"]].left_out()
            slides = slides_in_table(dataset["files"], table)
            dataset["samples"] = [name for name in slides if name not in left_out] or None
    return config


def _method_faults(config: dict, raw: dict) -> Iterator[str]:
    """Methods named for all data sets that none of them can be asked."""
    kinds = sorted({(entry["source"] == "simulated", entry["fit"]) for entry in config["datasets"].values()})
    for name in raw.get("methods") or []:
        reasons = [METHODS[name].refusal(*kind) for kind in kinds]
        if all(reasons):
            yield f"config: methods names {name}, which no data set here can be asked: {reasons[0]}; leave it out."


def _budget_faults(config: dict) -> Iterator[str]:
    if config["budget"] == "equal" and "as_run" in config["protocols"]:
        yield (
            "config: budget is equal, but protocols names as_run, which trains as long as the authors did; leave "
            "as_run out, or set budget to own."
        )


def _idle_faults(config: dict, raw: dict) -> Iterator[str]:
    """Keys that are given and would do nothing, or not what they say."""
    # Simulated lesions are asked under these switches, whatever the protocol.
    lesions = any("celcomen_perturbmap" in entry["experiments"] for entry in config["datasets"].values())
    if config["switches"] and config["protocols"] == ["as_run"] and not lesions:
        yield "config: switches are given, but protocols names as_run alone, which takes none; add corrected to it."
    if "equal_steps" in raw and config["budget"] == "own":
        yield "config: equal_steps is given, but budget is own, which does not read it; set budget to equal."
    settings = config["cellina_experiments"]
    fewest = min(settings["scalability"]["n_cells"])
    for method, most in settings["scalability"]["most_cells"].items():
        if most < fewest:
            yield (
                f"config: cellina_experiments.scalability.most_cells.{method} is {most}, and the fewest cells that are "
                f"tried are {fewest}; raise it, or take {method} out of methods."
            )
    if "trust" in config["celcomen"]["without_slides"] and not settings["trust"]["methods"]:
        yield "config: cellina_experiments.trust.methods is empty; give at least one method."
    for key in ("folder", "cache", "offline", "lock", "table"):
        if (config["downloads"][key] or "").startswith("~"):
            yield f"config: downloads.{key} begins with ~, which is not taken for your home here; write the whole path."


def _patch_faults(config: dict, raw: dict) -> Iterator[str]:
    cells = (raw.get("cellina_gat") or {}).get("patch_cells", 1)
    if config["switches"].get("gat_field") == "one_hop" and cells != 1:
        yield (
            f"config: cellina_gat.patch_cells is {cells}, but switches.gat_field is one_hop, whose batches are random "
            "cells; leave one of them out."
        )


def _slide_faults(config: dict) -> Iterator[str]:
    switches = resolve("corrected", config["switches"])
    asked = "corrected" in config["protocols"] and switches["log_partition"] != "gaussian"
    asked &= any("celcomen_spleen" in entry["experiments"] for entry in config["datasets"].values())
    if asked and (switches["held_out_slide"], switches["slide_steps"]) == ("shuffled", "pooled"):
        yield (
            "config: under switches.held_out_slide 'shuffled' each epoch steps from slide to slide, which "
            "switches.slide_steps 'pooled' does not allow; set slide_steps to shuffled, or held_out_slide to fixed."
        )


def describe() -> str:
    """All keys as Markdown tables (key, allowed, default, meaning), made from the classes."""
    lines = []
    for title, prefix, settings in (
        ("At the top level", "", Config),
        ("For each data set", "datasets.NAME.", Dataset),
        ("For each question of a data set", "datasets.NAME.questions[].", UserQuestion),
    ):
        lines += [f"## {title}", "", "| key | allowed | default | meaning |", "|---|---|---|---|"]
        for path, key in leaves(schema(settings), settings):
            meaning = " ".join(key["description"].split())
            cells = (
                f"`{prefix}{path}`",
                allowed(key, settings),
                f"`{show(key['default'])}`" if "default" in key else "must be given",
                meaning,
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _text_faults(value: object, path: tuple = ()) -> Iterator[str]:
    """What no key and no text can be, whatever it stands for: most of them become files or names of files."""
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                yield f"the key {dotted((*path, key))} is not text; put it in quotation marks."
            elif len(key) > MAX_LABEL:
                yield f"the key {key[:40]!r}... has {len(key)} characters; give it at most {MAX_LABEL}."
            yield from _text_faults(child, (*path, key))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _text_faults(child, (*path, i))
    elif isinstance(value, str):
        longest = max(len(part.encode()) for part in value.split("/"))
        if "\0" in value:
            yield f"{dotted(path)} holds the character NUL; take it out."
        elif longest > 255 or len(value.encode()) > 4000:
            yield (
                f"{dotted(path)} is longer than the name of a file can be ({longest} bytes in one name, "
                f"{len(value.encode())} in all); shorten it."
            )


def _resolve(name: str, dataset: dict, methods: list[str]) -> None:
    dataset["kind"] = dataset["kind"] or ("real" if dataset["source"] in READERS else "simulated")
    dataset["label"] = dataset["label"] or name
    dataset["methods"] = list(dataset["methods"] or methods)
    if dataset["samples"] is not None:
        dataset["samples"] = [str(sample) for sample in dataset["samples"]]
    dataset["patients"] = {name: [str(sample) for sample in own] for name, own in dataset["patients"].items()}
