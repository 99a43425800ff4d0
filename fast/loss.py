"""Softmax cross entropy without what only other losses need.

On a GPU, it is two kernel launches. On the CPU, it is Chainer's NumPy operations in the same
order, so the results are exactly the same.
"""

from chainer_compat import chainer
from chainer.backends import cuda
import chainer.functions as F
import numpy

from fast import gpu
from fast.function import Function, accept


class SoftmaxCrossEntropy(Function):
    """Mean over a minibatch."""

    def forward_cpu(self, inputs):
        y, t = inputs
        self.retain_inputs((1,))
        best = y.max(axis=1, keepdims=True)
        log_z = best + numpy.log(numpy.exp(y - best).sum(axis=1, keepdims=True))
        log_p = y - log_z
        self.p = numpy.exp(log_p)
        total = log_p[numpy.arange(len(t)), t].sum(keepdims=True)
        self.inv_n = numpy.float64(1 / len(t))
        return ((total * -self.inv_n).astype(y.dtype).reshape(()),)

    def forward_gpu(self, inputs):
        self.retain_inputs((0, 1))
        return (gpu.softmax_cross_entropy(*inputs),)

    def gradients(self, indexes, gloss):
        *y, t = (variable.array for variable in self.get_retained_inputs())
        if y:
            return gpu.softmax_cross_entropy_gradient(*y, t, gloss), None
        gy = self.p.copy()
        gy[numpy.arange(len(t)), t] -= 1
        gy *= gloss * self.inv_n
        return gy, None


def softmax_cross_entropy(y, t):
    """:func:`chainer.functions.softmax_cross_entropy`, for labels that are all classes.

    Args:
        y (:class:`~chainer.Variable`): Float array of shape (N, C).
        t (array): Int array of shape (N,), of numbers from 0 to C - 1.

    Returns:
        ~chainer.Variable: The loss, of shape ().

    Raises:
        RuntimeError: In backward, if a gradient is to be differentiated again.
    """
    fits = accept((numpy.ndarray, cuda.ndarray), y.array) and t.dtype == numpy.int32 and len(t)
    if not fits or not chainer.config.train or chainer.config.keep_graph_on_report:
        return F.softmax_cross_entropy(y, t)
    (loss,) = SoftmaxCrossEntropy().apply((y, t))
    return loss
