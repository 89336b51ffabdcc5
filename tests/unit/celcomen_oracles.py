"""What fits and counterfactuals of Celcomen are held against: losses and gradients anywhere, and dense algebra."""

import numpy as np

from tissue_counterfactuals.models import celcomen_gaussian
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import FieldStatistics
from tissue_counterfactuals.models.celcomen_meanfield import MeanFieldLoss


def gaussian_loss_and_gradient(
    observed: FieldStatistics, inter: np.ndarray, intra: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Negative log-likelihood per cell, without its constant, and its gradients for inter and intra forces (g, g).

    The gradients are model moments minus observed ones: (mean_j j Q(j)^-1 - C, mean_j Q(j)^-1 - S).
    """
    precision = celcomen_gaussian.precision_of(inter, intra)
    point = celcomen_gaussian._diagonalised(observed.spectrum, *precision)
    variance, covariance = point.moments()
    return (celcomen_gaussian._loss(observed, point), covariance - observed.inter, variance - observed.intra)


def mean_field_loss_and_gradient(
    loss: MeanFieldLoss, inter: np.ndarray, intra: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss, and its derivatives by `inter` and `intra`, all (g, g), which need not be symmetric: all entries are
    taken as free, as run.
    """
    means = loss._means
    found = [(float(np.vdot(f, m)), means @ f.T) for f, m in ((inter, loss._inter), (intra, loss._intra))]
    value, pulls = loss._loss_and_pulls(*found)
    by_inter = (loss._q[:, None] / 2 * pulls).T @ means - loss._inter
    return value, by_inter, pulls.T @ means - loss._intra


def dense_precision(field: GaussianField) -> np.ndarray:
    """The precision of all entries, (n g, n g), cell by cell."""
    identity = np.eye(field.shape[0])
    return np.kron(identity, field.precision) - 2 * np.kron(field.graph.toarray(), field.inter)


def dense_conditional(values, clamp, mean, precision):
    """Mean of a multivariate normal given its held entries, from the textbook's blocks of the covariance."""
    covariance, held = np.linalg.inv(precision), clamp.ravel()
    change = (values - mean).ravel()[held]
    found = (mean + np.zeros(clamp.shape)).ravel()
    found[held] = values.ravel()[held]
    found[~held] += covariance[np.ix_(~held, held)] @ np.linalg.solve(covariance[np.ix_(held, held)], change)
    return found.reshape(clamp.shape)
