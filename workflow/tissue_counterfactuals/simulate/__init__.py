"""Simulated tissues whose truth is known: cells that answer their neighbours, drawn force fields, lesions."""

from tissue_counterfactuals.simulate.tissue import (
    simulate_tissue,
    true_counterfactual,
    true_expression,
)

__all__ = ["simulate_tissue", "true_counterfactual", "true_expression"]
