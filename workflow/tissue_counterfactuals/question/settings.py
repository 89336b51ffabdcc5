"""What a question is made of: sections `graph` and `holdout` of a data set, and `counterfactual`."""

from typing import Literal

from pydantic import Field

from tissue_counterfactuals.settings import Settings, Some, Text


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


class CounterfactualSettings(Settings):
    """How a focal cell's neighbourhood is replaced (edge perturbation)."""

    donor_rules: Some[Literal["published", "any_type", "matched"]] = ["published", "any_type", "matched"]  # fmt: skip
    """Who may be a new neighbour: `published` takes neighbours of the held-out cells in the target domain, without the
    held-out type; `any_type` takes every training cell of the target domain; `matched` takes cell types in the
    proportions of the real neighbourhoods."""
    n_donors: int = Field(50, ge=1, le=10_000)
    """New neighbours per focal cell."""
