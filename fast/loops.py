"""The quantizer and Adam's update as compiled loops, with the results of NumPy bit for bit."""

from numba import prange
import numpy

from fast.kernels import prefetch_to_read, prefetch_to_write
from fast.threads import compiled, region

LINE = 16  # numbers of float32 in a cache line
AHEAD = 1024  # numbers that a loop asks for before it uses them
SLICE = 16384  # numbers that a thread takes at a time


@compiled
def level_of(a, n, half):
    """The level of :func:`qst.quantize` as a whole number from 0 to n = 2^bits - 1.

    The quantized value is (2 level - n) / n; n is an int32, half is n / 2 as a float32.
    """
    plus, minus = numpy.float32(1), numpy.float32(-1)
    cut = plus if a > plus else a if a > minus else minus  # NaN is -1
    return numpy.int32(numpy.int32(cut * half) + (n >> 1) + numpy.int32(a >= 0))


@compiled
def _update(i, w, g, m, v, numbers):
    one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high = numbers
    gi = g[i]
    mi = m[i] + one_minus_beta1 * (gi - m[i])
    vi = v[i] + one_minus_beta2 * (gi * gi - v[i])
    m[i], v[i] = mi, vi
    wi = w[i] - alpha_t / (numpy.sqrt(vi) + eps) * mi * eta
    w[i] = low if wi < low else high if wi > high else wi


@compiled
def _update_slice(w, g, m, v, numbers):
    whole = w.size // LINE * LINE
    for line in range(0, whole, LINE):
        ahead = line + AHEAD
        prefetch_to_read(g, ahead)
        prefetch_to_write(w, ahead)
        prefetch_to_write(m, ahead)
        prefetch_to_write(v, ahead)
        for i in range(line, line + LINE):
            _update(i, w, g, m, v, numbers)
    for i in range(whole, w.size):
        _update(i, w, g, m, v, numbers)


@region
def adam(w, g, m, v, numbers):
    """Adam's update of the parameter w and its moments m and v, in place, by the gradient g; all
    of shape (n,).

    Memory is slower than the arithmetic, so the loop asks for cache lines ahead of their use.

    Args:
        numbers (tuple): 1 - beta1, 1 - beta2, eps, alpha_t and eta, and the interval [low, high]
            to which w is clipped.
    """
    for c in prange(-(-w.size // SLICE)):
        start = numpy.int64(c) * SLICE
        part = slice(start, min(w.size, start + SLICE))
        _update_slice(w[part], g[part], m[part], v[part], numbers)
