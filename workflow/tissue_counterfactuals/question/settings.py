"""What a question is made of: sections `graph`, `holdout` and `questions` of a data set, and `counterfactual`."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.settings import Distinct, Settings, Some, Text


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
    `node_global` adds that of all types together to all of them. None asks for no such variant."""
    n_genes: int = Field(200, ge=1, le=1_000_000)
    """Genes that are altered: those with the largest change, for each type its own; 200 as published."""
    cells: Literal["all", "neighbors"] = "all"
    """Who is altered: `all` cells of the slide (as published), or only the `neighbors` of focal cells. The same to a method
    that looks one step far."""
    share: float = Field(1, ge=0, le=1)
    """Share of these cells that is altered, drawn at random; 0 is the twin."""
    scale: Literal["own", "log", "counts"] = "own"
    """`own` is what was published for each method: added to log expression (Cellina) or multiplied into counts
    (Cellina-GAT, SpatialProp); `log` and `counts` make all methods do the one or the other."""


class CounterfactualSettings(Settings):
    """How a focal cell's neighbourhood is replaced (edge perturbation) or altered (node perturbation)."""

    donor_rules: Some[Literal["published", "any_type", "matched"]] = ["published", "any_type", "matched"]  # fmt: skip
    """Who may be a new neighbour: `published` takes neighbours of the held-out cells in the target domain, without the
    held-out type; `any_type` takes every training cell of the target domain; `matched` takes cell types in the
    proportions of the real neighbourhoods."""
    n_donors: int = Field(50, ge=1, le=10_000)
    """New neighbours per focal cell."""
    node: NodeSettings = NodeSettings()


# Keys that say what is done to the focal cells' neighbourhood; a question has one of them.
INTERVENTIONS = ("move_to", "composition", "remove_sender", "add_sender", "shift_genes")


class UserQuestion(Settings):
    """A question about the slide itself, in which nothing is held out."""

    name: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,100}$")]
    """Names the folder of the answer."""
    cell_type: Text
    """Type of the focal cells: those that are asked what they would express."""
    domain: Text
    """Domain that the focal cells stand in."""
    move_to: Text | None = None
    """Intervention: neighbours are taken from this domain."""
    donor_rule: Literal["published", "any_type", "matched"] = "any_type"
    """For `move_to`: who may be a new neighbour, as in `counterfactual.donor_rules`; only `any_type` can be asked about a
    domain that has no cell of the type."""
    composition: Annotated[dict[str, float] | None, Field(min_length=1)] = None
    """Intervention: neighbours of these types in these shares (any numbers from 0 up; they are divided by their sum), taken
    from the focal cells' domain, or from all of the slide where it has none of the type."""
    remove_sender: Text | None = None
    """Intervention: the focal cells' own neighbours without this type."""
    add_sender: Text | None = None
    """Intervention: the focal cells' own neighbours, of which a share is replaced by cells of this type."""
    share: float = Field(0.3, gt=0, le=1)
    """For `add_sender`: the share."""
    shift_genes: Some[Text] | None = None
    """Intervention: the neighbours stay, and their counts of these genes are multiplied by `factor`; a name that is no
    gene of the slide may be one of the bundled gene sets, whose genes are then meant."""
    factor: float = Field(0, ge=0, le=1000)
    """For `shift_genes`: 0 is a knock-out, below 1 is down, above 1 is up."""
    senders: Text | None = None
    """For `shift_genes`: the type of the neighbours that are shifted; `null` means all of them."""
    methods: Some[Literal[*(m.name for m in METHODS.values() if {"edge", "node"} & {*m.needs})]] = [
        "hierarchical",
        "cellina",
    ]
    """Methods that answer; only those that can be told new neighbours, or altered ones."""

    @model_validator(mode="after")
    def _one_intervention(self) -> Self:
        given = [key for key in INTERVENTIONS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f" has {' and '.join(given) or 'no intervention'}; give one of {', '.join(INTERVENTIONS)}."
            )
        need, what = ("node", "altered") if self.shift_genes else ("edge", "new")
        for name in self.methods:
            if need not in METHODS[name].needs:
                raise ValueError(
                    f".methods names {name}, which cannot be told {what} neighbours; leave it out."
                )
        if self.composition is not None:
            for cell_type, share in self.composition.items():
                if share < 0:
                    raise ValueError(
                        f".composition.{cell_type} is {share:g}; give shares from 0 up."
                    )
            if sum(self.composition.values()) == 0:
                raise ValueError(".composition sums to 0; give at least one type a share above 0.")
        if self.move_to == self.domain:
            raise ValueError(
                f".move_to is {self.move_to!r}, where the focal cells already stand; name another domain."
            )
        return self
