"""Network and training of Cellina: section `cellina` of the configuration."""

from typing import Annotated, Literal

from pydantic import Field

from tissue_counterfactuals.settings import Epochs, LearningRate, Settings

Width = Annotated[int, Field(ge=1, le=100_000)]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]


class CellinaSettings(Settings):
    """Network and training of Cellina and of its ablated form."""

    n_hidden: Width = 128
    """Width of every hidden layer of encoders and decoder."""
    n_layers: int = Field(2, ge=1, le=100)
    """Hidden layers of each encoder and of the decoder."""
    n_latent: Width = 64
    """Dimensions of the intrinsic and of the spatial latent, each."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate in the encoders and in the heads."""
    lambda_classifier: Weight = 1
    """Weight of the cell-type classifier's loss, relative to the size of the VAE loss."""
    lambda_adversary: Weight = 1
    """Weight of the domain adversary's loss, relative to the size of the VAE loss."""
    epochs: Epochs = 100
    """Largest number of training epochs."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=2, le=10_000_000)] = "auto"
    """Cells per optimiser step; `auto` gives small slides smaller batches, so that they get enough steps (`as_run`
    always takes 2048)."""
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
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the cells that are not held out which is kept for validation."""
