"""The whole net as one function on the CPU: linear, batch normalization, activation and dropout.

Chainer keeps a graph node for each function and each gradient; here it keeps one in all, and the
activations stay in the form that the products take (fast/layer.py). The results are those of the
links up to rounding; forward, in a binary net without dropout, bit for bit.
"""

import weakref

from chainer_compat import chainer
import numpy

from fast.function import Function, accept_layer, has_statistics
from fast.kernels import UNITS, groups_between_widenings
from fast.layer import (
    Layer,
    backward,
    forward,
    input_gradient,
    input_gradient_by_signs,
    list_pixels,
)
from fast.lookup import ROWS, WORD
from fast.memory import Memory
from fast.xnor import find_groups

_memory = weakref.WeakKeyDictionary()  # of each net


def links_of(net):
    """The linear layers of a net, each with its batch normalization."""
    return [(net[f'l{i}'], net[f'bn{i}']) for i in range(1, net.n_layers + 2)]


def can_fuse(net, x):
    """Whether :func:`fused_net` can compute this minibatch; the links compute all others.

    Args:
        net (~net.MLP): The net.
        x (:class:`~chainer.Variable` or array): The minibatch.

    Returns:
        bool: False for other inputs than bytes of shape (N, K), no images, other parameters than
        float32 on the CPU, a graph that will be looked at, gradients that it does not have, and
        so many inputs that sums could overflow.
    """
    config, links = chainer.config, links_of(net)
    if config.train:
        possible = has_statistics(x, *(bn for _, bn in links))
        # Twice a level must be a byte.
        possible = possible and not (net.dropout_hidden and net.activation_bits == 8)
    else:
        possible = not config.enable_backprop and len(x) > 0
    possible = possible and not config.keep_graph_on_report and net.activation_bits <= 8
    possible = possible and isinstance(x, numpy.ndarray) and x.dtype == numpy.uint8
    if not possible or x.ndim != 2 or net.signed_pixels and net.pixel_scale % 2:
        return False
    K = x.shape[1]
    for l, bn in links:
        # K products, each less than 2^(bits + 9), must have a sum of 32 bits.
        possible = l.bits == net.l1.bits and K << l.bits < 2**22
        if not (possible and accept_layer(numpy.ndarray, K, l, bn)):
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


def _to_blocks(a, out):
    """Copies an array of shape (N, M) to one of shape (blocks, N, 64)."""
    for b in range(len(out)):
        part = a[:, b * UNITS : (b + 1) * UNITS]
        out[b, :, : part.shape[1]] = part
    return out


def _drop(ratio, *shape):
    """Which numbers dropout keeps, drawn as by F.dropout, and the factor for them."""
    if not ratio or not chainer.config.train:
        return None, numpy.float32(1)
    return numpy.random.rand(*shape) >= ratio, numpy.float32(1 / (1 - ratio))


class FusedNet(Function):
    """The function of a net; its inputs are x and W, b, gamma and beta of each layer."""

    def __init__(self, net):
        self.net, self.layers = net, []
        self.empty = _memory.setdefault(net, Memory()).empty

    def forward(self, inputs):
        x, net = self.pixels(inputs[0]), self.net
        for i, (_, bn) in enumerate(links_of(net)):
            bits = net.activation_bits if i < net.n_layers else 0
            x = self.forward_layer(x, bn, *inputs[4 * i + 1 : 4 * i + 5], bits)
        layer = self.layers[-1]
        M = len(layer.W)
        y = numpy.concatenate(layer.y, axis=1)[:, :M]
        logits = (y - layer.mean[:M]) * layer.inv_std[:M] * layer.gamma[:M] + layer.beta[:M]
        return (logits,)

    def pixels(self, x):
        """The inputs of the first layer: the fields of Layer that describe them."""
        net, (N, K) = self.net, x.shape
        kept, factor = _drop(net.dropout_input, N, K)
        middle = net.pixel_scale if net.signed_pixels else 0
        P = self.empty((N, _blocks(K) * UNITS), numpy.uint8)
        P[:, :K] = x if kept is None else numpy.where(kept, x, numpy.uint8(middle // 2))
        P[:, K:] = 0
        listed = P.shape[1], N if chainer.config.train else 0  # for backward
        return {
            'P': P,
            'middle': middle,
            'scale': 2 * net.pixel_scale - middle,  # for P / scale, or 2 P / scale - 1
            'factor': factor,
            'pixel_counts': numpy.empty(listed[0], numpy.int64),
            'pixel_images': self.empty(listed, numpy.uint32),
            'pixel_values': self.empty(listed),
        }

    def activations(self, N, M, bits, dropout, factor):
        """The inputs of another layer, to be written: levels of so many bits."""
        units, n = _blocks(M) * UNITS, (2**bits - 1) << dropout
        by_xnor = self.net.l1.bits == n == 1
        images = N if chainer.config.train else 0  # for backward
        words = -(-images // WORD) if n == 1 else 0
        return {
            'P': self.empty((N, 0 if by_xnor else units), numpy.uint8),
            'bits': self.empty((N, units // 8 if by_xnor else 0), numpy.uint8),
            'signs': self.empty((words, units), numpy.uint32),
            'x': self.empty((0 if words else _blocks(M), images, UNITS)),
            'middle': n,
            'scale': n,
            'factor': factor,
        }

    def forward_layer(self, x, bn, W, b, gamma, beta, bits):
        """Adds a layer, and returns the inputs of the next, levels of so many bits."""
        net, training, (M, K), N = self.net, chainer.config.train, W.shape, len(x['P'])
        blocks, first, n = _blocks(M), not self.layers, 2**net.l1.bits - 1
        inv_std = numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps))
        b = _pad(b)
        if not first and net.activation_bits > 1 and numpy.isnan(self.layers[-1].beta).any():
            b[:] = numpy.nan  # the level of NaN is a number, but NaN must stay NaN
        kept, gain = _drop(net.dropout_hidden if bits else 0, N, M)
        inside = self.empty((blocks, N, UNITS), bool)
        inside[:] = True
        if kept is not None:
            _to_blocks(kept, inside)
        if x['P'].size:
            x.update(find_groups(x['P'], not first)._asdict())
            x['every'] = groups_between_widenings(255 if first else x['middle'], (n + 1) // 2)
        if training and not first and n == 1:
            x['w_signs'] = self.empty((-(-M // WORD), _blocks(K) * UNITS), numpy.uint32)
        following = self.activations(N, M, bits, kept is not None, gain)
        layer = Layer(
            **x,
            W=W,
            b=b,
            gamma=_pad(gamma),
            beta=_pad(beta, -1),  # with a gamma of 0, the level of the padding is 0
            n=n,
            eps=numpy.float32(bn.eps),
            training=training,
            mean=_pad(bn.avg_mean),  # in training, the region writes those of the minibatch
            var=_pad(bn.avg_var),
            inv_std=_pad(inv_std),
            y=self.empty((blocks, N, UNITS)),
            inside=inside,
            dropout=kept is not None,
            next_n=2**bits - 1,
            **{f'next_{name}': following[name] for name in ('P', 'bits', 'signs', 'x')},
            gain=gain,
        )
        forward(blocks, layer)
        if training:
            bn.avg_mean *= bn.decay
            bn.avg_mean += (1 - bn.decay) * layer.mean[:M]
            bn.avg_var *= bn.decay
            bn.avg_var += (1 - bn.decay) * (N / (N - 1)) * layer.var[:M]
        self.layers.append(layer)
        return following

    def gradients(self, indexes, g):
        gradients, (N, M) = [], g.shape
        gz = _to_blocks(g, numpy.zeros((_blocks(M), N, UNITS), numpy.float32))
        chunks = -(-N // ROWS)
        for layer in reversed(self.layers):
            (M, K), first = layer.W.shape, layer is self.layers[0]
            layer = layer._replace(
                gz=gz,
                gy=self.empty((_blocks(M), ROWS * chunks, UNITS)),
                ggamma=numpy.empty_like(layer.gamma),
                gbeta=numpy.empty_like(layer.gamma),
                gb=numpy.empty_like(layer.gamma),
                gW=self.empty((M, K)),
                gx=self.empty((0 if first else _blocks(K), ROWS * chunks, UNITS)),
            )
            if first:
                list_pixels(_blocks(K), layer)
            backward(_blocks(M), layer)
            if layer.w_signs.size:
                input_gradient_by_signs(chunks, layer)
            elif not first:
                input_gradient(_blocks(K), layer)
            gz = layer.gx
            gradients[:0] = layer.gW, layer.gb[:M], layer.ggamma[:M], layer.gbeta[:M]
        return [None, *gradients]


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
