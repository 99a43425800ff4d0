"""A layer of the net, compiled: products, batch normalization, activation and their gradients.

A thread takes a block of 64 units at a time, or for the gradient of the inputs eight images, and
does all that is to be done for them. Inputs are bytes, pixels or levels of activations. Forward,
their product with the quantized weights is exact in whole numbers, as in packed nets
(fast/xnor.py): by XNOR where weights and levels have few bits. Backward, levels and weights are
planes of signs for products by look-up (fast/lookup.py), and of the pixels only those that are not
black take part, a fifth in MNIST.
"""

from numba import boolean, float32, int32, int64, uint8, uint32, uint64
import numpy

from fast.cache import compiled
from fast.kernels import (
    ROWS,
    UNITS,
    UNSIGNED,
    aligned,
    prefetch_to_read,
    signs,
    sum_rows,
    transpose,
)
from fast.lookup import WORD, product, write_signs, write_tables
from fast.loops import level_of
from fast.threads import region, structure
from fast.xnor import Groups, bit_layer, byte_block, empty_block, store_bits

SPAN = 256  # inputs whose tables stay in the first cache

# For products that write sums.
NO_THRESHOLDS, NO_LEVELS = (
    numpy.empty((1, 0, UNITS), numpy.int32),
    numpy.empty((0, 0), numpy.uint8),
)

_units, _levels, _sums = float32[::1], uint8[:, ::1], float32[:, :, ::1]
_planes, _columns = uint8[:, :, ::1], uint32[:, :, ::1]

# Of a layer, what both passes need. Arrays for units have an element for each unit of each block.
# A plane has a bit of all levels, the first plane the highest bit.
_both = {
    # Inputs of N images: factor (2 P - middle) / unit. P is empty if the product is by XNOR, and
    # pixels have no planes.
    'P': _levels,
    'columns': _columns,  # the bits of each input: (planes, N / 32, inputs)
    'middle': int64,
    'unit': int64,
    'factor': float32,
    # Weights and batch normalization.
    'n': int64,  # 2^bits - 1, for the bits of W
    'signs': _columns,  # the bits of W: (planes, units / 32, inputs)
    'gamma': _units,
    'mean': _units,
    'inv_std': _units,
    'y': _sums,  # what is normalized: (blocks, N, 64)
    'inside': boolean[:, :, ::1],  # whether dropout keeps it and, after forward, |z| <= 1
}
BOTH = len(_both)

Layer = structure(
    'Layer',
    **_both,
    words=_planes,  # the bits of each image: (planes, N, 8 blocks)
    W=float32[:, ::1],
    b=_units,
    beta=_units,
    var=_units,
    eps=float32,
    training=boolean,  # whether the statistics are those of the minibatch
    # The groups of P: see fast/xnor.py.
    totals=int64[::1],
    counts=int64[::1],
    places=uint32[:, ::1],
    bytes=uint32[:, ::1],
    every=int64,
    # The activations, as inputs of the next layer.
    levels=int64,  # 2^bits - 1, for their bits; 0 for the last layer
    next_P=_levels,
    next_columns=_columns,
    next_middle=int64,
    next_words=_planes,
)

Backward = structure(
    'Backward',
    **_both,
    # Pixels that are not black: their number, images and values 2 P factor / unit by column.
    pixel_counts=int64[::1],
    pixel_images=uint32[:, ::1],
    pixel_values=float32[:, ::1],
    # Gradients. The N of gy and gx is rounded up to a multiple of 8.
    gz=_sums,  # of the activations: (blocks, N, 64)
    gain=float32,  # by which dropout multiplied the activations
    gy=_sums,
    ggamma=_units,
    gbeta=_units,
    gb=_units,
    gW=float32[:, ::1],
    gx=_sums,  # of the inputs
)


# Taking an array from a layer counts a reference: inner loops take it before they start.


@compiled
def _of_block(b, a):
    return a[b * UNITS : (b + 1) * UNITS]


# Forward


@compiled
def _multiply_bits(b, layer, S):
    """Writes the sums of w (2 P - middle), by XNOR."""
    (M, K), N, size = layer.W.shape, len(S), layer.words.shape[2]
    V, rest, planes = empty_block(size), aligned(64, numpy.float32), len(layer.words)
    rest[:] = -1
    for u in range(min(UNITS, M - b * UNITS)):
        m = b * UNITS + u
        for k in range(0, K, 16):
            prefetch_to_read(layer.W, (m + 2) * K + k)
        for i in range(K // 64):
            store_bits(V, i, u, signs(layer.W, m * K + 64 * i))
        if K % 64:
            for k in range(K % 64):
                rest[k] = layer.W[m, K - K % 64 + k]
            store_bits(V, K // 64, u, signs(rest, 0))
        if layer.training:
            write_signs(layer.W[m], m, layer.signs[0])
    of_plane = aligned(N * UNITS, numpy.int32).reshape((N, UNITS))
    S[:] = 0
    for p in range(planes):
        bit_layer(layer.words[p], V, K, NO_THRESHOLDS, NO_LEVELS, of_plane)
        for i in range(N):
            for u in range(UNITS):
                S[i, u] = 2 * S[i, u] + of_plane[i, u]
    middle = int32(2**planes - 1 - layer.middle)
    if middle:  # times the sum of the weights
        ones = aligned(size, numpy.uint8).reshape((1, size))
        for i in range(size):
            ones[0, i] = 2 ** max(0, min(8, K - 8 * i)) - 1
        bit_layer(ones, V, K, NO_THRESHOLDS, NO_LEVELS, of_plane)
        for i in range(N):
            for u in range(UNITS):
                S[i, u] += middle * of_plane[0, u]


@compiled
def _multiply_bytes(b, layer, S):
    """Writes the sums of n w (2 P - middle). Weights n w are 2 C - (n - 2 middle of C)."""
    (M, K), N, wide = layer.W.shape, len(S), layer.P.shape[1]
    n, planes, groups, units = layer.n, len(layer.signs), wide // 4, min(UNITS, M - b * UNITS)
    middle = 0 if UNSIGNED else (n + 1) // 2
    C = aligned(wide * UNITS, numpy.uint8).reshape((1, groups, UNITS, 4))
    rows = aligned(8 * wide, numpy.uint8).reshape((8, wide))
    levels, totals = aligned(K, numpy.int32), aligned(UNITS, numpy.int32)
    bit, half = aligned(K, numpy.float32), n / 2
    rows[:] = 0
    totals[:] = 0
    for first in range(0, units, 8):
        for i in range(min(8, units - first)):
            m = b * UNITS + first + i
            W, total, nans = layer.W[m], int32(0), int32(0)
            for k in range(K):
                levels[k] = level_of(W[k], int32(n), float32(half))
                rows[i, k] = uint8(levels[k] - middle)
                total += levels[k]
                nans += int32(W[k] != W[k])
            totals[first + i] = 2 * total - n * K
            if nans and n > 1:  # the sign of NaN is -1
                layer.b[m] = numpy.nan
            for p in range(planes):
                for k in range(K):
                    bit[k] = float32((levels[k] >> (planes - 1 - p)) & 1) - float32(0.5)
                write_signs(bit, m, layer.signs[p])
        for g in range(0, groups, 8):
            transpose(rows, g, groups, C, g * UNITS + first, UNITS)
    found, rest = Groups(layer.totals, layer.counts, layer.places, layer.bytes), 2 * middle - n
    args = layer.P, found, not layer.places.size, C, layer.every, rest
    byte_block(0, *args, NO_THRESHOLDS, False, NO_LEVELS, S)
    for i in range(N):
        for u in range(UNITS):
            S[i, u] = 2 * S[i, u] - int32(layer.middle) * totals[u]


@compiled
def _statistics(y, eps, mean, var, inv_std):
    n, one = float32(len(y)), float32(1)
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
def _activate(b, layer):
    """Writes the levels of the activations; where dropout takes one, the level that means 0."""
    y, inside, planes = layer.y[b], layer.inside[b], len(layer.next_words)
    gamma, beta = _of_block(b, layer.gamma), _of_block(b, layer.beta)
    mean, inv_std = _of_block(b, layer.mean), _of_block(b, layer.inv_std)
    n, dropout = int32(layer.levels), layer.next_middle != layer.levels
    z, levels, half = aligned(UNITS, numpy.float32), aligned(UNITS, numpy.int32), float32(n / 2)
    layer.next_columns[:, :, b * UNITS : (b + 1) * UNITS] = 0
    for i in range(len(y)):
        for u in range(UNITS):
            z[u] = (y[i, u] - mean[u]) * inv_std[u] * gamma[u] + beta[u]
        for u in range(UNITS):
            level = level_of(z[u], n, half)
            if dropout:  # twice the level, so that there is one in the middle
                level = 2 * level if inside[i, u] else n
            levels[u] = level
        for u in range(UNITS):
            inside[i, u] = inside[i, u] & (abs(z[u]) <= float32(1))
        if layer.next_P.size:
            P = _of_block(b, layer.next_P[i])
            for u in range(UNITS):
                P[u] = levels[u]
        bit = uint32(1) << uint32(i % WORD)
        for p in range(planes):
            for u in range(UNITS):
                z[u] = float32((levels[u] >> (planes - 1 - p)) & 1) - float32(0.5)
            word = signs(z, 0)
            for k in range(8):
                layer.next_words[p, i, 8 * b + k] = uint8(word >> uint64(8 * k))
            if layer.next_columns.size:
                column = _of_block(b, layer.next_columns[p, i // WORD])
                for u in range(UNITS):
                    column[u] |= bit if z[u] >= 0 else uint32(0)


@region(Layer)
def forward(b, layer):
    """Linear function, batch normalization and activation of a block of units."""
    y, bias, unit = layer.y[b], _of_block(b, layer.b), float32(layer.unit * layer.n)
    S = aligned(len(y) * UNITS, numpy.int32).reshape((len(y), UNITS))
    if layer.P.size:
        _multiply_bytes(b, layer, S)
    else:
        _multiply_bits(b, layer, S)
    for i in range(len(y)):
        for u in range(UNITS):
            y[i, u] = float32(S[i, u]) / unit * layer.factor + bias[u]
    if layer.training:
        statistics = _of_block(b, layer.mean), _of_block(b, layer.var), _of_block(b, layer.inv_std)
        _statistics(y, layer.eps, *statistics)
    if layer.levels:
        _activate(b, layer)


# Backward


@region(Backward)
def list_pixels(b, layer):
    """Lists the pixels that are not black, for 64 columns of P."""
    factor = layer.factor / float32(layer.unit)
    for k in range(b * UNITS, (b + 1) * UNITS):
        layer.pixel_counts[k] = 0
    for i in range(len(layer.P)):
        for k in range(b * UNITS, (b + 1) * UNITS):
            if layer.P[i, k]:
                count = layer.pixel_counts[k]
                layer.pixel_images[k, count] = i
                layer.pixel_values[k, count] = float32(2 * int32(layer.P[i, k])) * factor
                layer.pixel_counts[k] = count + 1


@compiled
def _normalize_backward(y, inside, gamma, mean, inv_std, gz, gain, gy, ggamma, gbeta, gb):
    N, zero, inv_n = len(y), float32(0), float32(1 / len(y))
    ggamma[:] = 0
    gbeta[:] = 0
    gb[:] = 0
    for i in range(N):
        for u in range(UNITS):
            q = gz[i, u] * (gain if inside[i, u] else zero)
            ggamma[u] += q * ((y[i, u] - mean[u]) * inv_std[u])
            gbeta[u] += q
    for i in range(N):
        for u in range(UNITS):
            q = gz[i, u] * (gain if inside[i, u] else zero)
            x_hat = (y[i, u] - mean[u]) * inv_std[u]
            gy[i, u] = gamma[u] * inv_std[u] * (q - (x_hat * ggamma[u] + gbeta[u]) * inv_n)
            gb[u] += gy[i, u]
    gy[N:] = 0


@compiled
def _store(rows, m, count, k, factor, offset, gb, gW):
    """Writes the gradients of W, from row m and column k on: factor times the rows + offset gb."""
    for r in range(count):
        shift, row = offset * gb[m + r], gW[m + r, k:]
        for j in range(min(rows.shape[1], len(row))):
            row[j] = rows[r, j] * factor + shift


@compiled
def _level_gradient(b, layer):
    """The gradient of W from levels: products of gy with all columns, eight units at a time."""
    gy, gb, gW, columns = layer.gy, layer.gb, layer.gW, layer.columns
    (M, K), N, planes = gW.shape, layer.y.shape[1], len(columns)
    T = aligned(32 * (N + 3), numpy.float32)
    rows = aligned(ROWS * UNITS, numpy.float32).reshape((ROWS, UNITS))
    units, factor = min(UNITS, M - b * UNITS), layer.factor / float32(layer.unit)
    offset = factor * float32(2**planes - 1 - layer.middle)
    for u in range(0, units, ROWS):
        write_tables(gy, b * gy.shape[1] * UNITS + u, UNITS, 1, N, T)
        for k in range(0, K, UNITS):
            for p in range(planes):
                product(T, N, columns[p], k, 2 if p else 0, rows, 0, UNITS)
            _store(rows, b * UNITS + u, min(ROWS, units - u), k, factor, offset, gb, gW)


@compiled
def _pixel_gradient(b, layer):
    """The gradient of W from pixels: for each column, the sum of the gy of its images."""
    gb, gW = layer.gb, layer.gW
    (M, K), N, wide = gW.shape, layer.pixel_images.shape[1], len(layer.pixel_counts)
    sums = aligned(wide * UNITS, numpy.float32)
    rows = aligned(8 * wide, numpy.float32).reshape((8, wide))
    units, gy = min(UNITS, M - b * UNITS), b * layer.gy.shape[1] * UNITS
    offset = -layer.factor / float32(layer.unit) * layer.middle
    images, values = layer.pixel_images, layer.pixel_values
    for k in range(K):
        count = layer.pixel_counts[k]
        sum_rows(sums, k * UNITS, layer.gy, gy, images, values, k * N, 0, count, N)
    for u in range(0, units, 8):
        for k in range(0, wide, 8):
            transpose(sums, k * UNITS + u, UNITS, rows, k, wide)
        _store(rows, b * UNITS + u, min(8, units - u), 0, float32(1), offset, gb, gW)


@region(Backward)
def backward(b, layer):
    """The gradients of the sums and of all parameters of a block of units."""
    parameters = _of_block(b, layer.gamma), _of_block(b, layer.mean), _of_block(b, layer.inv_std)
    gradients = _of_block(b, layer.ggamma), _of_block(b, layer.gbeta), _of_block(b, layer.gb)
    args = layer.y[b], layer.inside[b], *parameters, layer.gz[b], layer.gain, layer.gy[b]
    _normalize_backward(*args, *gradients)
    if len(layer.columns):
        _level_gradient(b, layer)
    else:
        _pixel_gradient(b, layer)


@region(Backward)
def input_gradient(chunk, layer):
    """The gradient of the inputs of eight images."""
    M, images, planes, first = len(layer.gW), layer.gy.shape[1], len(layer.signs), chunk * ROWS
    gx, gy = layer.gx, layer.gy
    T = aligned(32 * SPAN, numpy.float32)
    for p in range(planes):
        for m in range(0, M, SPAN):
            size = min(SPAN, M - m)
            carry, of_span = (2 if p else 0) if m == 0 else 1, layer.signs[p, m // WORD :]
            for u in range(0, size, UNITS):
                start = ((m + u) // UNITS * images + first) * UNITS
                write_tables(gy, start, 1, UNITS, min(UNITS, size - u), T[32 * u :])
            for b in range(len(gx)):
                start = (b * images + first) * UNITS
                product(T, size, of_span, b * UNITS, carry, gx, start, UNITS)
    for b in range(len(gx) if layer.n > 1 else 0):
        for i in range(first, first + ROWS):
            for k in range(UNITS):
                gx[b, i, k] /= float32(layer.n)
