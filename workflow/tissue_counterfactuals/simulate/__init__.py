"""Simulated tissues whose truth is known: cells that answer their neighbours, drawn force fields, lesions, screens."""

__all__ = ["simulate_tissue", "true_altered", "true_counterfactual", "true_expression"]


def __getattr__(name: str) -> object:
    """The functions above, imported when first used: planning a run reads settings here, and needs no numba for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tissue_counterfactuals.simulate import tissue

    return getattr(tissue, name)
