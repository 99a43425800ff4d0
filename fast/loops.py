"""The quantizer and Adam's update as compiled loops, with the results of NumPy bit for bit."""

from numba import float32, int32
import numpy

from fast.cache import compiled
from fast.kernels import prefetch
from fast.threads import region, structure

LINE = 16  # numbers of float32 in a cache line
AHEAD = 1024  # numbers that a loop asks for before it uses them
SLICE = 16384  # numbers of a chunk


@compiled
def level_of(a, n, half):
    """The level of :func:`qst.quantize` as a whole number from 0 to n = 2^bits - 1.

    The quantized value is (2 level - n) / n; n is an int32, half is n / 2 as a float32.
    """
    cut = float32(1) if a > float32(1) else a if a > float32(-1) else float32(-1)  # NaN is -1
    return int32(int32(cut * half) + (n >> 1) + int32(a >= 0))


# A parameter w, its gradient g and its moments m and v, all of shape (n,), and the interval
# [low, high] to which w is clipped.
_numbers = ('one_minus_beta1', 'one_minus_beta2', 'eps', 'alpha_t', 'eta', 'low', 'high')
Update = structure(
    'Update', **dict.fromkeys('wgmv', float32[::1]), **dict.fromkeys(_numbers, float32)
)


@compiled
def _update(i, w, g, m, v, numbers):
    one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high = numbers
    mi = m[i] + one_minus_beta1 * (g[i] - m[i])
    vi = v[i] + one_minus_beta2 * (g[i] * g[i] - v[i])
    m[i], v[i] = mi, vi
    wi = w[i] - alpha_t / (numpy.sqrt(vi) + eps) * mi * eta
    w[i] = low if wi < low else high if wi > high else wi


@region(Update)
def adam(chunk, a):
    """Adam's update of a parameter and its moments, in place.

    Memory is slower than the arithmetic, so the loop asks for cache lines ahead of their use.
    """
    part = slice(chunk * SLICE, (chunk + 1) * SLICE)
    w, g, m, v, numbers = a.w[part], a.g[part], a.m[part], a.v[part], a[4:]
    whole = w.size // LINE * LINE
    for line in range(0, whole, LINE):
        ahead = line + AHEAD
        for a in w, g, m, v:
            prefetch(a, ahead)
        for i in range(line, line + LINE):
            _update(i, w, g, m, v, numbers)
    for i in range(whole, w.size):
        _update(i, w, g, m, v, numbers)
