"""A layer of the net, compiled: products, batch normalization, activation and their gradients.

A thread takes a block of 64 units at a time, and does all that is to be done for them; for the
gradient of the inputs, eight images (if weights have one bit) or 64 inputs. Inputs are pixels or
levels of activations. Forward, their product with the quantized weights is exact in whole numbers,
as in packed nets (fast/xnor.py): by XNOR where weights and levels have one bit, or else in bytes.
Backward, weights and levels of one bit are signs for products by look-up (fast/lookup.py), those
of more are floats, and of the pixels only those that are not black take part, a fifth in MNIST.
"""

from numba import boolean, float32, int32, int64, uint8, uint32, uint64
import numpy

from fast.cache import compiled
from fast.kernels import (
    UNITS,
    UNSIGNED,
    aligned,
    multiply_images,
    multiply_units,
    prefetch,
    signs,
    sum_rows,
    transpose,
)
from fast.lookup import ROWS, WORD, product, write_signs, write_tables
from fast.loops import level_of
from fast.threads import region, structure
from fast.xnor import Groups, bit_layer, byte_block, store_bits

SPAN = 256  # inputs whose tables stay in the first cache

NO_THRESHOLDS = numpy.empty((1, 0, UNITS), numpy.int32)  # for products that write sums

_units, _bytes, _sums = float32[::1], uint8[:, ::1], float32[:, :, ::1]
_signs = uint32[:, ::1]  # words of the signs of 32 images, or units, for each input

# Arrays for units have an element for each unit of each block.
Layer = structure(
    'Layer',
    # Inputs of N images: factor (2 P - middle) / scale.
    P=_bytes,
    middle=int64,
    scale=int64,
    factor=float32,
    # For products by XNOR, P as bits; for those of bytes, its groups: see fast/xnor.py.
    bits=_bytes,
    totals=int64[::1],
    counts=int64[::1],
    places=uint32[:, ::1],
    bytes=uint32[:, ::1],
    every=int64,
    # Weights and batch normalization.
    W=float32[:, ::1],
    b=_units,
    gamma=_units,
    beta=_units,
    n=int64,  # 2^bits - 1, for the bits of W
    eps=float32,
    training=boolean,  # whether the statistics are those of the minibatch
    mean=_units,
    var=_units,
    inv_std=_units,
    w_signs=_signs,  # of W, for backward
    # Outputs: what is normalized, of shape (blocks, N, 64), and the activations' levels.
    y=_sums,
    inside=boolean[:, :, ::1],  # whether dropout keeps it and, after forward, |z| <= 1
    dropout=boolean,  # levels are twice as large, so that there is one in the middle
    next_n=int64,  # 2^bits - 1, for the bits of the activations; 0 for the last layer
    next_P=_bytes,
    next_bits=_bytes,
    next_signs=_signs,
    next_x=_sums,
    # For backward, the signs 2 P - 1; or x = 2 P - middle, of shape (blocks, N, 64); or the pixels
    # that are not black: their number, images and values 2 P factor / scale by column.
    signs=_signs,
    x=_sums,
    pixel_counts=int64[::1],
    pixel_images=uint32[:, ::1],
    pixel_values=float32[:, ::1],
    # Gradients. The N of gy and gx is rounded up to a multiple of 8.
    gz=_sums,  # of the activations
    gain=float32,  # by which dropout multiplied the activations
    gy=_sums,
    ggamma=_units,
    gbeta=_units,
    gb=_units,
    gW=float32[:, ::1],
    gx=_sums,
)


# Forward


@compiled
def _multiply_bits(b, layer, S):
    """Writes the sums of w (2 P - 1), by XNOR."""
    (M, K), size = layer.W.shape, layer.bits.shape[1]
    V = aligned(size * UNITS, numpy.uint8).reshape((1, size * UNITS))
    tail = aligned(UNITS, numpy.float32)
    tail[:] = -1
    for m in range(b * UNITS, min((b + 1) * UNITS, M)):
        W, u = layer.W[m], m - b * UNITS
        for k in range(0, K, 16):
            prefetch(layer.W, (m + 2) * K + k)
        for i in range(K // 64):
            store_bits(V, i, u, signs(W, 64 * i))
        if K % 64:
            for k in range(K % 64):
                tail[k] = W[K - K % 64 + k]
            store_bits(V, K // 64, u, signs(tail, 0))
        if layer.training:
            write_signs(W, m, layer.w_signs[m // WORD])
    bit_layer(layer.bits, V, K, NO_THRESHOLDS, numpy.empty((0, 0), numpy.uint8), S)


@compiled
def _multiply_bytes(b, layer, S):
    """Writes the sums of n w (2 P - middle). A weight n w is 2 C + rest."""
    (M, K), N, wide = layer.W.shape, len(S), layer.P.shape[1]
    n, groups, units = layer.n, wide // 4, min(UNITS, M - b * UNITS)
    rest = -n if UNSIGNED else 1
    C = aligned(wide * UNITS, numpy.uint8).reshape((1, groups, UNITS, 4))
    rows = aligned(8 * wide, numpy.uint8).reshape((8, wide))
    totals = aligned(UNITS, numpy.int32)
    rows[:] = 0
    totals[:] = 0
    for first in range(0, units, 8):
        for i in range(min(8, units - first)):
            m = b * UNITS + first + i
            W, total, nans = layer.W[m], int32(0), int32(0)
            for k in range(K):
                level = level_of(W[k], int32(n), float32(n / 2))
                rows[i, k] = uint8(level - (n + rest) // 2)
                total += level
                nans += int32(W[k] != W[k])
            totals[first + i] = 2 * total - n * K
            if nans and n > 1:  # the sign of NaN is -1
                layer.b[m] = numpy.nan
            if layer.w_signs.size:
                write_signs(W, m, layer.w_signs[m // WORD])
        for g in range(0, groups, 8):
            transpose(rows, g, groups, C, g * UNITS + first, UNITS)
    found = Groups(layer.totals, layer.counts, layer.places, layer.bytes)
    args = layer.P, found, not layer.places.size, C, layer.every, rest
    no_levels = numpy.empty((0, 0), numpy.uint8)
    byte_block(0, *args, NO_THRESHOLDS, False, no_levels, S)
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
def _activate(b, layer, gamma, beta, mean, inv_std):
    """Writes the levels of the activations; where dropout takes one, the level that means 0."""
    y, inside, of = layer.y[b], layer.inside[b], b * UNITS
    P, bits, next_signs, x = layer.next_P, layer.next_bits, layer.next_signs, layer.next_x
    n, half, dropout = int32(layer.next_n), float32(layer.next_n / 2), layer.dropout
    z, levels = aligned(UNITS, numpy.float32), aligned(UNITS, numpy.int32)
    middle = 2 * n if dropout else n
    for i in range(len(y)):
        for u in range(UNITS):
            z[u] = (y[i, u] - mean[u]) * inv_std[u] * gamma[u] + beta[u]
        for u in range(UNITS):
            level = level_of(z[u], n, half)
            if dropout:
                level = 2 * level if inside[i, u] else n
            levels[u] = level
        for u in range(UNITS):
            inside[i, u] = inside[i, u] & (abs(z[u]) <= float32(1))
        for u in range(UNITS if P.size else 0):
            P[i, of + u] = levels[u]
        if bits.size:
            word = signs(z, 0)
            for k in range(8):
                bits[i, of // 8 + k] = uint8(word >> uint64(8 * k))
        if next_signs.size:
            write_signs(z, i, next_signs[i // WORD, of : of + UNITS])
        for u in range(UNITS if x.size else 0):
            x[b, i, u] = float32(2 * levels[u] - middle)
    # The level of NaN is a number, so beta says where z is NaN: for one image, as for all.
    for u in range(UNITS):
        beta[u] = z[u] if z[u] != z[u] else beta[u]


@region(Layer)
def forward(b, layer):
    """Linear function, batch normalization and activation of a block of units."""
    of, y, scale = slice(b * UNITS, (b + 1) * UNITS), layer.y[b], float32(layer.scale * layer.n)
    S = aligned(len(y) * UNITS, numpy.int32).reshape((len(y), UNITS))
    if layer.bits.size:
        _multiply_bits(b, layer, S)
    else:
        _multiply_bytes(b, layer, S)
    bias, mean, inv_std = layer.b[of], layer.mean[of], layer.inv_std[of]
    for i in range(len(y)):
        for u in range(UNITS):
            y[i, u] = float32(S[i, u]) / scale * layer.factor + bias[u]
    if layer.training:
        _statistics(y, layer.eps, mean, layer.var[of], inv_std)
    if layer.next_n:
        _activate(b, layer, layer.gamma[of], layer.beta[of], mean, inv_std)


# Backward


@region(Layer)
def list_pixels(b, layer):
    """Lists the pixels that are not black, for 64 columns of P."""
    factor = layer.factor / float32(layer.scale)
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
def _sign_gradient(b, layer):
    """The gradient of W from signs: products of gy with all columns, eight units at a time."""
    gy, gb, gW, units = layer.gy, layer.gb, layer.gW, min(UNITS, len(layer.W) - b * UNITS)
    N = layer.y.shape[1]
    T = aligned(32 * (N + 3), numpy.float32)
    rows = aligned(ROWS * UNITS, numpy.float32).reshape((ROWS, UNITS))
    for u in range(0, units, ROWS):
        write_tables(gy, b * gy.shape[1] * UNITS + u, UNITS, 1, N, T)
        for k in range(0, gW.shape[1], UNITS):
            product(T, N, layer.signs, k, False, rows, 0, UNITS)
            _store(rows, b * UNITS + u, min(ROWS, units - u), k, float32(1), 0, gb, gW)


@compiled
def _level_gradient(b, layer):
    """The gradient of W from levels: products of gy with all columns, four units at a time."""
    gy, gb, gW, units = layer.gy, layer.gb, layer.gW, min(UNITS, len(layer.W) - b * UNITS)
    N, x, factor = layer.y.shape[1], layer.x, layer.factor / float32(layer.scale)
    rows = aligned(4 * UNITS, numpy.float32).reshape((4, UNITS))
    for k in range(len(x)):
        for u in range(0, units, 4):
            start = b * gy.shape[1] * UNITS + u
            multiply_units(rows, 0, x, k * N * UNITS, layer.places, gy, start, 1, N, 0)
            _store(rows, b * UNITS + u, min(4, units - u), k * UNITS, factor, 0, gb, gW)


@compiled
def _pixel_gradient(b, layer):
    """The gradient of W from pixels: for each column, the sum of the gy of its images."""
    gb, gW = layer.gb, layer.gW
    (M, K), N, wide = gW.shape, layer.pixel_images.shape[1], len(layer.pixel_counts)
    sums = aligned(wide * UNITS, numpy.float32)
    rows = aligned(8 * wide, numpy.float32).reshape((8, wide))
    units, gy = min(UNITS, M - b * UNITS), b * layer.gy.shape[1] * UNITS
    offset = -layer.factor / float32(layer.scale) * layer.middle
    images, values = layer.pixel_images, layer.pixel_values
    for k in range(K):
        count = layer.pixel_counts[k]
        sum_rows(sums, k * UNITS, layer.gy, gy, images, values, k * N, 0, count, N)
    for u in range(0, units, 8):
        for k in range(0, wide, 8):
            transpose(sums, k * UNITS + u, UNITS, rows, k, wide)
        _store(rows, b * UNITS + u, min(8, units - u), 0, float32(1), offset, gb, gW)


@region(Layer)
def backward(b, layer):
    """The gradients of the sums and of all parameters of a block of units."""
    of = slice(b * UNITS, (b + 1) * UNITS)
    args = layer.y[b], layer.inside[b], layer.gamma[of], layer.mean[of], layer.inv_std[of]
    gradients = layer.gy[b], layer.ggamma[of], layer.gbeta[of], layer.gb[of]
    _normalize_backward(*args, layer.gz[b], layer.gain, *gradients)
    if layer.signs.size:
        _sign_gradient(b, layer)
    elif layer.x.size:
        _level_gradient(b, layer)
    else:
        _pixel_gradient(b, layer)


@region(Layer)
def input_gradient_by_signs(chunk, layer):
    """The gradient of the inputs of eight images, from the signs of W."""
    M, images, first = len(layer.gW), layer.gy.shape[1], chunk * ROWS
    gx, gy, T = layer.gx, layer.gy, aligned(32 * SPAN, numpy.float32)
    for m in range(0, M, SPAN):
        size, of_span = min(SPAN, M - m), layer.w_signs[m // WORD :]
        for u in range(0, size, UNITS):
            start = ((m + u) // UNITS * images + first) * UNITS
            write_tables(gy, start, 1, UNITS, min(UNITS, size - u), T[32 * u :])
        for b in range(len(gx)):
            start = (b * images + first) * UNITS
            product(T, size, of_span, b * UNITS, m > 0, gx, start, UNITS)


@region(Layer)
def input_gradient(b, layer):
    """The gradient of 64 inputs, from weights of several bits, four images at a time."""
    M, images, start = len(layer.W), layer.gy.shape[1], b * UNITS
    n, half, inv_n = int32(layer.n), float32(layer.n / 2), float32(1 / layer.n)
    gx, gy, rows = layer.gx[b], layer.gy, aligned(4 * UNITS, numpy.float32).reshape((4, UNITS))
    w = aligned(UNITS * UNITS, numpy.float32)  # n times the weights of 64 units
    gx[:] = 0
    w[:] = 0
    for m in range(0, M, UNITS):
        count = min(UNITS, M - m)
        for u in range(count):
            W = layer.W[m + u, start : start + UNITS]
            for k in range(len(W)):
                w[u * UNITS + k] = float32(2 * level_of(W[k], n, half) - n)
        for i in range(0, images, 4):
            of = (m // UNITS * images + i) * UNITS
            multiply_images(rows, 0, w, 0, layer.places, gy, of, UNITS, count, 0)
            for r in range(4):
                for k in range(UNITS):
                    gx[i + r, k] += rows[r, k] * inv_n
