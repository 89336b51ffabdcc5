"""All scores of one prediction in one call."""

from tissue_counterfactuals.metrics import Reference


def score(control, target, predicted, train=None, n_deg=50, seed=0, protocol="corrected", **switches):
    """All metrics of one prediction that need no twin and no split; see `Reference`."""
    return Reference(control, target, train, n_deg, seed, protocol, **switches).score(predicted)
