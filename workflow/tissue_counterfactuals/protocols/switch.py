"""One difference between what was run and what a paper defines."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Switch:
    """A named choice with its value under each protocol; `step` is the part of the workflow that reads it."""

    name: str
    corrected: str
    as_run: str
    values: tuple[str, ...]
    step: str
    why: str
