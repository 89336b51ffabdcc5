"""Named random streams: every draw of the package has its own, made from the seed of the run and the draw's name.

NumPy takes a list of numbers as a seed too, but ignores trailing zeros: [1, 0] and 1 are one stream. Here seed, name
and numbers are hashed together, so that draws of different names are independent, whatever the seed. What repeats a
generator of the authors' code draw by draw (`numpy.random.RandomState`) does not go through here.
"""

import hashlib
import json

import numpy as np


def stream(seed: int, name: str, *numbers: int | str) -> np.random.Generator:
    """The generator of one draw.

    Args:
        seed: of the run, a whole number of any size.
        name: of the draw; no two places of the package use the same (a test compares them).
        numbers: what tells apart draws of one name, such as the number of the slide.
    """
    return np.random.default_rng(_hashed(seed, name, *numbers))


def stream_seed(seed: int, name: str, *numbers: int | str) -> int:
    """A seed from 0 to 2^32 - 1, for libraries that make their own generators (PyTorch, scikit-learn)."""
    return _hashed(seed, name, *numbers) % 2**32


def _hashed(seed: int, *name: int | str) -> int:
    numbers = [part if isinstance(part, str) else int(part) for part in name]
    text = json.dumps([int(seed), *numbers])
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "little")
