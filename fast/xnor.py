"""Layers of bits and bytes, compiled by Numba: for packed nets and for fused layers.

The product of weights and activations of ±1 counts the places where their bits disagree,

.. math:: \\sum_k w_k x_k = K - 2\\, popcount(w \\oplus x).

With more bits, a weight is 2 C + 1 with a signed byte C, an activation 2 V - n with an unsigned
byte V, and a pixel also an unsigned byte: products of bytes give the sums of all these layers. The
kernels work on blocks of 64 units; see fast/kernels.py.
"""

from collections import namedtuple

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
)

IMAGES = 4  # that share a load of the weights

# The counts of bits in the halves of bytes: row a is the table for inputs a.
_COUNTS = numpy.array([[bin(a ^ b).count('1') for b in range(16)] for a in range(16)], numpy.uint8)


@numba.njit
def _aligned_sums(images):
    """An array for the sums of a block for some images."""
    return aligned(4 * images * UNITS).view(numpy.int32)


# What products of bytes need to know of X: the sum of each image's bytes, and the groups of four
# that are not all 0, for each image: their number, places and bytes.
Groups = namedtuple('Groups', 'totals counts places bytes')


@njit(nogil=True)
def find_groups(X, dense):
    """The groups of X: see :func:`byte_layer`."""
    n_images, n_groups = X.shape[0], X.shape[1] // 4
    groups = X.view(numpy.uint32)
    totals, counts = numpy.empty(n_images, numpy.int64), numpy.empty(n_images, numpy.int64)
    size = 0 if dense else n_groups + 1
    places = numpy.empty((n_images, size), numpy.uint32)
    found = numpy.empty((n_images, size), numpy.uint32)
    for n in range(n_images):
        total, count = 0, 0
        for x in X[n]:
            total += x
        totals[n] = total
        if dense:
            continue
        for g in range(n_groups):
            places[n, count] = g
            found[n, count] = groups[n, g]
            count += groups[n, g] != 0
        # Their number is made even by a group of zeros, since the kernels may take two at a time.
        places[n, count] = found[n, count] = 0
        counts[n] = count + count % 2
    return Groups(totals, counts, places, found)


@njit(nogil=True)
def byte_block(b, X, groups, dense, C, every, rest, T, as_bits, Y, S):
    """Block b of :func:`byte_layer`."""
    n_images, n_groups, n_thresholds = X.shape[0], X.shape[1] // 4, T.shape[1]
    c_start, t_start = b * n_groups * UNITS * 4, b * n_thresholds * UNITS
    y_start = b * (UNITS // 8 if as_bits else UNITS)
    step = 2 if dense else 1  # two images share each load of the weights
    sums, words = _aligned_sums(2), X.view(numpy.uint32)
    for first in range(0, n_images, step):
        images = min(step, n_images - first)
        if dense:
            start, stride = first * n_groups, (images - 1) * n_groups
            args = sums, C, c_start, groups.places, words, start, stride, n_groups
            if every:
                multiply_two(*args, every)
            else:
                plain_multiply_two(*args, n_groups)
        else:
            start, count = first * (n_groups + 1), groups.counts[first]
            args = sums, C, c_start, groups.places, groups.bytes, start, 0, count
            if every:
                multiply_one(*args, every)
            else:
                plain_multiply_one(*args, n_groups + 1)
        for n in range(first, first + images):
            offset, y, s = rest * groups.totals[n], n * Y.shape[1], n * S.shape[1] + b * UNITS
            at = (n - first) * UNITS
            finish(sums, at, offset, T, t_start, n_thresholds, Y, y + y_start, as_bits, S, s)


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
    dense = dense and len(X) > 1
    groups = find_groups(X, dense)
    for b in range(len(C)):
        byte_block(b, X, groups, dense, C, every, rest, T, as_bits, Y, S)


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
                    n, t = first + i, b * n_thresholds * UNITS
                    y, s = n * Y.shape[1] + b * UNITS // 8, n * S.shape[1] + b * UNITS
                    finish(sums, i * UNITS, n_in, T, t, n_thresholds, Y, y, True, S, s)
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
                t, y, s = b * n_thresholds * UNITS, n * Y.shape[1] + b * UNITS // 8, n * S.shape[1]
                finish(sums, 0, n_in, T, t, n_thresholds, Y, y, True, S, s + b * UNITS)


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
