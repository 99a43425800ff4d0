"""A layer of the net as one function on a GPU: linear, batch normalization and activation.

The results are those of the links up to rounding. A step of the default binary net takes 25 kernel
launches in its three layers, where the links take 72.
"""

from chainer_compat import chainer
from chainer.backends import cuda
import numpy

from fast import gpu
from fast.function import Function, accept, accept_layer, has_statistics
from qst import quantize


@cuda.memoize(for_each_device=True)
def _zeros(size):
    """The gradient of b is 0: batch normalization cancels any shift."""
    return cuda.cupy.zeros(size, numpy.float32)


class GPULayer(Function):
    """Quantized linear function, batch normalization and, unless its bits are 0, activation."""

    def __init__(self, l, bn, activation_bits):
        self.weight_bits = l.bits
        self.bn = bn
        self.activation_bits = activation_bits

    def forward(self, inputs):
        x, W, b, gamma, beta = inputs
        self.retain_inputs((0, 3))
        self.Wq = quantize(W, self.weight_bits)
        y = cuda.cupy.dot(x, self.Wq.T)
        self.to_normalize = y, b, *gpu.statistics(y, b, self.bn)
        limit = 1 if self.activation_bits else numpy.inf
        z, self.inside = gpu.normalize(*self.to_normalize, gamma, beta, limit)
        return (quantize(z, self.activation_bits) if self.activation_bits else z,)

    def gradients(self, indexes, gz):
        x, gamma = (variable.array for variable in self.get_retained_inputs())
        gy, ggamma, gbeta = gpu.normalize_backward(gz, self.inside, *self.to_normalize, gamma)
        gx = cuda.cupy.dot(gy, self.Wq) if 0 in indexes else None
        return gx, cuda.cupy.dot(gy.T, x), _zeros(len(gamma)), ggamma, gbeta


def can_fuse(x, l, bn):
    """Whether :func:`gpu_layer` can compute this minibatch; the links compute all others."""
    possible = accept(cuda.ndarray, x) and x.ndim == 2 and has_statistics(x, bn)
    possible = possible and not chainer.config.keep_graph_on_report
    return possible and accept_layer(cuda.ndarray, x.shape[1], l, bn)


def gpu_layer(x, l, bn, activation_bits=0):
    """A layer of the net: linear, batch normalization, activation.

    .. math:: z = qst(bn(l(x)))

    Args:
        x (:class:`~chainer.Variable` or array): Float array of shape (N, K).
        l (BinaryLinear): The linear layer, with a weight of shape (M, K).
        bn (~chainer.links.BatchNormalization): Its batch normalization. Training updates its
            moving averages.
        activation_bits (int): Number of bits of the activation; 0 means no activation.

    Returns:
        ~chainer.Variable: Float array of shape (N, M).

    Raises:
        RuntimeError: In backward, if a gradient is to be differentiated again.
    """
    (z,) = GPULayer(l, bn, activation_bits).apply((x, l.W, l.b, bn.gamma, bn.beta))
    return z
