"""Tissue counterfactuals: reproduce, audit and extend Celcomen and Cellina."""

__version__ = "0.1.0"
