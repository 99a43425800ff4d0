"""Products with pixels, for the first layer of a net: exact forward, sparse backward.

An input is a pixel P of 0 to 255 over 256 (``data.SCALE``). The forward product is one of whole
numbers, in bytes: see fast/xnor.py. It is exact, so in a binary net it equals any other product in
float32 to the bit; with weights of more bits, whose values float32 rounds, the others equal it to
rounding.

Four of five pixels of MNIST are black. Backward, a column of the gradient of W is a sum over the
images in which that pixel is not black. It is equal to the product of BLAS to rounding.
"""

import os

import numba
import numpy

from data import SCALE
from fast import cpu
from fast.cache import njit
from fast.kernels import (
    UNITS,
    aligned,
    groups_between_widenings,
    sum_rows,
    transpose,
)
from fast.loops import binarize_loop, quantize_loop
from fast.xnor import byte_layer


def blas_threads():
    """How many threads NumPy's matrix products use, as far as can be told."""
    for name in 'OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS':
        value = os.environ.get(name, '')
        if value.isdigit() and int(value):
            return int(value)
    return numba.config.NUMBA_DEFAULT_NUM_THREADS


# The sparse product, on one core, is faster than BLAS up to this share of pixels that are not
# black: see benchmarks/pixel_times.py.
GREATEST_SHARE = 0.5 / blas_threads()


def find(x):
    """The pixels of which an input consists, as bytes.

    Args:
        x (array): Float array of shape (N, K).

    Returns:
        array: uint8 array of shape (N, K or more), with 0 beyond K; None if some input is not a
        whole multiple of 1/256 from 0 to 255/256.
    """
    if x.dtype != numpy.float32:
        return None
    P = numpy.zeros((len(x), -(-x.shape[1] // 32) * 32), numpy.uint8)
    return P if _find(x, P) else None


@njit(nogil=True)
def _find(x, P):
    scale = x.dtype.type(SCALE)
    for n in range(len(x)):
        others = 0
        for k in range(x.shape[1]):
            pixel = x[n, k] * scale
            P[n, k] = numpy.uint8(numpy.int32(pixel))
            others += x.dtype.type(P[n, k]) != pixel
        if others:
            return False
    return True


def linear(P, W, bits, b, y):
    """The quantized linear function y = x quantize(W)^T + b of pixels.

    Args:
        P (array): What :func:`find` returned for x of shape (N, K).
        W, b (array): float32 arrays of shapes (M, K) and (M,).
        bits (int): Number of bits of the weights.
        y (array): float32 array of shape (N, M), which is written.
    """
    levels = 2**bits
    middle = 0 if cpu.BYTES == 'dotprod' else levels // 2  # its weights are not signed
    _linear(P, W, levels - 1, middle, groups_between_widenings(255, levels // 2), b, y)


@njit(nogil=True, error_model='numpy')
def _linear(P, W, n, middle, every, b, y):
    M, K = W.shape
    groups = P.shape[1] // 4
    blocks = -(-M // UNITS)
    # Weights are 2 C - (n - 2 middle) over n; four of a unit make up a word.
    C = aligned(blocks * groups * UNITS * 4)
    words = C.view(numpy.float32)
    rows = numpy.zeros((8, 4 * groups), numpy.uint8)
    row_words = rows.view(numpy.float32)
    quantized = numpy.empty(K, W.dtype)
    bias = b.copy()
    half = W.dtype.type(n / 2)
    for start in range(0, M, 8):
        for i in range(min(8, M - start)):
            if n == 1:
                binarize_loop(W[start + i], quantized)
            else:
                quantize_loop(W[start + i], W.dtype.type(n), quantized)
            nans = 0
            for k in range(K):
                level = numpy.int32(quantized[k] * half + (half + W.dtype.type(0.5)))
                rows[i, k] = numpy.uint8(level - middle)
                nans += quantized[k] != quantized[k]
            if nans:
                bias[start + i] = numpy.nan
        at = start // UNITS * groups * UNITS + start % UNITS
        for g in range(0, groups, 8):
            transpose(row_words, g, groups, words, at + g * UNITS, UNITS)
    S = numpy.empty((len(P), blocks * UNITS), numpy.int32)
    T = numpy.empty((blocks, 0, UNITS), numpy.int32)
    Y = numpy.empty((0, 0), numpy.uint8)
    C = C.view(numpy.int8).reshape((blocks, groups, UNITS, 4))
    byte_layer(P, False, C, every, 2 * middle - n, T, False, Y, S)
    scale = W.dtype.type(SCALE * n)
    for i in range(len(P)):
        for m in range(M):
            y[i, m] = W.dtype.type(S[i, m]) / scale + bias[m]


def weight_gradient(P, x, gy):
    """The gradient of the weights, gW = gy^T x.

    Args:
        P (array): What :func:`find` returned for x; or None, for any x.
        x (array): Float array of shape (N, K).
        gy (array): Float array of shape (N, M).

    Returns:
        array: Float array of shape (M, K).
    """
    if P is None or numpy.count_nonzero(P) > GREATEST_SHARE * x.size:
        return numpy.dot(gy.T, x)
    return _weight_gradient(P, x.shape[1], gy)


@numba.njit
def _floats(rows, columns):
    """An array of float32 that starts at a cache line."""
    return aligned(4 * rows * columns).view(numpy.float32).reshape((rows, columns))


@njit(nogil=True)
def _weight_gradient(P, K, gy):
    N, M = gy.shape
    # The images in which a pixel is not black: their number, the images and the pixel's values.
    counts = numpy.zeros(P.shape[1], numpy.int64)
    images = numpy.empty((P.shape[1], N), numpy.uint32)
    values = numpy.empty((P.shape[1], N), gy.dtype)
    eights = P.view(numpy.uint64)
    for i in range(N):
        for eight in range(eights.shape[1]):
            if eights[i, eight]:
                for k in range(8 * eight, 8 * eight + 8):
                    if P[i, k]:
                        images[k, counts[k]] = i
                        values[k, counts[k]] = P[i, k] / gy.dtype.type(SCALE)
                        counts[k] += 1
    gW = _floats(M, K)
    wide = -(-K // 8) * 8
    block = _floats(N, UNITS)  # gy of a block
    sums = _floats(wide, UNITS)  # the gradient of a block, transposed
    rows = _floats(8, wide)  # the gradient of eight units
    for start in range(0, M, UNITS):
        units = min(UNITS, M - start)
        for i in range(N):
            for u in range(units):
                block[i, u] = gy[i, start + u]
        for k in range(K):
            sum_rows(sums, k * UNITS, block, images, values, k * N, counts[k])
        for u in range(0, units, 8):
            if u + 8 <= units and K == wide:
                for k in range(0, K, 8):
                    transpose(sums, k * UNITS + u, UNITS, gW, (start + u) * K + k, K)
            else:
                for k in range(0, wide, 8):
                    transpose(sums, k * UNITS + u, UNITS, rows, k, wide)
                for i in range(min(8, units - u)):
                    gW[start + u + i] = rows[i, :K]
    return gW
