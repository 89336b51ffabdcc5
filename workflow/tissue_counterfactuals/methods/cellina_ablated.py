"""Cellina (ablated), the paper's control: the same two encoders without classifier and adversary."""

from pathlib import Path

from tissue_counterfactuals.methods import cellina

predict, latents = cellina.predict, cellina.latents


def fit(task, folder: Path) -> None:
    """Train with both supervision weights at 0, and therefore without a measuring epoch."""
    cellina.fit(task, folder, lambda_classifier=0.0, lambda_adversary=0.0)
