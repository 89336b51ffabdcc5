"""The nested-angle chart of the unit sphere, as the authors' generation uses it.

A cell of g genes has g - 1 angles: x_1 = cos a_1, x_k = cos a_k sin a_1 .. sin a_(k-1), and the last gene is the
product of all sines. Steps in these angles depend on the order of the genes, which is why they are kept for `as_run`
only.

Two switches live here. `angles`: `arccosine` divides each gene by the sines before it, in the precision of the data;
behind the last expressed gene of a cell the quotient is 0/0 or a hair above 1, the angle not a number, and one gradient
step later so is the whole cell. `arctangent` takes the angle between a gene and the norm of all genes behind it, which
has a value everywhere. `last_gene`: `squared_sine` multiplies the last gene by the last sine twice.
"""

import numpy as np
from numba import njit

# As IEEE says: what is not a number must stay so.
_exact = {"error_model": "numpy", "cache": True}


def encode(expression: np.ndarray, angles: str) -> np.ndarray:
    """Angles of cells on the unit sphere, in radians.

    Args:
        expression: (..., g) float32 or float64, unit norm.
        angles: `arctangent` or `arccosine`, see the module's text.
    Returns:
        (..., g - 1), same dtype; NaN where `arccosine` has no angle.
    """
    if angles == "arccosine":
        return _encode_by_arccosine(expression)
    tail = np.cumsum(np.square(expression, dtype=np.float64)[..., ::-1], axis=-1)[..., ::-1]
    behind = np.sqrt(tail[..., 1:])
    behind[..., -1] = expression[..., -1]  # the last angle goes round the whole circle
    return np.arctan2(behind.astype(expression.dtype), expression[..., :-1])


def _encode_by_arccosine(expression: np.ndarray) -> np.ndarray:
    """Which cells end as NaN hangs on the last bit: the same divisions in the same order as the code, in PyTorch."""
    import torch

    quotient = torch.from_numpy(np.array(expression))
    angles = torch.empty_like(quotient[..., 1:])
    for gene in range(angles.shape[-1]):
        angles[..., gene] = quotient[..., gene]
        angles[..., gene] = torch.arccos(angles[..., gene])
        quotient[..., gene + 1 :] /= torch.sin(angles[..., gene])[..., None]
    return angles.numpy()


def decode(angles: np.ndarray, last_gene: str) -> tuple[np.ndarray, tuple]:
    """Cells from their angles; from an angle that is not a number on, a cell's genes are 0.

    Args:
        angles: (..., g - 1) float32 or float64.
        last_gene: `sine`, or `squared_sine` as run in the authors' code.
    Returns:
        cells (..., g) of the same dtype, and what `pull_back` needs.
    """
    sines, cosines = np.sin(angles), np.cos(angles)
    shape = (*angles.shape[:-1], angles.shape[-1] + 1)
    cells = np.empty(shape, angles.dtype)
    rows = sines.reshape(-1, shape[-1] - 1), cosines.reshape(-1, shape[-1] - 1)
    _decode(*rows, last_gene == "squared_sine", cells.reshape(-1, shape[-1]))
    return np.nan_to_num(cells, copy=False), rows


def pull_back(gradient: np.ndarray, decoded: tuple, last_gene: str) -> np.ndarray:
    """Gradient by angles from the gradient by genes, in time proportional to cells x genes.

    Args:
        gradient: (..., g), of a function of the decoded cells.
        decoded: second value of `decode`.
    Returns:
        (..., g - 1); NaN in the whole cell where one angle is NaN, as automatic differentiation has it.
    """
    shape = (*gradient.shape[:-1], gradient.shape[-1] - 1)
    by_angle = np.empty(shape, gradient.dtype)
    rows = gradient.reshape(-1, gradient.shape[-1])
    _pull_back(rows, *decoded, last_gene == "squared_sine", by_angle.reshape(-1, shape[-1]))
    return by_angle


@njit(**_exact)
def _decode(sines, cosines, squared, cells):
    n, last = sines.shape
    for i in range(n):
        before = cells.dtype.type(1)
        for k in range(last):
            cells[i, k] = before * cosines[i, k]
            before *= sines[i, k]
        cells[i, last] = before * sines[i, last - 1] if squared else before


@njit(**_exact)
def _pull_back(gradient, sines, cosines, squared, by_angle):
    """`behind` is what genes k + 1 .. g add to the function, over the sines of angles 1 .. k; no division anywhere."""
    n, last = sines.shape
    for i in range(n):
        behind = gradient[i, last]
        for k in range(last - 1, -1, -1):
            sine, cosine, slope = sines[i, k], cosines[i, k], gradient[i, k]
            if squared and k == last - 1:
                by_angle[i, k] = sine * cosine * (behind + behind) - sine * slope
                behind = sine * sine * behind + cosine * slope
            else:
                by_angle[i, k] = cosine * behind - sine * slope
                behind = sine * behind + cosine * slope
        before = by_angle.dtype.type(1)
        for k in range(last):
            by_angle[i, k] *= before
            before *= sines[i, k]
