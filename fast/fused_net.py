"""The whole net as one function on the CPU: linear, batch normalization, activation and dropout.

Chainer keeps a graph node for each function and each gradient; here it keeps one in all, and the
activations stay in the form that the products take (fast/products.py). The results are those of
the links up to rounding; forward, in a binary net without dropout, bit for bit.
"""

import weakref

from chainer_compat import chainer
import chainer.links as L
import numpy

from fast.available import accept
from fast.kernels import UNITS
from fast.memory import Memory
from fast.normalization import Layer, normalize, normalize_backward
from fast.products import Activations, Bits, Numbers, Pixels, blocks_of, in_blocks


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
        # A single row has no statistics, and a derived link may have those of several processes.
        possible = not config.in_recomputing and len(x) > 1
        possible = possible and all(type(bn) is L.BatchNormalization for _, bn in links)
    else:
        possible = not config.enable_backprop
    possible = possible and not config.keep_graph_on_report
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


def _drop(ratio, *shape):
    """Which numbers dropout keeps, drawn as by F.dropout, and the factor for them."""
    if not ratio or not chainer.config.train:
        return None, numpy.float32(1)
    return numpy.random.rand(*shape) >= ratio, numpy.float32(1 / (1 - ratio))


def _pad(a, value=0):
    """An array of shape (M,) with an element for each unit of each block."""
    padded = numpy.full(blocks_of(len(a)) * UNITS, value, numpy.float32)
    padded[: len(a)] = a
    return padded


class FusedNet(chainer.FunctionNode):
    """The function of a net; its inputs are x and W, b, gamma and beta of each layer."""

    def __init__(self, net):
        self.net, self.memory = net, _memory.setdefault(net, Memory())

    def forward(self, inputs):
        self.layers = []
        x = self.pixels(inputs[0])
        N = len(inputs[0])
        for i, (_, bn) in enumerate(links_of(self.net)):
            x = self.forward_layer(
                N, x, bn, *inputs[4 * i + 1 : 4 * i + 5], i == self.net.n_layers
            )
        logits = x.X.transpose(1, 0, 2).reshape(x.X.shape[1], -1)
        return (logits[:N, : len(inputs[-1])].copy(),)

    def pixels(self, x):
        net = self.net
        kept, factor = _drop(net.dropout_input, *x.shape)
        middle = net.pixel_scale // 2 if net.signed_pixels else 0
        return Pixels(x, net.pixel_scale, middle, kept, factor, self.memory)

    def forward_layer(self, N, x, bn, W, b, gamma, beta, last):
        net, training, M = self.net, chainer.config.train, len(W)
        bits = 0 if last else net.activation_bits
        layer = Layer(
            *(_pad(b), _pad(gamma), _pad(beta, -1)),
            *(_pad(a) for a in self.statistics(bn)),
            self.memory.empty(in_blocks(M, N)),
            self.memory.empty((blocks_of(M), N, UNITS), bool),
        )
        sums = x.linear(W, net['l1'].bits, layer.b, layer.y)
        kept, factor = _drop(0 if last else net.dropout_hidden, N, M)
        out, z = self.outputs(N, M, bits, kept, factor)
        kept = numpy.empty((N, 0), bool) if kept is None else kept
        normalize(sums, layer, numpy.float32(bn.eps), training, bits, kept, factor, out)
        if training:
            bn.avg_mean *= bn.decay
            bn.avg_mean += (1 - bn.decay) * layer.mean[:M]
            bn.avg_var *= bn.decay
            bn.avg_var += (1 - bn.decay) * (N / (N - 1)) * layer.var[:M]
        self.layers.append((x, W, layer, factor))
        return z

    @staticmethod
    def statistics(bn):
        if chainer.config.train:  # they are computed
            return (numpy.empty_like(bn.avg_mean) for _ in range(3))
        return bn.avg_mean, bn.avg_var, numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps))

    def outputs(self, N, M, bits, kept, factor):
        """The arrays for a layer's activations, and these as inputs of the next layer."""
        blocks, dropout = blocks_of(M), kept is not None
        planes = bits + dropout if self.net['l1'].bits == 1 and bits else 3
        if planes > 2:
            out = Activations(
                numpy.empty((0, 0, 0), numpy.uint64), numpy.empty((0, 0, 0), numpy.uint32),
                self.memory.empty(in_blocks(M, N)),
            )  # fmt: skip
            return out, Numbers(out, N, self.memory)
        out = Activations(
            self.memory.empty((planes, N, blocks), numpy.uint64),
            self.memory.empty((planes, -(-N // 32), blocks * UNITS), numpy.uint32),
            numpy.empty((0, 0, 0), numpy.float32),
        )
        carry, divisor = {1: (0, 1), 2: (1, 2) if dropout else (2, 3)}[planes]
        return out, Bits(out, carry, divisor, factor, self.memory)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError(
                'a fused net has no second derivative: use the nets of net.py, without fast'
            )
        g = grad_outputs[0].array
        gz = self.memory.empty(in_blocks(g.shape[1], len(g)))
        gz[:] = 0
        for b in range(len(gz)):
            part = g[:, b * UNITS : (b + 1) * UNITS]
            gz[b, : len(g), : part.shape[1]] = part
        gradients = []
        for x, W, layer, factor in reversed(self.layers):
            M, gy = len(W), self.memory.empty(layer.y.shape)
            ggamma, gbeta, gb = (numpy.empty_like(layer.gamma) for _ in range(3))
            normalize_backward(gz, factor, layer, gy, ggamma, gbeta, gb)
            gW = self.memory.empty(W.shape)
            x.weight_gradient(gy, gb, gW)
            gradients[:0] = gW, gb[:M], ggamma[:M], gbeta[:M]
            if not isinstance(x, Pixels):
                gz = x.input_gradient(gy)
        return [None] + [chainer.Variable(g, requires_grad=False) for g in gradients]


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
