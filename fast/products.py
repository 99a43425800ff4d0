"""The products of a layer with its inputs, which are pixels, bits or other numbers.

Each kind of inputs has a class: ``linear`` is the forward product with the quantized weights,
``weight_gradient`` and ``input_gradient`` are the two backward ones, for the gradient gy of the
sums.

:class:`Pixels`, the inputs of the first layer, are bytes: the forward product is the one of the
packed nets (fast/xnor.py), exact in whole numbers, and backward only pixels that are not black
take part, a fifth in MNIST. :class:`Bits` are one plane or two of +1 and -1 to multiply with
weights of one bit: forward by XNOR and popcount, as exact, backward by look-up (fast/lookup.py).
:class:`Numbers` are for nets of more bits.
"""

from collections import namedtuple

import numba
from numba import prange
import numpy

from fast import cpu
from fast.kernels import (
    LOOKUP,
    ROWS,
    UNITS,
    aligned,
    groups_between_widenings,
    multiply_rows,
    prefetch_to_read,
    signs,
    sum_rows,
    transpose,
)
from fast.lookup import product, table_size, write_signs, write_tables
from fast.loops import quantize_row
from fast.normalization import Sums
from fast.threads import compiled, region
from fast.xnor import bit_layer, byte_layer

f4 = numpy.float32
IMAGES = 4  # of a chunk

# The activations of a layer, in the form of Bits or of Numbers; the other's arrays are empty.
# words: uint64 (planes, N, blocks), an image's units; columns: uint32 (planes, words, 64 blocks),
# a unit's images; numbers: float32 (blocks, images, 64).
Activations = namedtuple('Activations', 'words columns numbers')

_NO_THRESHOLDS = numpy.empty((1, 0, UNITS), numpy.int32)
_NO_LEVELS = numpy.empty((0, 0), numpy.uint8)


def blocks_of(units):
    return -(-units // UNITS)


def in_blocks(units, n):
    """The shape (blocks, images, 64) of an array with numbers of n images."""
    return blocks_of(units), -(-n // ROWS) * ROWS, UNITS


@compiled
def _floats(rows, columns):
    return aligned(4 * rows * columns).view(numpy.float32).reshape((rows, columns))


@compiled
def _store(rows, first, count, factor, gW):
    for r in range(count):
        for k in range(gW.shape[1]):
            gW[first + r, k] = rows[r, k] * factor


# Pixels


@compiled
def _arrange_pixels(b, W, n, middle, C, bias, totals):
    """Weights are 2 C - (n - 2 middle) over n; four of a unit make up a word."""
    M, K = W.shape
    words, groups = C.view(numpy.float32)[b], C.shape[1] // (4 * UNITS)
    rows = numpy.zeros((8, 4 * groups), numpy.uint8)
    row_words = rows.view(numpy.float32)
    quantized = numpy.empty(K, numpy.float32)
    half = f4(n / 2)
    units = min(UNITS, M - b * UNITS)
    for first in range(0, units, 8):
        for i in range(min(8, units - first)):
            m = b * UNITS + first + i
            quantize_row(W[m], n, quantized)
            total, nans = 0, 0
            for k in range(K):
                level = numpy.int32(quantized[k] * half + (half + f4(0.5)))
                rows[i, k] = numpy.uint8(level - middle)
                total += level
                nans += quantized[k] != quantized[k]
            totals[m] = 2 * total - n * K
            if nans:
                bias[m] = numpy.nan
        for g in range(0, groups, 8):
            transpose(row_words, g, groups, words, g * UNITS + first, UNITS)


@region
def arrange_pixels(W, n, middle, C, bias, totals):
    for b in prange(len(C)):
        _arrange_pixels(b, W, n, middle, C, bias, totals)


@region
def multiply_pixels(P, C, every, rest, size, none, levels, S):
    for c in prange(-(-len(P) // size)):
        start, stop = c * size, min(len(P), (c + 1) * size)
        byte_layer(P[start:stop], False, C, every, rest, none, False, levels, S[start:stop])


@compiled
def _list_pixels(P, factor, counts, images, values):
    counts[:] = 0
    for n in range(len(P)):
        for k in range(len(counts)):
            if P[n, k]:
                images[k, counts[k]] = n
                values[k, counts[k]] = f4(P[n, k]) * factor
                counts[k] += 1


@region
def list_pixels(P, factor, counts, images, values):
    """The images in which a pixel is not black: their number, the images and the values."""
    for c in prange(blocks_of_pixels(len(counts))):
        part = slice(c * UNITS, min(len(counts), (c + 1) * UNITS))
        _list_pixels(P[:, part], factor, counts[part], images[part], values[part])


@compiled
def blocks_of_pixels(K):
    return -(-K // UNITS)


@compiled
def _pixel_gradient(b, gy, counts, images, values, offset, gb, gW):
    M, K = gW.shape
    wide = -(-K // 8) * 8
    sums, rows = _floats(wide, UNITS), _floats(8, wide)
    units = min(UNITS, M - b * UNITS)
    for k in range(K):
        sum_rows(sums, k * UNITS, gy[b], images, values, k * images.shape[1], counts[k])
        if offset:
            for u in range(UNITS):
                sums[k, u] += offset * gb[b * UNITS + u]
    for first in range(0, units, 8):
        for k in range(0, wide, 8):
            transpose(sums, k * UNITS + first, UNITS, rows, k, wide)
        _store(rows, b * UNITS + first, min(8, units - first), f4(1), gW)


@region
def pixel_gradient(gy, counts, images, values, offset, gb, gW):
    for b in prange(len(gy)):
        _pixel_gradient(b, gy, counts, images, values, offset, gb, gW)


class Pixels:
    """Bytes P that stand for the inputs factor (P - middle) / (scale - middle).

    Args:
        x (array): uint8 array of shape (N, K).
        scale (int): What the pixels are divided by.
        middle (int): The pixel that stands for 0.
        kept (array): Bool array, False where dropout takes a pixel; or None.
        factor (float): By which dropout multiplies the others.
    """

    def __init__(self, x, scale, middle, kept, factor, memory):
        self.memory = memory
        self.P = memory.empty((len(x), -(-x.shape[1] // 32) * 32), numpy.uint8)
        self.P[:, x.shape[1] :] = 0
        self.P[:, : x.shape[1]] = x if kept is None else numpy.where(kept, x, numpy.uint8(middle))
        self.unit, self.middle, self.factor = scale - middle, middle, factor

    def linear(self, W, bits, b, y):
        N, M, n = len(self.P), len(W), 2**bits - 1
        blocks, n_groups = blocks_of(M), self.P.shape[1] // 4
        middle = 0 if cpu.BYTES == 'dotprod' else (n + 1) // 2  # its weights are not signed
        C = self.memory.empty((blocks, n_groups * UNITS * 4), numpy.uint8)
        totals = numpy.zeros(len(b), numpy.int32)
        arrange_pixels(W, n, middle, C, b, totals)
        S = self.memory.empty((1, N, blocks * UNITS), numpy.int32)
        C = C.view(numpy.int8).reshape(blocks, n_groups, UNITS, 4)
        every = groups_between_widenings(255, (n + 1) // 2)
        none = numpy.empty((blocks, 0, UNITS), numpy.int32)
        rest = 2 * middle - n
        multiply_pixels(self.P, C, every, rest, share(N), none, _NO_LEVELS, S[0])
        totals *= self.middle
        return Sums(S, numpy.int32(0), totals, f4(self.unit * n), f4(self.factor))

    def weight_gradient(self, gy, gb, gW):
        N, K = len(self.P), gW.shape[1]
        counts = numpy.empty(K, numpy.int64)
        images, values = self.memory.empty((K, N), numpy.uint32), self.memory.empty((K, N))
        list_pixels(self.P, f4(self.factor / self.unit), counts, images, values)
        offset = f4(-self.factor * self.middle / self.unit)
        pixel_gradient(gy, counts, images, values, offset, gb, gW)


# Bits


@compiled
def _arrange_bits(b, W, V, I):
    """Bits of the weights: V in the order that bit_layer needs, I in the order of look-up."""
    M, K = W.shape
    words = -(-K // 64)
    row = numpy.empty(words, numpy.uint64)
    row_bytes, rest = row.view(numpy.uint8), numpy.full(64, -1, numpy.float32)
    V_words = V.view(numpy.uint64)
    for u in range(min(UNITS, M - b * UNITS)):
        m = b * UNITS + u
        for k in range(0, K, 16):
            prefetch_to_read(W, (m + 2) * K + k)
        for i in range(K // 64):
            row[i] = signs(W[m], 64 * i)
        if K % 64:
            rest[: K % 64] = W[m, K - K % 64 :]
            row[K // 64] = signs(rest, 0)
        if LOOKUP:
            for i in range(8 * words):
                V[b, i * UNITS + u] = row_bytes[i]
        else:
            for i in range(words):
                V_words[b, i * UNITS + u] = row[i]
        if I.size:
            write_signs(W[m], m, I)


@region
def arrange_bits(W, V, I):
    for b in prange(len(V)):
        _arrange_bits(b, W, V, I)


@region
def multiply_bits(X, V, K, size, none, levels, S):
    for c in prange(-(-len(X) // size)):
        start, stop = c * size, min(len(X), (c + 1) * size)
        bit_layer(X[start:stop], V, K, none, levels, S[start:stop])


@compiled
def _bit_gradient(b, N, gy, columns, carry, factor, gW):
    M, K = gW.shape
    wide = -(-K // UNITS) * UNITS
    T = _floats(1, table_size(N)).reshape(-1)
    rows = _floats(ROWS, wide)
    units = min(UNITS, M - b * UNITS)
    for u in range(0, units, ROWS):
        write_tables(gy, b * gy.shape[1] * UNITS + u, UNITS, 1, ROWS, N, T, 0)
        for k in range(0, wide, UNITS):
            product(T, N, columns[0], k, f4(0), rows, k, wide, ROWS)
            if len(columns) == 2:
                product(T, N, columns[1], k, carry, rows, k, wide, ROWS)
        _store(rows, b * UNITS + u, min(ROWS, units - u), factor, gW)


@region
def bit_gradient(N, gy, columns, carry, factor, gW):
    for b in prange(len(gy)):
        _bit_gradient(b, N, gy, columns, carry, factor, gW)


@compiled
def _gradient_of_images(first, rows, M, gy, I, gx):
    n = gy.shape[1]
    T = _floats(1, len(gy) * table_size(UNITS)).reshape(-1)
    for b in range(len(gy)):
        start, units = (b * n + first) * UNITS, min(UNITS, M - b * UNITS)
        write_tables(gy, start, 1, UNITS, rows, units, T, b * table_size(UNITS))
    for b in range(len(gx)):
        product(T, M, I, b * UNITS, f4(0), gx, (b * n + first) * UNITS, UNITS, rows)


@region
def gradient_of_bits(N, M, gy, I, gx):
    for c in prange(-(-N // ROWS)):
        _gradient_of_images(c * ROWS, min(ROWS, N - c * ROWS), M, gy, I, gx)


class Bits:
    """Inputs of two levels, or of three or four as two planes (carry s1 + s2) / divisor factor."""

    def __init__(self, activations, carry, divisor, factor, memory):
        self.activations, self.memory = activations, memory
        self.carry, self.divisor, self.factor = carry, divisor, factor

    def linear(self, W, bits, b, y):
        planes, N, words = self.activations.words.shape
        M, K = W.shape
        blocks = blocks_of(M)
        V = self.memory.empty((blocks, words * 8 * UNITS), numpy.uint8)
        I = self.memory.empty((-(-M // 32), words * UNITS), numpy.uint32)
        arrange_bits(W, V, I)
        S = self.memory.empty((planes, N, blocks * UNITS), numpy.int32)
        none = numpy.empty((blocks, 0, UNITS), numpy.int32)
        for X, of_plane in zip(self.activations.words, S):
            multiply_bits(X.view(numpy.uint8), V, K, share(N), none, _NO_LEVELS, of_plane)
        self.I, self.M = I, M
        shift = numpy.zeros(blocks * UNITS, numpy.int32)
        return Sums(S, numpy.int32(self.carry), shift, f4(self.divisor), f4(self.factor))

    def weight_gradient(self, gy, gb, gW):
        N = self.activations.words.shape[1]
        factor = f4(self.factor / self.divisor)
        bit_gradient(N, gy, self.activations.columns, f4(self.carry), factor, gW)

    def input_gradient(self, gy):
        planes, N, words = self.activations.words.shape
        gx = self.memory.empty(in_blocks(words * UNITS, N))
        gradient_of_bits(N, self.M, gy, self.I, gx)
        return gx


# Numbers


@compiled
def _multiply_numbers(b, X, W, n, Wq, y):
    M, K = W.shape
    units, wide = min(UNITS, M - b * UNITS), Wq.shape[1]
    rows = Wq[b * UNITS : (b + 1) * UNITS]
    for u in range(units):
        quantize_row(W[b * UNITS + u], n, rows[u])
        rows[u, K:] = 0
    rows[units:] = 0
    y[b] = 0
    columns = _floats(UNITS, UNITS)  # of the weights of the block
    images = X.shape[1]
    for k in range(0, wide, UNITS):
        for u in range(0, UNITS, 8):
            for i in range(0, UNITS, 8):
                transpose(Wq, (b * UNITS + u) * wide + k + i, wide, columns, i * UNITS + u, UNITS)
        for i in range(0, images, ROWS):
            multiply_rows(
                y, (b * images + i) * UNITS, UNITS,
                X, (k // UNITS * images + i) * UNITS, UNITS, 1,
                columns, 0, UNITS, min(UNITS, K - k),
            )  # fmt: skip


@region
def multiply_numbers(X, W, n, Wq, y):
    for b in prange(len(y)):
        _multiply_numbers(b, X, W, n, Wq, y)


@compiled
def _number_gradient(b, N, gy, X, gW):
    M, K = gW.shape
    images, wide = X.shape[1], len(X) * UNITS
    rows = _floats(ROWS, wide)
    units = min(UNITS, M - b * UNITS)
    for u in range(0, units, ROWS):
        rows[:] = 0
        for k in range(0, wide, UNITS):
            multiply_rows(
                rows, k, wide,
                gy, b * images * UNITS + u, 1, UNITS,
                X, k * images, UNITS, N,
            )  # fmt: skip
        _store(rows, b * UNITS + u, min(ROWS, units - u), f4(1), gW)


@region
def number_gradient(N, gy, X, gW):
    for b in prange(len(gy)):
        _number_gradient(b, N, gy, X, gW)


@region
def gradient_of_numbers(M, gy, Wq, gx):
    images, wide = gy.shape[1], Wq.shape[1]
    for c in prange(images // ROWS):
        for k in range(0, wide, UNITS):
            gx[k // UNITS, c * ROWS : (c + 1) * ROWS] = 0
            for b in range(len(gy)):
                multiply_rows(
                    gx, (k // UNITS * images + c * ROWS) * UNITS, UNITS,
                    gy, (b * images + c * ROWS) * UNITS, UNITS, 1,
                    Wq, b * UNITS * wide + k, wide, min(UNITS, M - b * UNITS),
                )  # fmt: skip


class Numbers:
    """Inputs of any values."""

    def __init__(self, activations, N, memory):
        self.X, self.N, self.memory = activations.numbers, N, memory

    def linear(self, W, bits, b, y):
        M, K = W.shape
        self.Wq, self.M = self.memory.empty((blocks_of(M) * UNITS, blocks_of(K) * UNITS)), M
        multiply_numbers(self.X, W, 2**bits - 1, self.Wq, y)
        none = numpy.empty((0, 0, 0), numpy.int32)
        return Sums(none, numpy.int32(0), numpy.empty(0, numpy.int32), f4(1), f4(1))

    def weight_gradient(self, gy, gb, gW):
        number_gradient(self.N, gy, self.X, gW)

    def input_gradient(self, gy):
        gx = self.memory.empty(in_blocks(self.Wq.shape[1], self.N))
        gradient_of_numbers(self.M, gy, self.Wq, gx)
        return gx


def share(n):
    """How many of n images a thread takes: the sums are exact, in whatever chunks."""
    share = -(-n // numba.get_num_threads())
    return max(1, -(-share // IMAGES) * IMAGES)
