"""A layer of the net, compiled: products, batch normalization, activation and their gradients.

A thread takes 64 units at a time, or for the gradient of the inputs some images, and does all that
is to be done for them. Inputs are bytes, pixels or levels of activations. Forward, their product
with the quantized weights is exact in whole numbers: the one of the packed nets (fast/xnor.py), by
XNOR where weights and levels have few bits. Backward, levels and weights are planes of signs for
products by look-up (fast/lookup.py), and of the pixels only those that are not black take part, a
fifth in MNIST.
"""

from collections import namedtuple

from numba import prange
import numpy

from fast import cpu
from fast.kernels import (
    LOOKUP,
    ROWS,
    UNITS,
    aligned,
    prefetch_to_read,
    signs,
    sum_rows,
    transpose,
)
from fast.lookup import WORD, product, table_size, write_signs, write_tables
from fast.loops import level_of
from fast.threads import compiled, region
from fast.xnor import bit_layer, byte_block

f4, u4, i4 = numpy.float32, numpy.uint32, numpy.int32
i8 = numpy.int64  # of a prange, whose turns are unsigned, which would compile all for both
SPAN = 256  # inputs whose tables stay in the first cache

# The inputs of a layer for N images: factor (2 P - middle) / unit, of unsigned bytes P. A plane of
# bits of P, the highest first, has words for each image, uint64 (planes, N, blocks), and for each
# column, uint32 (planes, words, 64 blocks); pixels have no planes.
Inputs = namedtuple('Inputs', 'P words columns middle unit factor')

# Of the pixels of each column that are not black: number, images, and 2 P factor / unit.
Pixels = namedtuple('Pixels', 'counts images values')

# A layer during a step. All but W have an element for each unit of each block; y and inside have
# shape (blocks, images, 64), signs uint32 (planes, words, columns), the bits of the weights.
Layer = namedtuple('Layer', 'W b gamma beta mean var inv_std y inside signs')


@compiled
def _floats(rows, columns):
    return aligned(4 * rows * columns).view(numpy.float32).reshape((rows, columns))


@compiled
def _of_block(b, a):
    return a[b * UNITS : (b + 1) * UNITS]


@compiled
def _list_pixels(P, factor, counts, images, values):
    counts[:] = 0
    for n in range(len(P)):
        for k in range(len(counts)):
            if P[n, k]:
                images[k, counts[k]] = n
                values[k, counts[k]] = f4(2 * i4(P[n, k])) * factor
                counts[k] += 1


@region
def list_pixels(inputs, pixels):
    for b in prange(inputs.P.shape[1] // UNITS):
        start, factor = i8(b) * UNITS, inputs.factor / f4(inputs.unit)
        part = slice(start, start + UNITS)
        counts, images, values = pixels
        _list_pixels(inputs.P[:, part], factor, counts[part], images[part], values[part])


# Forward


@compiled
def _multiply_bits(b, layer, inputs, y):
    """The product by XNOR: y = factor S / unit + b."""
    (M, K), N, words = layer.W.shape, len(y), inputs.words.shape[2]
    row, rest = numpy.empty(words, numpy.uint64), numpy.full(64, -1, numpy.float32)
    row_bytes, V = (
        row.view(numpy.uint8),
        aligned(8 * words * UNITS).reshape((1, 8 * words * UNITS)),
    )
    V_words = V.view(numpy.uint64)
    for u in range(min(UNITS, M - b * UNITS)):
        m = b * UNITS + u
        for k in range(0, K, 16):
            prefetch_to_read(layer.W, (m + 2) * K + k)
        for i in range(K // 64):
            row[i] = signs(layer.W[m], 64 * i)
        if K % 64:
            rest[: K % 64] = layer.W[m, K - K % 64 :]
            row[words - 1] = signs(rest, 0)
        if LOOKUP:
            for i in range(8 * words):
                V[0, i * UNITS + u] = row_bytes[i]
        else:
            for i in range(words):
                V_words[0, i * UNITS + u] = row[i]
        if layer.signs.size:
            write_signs(layer.W[m], m, layer.signs[0])
    planes = len(inputs.words)
    T, none = numpy.empty((1, 0, UNITS), numpy.int32), numpy.empty((0, 0), numpy.uint8)
    S, sums = numpy.empty((N, UNITS), numpy.int32), numpy.zeros((N, UNITS), numpy.int32)
    for p in range(planes):
        bit_layer(inputs.words[p].view(numpy.uint8), V, K, T, none, S)
        for i in range(N):
            for u in range(UNITS):
                sums[i, u] = 2 * sums[i, u] + S[i, u]
    middle = i4(2**planes - 1 - inputs.middle)
    if middle:  # times the sum of the weights
        ones = numpy.zeros((1, 8 * words), numpy.uint8)
        ones[0, : K // 8] = 255
        if K % 8:
            ones[0, K // 8] = 2 ** (K % 8) - 1
        bit_layer(ones, V, K, T, none, S[:1])
        for i in range(N):
            for u in range(UNITS):
                sums[i, u] += middle * S[0, u]
    bias, unit = _of_block(b, layer.b), f4(inputs.unit)
    for i in range(N):
        for u in range(UNITS):
            y[i, u] = f4(sums[i, u]) / unit * inputs.factor + bias[u]


@compiled
def _multiply_bytes(b, n, layer, inputs, groups, every, y):
    """The product of bytes. Weights are 2 C - (n - 2 middle) over n; four of a unit are a word."""
    (M, K), N, wide = layer.W.shape, len(y), inputs.P.shape[1]
    n_groups, units = wide // 4, min(UNITS, M - b * UNITS)
    middle = 0 if cpu.BYTES == 'dotprod' else (n + 1) // 2  # its weights are not signed
    C = aligned(wide * UNITS).view(numpy.int8).reshape((1, n_groups, UNITS, 4))
    words = C.reshape(-1).view(numpy.float32)
    rows = numpy.zeros((8, wide), numpy.uint8)
    row_words, levels = rows.view(numpy.float32), numpy.empty(K, numpy.int32)
    bias, totals = _of_block(b, layer.b), numpy.zeros(UNITS, numpy.int32)
    bit, half = numpy.empty(K, numpy.float32), f4(n / 2)
    for first in range(0, units, 8):
        for i in range(min(8, units - first)):
            m = b * UNITS + first + i
            W, total, nans = layer.W[m], i4(0), i4(0)
            for k in range(K):
                levels[k] = level_of(W[k], i4(n), half)
                rows[i, k] = numpy.uint8(levels[k] - middle)
                total += levels[k]
                nans += i4(W[k] != W[k])
            totals[first + i] = 2 * total - n * K
            if nans and n > 1:  # the sign of NaN is -1
                bias[first + i] = numpy.nan
            for p in range(len(layer.signs)):
                shift = len(layer.signs) - 1 - p
                for k in range(K):
                    bit[k] = f4((levels[k] >> shift) & 1) - f4(0.5)
                write_signs(bit, m, layer.signs[p])
        for g in range(0, n_groups, 8):
            transpose(row_words, g, n_groups, words, g * UNITS + first, UNITS)
    T, none = numpy.empty((1, 0, UNITS), numpy.int32), numpy.empty((0, 0), numpy.uint8)
    S, dense = numpy.empty((N, UNITS), numpy.int32), groups.places.size == 0
    byte_block(0, inputs.P, groups, dense, C, every, 2 * middle - n, T, False, none, S)
    unit = f4(inputs.unit * n)
    for i in range(N):
        for u in range(UNITS):
            y[i, u] = f4(2 * S[i, u] - inputs.middle * totals[u]) / unit * inputs.factor + bias[u]


@compiled
def _statistics(y, eps, mean, var, inv_std):
    n, one = f4(len(y)), f4(1)
    mean[:] = 0
    var[:] = 0
    for i in range(len(y)):
        for u in range(UNITS):
            mean[u] += y[i, u]
    for u in range(UNITS):
        mean[u] /= n
    for i in range(len(y)):
        for u in range(UNITS):
            difference = y[i, u] - mean[u]
            var[u] += difference * difference
    for u in range(UNITS):
        var[u] /= n
        inv_std[u] = one / numpy.sqrt(var[u] + eps)


@compiled
def _activate(i, b, z, n, kept, levels, out):
    """Writes the level of each activation; of those that dropout takes, the one that means 0."""
    planes, half, bit = len(out.words), f4(n / 2), u4(1) << u4(i % WORD)
    for u in range(UNITS):
        level = level_of(z[u], i4(n), half)
        if out.middle != n:  # twice the level, so that there is one in the middle
            level = 2 * level if kept[u] else n
        levels[u] = level
    for p in range(planes):
        for u in range(UNITS):
            z[u] = f4((levels[u] >> (planes - 1 - p)) & 1) - f4(0.5)
        out.words[p, i, b] = signs(z, 0)
        if out.columns.size:
            column = _of_block(b, out.columns[p, i // WORD])
            for u in range(UNITS):
                column[u] |= bit if z[u] >= 0 else u4(0)
    if out.P.size:
        P = _of_block(b, out.P[i])
        for u in range(UNITS):
            P[u] = levels[u]


@compiled
def _forward(b, n, layer, inputs, groups, every, eps, training, levels, kept, out, logits):
    y, inside, one = layer.y[b, : layer.inside.shape[1]], layer.inside[b], f4(1)
    gamma, beta = _of_block(b, layer.gamma), _of_block(b, layer.beta)
    mean, var, inv_std = (
        _of_block(b, layer.mean),
        _of_block(b, layer.var),
        _of_block(b, layer.inv_std),
    )
    if inputs.P.size:
        _multiply_bytes(b, n, layer, inputs, groups, every, y)
    else:
        _multiply_bits(b, layer, inputs, y)
    if training:
        _statistics(y, eps, mean, var, inv_std)
    z, flags = _floats(1, UNITS)[0], numpy.ones(UNITS, numpy.bool_)
    of_units = numpy.empty(UNITS, numpy.int32)
    if levels:
        out.columns[:, :, b * UNITS : (b + 1) * UNITS] = 0
    for i in range(len(y)):
        for u in range(UNITS):
            z[u] = (y[i, u] - mean[u]) * inv_std[u] * gamma[u] + beta[u]
        if levels:
            for u in range(min(UNITS, kept.shape[1] - b * UNITS)):
                flags[u] = kept[i, b * UNITS + u]
            for u in range(UNITS):
                inside[i, u] = (abs(z[u]) <= one) & flags[u]
            _activate(i, b, z, levels, flags, of_units, out)
        else:
            inside[i, :] = True
            for u in range(min(UNITS, logits.shape[1] - b * UNITS)):
                logits[i, b * UNITS + u] = z[u]


@region
def forward(n, layer, inputs, groups, every, eps, training, levels, kept, out, logits):
    """Linear function, batch normalization and activation.

    Args:
        n (int): Of the weights, 2^bits - 1.
        layer (Layer): Of which y, inside, signs and in training the statistics are written.
        inputs (Inputs): Without P for a product by XNOR.
        groups (~fast.xnor.Groups): Of the bytes P.
        every (int): See :func:`~fast.kernels.groups_between_widenings`.
        eps (float): Of batch normalization.
        training (bool): Whether the statistics are those of the minibatch.
        levels (int): Of the activations, 2^bits - 1; 0 for the last layer.
        kept (array): Bool array of shape (N, M), False where dropout takes an activation; or of
            shape (N, 0).
        out (Inputs): The activations, which are written.
        logits (array): Array of shape (N, M), which the last layer writes.
    """
    for b in prange(len(layer.y)):
        _forward(i8(b), n, layer, inputs, groups, every, eps, training, levels, kept, out, logits)


# Backward


@compiled
def _normalize_backward(b, layer, gz, factor, gy, ggamma, gbeta, gb):
    y, inside, N, zero = layer.y[b], layer.inside[b], layer.inside.shape[1], f4(0)
    gamma, mean, inv_std = (
        _of_block(b, layer.gamma),
        _of_block(b, layer.mean),
        _of_block(b, layer.inv_std),
    )
    inv_n = f4(1 / N)
    ggamma[:] = 0
    gbeta[:] = 0
    gb[:] = 0
    for i in range(N):
        for u in range(UNITS):
            q = gz[i, u] * (factor if inside[i, u] else zero)
            ggamma[u] += q * ((y[i, u] - mean[u]) * inv_std[u])
            gbeta[u] += q
    for i in range(N):
        for u in range(UNITS):
            q = gz[i, u] * (factor if inside[i, u] else zero)
            x_hat = (y[i, u] - mean[u]) * inv_std[u]
            gy[i, u] = gamma[u] * inv_std[u] * (q - (x_hat * ggamma[u] + gbeta[u]) * inv_n)
            gb[u] += gy[i, u]


@compiled
def _store(rows, first, count, start, factor, offset, gb, gW):
    """Writes columns of the gradient of some rows, from column start on."""
    for r in range(count):
        shift, row = offset * gb[first + r], gW[first + r, start:]
        for k in range(min(rows.shape[1], len(row))):
            row[k] = rows[r, k] * factor + shift


@compiled
def _level_gradient(b, N, gy, inputs, gb, gW):
    M, K = gW.shape
    planes, wide = len(inputs.columns), inputs.columns.shape[2]
    T, rows = _floats(1, table_size(N))[0], _floats(ROWS, UNITS)
    units, factor = min(UNITS, M - b * UNITS), inputs.factor / f4(inputs.unit)
    offset = factor * f4(2**planes - 1 - inputs.middle)
    for u in range(0, units, ROWS):
        write_tables(gy, b * gy.shape[1] * UNITS + u, UNITS, 1, ROWS, N, T, 0)
        for k in range(0, wide, UNITS):
            for p in range(planes):
                product(T, N, inputs.columns[p], k, f4(2 if p else 0), rows, 0, UNITS, ROWS)
            first, count = b * UNITS + u, min(ROWS, units - u)
            _store(rows, first, count, k, factor, offset, gb, gW)


@compiled
def _pixel_gradient(b, gy, inputs, pixels, gb, gW):
    M, K = gW.shape
    wide = len(pixels.counts)
    sums, rows = _floats(wide, UNITS), _floats(8, wide)
    units, offset = min(UNITS, M - b * UNITS), -inputs.factor / f4(inputs.unit) * inputs.middle
    for k in range(K):
        start, count = k * pixels.images.shape[1], pixels.counts[k]
        sum_rows(sums, k * UNITS, gy[b], pixels.images, pixels.values, start, count)
    for u in range(0, units, 8):
        for k in range(0, wide, 8):
            transpose(sums, k * UNITS + u, UNITS, rows, k, wide)
        _store(rows, b * UNITS + u, min(8, units - u), 0, f4(1), offset, gb, gW)


@region
def backward(layer, inputs, pixels, gz, factor, gy, ggamma, gbeta, gb, gW):
    """Writes the gradients of the sums and of all parameters.

    Args:
        layer (Layer): What :func:`forward` left.
        inputs (Inputs): Its inputs.
        pixels (Pixels): If these are pixels.
        gz (array): Gradient of the activations, of shape (blocks, images, 64).
        factor (float): By which dropout multiplied the activations.
        gy (array): Gradient of the sums, of the same shape.
        ggamma, gbeta, gb, gW (array): Gradients of the parameters.
    """
    for turn in prange(len(gy)):
        b = i8(turn)
        of_gamma, of_beta, of_b = _of_block(b, ggamma), _of_block(b, gbeta), _of_block(b, gb)
        _normalize_backward(b, layer, gz[b], factor, gy[b], of_gamma, of_beta, of_b)
        if len(inputs.columns):
            _level_gradient(b, layer.inside.shape[1], gy, inputs, gb, gW)
        else:
            _pixel_gradient(b, gy, inputs, pixels, gb, gW)


@compiled
def _input_gradient(first, rows, n, layer, gy, gx):
    M, images, planes = len(layer.W), gy.shape[1], len(layer.signs)
    T, span = _floats(1, table_size(SPAN))[0], SPAN // UNITS
    for p in range(planes):
        for s in range(0, len(gy), span):
            blocks, size = min(span, len(gy) - s), min(SPAN, M - s * UNITS)
            for b in range(blocks):
                start, units = ((s + b) * images + first) * UNITS, min(UNITS, size - b * UNITS)
                write_tables(gy, start, 1, UNITS, rows, units, T, b * table_size(UNITS))
            carry, of_span = (
                f4((2 if p else 0) if s == 0 else 1),
                layer.signs[p, s * UNITS // WORD :],
            )
            for b in range(len(gx)):
                at = (b * images + first) * UNITS
                product(T, size, of_span, b * UNITS, carry, gx, at, UNITS, rows)
    if n > 1:
        for b in range(len(gx)):
            gx[b, first : first + rows] /= f4(n)


@region
def input_gradient(n, layer, gy, gx):
    """Writes the gradient of the inputs, of shape (blocks, images, 64)."""
    N = layer.inside.shape[1]
    for c in prange(-(-N // ROWS)):
        first = i8(c) * ROWS
        _input_gradient(first, min(ROWS, N - first), n, layer, gy, gx)
