"""A layer of the net as one function, for training on the CPU: linear, batch normalization and activation.

What it computes is what the links compute one after another, to the bit, and net.py reads the same without it. It
is here for speed. Chainer keeps a node of a graph for every function and every gradient, and this makes one of nine;
and between layers of one bit, the product forward is one of XNOR and popcount. benchmarks/README.md has what both
gain.
"""
import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import numpy

import compiled
from bst import STEGrad
from compiled import normalize_backward_loop, normalize_loop
from qst import QST, quantize

if not compiled.missing:
    import xnor


def fits(x, l, bn):
    """Whether this minibatch and these links can be given to :func:`fused_layer`; all else is left to the links."""
    x, config = chainer.as_array(x), chainer.config
    return (config.train and not config.in_recomputing and l.bits <= 8
            and not config.keep_graph_on_report  # a graph that is to be looked at shows the links
            and compiled.fits(x, l.W.array, l.b.array, bn.gamma.array, bn.beta.array)
            and x.ndim == 2 and x.shape[1] == l.W.shape[1]
            and len(x) > 1 and len(l.W) > 1)  # NumPy adds a single column up in another order


class FusedLayer(chainer.FunctionNode):
    """Linear function with a quantized weight, batch normalization, and activation unless its number of bits is 0."""

    def __init__(self, l, bn, activation_bits):
        self.weight_bits = l.bits
        self.bn = bn
        self.activation = QST(activation_bits) if activation_bits else None

    def forward(self, inputs):
        x, W, b, gamma, beta = inputs
        self.retain_inputs((0, 3))
        self.y, z = (numpy.empty((len(x), len(W)), x.dtype) for _ in range(2))
        if self.weight_bits == 1 and xnor.all_signs(x):
            self.Wq = numpy.empty_like(W)
            xnor.binary_linear(x, W, b, self.Wq, self.y)
        else:
            self.Wq = quantize(W, self.weight_bits)
            numpy.dot(x, self.Wq.T, out=self.y)
            self.y += b

        self.mean, var, self.inv_std = (numpy.empty_like(gamma) for _ in range(3))
        normalize_loop(self.y, gamma, beta, x.dtype.type(self.bn.eps), self.mean, var, self.inv_std, z)
        decay = self.bn.decay
        self.bn.avg_mean *= decay
        self.bn.avg_mean += (1 - decay) * self.mean
        self.bn.avg_var *= decay
        self.bn.avg_var += (1 - decay) * (len(x) / (len(x) - 1)) * var
        return self.activation.forward((z,)) if self.activation else (z,)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError('a fused layer has no second derivative: apply the links of the net instead')
        x, gamma = (variable.array for variable in self.get_retained_inputs())
        gz = grad_outputs[0].array
        if self.activation:
            gz, = STEGrad(self.activation.inside).forward((gz,))
        gy = numpy.empty_like(gz)
        ggamma, gbeta = numpy.empty_like(gamma), numpy.empty_like(gamma)
        normalize_backward_loop(
            self.y, gz, gamma, self.mean, self.inv_std, gz.dtype.type(1 / len(gz)), gy, ggamma, gbeta)
        gx = numpy.dot(gy, self.Wq) if 0 in indexes else None
        return [None if g is None else chainer.Variable(g, requires_grad=False)
                for g in (gx, numpy.dot(gy.T, x), gy.sum(0), ggamma, gbeta)]


def fused_layer(x, l, bn, activation_bits=0):
    """A layer of the net: linear, batch normalization, activation.

    .. math:: z = qst(bn(l(x)))

    Args:
        x (:class:`~chainer.Variable` or array): Float array of shape (N, K).
        l (BinaryLinear): The linear layer, with a weight of shape (M, K).
        bn (~chainer.links.BatchNormalization): Its batch normalization. The moving averages are updated.
        activation_bits (int): Number of bits of the activation; 0 is for none.

    Returns:
        ~chainer.Variable: Float array of shape (N, M).

    Raises:
        RuntimeError: In backward, if a gradient is to be differentiated again.
    """
    z, = FusedLayer(l, bn, activation_bits).apply((x, l.W, l.b, bn.gamma, bn.beta))
    return z
