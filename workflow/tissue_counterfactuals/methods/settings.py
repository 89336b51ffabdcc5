"""Sections of methods in the configuration; their names stand in the rows of the table of methods."""

from pydantic import Field

from tissue_counterfactuals.settings import Settings


class MethodSettings(Settings):
    """What every section of a method has."""

    time_limit_minutes: float = Field(1440, gt=0, le=100_000)
    """Minutes after which one training, or the predictions for one fold, count as failed."""
