"""Network and training of Cellina and of Cellina-GAT: sections `cellina` and `cellina_gat` of the configuration."""

from typing import Annotated, Literal

from pydantic import Field

from tissue_counterfactuals.methods.settings import MethodSettings
from tissue_counterfactuals.settings import Epochs, LearningRate

Width = Annotated[int, Field(ge=1, le=100_000)]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]
# Cells per optimiser step in Cellina's paper.
PUBLISHED_BATCH = 2048


class CellinaSettings(MethodSettings):
    """Network and training of Cellina and of its ablated form under `corrected`; `as_run` always takes the defaults,
    which are the paper's Table A1, and batches of 2048."""

    n_hidden: Width = 128
    """Width of every hidden layer of encoders and decoder."""
    n_layers: int = Field(2, ge=1, le=100)
    """Hidden layers of each encoder and of the decoder."""
    n_latent: Width = 64
    """Dimensions of the intrinsic and of the spatial latent, each."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate in the encoders; in the two heads it is 0.1, as in the authors' code."""
    lambda_classifier: Weight = 1
    """Weight of the cell-type classifier's loss, relative to the size of the VAE loss."""
    lambda_adversary: Weight = 1
    """Weight of the domain adversary's loss, relative to the size of the VAE loss."""
    epochs: Epochs = 100
    """Largest number of training epochs."""
    batch_size: Literal["enough_steps", "auto"] | Annotated[int, Field(ge=2, le=10_000_000)] = "enough_steps"
    """Cells per optimiser step. `enough_steps` keeps the paper's 2048 where it gives 2,000 steps in all epochs; smaller
    slides get the largest power of two that does, from 128 up. `auto` is a choice of ours: it aims at 8,000 steps."""
    learning_rate: LearningRate = 0.001
    """Learning rate of both Adam optimisers."""
    weight_decay: Weight = 0.000001
    """Weight decay of both Adam optimisers."""
    adam_epsilon: float = Field(0.01, gt=0, le=1)
    """Epsilon of both Adam optimisers."""
    kl_warmup_epochs: Epochs = 400
    """Epochs over which the KL weight would rise from 0 to 1; with 400 and 100 epochs it ends near 0.25, as in the
    authors' runs."""
    patience: Epochs = 10
    """Epochs without a better validation loss after which training stops."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """How matrices are multiplied in training; weights, sums, validation and predictions stay in single precision. On a
    GPU `tf32` rounds factors to 11 bits and `bfloat16` to 8, so that results are those of another rounding, not the
    same bytes; without such units (most CPUs) nothing changes."""
    compile: bool = False
    """Whether PyTorch compiles encoders and decoder (a minute at the start, and a C++ compiler on a CPU): the same
    formulas in another order of sums, so results differ by rounding."""


class CellinaGATSettings(CellinaSettings):
    """Network and training of Cellina-GAT under `corrected`; `as_run` always takes the defaults, the paper's Table
    A1.
    """

    n_layers: int = Field(3, ge=1, le=100)
    """Hidden layers of the encoder of z and of the decoder, and layers of attention."""
    max_neighbors: int = Field(50, ge=1, le=10_000)
    """Nearest neighbours that a cell can attend to; beyond the cutoff of the data set's graph there are none."""
    lambda_contrastive: Weight = 1
    """Weight of the contrastive loss of the spatial latent, relative to the size of the VAE loss."""
    temperature: float = Field(0.25, gt=0, le=100)
    """Temperature of the contrastive loss."""
    batch_size: Literal["enough_steps", "auto"] | Annotated[int, Field(ge=2, le=10_000_000)] = 256
    """Cells per optimiser step; the words mean what they do for Cellina."""
    patch_cells: int = Field(16, ge=1, le=100_000)
    """Cells of a batch that stand together: what they hear overlaps, which is why a step is fast, and makes them
    neighbours for the contrastive loss. 1 gives batches of random cells, as `as_run` has them, and the switch
    `gat_field: one_hop`."""
    weight_decay: Weight = 0.0001
    """Weight decay of both Adam optimisers."""


def under_switches(settings: dict, switches: dict[str, str], published: CellinaSettings | None = None) -> dict:
    """Arguments of a model: the section of the configuration, or as run the published values, and when to stop."""
    if switches["hyperparameters"] == "published":
        published = published or CellinaSettings(batch_size=PUBLISHED_BATCH)
        settings = published.model_dump(exclude={"time_limit_minutes"})
    return settings | {key: switches[key] for key in ("restore", "monitor")}
