"""Sections of methods in the configuration; their names stand in the rows of the table of methods."""

from typing import Annotated, Literal

from pydantic import Field

from tissue_counterfactuals.settings import Epochs, LearningRate, Settings, Some

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
    form: Literal["delta", "mean"] = "delta"
    """What is predicted: `delta` changes each cell's own counts, which keeps its noise, from the level that its
    population is likely to have; `mean` gives the counts that the regression expects, which have none, and errs more
    where cells are few (resources/STANDINS.md)."""


class CelcomenFieldSettings(MethodSettings):
    """Celcomen as a method of the benchmark: its Gaussian field."""

    ridge: float = Field(0.1, ge=0, le=1000)
    """Pseudo-cells per cell, in which genes vary independently, that forces are drawn towards; 0 needs more cells than
    genes."""


class SpatialPropSettings(MethodSettings):
    """SpatialProp, re-implemented; defaults are the settings with which the authors of Cellina ran it, but that here
    long edges are cut.
    """

    n_hidden: Width = 64
    """Width of both graph layers of SpatialProp, which is re-implemented here."""
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
    """Longest edge of the Delaunay graph in micrometres. The authors of Cellina asked for 200 too, and in their runs
    nothing was cut; null cuts nothing."""


class ConcertSettings(MethodSettings):
    """CONCERT, re-implemented; defaults are those of its description."""

    n_basal: Width = 256
    """Width of the vectors of cells and domains of CONCERT, which is re-implemented here."""
    epochs: Epochs = 3000
    """Largest number of training epochs."""
    batch_size: BatchSize = 512
    """Cells per optimiser step."""
    learning_rate: LearningRate = 0.0002
    """Learning rate of Adam; that of the kernel is ten times as large."""
    patience: Epochs = 200
    """Epochs without a smaller loss after which training stops."""


class ScviSettings(MethodSettings):
    """scVI, scANVI and scVIVA; defaults are the settings with which the authors of Cellina ran them."""

    n_hidden: Width = 300
    """Width of hidden layers."""
    n_latent: Width = 64
    """Dimensions of the latent space."""
    n_layers: int = Field(2, ge=1, le=100)
    """Hidden layers of encoder and decoder."""
    gene_likelihood: Literal["nb", "zinb", "poisson"] = "nb"
    """Distribution of the counts; scANVI continues from scVI, and so has it too (the authors of Cellina: zero-inflated
    counts and a linear classifier there)."""
    max_epochs: Epochs = 200
    """Largest number of epochs, of which the last weights are kept (the authors of Cellina: the best); scANVI trains
    scVI first and scVIVA both, each with as many."""
    batch_size: BatchSize = 512
    """Cells per optimiser step."""
    early_stopping_patience: Epochs | None = 20
    """Epochs without a better validation loss after which training stops; null trains all epochs."""
    n_samples: int = Field(25, ge=1, le=10_000)
    """Draws of the latent that a prediction averages."""
    n_neighbors: int = Field(200, ge=1, le=10_000)
    """Neighbours that make up a niche (scVIVA)."""


class ScgenSettings(MethodSettings):
    """scGen; defaults are the settings with which the authors of Cellina ran it."""

    n_latent: Width = 64
    """Dimensions of the latent space."""
    max_epochs: Epochs = 100
    """Largest number of epochs."""
    batch_size: BatchSize = 2048
    """Cells per optimiser step."""
    early_stopping_patience: Epochs | None = 25
    """Epochs without a better validation loss after which training stops; null trains all epochs."""
    n_draws: int = Field(10, ge=1, le=10_000)
    """Differences of the domains that are averaged; each draws cells so that types are balanced."""


class CpaSettings(MethodSettings):
    """CPA; defaults are the settings with which the authors of Cellina ran it."""

    n_latent: Width = 64
    """Dimensions of the latent space."""
    max_epochs: Epochs = 100
    """Largest number of epochs."""
    batch_size: BatchSize = 2048
    """Cells per optimiser step."""
    learning_rate: LearningRate = 0.0003
    """Learning rate of the autoencoder."""
    pretrain_epochs: int = Field(30, ge=0, le=1_000_000)
    """Epochs without adversary."""
    adversary_warmup_epochs: int = Field(50, ge=0, le=1_000_000)
    """Epochs over which the adversary's weight rises."""
    check_every: Epochs = 5
    """Epochs between validations."""
    early_stopping_patience: Epochs = 10
    """Validations without a better score after which training stops."""


class MintflowSettings(MethodSettings):
    """MintFlow; defaults are its own, where the authors of Cellina kept them, and their number of epochs."""

    epochs: Epochs = 100
    """Number of epochs."""
    window_um: float = Field(600, gt=0, le=1_000_000)
    """Width of the squares of tissue that are trained on together, in micrometres."""
    n_neighbors: int = Field(5, ge=1, le=100)
    """Nearest neighbours that are a cell's neighbourhood, and donors that take their place."""
    adversary_steps: int = Field(2000, ge=1, le=1_000_000)
    """Steps of each epoch that the adversaries take alone."""
    n_draws: int = Field(3, ge=1, le=1000)
    """Draws that a prediction averages."""


class SimviSettings(MethodSettings):
    """SIMVI; defaults are the settings with which the authors of Cellina ran it."""

    n_latent: Width = 64
    """Dimensions of the intrinsic and of the spatial latent, each."""
    max_epochs: Epochs = 200
    """Number of epochs."""
    batch_size: BatchSize = 512
    """Cells per optimiser step."""
    n_neighbors: int = Field(50, ge=1, le=10_000)
    """Nearest neighbours that are a cell's neighbourhood."""
    independence_weight: float = Field(1000, ge=0, le=1_000_000)
    """Weight of the term that keeps both latents independent."""


class RidgeSettings(MethodSettings):
    """Ridge regression of log expression on the neighbourhood."""

    penalties: Some[Annotated[float, Field(gt=0, le=1_000_000)]] = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    """Penalties to choose from by validation error, beside features of unit variance within cell types."""


class NearestNeighborSettings(MethodSettings):
    """Nearest-neighbour transfer."""

    n_neighbors: int = Field(20, ge=1, le=10_000)
    """Training cells whose profiles are averaged."""
    max_candidates: int = Field(20_000, ge=2, le=1_000_000)
    """Training cells of a domain that a cell is compared with; where there are more, so many are drawn."""
