"""Batch normalization and activation, a block of 64 units at a time.

Forward, a block takes the sums of its units over the inputs, and writes the activations in the
form that the products of the next layer need; backward, it takes the gradient of the activations.
The operations are those of Chainer's batch normalization, in the same order.
"""

from collections import namedtuple

from numba import prange
import numpy

from fast.kernels import UNITS, aligned, signs
from fast.loops import quantize_one
from fast.threads import compiled, region

f4, u4 = numpy.float32, numpy.uint32

# A layer during a step: its parameters and statistics, with an element for each unit of each
# block; y and inside have shape (blocks, images, 64).
Layer = namedtuple('Layer', 'b gamma beta mean var inv_std y inside')

# Sums of a product, of shape (planes, N, 64 blocks): y = (S - shift) / divisor * factor + b, where
# S is the only plane, or carry times the first plus the second. Without planes, y is there.
Sums = namedtuple('Sums', 'planes carry shift divisor factor')


@compiled
def _linear(b, sums, layer):
    y, start = layer.y[b], b * UNITS
    bias = layer.b[start : start + UNITS]
    if not len(sums.planes):
        for i in range(layer.inside.shape[1]):
            for u in range(UNITS):
                y[i, u] += bias[u]
        return
    shift = sums.shift[start : start + UNITS]
    for i in range(layer.inside.shape[1]):
        S = sums.planes[0, i, start : start + UNITS]
        if len(sums.planes) == 1:
            for u in range(UNITS):
                y[i, u] = f4(S[u] - shift[u]) / sums.divisor * sums.factor + bias[u]
        else:
            more = sums.planes[1, i, start : start + UNITS]
            for u in range(UNITS):
                y[i, u] = f4(sums.carry * S[u] + more[u]) / sums.divisor * sums.factor + bias[u]


@compiled
def _statistics(y, N, eps, mean, var, inv_std):
    n, one = f4(N), f4(1)
    mean[:] = 0
    var[:] = 0
    for i in range(N):
        for u in range(UNITS):
            mean[u] += y[i, u]
    for u in range(UNITS):
        mean[u] /= n
    for i in range(N):
        for u in range(UNITS):
            difference = y[i, u] - mean[u]
            var[u] += difference * difference
    for u in range(UNITS):
        var[u] /= n
        inv_std[u] = one / numpy.sqrt(var[u] + eps)


@compiled
def _write_plane(p, i, b, z, out):
    """Writes the signs of a block of an image: a word for the image, and a bit for each unit."""
    out.words[p, i, b] = signs(z, 0)
    word, bit = out.columns[p, i // 32, b * UNITS : (b + 1) * UNITS], u4(1) << u4(i % 32)
    for u in range(UNITS):
        word[u] |= bit if z[u] >= 0 else u4(0)


@compiled
def _activate(i, b, z, bits, kept, factor, out):
    """Writes the activations of a block of an image; those that are not kept are 0."""
    planes, plus, minus = len(out.words), f4(1), f4(-1)
    if planes == 0:
        numbers = out.numbers[b, i]
        if bits == 0:
            numbers[:] = z
        else:
            n = f4(2**bits - 1)
            half = n / f4(2)
            for u in range(UNITS):
                numbers[u] = quantize_one(z[u], n, half) * (factor if kept[u] else f4(0))
    elif planes == 1:
        _write_plane(0, i, b, z, out)
    else:
        first, second = numpy.empty(UNITS, numpy.float32), numpy.empty(UNITS, numpy.float32)
        for u in range(UNITS):
            if bits == 1:  # +1 and -1 make up the 0 of an activation that is not kept
                first[u] = z[u] if kept[u] else plus
                second[u] = z[u] if kept[u] else minus
            else:  # levels -3, -1, 1, 3, of which the first plane is 2
                first[u] = z[u]
                level = min(max(z[u], minus), plus) * f4(1.5)
                outer = level >= 1 or (level < 0 and level > -1)
                second[u] = plus if outer else minus
        _write_plane(0, i, b, first, out)
        _write_plane(1, i, b, second, out)


@compiled
def _normalize_block(b, sums, layer, eps, training, bits, kept, factor, out):
    start, N, one = b * UNITS, layer.inside.shape[1], f4(1)
    y, inside = layer.y[b], layer.inside[b]
    gamma, beta = layer.gamma[start : start + UNITS], layer.beta[start : start + UNITS]
    mean, var = layer.mean[start : start + UNITS], layer.var[start : start + UNITS]
    inv_std = layer.inv_std[start : start + UNITS]
    _linear(b, sums, layer)
    if training:
        _statistics(y, N, eps, mean, var, inv_std)
    out.columns[:, :, start : start + UNITS] = 0
    z = aligned(4 * UNITS).view(numpy.float32)
    flags = numpy.ones(UNITS, numpy.bool_)
    for i in range(N):
        for u in range(UNITS):
            z[u] = (y[i, u] - mean[u]) * inv_std[u] * gamma[u] + beta[u]
        for u in range(min(UNITS, kept.shape[1] - start)):
            flags[u] = kept[i, start + u]
        if bits:
            for u in range(UNITS):
                inside[i, u] = (abs(z[u]) <= one) & flags[u]
        else:
            inside[i, :] = True
        _activate(i, b, z, bits, flags, factor, out)


@region
def normalize(sums, layer, eps, training, bits, kept, factor, out):
    """Batch normalization and activation of all blocks.

    Args:
        sums (Sums): The sums of the layer.
        layer (Layer): What is written of it: y, inside, and in training the statistics.
        eps (float): Of batch normalization.
        training (bool): Whether the statistics are those of the minibatch.
        bits (int): Number of bits of the activations; 0 for none.
        kept (array): Bool array of shape (N, M), False where dropout takes an activation; or of
            shape (N, 0).
        factor (float): By which dropout multiplies the others.
        out (~fast.products.Activations): Which is written.
    """
    for b in prange(len(layer.y)):
        _normalize_block(b, sums, layer, eps, training, bits, kept, factor, out)


@compiled
def _backward_block(b, gz, factor, layer, gy, ggamma, gbeta, gb):
    y, inside, gz, gy = layer.y[b], layer.inside[b], gz[b], gy[b]
    start, N, zero = b * UNITS, len(inside), f4(0)
    gamma, mean = layer.gamma[start : start + UNITS], layer.mean[start : start + UNITS]
    inv_std = layer.inv_std[start : start + UNITS]
    ggamma, gbeta = ggamma[start : start + UNITS], gbeta[start : start + UNITS]
    gb = gb[start : start + UNITS]
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
    gy[N:] = 0


@region
def normalize_backward(gz, factor, layer, gy, ggamma, gbeta, gb):
    """Writes the gradients of the sums, of shape (blocks, images, 64), gamma, beta and b.

    Args:
        gz (array): Gradient of the activations, of shape (blocks, images, 64).
        factor (float): By which dropout multiplied the activations.
        layer (Layer): From :func:`normalize`.
    """
    for b in prange(len(layer.y)):
        _backward_block(b, gz, factor, layer, gy, ggamma, gbeta, gb)
