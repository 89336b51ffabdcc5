"""The table of methods. Adding a method is one row in `METHODS` and one file with `fit` and `predict`.

An adapter file defines

    fit(task, folder)                      only if the method is learned: train, and leave in `folder` what predict
                                           needs
    latents(task, folder) -> dict          only if it has latent variables: name -> (n, d) of all cells, NaN for
                                           unseen ones
    predict(task, folder, target) -> dict  variant name -> Prediction, or the reason (str) why there is none

and knows nothing of Snakemake, files of slides or scores (`task`: see question/task.py). It runs in the environment
that its row names; this module, the question and `run.py` need only numpy, scipy and anndata there. Every learned
method predicts, beside its counterfactuals, its own twin `no_intervention`: the same fitted model and focal cells in
their own neighbourhood.

The table itself loads nothing but the standard library.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

CORE = "core"

# What a row may say under `needs`, and what it means.
NEEDS = {
    "graph": "reads who stands around whom, in training at least",
    "edge": "answers new neighbours: one variant per donor rule",
    "node": "answers altered neighbours",
    "own": "answers a knock-out in the focal cells themselves",
    "latent": "gives latent variables of each cell",
    "latent_only": "gives no expression beside them",
    "known_cells": "answers about cells that it was trained on alone",
    "in_domain": "sees cells of the held-out type in the target domain",
    "stochastic": "draws at random: another seed is another answer",
    "steps": "trains by optimiser steps, as many as `budget: equal` says",
    "asked": "reads in training what is asked, and is trained anew where other donors or shifts are asked about",
    "truth": "reads the mechanism of a simulated tissue",
}


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: also the name of the adapter file.
        learned: whether it has a `fit`.
        description: in a few words.
        needs: flags of `NEEDS`.
        settings: section of the configuration that it reads; None if it has no settings.
        environment: file in envs/ that says what it runs in.
        gpu: whether it uses a GPU where there is one.
        by_default: whether it runs where a configuration names no methods.
        seeing: a switch and its value under which it sees the answer; `in_domain` and `truth` always do.
    """

    name: str
    learned: bool
    description: str
    needs: tuple[str, ...] = ()
    settings: str | None = None
    environment: str = CORE
    gpu: bool = False
    by_default: bool = True
    seeing: tuple[str, str] | None = None

    @property
    def adapter(self) -> ModuleType:
        """The adapter, imported only when it is used: others need not be installed."""
        return import_module(f"{__name__}.{self.name}")

    def sees_answer(self, switches: dict[str, str]) -> bool:
        """Whether it sees what it is asked about: nobody can use it in earnest, and no model is ranked with it."""
        leaks = self.seeing is not None and switches[self.seeing[0]] == self.seeing[1]
        return leaks or bool({"in_domain", "truth"} & {*self.needs})

    def refusal(self, simulated: bool, fit: str = "per_sample") -> str | None:
        """Why the benchmark of counterfactuals cannot ask this method about a data set; None if it can.

        Args:
            simulated: whether the slides are a simulated tissue.
            fit: over which samples models are trained, as the data set says.
        """
        if "latent_only" in self.needs:
            return "it gives latent variables and no expression, so it cannot be scored here"
        if "truth" in self.needs and not simulated:
            return "it reads the mechanism of a simulated tissue, and this one is not simulated"
        if "known_cells" in self.needs and fit == "leave_patient_out":
            return "it answers only about cells that it was trained on, and fit leaves the patient asked about out"
        return None


METHODS = {
    method.name: method
    for method in (
        Method("no_change", False, "the control cells themselves"),
        Method("mean_shift", False, "one log change of target against all other domains, all types mixed"),
        Method("mean_shift_by_type", False, "mean over other types of their log change, target against control"),
        Method("nearest_neighbor", False, "mean of the most similar training cells of the target domain", ("stochastic",
        ), "nearest_neighbor", by_default=False),
        Method("ridge", True, "ridge regression of log expression on the neighbourhood, within types", ("graph", "edge",
        "node"), "ridge", by_default=False),
        Method("target_mean", False, "sees the answer: every cell gets the mean profile of the target cells",
        ("in_domain",)),
        Method("ceiling", False, "sees the answer: one random half of the target cells against the other", ("in_domain",
        "stochastic")),
        Method("truth", False, "the simulation's exact expectation, given the same donors", ("edge", "node", "truth")),
        Method("truth_in_place", False, "the simulation's exact expectation of the target cells", ("in_domain",
        "truth")),
        Method("cellina_ablated", True, "Cellina without classifier and adversary", ("graph", "edge", "node",
        "stochastic", "latent", "steps"), "cellina", gpu=True),
        Method("cellina", True, "Cellina, edge perturbation", ("graph", "edge", "node", "stochastic", "latent",
        "steps"), "cellina", gpu=True),
        Method("cellina_gat", True, "Cellina-GAT: graph attention and a contrastive loss for s", ("graph", "edge",
        "node", "stochastic", "latent", "steps"), "cellina_gat", gpu=True, by_default=False),
        Method("hierarchical", True, "regression on neighbours' expression, types as random effects (ours)", ("graph",
        "edge", "node", "asked"), "hierarchical"),
        Method("celcomen", True, "Celcomen's field, neighbours held at the donors' values; knows no types", ("graph",
        "edge", "node", "own"), "celcomen_field", by_default=False),
        Method("spatialprop", True, "SpatialProp (re-implementation): a cell from its neighbours alone", ("edge",
        "node", "stochastic", "steps"), "spatialprop", gpu=True, by_default=False),
        Method("concert", True, "CONCERT (re-implementation): a vector per cell and per domain", ("graph", "node",
        "stochastic", "known_cells", "steps"), "concert", gpu=True, by_default=False),
        Method("scvi", True, "scVI, its batch, the domain, exchanged", ("stochastic", "latent", "steps"), "scvi",
        "scvi", gpu=True, by_default=False),
        Method("scanvi", True, "scANVI, its batch, the domain, exchanged", ("stochastic", "latent", "steps"), "scvi",
        "scvi", gpu=True, by_default=False),
        Method("scviva", True, "scVIVA, its batch, the domain, exchanged", ("graph", "stochastic", "latent", "steps"),
        "scvi", "scvi", gpu=True, by_default=False),
        Method("scgen", True, "scGen, mean latent difference of the domains added", ("stochastic", "steps"), "scgen",
        "scvi", gpu=True, by_default=False, seeing=("scgen_difference", "all_cells")),
        Method("cpa", True, "CPA, its perturbation, the domain, exchanged", ("stochastic", "steps"), "cpa", "scvi",
        gpu=True, by_default=False),
        Method("mintflow", True, "MintFlow, drawn from its type and its donors' types", ("graph", "edge", "stochastic",
        "latent", "steps"), "mintflow", "mintflow", by_default=False, seeing=("mintflow_cells", "all_cells")),
        Method("simvi", True, "SIMVI", ("graph", "latent", "latent_only", "stochastic"), "simvi", "scvi",
        by_default=False),
    )
}  # fmt: skip


def seeing_answers(switches: dict[str, str]) -> set[str]:
    """The methods that see the answer, see `Method.sees_answer`."""
    return {name for name, method in METHODS.items() if method.sees_answer(switches)}


def applicable(names: list[str], simulated: bool, fit: str = "per_sample") -> list[Method]:
    """The named methods that the benchmark can ask about a data set; arguments as in `Method.refusal`."""
    return [METHODS[name] for name in names if METHODS[name].refusal(simulated, fit) is None]
