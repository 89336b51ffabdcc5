"""Weights and checkpoints on disk: written whole, and never trusted to be whole when they are read."""

import io
from pathlib import Path

import torch

from tissue_counterfactuals.errors import DamagedFile
from tissue_counterfactuals.files import atomic_path


def save(content: dict, path: Path) -> None:
    """Write tensors and plain values.

    Raises:
        OSError: the disk is full or fails; PyTorch's own writer would raise a RuntimeError that looks like a method's.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path, device: torch.device) -> dict:
    """Read what `save` wrote.

    Raises:
        DamagedFile: it is not what was written.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        return torch.load(content, map_location=device, weights_only=True)
    except Exception as error:
        # Whichever layer notices first: zip, pickle or tensor storage.
        raise DamagedFile(f"{path} is damaged: {type(error).__name__}: {error}") from error
