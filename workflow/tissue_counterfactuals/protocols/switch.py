"""One difference between what was run and what a paper defines."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Switch:
    """A named choice with its value under each protocol.

    Attributes:
        step: the part of the workflow that reads it.
        choices: all values, where there are more than these two.
    """

    name: str
    corrected: str
    as_run: str
    step: str
    why: str
    choices: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """All values that it can have."""
        return self.choices or (self.corrected, self.as_run)
