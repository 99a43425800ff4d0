"""Layers of bits and bytes, compiled with Numba: for packed nets and for the net of fused_net.py.

The product of weights and activations of ±1 counts the places where their bits disagree,

.. math:: \\sum_k w_k x_k = K - 2\\, popcount(w \\oplus x).

With more bits, a weight is 2 C + 1 with a signed byte C (or 2 C - n with an unsigned one), an
activation 2 V - n with an unsigned byte V, and a pixel also an unsigned byte: products of bytes
give the sums of all these layers. The kernels work on blocks of 64 units; see fast/kernels.py.
"""

from collections import namedtuple

import numpy

from fast import kernels
from fast.cache import compiled, njit
from fast.kernels import LOOKUP, UNITS, aligned, finish

IMAGES = 4 if LOOKUP else 16  # for which a block of weights stays in the first cache

# The table of 16 counts for four inputs a, as two words.
_COUNTS = [[bin(a ^ b).count('1') for b in range(16)] for a in range(16)]
_COUNTS = numpy.array(_COUNTS, numpy.uint8).view(numpy.uint64)

# What products of bytes need to know of X: the sum of each image's bytes, and the groups of four
# that are not all 0, for each image: their number, places and bytes.
Groups = namedtuple('Groups', 'totals counts places bytes')


@njit
def find_groups(X, dense):
    """The groups of X: see :func:`byte_layer`."""
    n_images, n_groups = X.shape[0], X.shape[1] // 4
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
            group = numpy.uint32(0)
            for k in range(4):
                group |= numpy.uint32(X[n, 4 * g + k]) << numpy.uint32(8 * k)
            places[n, count] = g
            found[n, count] = group
            count += group != 0
        # Their number is made even by a group of zeros, since the kernels may take two at a time.
        places[n, count] = found[n, count] = 0
        counts[n] = count + count % 2
    return Groups(totals, counts, places, found)


@compiled
def _finish(sums, i, offset, T, b, Y, as_bits, S, n):
    """Writes what block b makes of the sums i of image n."""
    t, thresholds, width = b * T.shape[1] * UNITS, T.shape[1], UNITS // 8 if as_bits else UNITS
    y, s = n * Y.shape[1] + b * width, n * S.shape[1] + b * UNITS
    finish(sums, i * UNITS, offset, T, t, thresholds, Y, y, as_bits, S, s)


@compiled
def byte_block(b, X, groups, dense, C, every, rest, T, as_bits, Y, S):
    """Block b of :func:`byte_layer`."""
    n_images, n_groups = X.shape[0], X.shape[1] // 4
    start, step = b * n_groups * UNITS, 2 if dense else 1  # two images share a load of the weights
    sums = aligned(2 * UNITS, numpy.int32)
    for first in range(0, n_images, step):
        images = min(step, n_images - first)
        if dense:
            x, stride = first * n_groups, (images - 1) * n_groups
            args = sums, 0, C, start, groups.places, X, x, stride, n_groups
            if every:
                kernels.multiply_two(*args, every)
            else:
                kernels.plain_multiply_two(*args, n_groups)
        else:
            x, count = first * (n_groups + 1), groups.counts[first]
            args = sums, 0, C, start, groups.places, groups.bytes, x, 0, count
            if every:
                kernels.multiply_one(*args, every)
            else:
                kernels.plain_multiply_one(*args, n_groups + 1)
        for i in range(images):
            offset = rest * groups.totals[first + i]
            _finish(sums, i, offset, T, b, Y, as_bits, S, first + i)


@njit
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


@compiled
def store_bits(W, i, u, word):
    """Stores word i of the bits of unit u in a block, as :func:`arrange_bits` does."""
    for k in range(8):
        at = (8 * i + k) * UNITS + u if LOOKUP else 8 * (i * UNITS + u) + k
        W[0, at] = numpy.uint8(word >> numpy.uint64(8 * k))


@compiled
def _write_counts(X, first, images, tables):
    """Writes the tables of 16 counts for each four inputs."""
    for n in range(images):
        for i in range(X.shape[1]):
            x = X[first + n, i]
            at = 4 * (n * X.shape[1] + i)
            for k in range(2):
                tables[at + k] = _COUNTS[x & 15, k]
                tables[at + 2 + k] = _COUNTS[x >> 4, k]


@compiled
def _count(sums, W, b, X, first, images, tables):
    """Writes minus the number of inputs that disagree with a unit, for each image and unit."""
    size, every = X.shape[1], kernels.SEGMENT
    start, words = b * size * UNITS, size // 8
    if LOOKUP and images == IMAGES:
        kernels.count_four(sums, 0, W, start, W, tables, 0, 32 * size, size, every)
    for i in range(images if not LOOKUP or images < IMAGES else 0):
        if LOOKUP:
            x = 32 * i * size
            kernels.count_one(sums, i * UNITS, W, start, W, tables, x, 0, size, every)
        else:
            x = (first + i) * words
            kernels.count_words(sums, i * UNITS, W, start // 8, W, X, x, 0, words, words)


@njit
def bit_layer(X, W, n_in, T, Y, S):
    """A layer by XNOR and popcount.

    Args:
        X (array): Bits of the inputs, a uint8 array of shape (N, 8 words).
        W (array): Bits of the weights, a uint8 array as :func:`arrange_bits` makes it.
        n_in (int): Number of inputs.
        T, Y, S (array): As for :func:`byte_layer`.
    """
    n_images = len(X)
    sums = aligned(IMAGES * UNITS, numpy.int32)
    tables = aligned(4 * IMAGES * X.shape[1] if LOOKUP else 0, numpy.uint64)
    for first in range(0, n_images, IMAGES):
        images = min(IMAGES, n_images - first)
        if LOOKUP:
            _write_counts(X, first, images, tables)
        for b in range(len(W)):
            _count(sums, W, b, X, first, images, tables)
            for i in range(images):
                _finish(sums, i, n_in, T, b, Y, True, S, first + i)


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


@njit
def affine(S, factor, shift, scale, b, mean, inv_std, gamma, beta, y):
    """Writes the logits y of shape (N, M) for the sums factor S - shift of the last layer.

    The operations are those of :meth:`deploy.packed.PackedMLP.chunk_logits`, in the same order.
    """
    for n in range(y.shape[0]):
        for m in range(y.shape[1]):
            total = numpy.float32(factor * S[n, m] - shift[m, 0]) / scale
            y[n, m] = (total + b[m] - mean[m]) * inv_std[m] * gamma[m] + beta[m]
