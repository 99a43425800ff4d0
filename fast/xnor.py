"""Layers of bits and bytes, compiled by Numba: for packed nets and for fused layers.

The product of weights and activations of ±1 counts the places where their bits disagree,

.. math:: \\sum_k w_k x_k = K - 2\\, popcount(w \\oplus x).

With more bits, a weight is 2 C + 1 with a signed byte C, an activation 2 V - n with an unsigned
byte V, and a pixel an unsigned byte, too: products of bytes give the sums of all these layers. The
kernels work on blocks of 64 units; see fast/kernels.py.
"""

import numba
import numpy

from fast.cache import njit
from fast.kernels import (
    LOOKUP,
    UNITS,
    aligned,
    copy_table,
    count_four,
    count_one,
    count_words,
    finish,
    multiply_one,
    multiply_two,
    plain_multiply_one,
    plain_multiply_two,
    prefetch_to_read,
    prefetch_to_write,
    signs,
)
from fast.loops import LINE

IMAGES = 4  # that share a load of the weights

# The counts of bits in the halves of bytes: row a is the table for inputs a.
_COUNTS = numpy.array([[bin(a ^ b).count('1') for b in range(16)] for a in range(16)], numpy.uint8)


@numba.njit
def _aligned_sums(images):
    """An array for the sums of a block for some images."""
    return aligned(4 * images * UNITS).view(numpy.int32)


@njit(nogil=True)
def byte_layer(X, dense, C, every, rest, T, as_bits, Y, S):
    """A layer by products of bytes.

    Args:
        X (array): Pixels or levels, a uint8 array of shape (N, 4 G).
        dense (bool): Whether groups of four inputs are hardly ever all 0, so that looking for them
            does not pay.
        C (array): int8 array of shape (blocks, G, 64, 4): a weight is 2 C + rest.
        every (int): See :func:`~fast.kernels.groups_between_widenings`.
        rest (int): See C.
        T (array): int32 array of shape (blocks, thresholds, 64), or (blocks, 0, 64) for sums.
        as_bits (bool): Whether to write levels of one bit as bits.
        Y (array): uint8 array of shape (N, 8 blocks) for bits, (N, 64 blocks) for levels.
        S (array): int32 array of shape (N, 64 blocks) for sums.
    """
    n_images, n_groups = X.shape[0], X.shape[1] // 4
    groups = X.view(numpy.uint32)
    n_thresholds = T.shape[1]
    size = UNITS // 8 if as_bits else UNITS
    offsets = numpy.empty(n_images, numpy.int64)
    for n in range(n_images):
        offset = 0
        for x in X[n]:
            offset += x
        offsets[n] = rest * offset

    if dense and n_images > 1:  # two images share each load of the weights
        none = numpy.empty(0, numpy.uint32)
        sums = _aligned_sums(2)
        for b in range(len(C)):
            c_start, t_start = b * n_groups * UNITS * 4, b * n_thresholds * UNITS
            for first in range(0, n_images, 2):
                images = min(2, n_images - first)
                start, stride = first * n_groups, (images - 1) * n_groups
                if every:
                    multiply_two(sums, C, c_start, none, groups, start, stride, n_groups, every)
                else:
                    plain_multiply_two(
                        sums, C, c_start, none, groups, start, stride, n_groups, n_groups
                    )
                for i in range(images):
                    n = first + i
                    finish(
                        sums,
                        i * UNITS,
                        offsets[n],
                        T,
                        t_start,
                        n_thresholds,
                        Y,
                        n * Y.shape[1] + b * size,
                        as_bits,
                        S,
                        n * S.shape[1] + b * UNITS,
                    )
        return

    # The groups of four pixels that are not all black: their number, places and pixels. The number
    # is made even by a group that is black, since the kernels may take two at a time.
    counts = numpy.empty(n_images, numpy.int64)
    places = numpy.empty((n_images, n_groups + 1), numpy.uint32)
    pixels = numpy.empty((n_images, n_groups + 1), numpy.uint32)
    for n in range(n_images):
        count = 0
        for g in range(n_groups):
            places[n, count] = g
            pixels[n, count] = groups[n, g]
            count += groups[n, g] != 0
        places[n, count] = pixels[n, count] = 0
        counts[n] = count + count % 2
    sums = _aligned_sums(1)
    for b in range(len(C)):
        c_start, t_start = b * n_groups * UNITS * 4, b * n_thresholds * UNITS
        for n in range(n_images):
            start, count = n * (n_groups + 1), counts[n]
            if every:
                multiply_one(sums, C, c_start, places, pixels, start, 0, count, every)
            else:
                plain_multiply_one(sums, C, c_start, places, pixels, start, 0, count, n_groups + 1)
            finish(
                sums,
                0,
                offsets[n],
                T,
                t_start,
                n_thresholds,
                Y,
                n * Y.shape[1] + b * size,
                as_bits,
                S,
                n * S.shape[1] + b * UNITS,
            )


if LOOKUP:

    @njit(nogil=True)
    def bit_layer(X, W, n_in, T, Y, S):
        n_images, size = X.shape
        n_thresholds = T.shape[1]
        tables = numpy.empty((IMAGES, size, 2, 16), numpy.uint8)
        sums = _aligned_sums(IMAGES)
        first = 0
        while first < n_images:
            images = IMAGES if first + IMAGES <= n_images else 1
            for t in range(images):
                for i in range(size):
                    x, start = int(X[first + t, i]), 32 * (t * size + i)
                    copy_table(tables, start, _COUNTS, 16 * (x & 15))
                    copy_table(tables, start + 16, _COUNTS, 16 * (x >> 4))
            for b in range(len(W)):
                if images == IMAGES:
                    count_four(sums, W, b * size * UNITS, tables, 32 * size, size)
                else:
                    count_one(sums, W, b * size * UNITS, tables, 32 * size, size)
                for i in range(images):
                    n = first + i
                    finish(
                        sums,
                        i * UNITS,
                        n_in,
                        T,
                        b * n_thresholds * UNITS,
                        n_thresholds,
                        Y,
                        n * Y.shape[1] + b * UNITS // 8,
                        True,
                        S,
                        n * S.shape[1] + b * UNITS,
                    )
            first += images

else:

    @njit(nogil=True)
    def bit_layer(X, W, n_in, T, Y, S):
        n_images, words = X.shape[0], X.shape[1] // 8
        n_thresholds = T.shape[1]
        inputs, weights = X.view(numpy.uint64), W.view(numpy.uint64)
        sums = _aligned_sums(1)
        for b in range(len(W)):
            for n in range(n_images):
                count_words(sums, weights, b * words * UNITS, inputs, n * words, words)
                finish(
                    sums,
                    0,
                    n_in,
                    T,
                    b * n_thresholds * UNITS,
                    n_thresholds,
                    Y,
                    n * Y.shape[1] + b * UNITS // 8,
                    True,
                    S,
                    n * S.shape[1] + b * UNITS,
                )


bit_layer.__doc__ = """A layer by XNOR and popcount.

    Args:
        X (array): Bits of the inputs, a uint8 array of shape (N, 8 words).
        W (array): Bits of the weights, a uint8 array as :func:`arrange_bits` makes it.
        n_in (int): Number of inputs.
        T, Y, S (array): As for :func:`byte_layer`.
    """


def arrange_bits(planes):
    """Brings the bits of weights into the order that :func:`bit_layer` needs.

    Args:
        planes (array): uint8 array of shape (64 blocks, 8 words), an input per bit.

    Returns:
        array: uint8 array of shape (blocks, 8 words, 64), or (blocks, words, 64, 8).
    """
    units, size = planes.shape
    if LOOKUP:
        return planes.reshape(-1, UNITS, size).transpose(0, 2, 1)
    return planes.reshape(-1, UNITS, size // 8, 8).transpose(0, 2, 1, 3)


@njit(nogil=True, error_model='numpy')
def affine(S, factor, shift, scale, b, mean, inv_std, gamma, beta, y):
    """Writes the logits y of shape (N, M) for the sums factor S - shift of the last layer.

    The operations are those of :meth:`deploy.packed.PackedMLP.chunk_logits`, in the same order.
    """
    for n in range(y.shape[0]):
        for m in range(y.shape[1]):
            total = numpy.float32(factor * S[n, m] - shift[m, 0]) / scale
            y[n, m] = (total + b[m] - mean[m]) * inv_std[m] * gamma[m] + beta[m]


@numba.njit
def _write_signs(a, words):
    """Writes the signs of numbers of shape (K,) to words."""
    K = len(a)
    for i in range(K // 64):
        words[i] = signs(a, 64 * i)
    if K % 64:
        rest = numpy.full(64, -1, a.dtype)
        rest[: K % 64] = a[K - K % 64 :]
        words[K // 64] = signs(rest, 0)


@njit()
def all_signs(x):
    """Whether all numbers in an array of shape (N, K) are +1 or -1."""
    for n in range(len(x)):
        others = 0
        for k in range(x.shape[1]):
            others += abs(x[n, k]) != 1
        if others:
            return False
    return True


@njit()
def binary_linear(x, W, b, Wb, y):
    """:func:`function_binary_linear.binary_linear` forward, for a minibatch of only +1 and -1.

    The sums are whole numbers that a float represents exactly, so they equal those of any other
    matrix product to the bit.

    Args:
        x, W, b (array): Float arrays of shapes (N, K), (M, K) and (M,).
        Wb (array): Float array of shape (M, K), to which binarize(W) is written.
        y (array): Float array of shape (N, M), which is written.
    """
    N, K = x.shape
    M = len(W)
    words, blocks = -(-K // 64), -(-M // UNITS)
    X = numpy.empty((N, words), numpy.uint64)
    for n in range(N):
        _write_signs(x[n], X[n])
    V = aligned(blocks * words * 8 * UNITS).reshape((blocks, words * 8 * UNITS))
    row = numpy.empty(words, numpy.uint64)
    row_bytes = row.view(numpy.uint8)
    plus, minus = W.dtype.type(1), W.dtype.type(-1)
    for m in range(M):
        for k in range(0, K, LINE):
            prefetch_to_read(W, (m + 2) * K + k)
            prefetch_to_write(Wb, (m + 2) * K + k)
        for k in range(K):
            Wb[m, k] = plus if W[m, k] >= 0 else minus
        _write_signs(W[m], row)
        block, unit = m // UNITS, m % UNITS
        if LOOKUP:
            for i in range(8 * words):
                V[block, i * UNITS + unit] = row_bytes[i]
        else:
            for i in range(words):
                for k in range(8):
                    V[block, (i * UNITS + unit) * 8 + k] = row_bytes[8 * i + k]
    S = numpy.empty((N, blocks * UNITS), numpy.int32)
    T = numpy.empty((blocks, 0, UNITS), numpy.int32)
    Y = numpy.empty((0, 0), numpy.uint8)
    bit_layer(X.view(numpy.uint8), V, K, T, Y, S)
    for n in range(N):
        for m in range(M):
            y[n, m] = y.dtype.type(S[n, m]) + b[m]
