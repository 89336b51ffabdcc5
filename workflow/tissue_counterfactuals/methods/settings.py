"""Sections of methods in the configuration; their names stand in the rows of the table of methods."""

from typing import Annotated

from pydantic import Field

from tissue_counterfactuals.settings import Epochs, LearningRate, Settings

Width = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=2, le=10_000_000)]


class MethodSettings(Settings):
    """What every section of a method has."""

    time_limit_minutes: float = Field(1440, gt=0, le=100_000)
    """Minutes after which one training, or the predictions for one fold, count as failed."""


class HierarchicalSettings(MethodSettings):
    """The plain model of types as random effects."""

    n_components: int = Field(10, ge=1, le=1000)
    """Principal components of what neighbours express that a cell can answer to."""
    min_cells: int = Field(30, ge=2, le=10_000_000)
    """Cells that a type must have to be learnt from."""


class SpatialPropSettings(MethodSettings):
    """SpatialProp, re-implemented; defaults are the settings with which the authors of Cellina ran it."""

    n_hidden: Width = 64
    """Width of both graph layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate before the last layer."""
    epochs: Epochs = 100
    """Training epochs; the last weights count."""
    batch_size: BatchSize = 512
    """Centres per optimiser step."""
    learning_rate: LearningRate = 0.001
    """Learning rate of Adam."""
    cells_per_type: Width = 100
    """Cells of each type and sample that are drawn as centres; cells within two hops of them are centres too."""
    longest_edge_um: float | None = Field(200, gt=0, le=1_000_000)
    """Longest edge of the Delaunay graph in micrometres; null keeps all, as the published pruning does."""


class ConcertSettings(MethodSettings):
    """CONCERT, re-implemented; defaults are those of its description."""

    n_basal: Width = 256
    """Width of the vectors of cells and domains."""
    epochs: Epochs = 3000
    """Largest number of training epochs."""
    batch_size: BatchSize = 512
    """Cells per optimiser step."""
    learning_rate: LearningRate = 0.0002
    """Learning rate of Adam; that of the kernel is ten times as large."""
    patience: Epochs = 200
    """Epochs without a smaller loss after which training stops."""
