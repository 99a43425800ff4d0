"""A layer of the net as one function on the CPU: linear, batch normalization and activation.

Chainer keeps a graph node for each function and each gradient, and a fused layer makes one of
nine. Between layers of one bit, the forward product uses XNOR and popcount; in the first layer,
the products are those of fast/pixels.py. benchmarks/README.md shows what each gains.

The results are those of the links, to the bit but for the first layer: there, the gradient of W is
equal to rounding, and so is the output if the weights have more than one bit.
"""

from chainer_compat import chainer
import chainer.links as L
import numpy

from fast import gpu_layer, loops

if not loops.missing:
    from fast import pixels, xnor


def can_fuse(x, l, bn):
    """Whether :func:`fused_layer` can compute this minibatch; the links compute all others.

    Args:
        x (array): The minibatch.
        l (~chainer.links.Linear): The linear layer, with its number of ``bits``.
        bn (~chainer.links.BatchNormalization): Its batch normalization.

    Returns:
        bool: False for other arrays than contiguous float32 or float64 on the CPU, or float32 on a
        GPU in training; for full-precision weights, a graph that will be looked at, and gradients
        that a fused layer does not have.
    """
    config = chainer.config
    if config.train:
        # NumPy adds up a single column in another order, a single row has no statistics, and a
        # derived link may have those of several processes.
        possible = not config.in_recomputing and len(x) > 1 and len(l.W) > 1
        possible = possible and type(bn) is L.BatchNormalization
    else:
        possible = not config.enable_backprop
    arrays = x, l.W.array, l.b.array, bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var
    return (
        possible
        and l.bits <= 8
        and not config.keep_graph_on_report
        and (loops.accept(*arrays) or config.train and gpu_layer.accept(*arrays))
        and x.ndim == 2
        and x.shape[1] == l.W.shape[1]
    )


class FusedLayer(chainer.FunctionNode):
    """Quantized linear function, batch normalization and, unless its bits are 0, activation."""

    def __init__(self, l, bn, activation_bits):
        self.weight_bits = l.bits
        self.bn = bn
        self.activation_bits = activation_bits

    def forward(self, inputs):
        x, W, b, gamma, beta = inputs
        self.retain_inputs((0, 1, 3))
        self.y, z = (numpy.empty((len(x), len(W)), x.dtype) for _ in range(2))
        self.Wq = self.pixels = None
        if self.weight_bits == 1 and xnor.all_signs(x):
            self.Wq = numpy.empty_like(W)
            xnor.binary_linear(x, W, b, self.Wq, self.y)
        elif (P := pixels.find(x)) is not None:
            self.pixels = P
            pixels.linear(P, W, self.weight_bits, b, self.y)
        else:
            self.Wq = loops.quantize(W, self.weight_bits)
            numpy.dot(x, self.Wq.T, out=self.y)
            self.y += b

        bn = self.bn
        if chainer.config.train:
            self.mean, var, self.inv_std = (numpy.empty_like(gamma) for _ in range(3))
            loops.statistics_loop(self.y, x.dtype.type(bn.eps), self.mean, var, self.inv_std)
            bn.avg_mean *= bn.decay
            bn.avg_mean += (1 - bn.decay) * self.mean
            bn.avg_var *= bn.decay
            bn.avg_var += (1 - bn.decay) * (len(x) / (len(x) - 1)) * var
        else:
            self.mean = bn.avg_mean
            self.inv_std = numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps))
        loops.normalize_loop(self.y, gamma, beta, self.mean, self.inv_std, z)

        if not self.activation_bits:
            self.inside = numpy.ones(z.shape, bool)
            return (z,)
        if chainer.config.enable_backprop:
            self.inside = abs(z) <= 1
        return (loops.quantize(z, self.activation_bits),)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError(
                'a fused layer has no second derivative: use the nets of net.py, without fast'
            )
        x, W, gamma = (variable.array for variable in self.get_retained_inputs())
        gz = grad_outputs[0].array
        gy = numpy.empty_like(gz)
        ggamma, gbeta = numpy.empty_like(gamma), numpy.empty_like(gamma)
        inv_n = gz.dtype.type(1 / len(gz))
        loops.normalize_backward_loop(
            self.y, gz, self.inside, gamma, self.mean, self.inv_std, inv_n, gy, ggamma, gbeta
        )
        gx = None
        if 0 in indexes:
            Wq = loops.quantize(W, self.weight_bits) if self.Wq is None else self.Wq
            gx = numpy.dot(gy, Wq)
        gW = pixels.weight_gradient(self.pixels, x, gy)
        return [
            None if g is None else chainer.Variable(g, requires_grad=False)
            for g in (gx, gW, gy.sum(0), ggamma, gbeta)
        ]


def fused_layer(x, l, bn, activation_bits=0):
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
    Layer = FusedLayer if isinstance(l.W.array, numpy.ndarray) else gpu_layer.GPULayer
    (z,) = Layer(l, bn, activation_bits).apply((x, l.W, l.b, bn.gamma, bn.beta))
    return z
