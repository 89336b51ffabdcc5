"""Figure 8 of Celcomen: clusters of the forces fitted to samples of one organ, and what they are enriched for."""

from pathlib import Path

from tissue_counterfactuals.results.figures import force_heatmaps

NAME = "Fig. 8"


def draw_files(files: dict[str, Path], path: str | Path) -> None:
    """Draw from the tables of the experiment to a PNG or SVG; see `force_heatmaps.draw_files`."""
    force_heatmaps.draw_files(files, NAME, path)
