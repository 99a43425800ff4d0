"""The whole net as one function on the CPU: linear, batch normalization, activation and dropout.

Chainer keeps a graph node for each function and each gradient; here it keeps one in all, and the
activations stay in the form that the products take (fast/layer.py). The results are those of the
links up to rounding; forward, in a binary net without dropout, bit for bit.
"""

import weakref

from chainer_compat import chainer
import numpy

from fast.available import accept
from fast.function import Function, has_statistics
from fast.kernels import UNITS, groups_between_widenings
from fast.layer import Inputs, Layer, Pixels, backward, forward, input_gradient, list_pixels
from fast.memory import Memory
from fast.xnor import find_groups

_memory = weakref.WeakKeyDictionary()  # of each net


def links_of(net):
    """The linear layers of a net, each with its batch normalization."""
    return [(net[f'l{i}'], net[f'bn{i}']) for i in range(1, net.n_layers + 2)]


def accepts(net, x):
    """Whether :func:`fused_net` can compute this minibatch; the links compute all others.

    Args:
        net (~net.MLP): The net.
        x (:class:`~chainer.Variable` or array): The minibatch.

    Returns:
        bool: False for other inputs than contiguous bytes of shape (N, K), other parameters than
        float32 on the CPU, a graph that will be looked at, and gradients that it does not have.
    """
    config, links = chainer.config, links_of(net)
    if config.train:
        possible = has_statistics(x, *(bn for _, bn in links))
        # Twice a level must be a byte.
        possible = possible and not (net.dropout_hidden and net.activation_bits == 8)
    else:
        possible = not config.enable_backprop
    possible = possible and not config.keep_graph_on_report and net.activation_bits <= 8
    possible = possible and isinstance(x, numpy.ndarray) and x.dtype == numpy.uint8
    if not possible or x.ndim != 2 or net.signed_pixels and net.pixel_scale % 2:
        return False
    K = x.shape[1]
    for l, bn in links:
        arrays = l.W.array, l.b.array, bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var
        if l.bits > 8 or not accept(*arrays) or l.W.dtype != numpy.float32 or l.W.shape[1] != K:
            return False
        K = len(l.W)
    return True


def _blocks(size):
    return -(-size // UNITS)


def _pad(a, value=0):
    """An array of shape (M,) with an element for each unit of each block."""
    padded = numpy.full(_blocks(len(a)) * UNITS, value, numpy.float32)
    padded[: len(a)] = a
    return padded


def _drop(ratio, *shape):
    """Which numbers dropout keeps, drawn as by F.dropout, and the factor for them."""
    if not ratio or not chainer.config.train:
        return None, numpy.float32(1)
    return numpy.random.rand(*shape) >= ratio, numpy.float32(1 / (1 - ratio))


NOTHING = numpy.empty((0, 0, 0), numpy.uint64), numpy.empty((0, 0, 0), numpy.uint32)
NO_BYTES, NO_FLOATS = numpy.empty((0, 0), numpy.uint8), numpy.empty((0, 0), numpy.float32)
NO_PIXELS = Pixels(numpy.empty(0, numpy.int64), numpy.empty((0, 0), numpy.uint32), NO_FLOATS)


class FusedNet(Function):
    """The function of a net; its inputs are x and W, b, gamma and beta of each layer."""

    def __init__(self, net):
        self.net, self.bits = net, net.l1.bits
        self.empty = _memory.setdefault(net, Memory()).empty

    def forward(self, inputs):
        net, self.layers = self.net, []
        x, N, M = self.pixels(inputs[0]), len(inputs[0]), len(inputs[-1])
        self.logits = self.empty((N, M))
        for i, (_, bn) in enumerate(links_of(net)):
            parameters, last = inputs[4 * i + 1 : 4 * i + 5], i == net.n_layers
            x = self.forward_layer(x, bn, *parameters, 0 if last else net.activation_bits)
        return (self.logits.copy(),)

    def pixels(self, x):
        net, (N, K) = self.net, x.shape
        kept, factor = _drop(net.dropout_input, N, K)
        middle = net.pixel_scale if net.signed_pixels else 0
        P = self.empty((N, _blocks(K) * UNITS), numpy.uint8)
        P[:, :K] = x if kept is None else numpy.where(kept, x, numpy.uint8(middle // 2))
        P[:, K:] = 0
        return Inputs(P, *NOTHING, middle, 2 * net.pixel_scale - middle, factor)

    def activations(self, N, M, bits, dropout, factor):
        """The arrays for activations of so many bits, and what their levels mean."""
        blocks, n, planes = _blocks(M), 2**bits - 1, bits + dropout
        words = self.empty((planes, N, blocks), numpy.uint64)
        images = -(-N // 32) if chainer.config.train else 0  # backward alone needs the columns
        columns = self.empty((planes, images, blocks * UNITS), numpy.uint32)
        by_xnor = self.bits == 1 and planes <= 2
        P = NO_BYTES if by_xnor else self.empty((N, blocks * UNITS), numpy.uint8)
        return Inputs(P, words, columns, n << dropout, n << dropout, factor)

    def forward_layer(self, x, bn, W, b, gamma, beta, bits):
        net, training, N, (M, K) = self.net, chainer.config.train, len(self.logits), W.shape
        blocks, n, first = _blocks(M), 2**self.bits - 1, not self.layers
        if training:
            statistics = (numpy.empty_like(bn.avg_mean) for _ in range(3))
        else:
            inv_std = numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps))
            statistics = bn.avg_mean, bn.avg_var, inv_std
        signs = (self.bits if training and not first else 0), -(-M // 32), _blocks(K) * UNITS
        layer = Layer(
            W,
            *(_pad(b), _pad(gamma), _pad(beta, -1)),
            *(_pad(a) for a in statistics),
            self.empty((blocks, N, UNITS)),
            self.empty((blocks, N, UNITS), bool),
            self.empty(signs, numpy.uint32),
        )
        if not first and net.activation_bits > 1 and numpy.isnan(self.layers[-1][0].mean).any():
            layer.b[:] = numpy.nan  # the level of NaN is a number, but NaN must stay NaN
        kept, factor = _drop(net.dropout_hidden if bits else 0, N, M)
        out = self.activations(N, M, bits, kept is not None, factor)
        kept = numpy.empty((N, 0), bool) if kept is None else kept
        groups = find_groups(x.P, not first)
        every = groups_between_widenings(255 if first else x.middle, (n + 1) // 2)
        eps, levels = numpy.float32(bn.eps), 2**bits - 1
        forward(n, layer, x, groups, every, eps, training, levels, kept, out, self.logits)
        if training:
            bn.avg_mean *= bn.decay
            bn.avg_mean += (1 - bn.decay) * layer.mean[:M]
            bn.avg_var *= bn.decay
            bn.avg_var += (1 - bn.decay) * (N / (N - 1)) * layer.var[:M]
        self.layers.append((layer, x, factor))
        return out

    def gradients(self, indexes, g):
        gradients = []
        gz = self.empty((_blocks(g.shape[1]), len(g), UNITS))
        gz[-1] = 0
        for b in range(len(gz)):
            part = g[:, b * UNITS : (b + 1) * UNITS]
            gz[b, :, : part.shape[1]] = part
        for layer, x, factor in reversed(self.layers):
            (M, K), gy, gW = layer.W.shape, self.empty(layer.y.shape), self.empty(layer.W.shape)
            ggamma, gbeta, gb = (numpy.empty_like(layer.gamma) for _ in range(3))
            pixels = NO_PIXELS if len(x.columns) else self.list_pixels(x)
            backward(layer, x, pixels, gz, factor, gy, ggamma, gbeta, gb, gW)
            gradients[:0] = gW, gb[:M], ggamma[:M], gbeta[:M]
            if len(x.columns):
                gz = self.empty((_blocks(K), len(g), UNITS))
                input_gradient(2**self.bits - 1, layer, gy, gz)
        return [None, *gradients]

    def list_pixels(self, x):
        N, K = x.P.shape
        shape = self.empty((K, N), numpy.uint32), self.empty((K, N))
        pixels = Pixels(numpy.empty(K, numpy.int64), *shape)
        list_pixels(x, pixels)
        return pixels


def fused_net(net, x):
    """The logits of a net.

    Args:
        net (~net.MLP): The net. Training updates the moving averages of its batch normalizations.
        x (array): uint8 array of shape (N, n_in).

    Returns:
        ~chainer.Variable: float32 array of shape (N, n_out).

    Raises:
        RuntimeError: In backward, if a gradient is to be differentiated again.
    """
    parameters = [p for l, bn in links_of(net) for p in (l.W, l.b, bn.gamma, bn.beta)]
    (y,) = FusedNet(net).apply((x, *parameters))
    return y
