"""Softmax cross entropy, on a GPU in two kernel launches; on the CPU, it is Chainer's."""

from chainer_compat import chainer
from chainer.backends import cuda
import chainer.functions as F
import numpy

from fast import gpu
from fast.function import Function, accept


class SoftmaxCrossEntropy(Function):
    """Mean over a minibatch."""

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        return (gpu.softmax_cross_entropy(*inputs),)

    def gradients(self, indexes, gloss):
        y, t = (variable.array for variable in self.get_retained_inputs())
        return gpu.softmax_cross_entropy_gradient(y, t, gloss), None


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
    fits = accept(cuda.ndarray, y.array) and t.dtype == numpy.int32 and len(t)
    if not fits or not chainer.config.train or chainer.config.keep_graph_on_report:
        return F.softmax_cross_entropy(y, t)
    (loss,) = SoftmaxCrossEntropy().apply((y, t))
    return loss
