"""What a question is made of: sections `graph`, `holdout` and `questions` of a data set, and `counterfactual`."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question import INTERVENTIONS
from tissue_counterfactuals.settings import Distinct, Seed, Settings, Some, Text


class GraphSettings(Settings):
    """The Gaussian-kernel neighbourhood graph."""

    bandwidth_um: float = Field(100, gt=0, le=100_000)
    """Standard deviation of the kernel, micrometres."""
    max_neighbors: int = Field(200, ge=1, le=10_000)
    """Nearest neighbours that a cell can have."""
    cutoff: float = Field(0.1, ge=0, lt=1)
    """Kernel weights up to this are dropped; 0.1 is a distance of 2.15 bandwidths."""


class HoldoutSettings(Settings):
    """Which cell types are held out, one at a time."""

    cell_types: Literal["auto"] | Some[Text] = "auto"
    """The types; `auto` takes all that have `min_cells` cells."""
    min_cells: int = Field(100, ge=2, le=10_000_000)
    """Cells that a type needs, in the control domain and in every target domain, to be taken by `auto`."""
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the cells that are not held out which is kept for validation."""


class NodeSettings(Settings):
    """How the expression of a focal cell's neighbours is altered (node perturbation), in the benchmark."""

    shifts: Distinct[Literal["node", "node_global"]] = []
    """Further variants of methods that can be told altered neighbours: `node` adds to the neighbours of each type the
    log change of their type from the control to the target domain (the held-out type gets that of all others together),
    `node_global` adds that of all types together to all of them. An empty list asks for none. CONCERT can be told the
    domain only, neither genes nor amounts: both are the same to it where all types stand in both domains."""
    n_genes: int = Field(200, ge=1, le=1_000_000)
    """Genes that are altered: those with the largest change, for each type its own; 200 as published."""
    cells: Literal["all", "neighbors"] = "all"
    """Who is altered: `all` cells of the slide (as published), or only the `neighbors` of focal cells. Hardly a
    difference to a method that reads direct neighbours alone, which sees other cells in place of held-out ones."""
    share: float = Field(1, ge=0, le=1)
    """Share of these cells that is altered, drawn at random; 0 is the twin."""
    scale: Literal["own", "log", "counts"] = "own"
    """`own` is what was published for each method: added to log expression (Cellina) or multiplied into counts
    (Cellina-GAT, SpatialProp); `log` and `counts` make all methods do the one or the other."""


class CounterfactualSettings(Settings):
    """How a focal cell's neighbourhood is replaced (edge perturbation) or altered (node perturbation)."""

    donor_rules: Some[Literal["published", "any_type", "matched"]] = ["published", "any_type", "matched"]
    """Who may be a new neighbour: `published` takes neighbours of the held-out cells in the target domain, without the
    held-out type; `any_type` takes every training cell of the target domain; `matched` takes cell types in the
    proportions of the real neighbourhoods."""
    n_donors: int = Field(50, ge=1, le=10_000)
    """New neighbours per focal cell."""
    node: NodeSettings = NodeSettings()


_OF_SHIFTS = {"senders", "share_of_senders", "cells", "scale"}
# Intervention -> what else of a question it reads; others have nothing to read.
_READ = {
    "move_to": {"donor_rule"},
    "add_sender": {"share"},
    "shift_genes": {"factor", *_OF_SHIFTS},
    "shift_towards": {"by_type", "dose", "top_genes", *_OF_SHIFTS},
    "shift_pathway": {"weights", "dose", "top_genes", *_OF_SHIFTS},
}
_TOLD = {"edge": "new neighbours", "node": "altered neighbours", "own": "a knock-out in the focal cells"}


class UserQuestion(Settings):
    """A question about the slide itself, in which nothing is held out."""

    name: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,100}$")]
    """Names the folder of the answer."""
    cell_type: Text
    """Type of the focal cells: those that are asked what they would express."""
    domain: Text
    """Domain that the focal cells stand in."""
    sample: Text | None = None
    """Sample that the focal cells are of; `null` means all of the slide's."""
    where: dict[Text, str | int | bool] = {}
    """Further columns and the value that the focal cells have in each; the data set names the columns under
    `keep_columns`."""
    move_to: Text | None = None
    """Intervention: neighbours are taken from this domain."""
    donor_rule: Literal["published", "any_type", "matched"] = "any_type"
    """For `move_to`: who may be a new neighbour, as in `counterfactual.donor_rules`; only `any_type` can be asked about
    a domain that has no cell of the type."""
    composition: Annotated[dict[str, float] | None, Field(min_length=1)] = None
    """Intervention: neighbours of these types in these shares (any numbers from 0 up; they are divided by their sum),
    taken from the focal cells' domain, or from all of the slide where it has none of the type."""
    remove_sender: Text | None = None
    """Intervention: the focal cells' own neighbours without this type. `counterfactual.n_donors` of those that are left
    are drawn by weight, or cells of the domain where none is left: where a type has little to send, the answer is the
    noise of this draw."""
    add_sender: Text | None = None
    """Intervention: the focal cells' own neighbours, of which a share is replaced by cells of this type; the others are
    drawn as for `remove_sender`, with the same noise."""
    share: float = Field(0.3, gt=0, le=1)
    """For `add_sender`: the share."""
    shift_genes: Some[Text] | None = None
    """Intervention: the neighbours stay, and what they express of these genes is multiplied by `factor`; a name that is
    no gene of the slide may be one of the bundled gene sets, whose genes are then meant."""
    factor: float = Field(0, ge=0, le=1000)
    """For `shift_genes`: 0 is a knock-out, below 1 is down, above 1 is up."""
    shift_towards: Text | None = None
    """Intervention: the neighbours stay, and express what their types express in this domain: each type's log change of
    pseudobulks is added, in the `top_genes` that change most. Types that lack in one of both domains stay as they
    are."""
    by_type: bool = True
    """For `shift_towards`: whether each type gets its own change (`node` of `counterfactual.node.shifts`); else all get
    that of all types together (`node_global`)."""
    shift_pathway: Text | None = None
    """Intervention: the neighbours stay, and express as if a pathway of `weights` were stimulated in them."""
    weights: Text | None = None
    """For `shift_pathway`: a table of text with the columns source (pathway), target (gene) and weight; `null` means
    those of PROGENy, human or mouse by the symbols of the slide. With a column cell_type each type has its own weights,
    and types without a row stay as they are: so a table may hold log changes by type, which a `dose` equal to the
    largest of them takes as they are."""
    dose: float = Field(1, ge=-100, le=100)
    """For `shift_towards`: times the change, 1 is all of it. For `shift_pathway`: log change of the slide's gene
    with the largest absolute weight, others in proportion; where weights are given by `cell_type`, of the largest of
    the pathway, on the slide or not. Below 0 is the reverse. CONCERT can be told no dose but 1."""
    top_genes: int = Field(200, ge=1, le=1_000_000)
    """For `shift_towards` and `shift_pathway`: so many genes are altered, those with the largest change. CONCERT
    chooses none: it gives neighbours the vector of the other domain as a whole."""
    senders: Text | None = None
    """For all three shifts: the type of the neighbours that are altered; `null` means all of them."""
    share_of_senders: float = Field(1, gt=0, le=1)
    """For all three shifts: share of these cells, those of the type that `senders` names, that is altered, drawn at
    random."""
    cells: Literal["all", "neighbors"] = "all"
    """For all three shifts: who is altered, see `counterfactual.node.cells`."""
    scale: Literal["own", "log", "counts"] | None = None
    """For all three shifts: what the change is applied to, see `counterfactual.node.scale`; `null` means `counts` for
    `shift_genes` and `own` for the others."""
    knock_out: Some[Text] | None = None
    """Intervention: these genes are taken out of the focal cells themselves and held at 0, and the field of forces
    answers. Only `celcomen` can be asked."""
    methods: Some[Literal[*(m.name for m in METHODS.values() if {*INTERVENTIONS.values()} & {*m.needs})]] = [
        "hierarchical",
        "cellina",
    ]  # fmt: skip
    """Methods that answer; only those that can be told the intervention. For `knock_out` the default is `celcomen`."""
    seeds: Some[Seed] | None = None
    """Seeds of draws and trainings, over which changes are averaged; `null` means those at the top level."""

    @model_validator(mode="after")
    def _one_intervention(self) -> Self:
        given = [key for key in INTERVENTIONS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f" has {' and '.join(given) or 'no intervention'}; give one of {', '.join(INTERVENTIONS)}."
            )
        for key in sorted(self.model_fields_set & set().union(*_READ.values()) - _READ.get(given[0], set())):
            readers = ", ".join(what for what, keys in _READ.items() if key in keys)
            raise ValueError(f".{key} is read for {readers}, and not for {given[0]}; leave it out.")
        need = INTERVENTIONS[given[0]]
        if need == "own" and "methods" not in self.model_fields_set:
            self.methods = ["celcomen"]
        for name in self.methods:
            if need not in METHODS[name].needs:
                raise ValueError(f".methods names {name}, which cannot be told {_TOLD[need]}; leave it out.")
        if self.composition is not None:
            for cell_type, share in self.composition.items():
                if share < 0:
                    raise ValueError(f".composition.{cell_type} is {share:g}; give shares from 0 up.")
            if sum(self.composition.values()) == 0:
                raise ValueError(".composition sums to 0; give at least one type a share above 0.")
        for key in ("move_to", "shift_towards"):
            if getattr(self, key) == self.domain:
                raise ValueError(
                    f".{key} is {self.domain!r}, where the focal cells already stand; name another domain."
                )
        for key, nothing in (("dose", 0), ("factor", 1)):
            if getattr(self, key) == nothing:
                raise ValueError(f".{key} is {nothing}, which changes nothing; give another number.")
        return self
