"""What PyTorch does slowly on a CPU: the negative binomial likelihood, and dropout.

The likelihood goes row by row, all of a row's work while the row is in the L1 cache. Its arithmetic is that of
`likelihood._rows_in_torch`, in float32; exp and log1p are written out (range reduction and a Chebyshev interpolant)
because the C library's cannot be vectorised, and are good to 2 units in the last place. Loops are short and touch few
arrays each, which is what lets the compiler turn them into vector instructions.
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

_f = np.float32


def _coefficients(function, degree, low, high) -> tuple:
    """Of the polynomial that interpolates a function at the Chebyshev points, constant term first."""
    interpolant = Chebyshev.interpolate(function, degree, [low, high])
    return tuple(_f(c) for c in interpolant.convert(kind=Polynomial).coef)


_LOG2 = math.log(2)
_INVERSE_LOG2 = _f(1 / _LOG2)
_LOG2_HIGH = _f(round(_LOG2 * 2**9) / 2**9)  # few bits: times a whole number it is exact
_LOG2_LOW = _f(_LOG2 - float(_LOG2_HIGH))
_EXP = _coefficients(np.exp, 6, -_LOG2 / 2, _LOG2 / 2)
_LOG = _coefficients(lambda x: (np.log1p(x) / x - 1) / x, 8, math.sqrt(0.5) - 1, math.sqrt(2) - 1)
_BITS_OF_ROOT_HALF = np.int32(np.array(math.sqrt(0.5), np.float32).view(np.int32))
_MANTISSA = np.int32(23)
_EXPONENT_BIAS = np.int32(127)

# Elements between arrays: 1 KiB, four times what the check of a machine with 512-bit registers asks for.
_APART = 256

# Sums may be taken in any order; inside exp and log1p the order of operations matters.
_exact = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "cache": True}
_fast = {"fastmath": {"reassoc", "contract", "nsz", "nnan"}, "error_model": "numpy", "cache": True}


@intrinsic
def _reinterpret(typing_context, value):
    """The bits of a float32 as an int32, or of an int32 as a float32."""
    target = types.int32 if value == types.float32 else types.float32

    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return target(value), build


@njit(**_exact)
def _exp(x):
    """e^x for x <= 0; below -87 that of -87, the smallest float32 without loss of bits."""
    x = max(x, _f(-87))
    k = np.floor(x * _INVERSE_LOG2 + _f(0.5))
    x = (x - k * _LOG2_HIGH) - k * _LOG2_LOW
    y = _EXP[6]
    y = y * x + _EXP[5]
    y = y * x + _EXP[4]
    y = y * x + _EXP[3]
    y = y * x + _EXP[2]
    y = y * x + _EXP[1]
    y = y * x + _EXP[0]
    return y * _reinterpret(np.int32((np.int32(k) + _EXPONENT_BIAS) << _MANTISSA))


@njit(**_exact)
def _log1p(u, one_plus_u, inverse):
    """log(1 + u) for u >= 0, given 1 + u as rounded and its inverse."""
    bits = _reinterpret(one_plus_u)
    exponent = np.int32((bits - _BITS_OF_ROOT_HALF) >> _MANTISSA)
    x = _reinterpret(np.int32(bits - (exponent << _MANTISSA))) - _f(1)
    y = _LOG[8]
    y = y * x + _LOG[7]
    y = y * x + _LOG[6]
    y = y * x + _LOG[5]
    y = y * x + _LOG[4]
    y = y * x + _LOG[3]
    y = y * x + _LOG[2]
    y = y * x + _LOG[1]
    y = y * x + _LOG[0]
    k = _f(exponent)
    lost = (u - (one_plus_u - _f(1))) * inverse  # what rounding took from 1 + u
    return k * _LOG2_HIGH + (x + (x * x * y + (k * _LOG2_LOW + lost)))


@njit(**_fast)
def _exponentials(logits, peak, theta, e):
    total = _f(0)
    for j in range(logits.size):
        e[j] = _exp(logits[j] - peak)
        total += e[j] * theta[j]
    return total


@njit(**_fast)
def _log_ratios(e, scale, log_ratio):
    for j in range(e.size):
        u = e[j] * scale
        log_ratio[j] = _log1p(u, _f(1) + u, _f(1) / (_f(1) + u))


@njit(**_fast)
def _log_ratios_and_slopes(e, scale, counts, theta, log_ratio, slope):
    total = _f(0)
    for j in range(e.size):
        u = e[j] * scale
        inverse = _f(1) / (_f(1) + u)
        log_ratio[j] = _log1p(u, _f(1) + u, inverse)
        slope[j] = (counts[j] - u * theta[j]) * inverse
        total += slope[j]
    return total


@njit(**_fast)
def _dot_of_difference(x, a, b):
    total = _f(0)
    for j in range(x.size):
        total += x[j] * (a[j] - b[j])
    return total


@njit(**_fast)
def _add(total, part):
    for j in range(total.size):
        total[j] += part[j]


@njit(**_fast)
def _gradient(slope, e, theta, factor, gradient):
    for j in range(gradient.size):
        gradient[j] = slope[j] - e[j] * theta[j] * factor


@njit(**_exact)
def _three_apart(n):
    """Three arrays of n float32 to work in, far from each other and from every other array.

    The compiler's vector loops begin with a check whether one array lies within a few registers of another, and else
    go element by element, which rounds differently. So the last digits would depend on where memory was free.
    """
    memory = np.empty(3 * n + 4 * _APART, np.float32)
    second, third = n + 2 * _APART, 2 * n + 3 * _APART
    return memory[_APART : _APART + n], memory[second : second + n], memory[third : third + n]


@njit(error_model="numpy", cache=True, nogil=True)
def nb_rows(logits, peaks, counts, library, theta, log_ratios, slopes, with_gradients):
    """See `likelihood._rows_in_torch`: the same arguments, all float32 and contiguous, but for `peaks`.

    peaks: (r,) the largest logit of each row.
    """
    e, log_ratio, slope = _three_apart(theta.size)
    terms = 0.0
    for i in range(library.size):
        if library[i] == 0:
            logits[i] = 0
            continue
        total = _exponentials(logits[i], peaks[i], theta, e)
        scale = library[i] / total
        if with_gradients:
            sum_of_slopes = _log_ratios_and_slopes(e, scale, counts[i], theta, log_ratio, slope)
            _add(slopes, slope)
        else:
            _log_ratios(e, scale, log_ratio)
        _add(log_ratios, log_ratio)
        terms += _dot_of_difference(counts[i], logits[i], log_ratio)
        terms += library[i] * (math.log(scale) - peaks[i])
        if with_gradients:
            _gradient(slope, e, theta, sum_of_slopes / total, logits[i])
    return terms


@njit(error_model="numpy", cache=True)
def dropout_factors(seed, n_dropped, factor, factors):
    """Fill `factors`, (n,) float32, with 0 with probability n_dropped / 2^32 and with `factor` otherwise.

    The random 32 bits of an element are its position, hashed with the seed (the finaliser of MurmurHash3); PyTorch
    draws one double after the other, thirty times as slowly. seed, n_dropped: uint32; factor: float32.
    """
    for i in range(factors.size):
        bits = np.uint32(np.uint32(i) * np.uint32(0x9E3779B9) + seed)
        bits = np.uint32((bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        bits ^= bits >> np.uint32(16)
        factors[i] = factor if bits >= n_dropped else _f(0)
