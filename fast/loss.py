"""Softmax cross entropy and accuracy as one function, without what only other losses need.

On a GPU they are two kernel launches, where Chainer's take twenty. On the CPU they are Chainer's
NumPy operations in the same order, so the results are the same to the bit.
"""

from chainer_compat import chainer
from chainer.backends import cuda
import chainer.functions as F
import numpy

from fast import gpu_layer

# The logarithm of the sum of the exponentials of a row, and where its greatest number is.
ROW = """
__device__ float log_sum_exp(const float* y, int classes, int& best) {
    best = 0;
    for (int k = 1; k < classes; k++)
        if (y[k] > y[best]) best = k;
    float sum = 0;
    for (int k = 0; k < classes; k++) sum += expf(y[k] - y[best]);
    return y[best] + logf(sum);
}
"""


@cuda.memoize()
def _forward():
    return cuda.cupy.ReductionKernel(
        'int64 row, int32 t, raw float32 y, int32 classes, float32 inv_n',
        'float32 loss, float32 accuracy',
        'row_loss(&y[row * classes], classes, t)',
        'a + b',
        'loss = a.first * inv_n, accuracy = a.second * inv_n',
        'Pair<float>(0, 0)',
        'softmax_cross_entropy_and_accuracy',
        reduce_type='Pair<float>',
        preamble=gpu_layer.PAIR
        + ROW
        + """
        __device__ Pair<float> row_loss(const float* y, int classes, int t) {
            int best;
            float loss = log_sum_exp(y, classes, best) - y[t];
            return Pair<float>(loss, best == t);
        }
        """,
    )


@cuda.memoize()
def _backward():
    return cuda.cupy.ElementwiseKernel(
        'raw float32 y, raw int32 t, int32 classes, float32 inv_n, raw float32 gloss',
        'float32 gy',
        """
        int best, row = i / classes, k = i % classes;
        float log_sum = log_sum_exp(&y[row * classes], classes, best);
        gy = gloss[0] * inv_n * (expf(y[i] - log_sum) - (k == t[row] ? 1 : 0));
        """,
        'softmax_cross_entropy_backward',
        preamble=ROW,
    )


@cuda.memoize(for_each_device=True)
def _rows(n):
    return cuda.cupy.arange(n)


class SoftmaxCrossEntropy(chainer.FunctionNode):
    """Mean over a minibatch; it also keeps the accuracy."""

    def forward_cpu(self, inputs):
        y, t = inputs
        self.retain_inputs((1,))
        best = y.max(axis=1, keepdims=True)
        log_z = best + numpy.log(numpy.exp(y - best).sum(axis=1, keepdims=True))
        log_p = y - log_z
        self.p = numpy.exp(log_p)
        self.accuracy = numpy.asarray((y.argmax(axis=1) == t).mean(dtype=y.dtype))
        total = log_p[numpy.arange(len(t)), t].sum(keepdims=True)
        self.inv_n = numpy.float64(1 / len(t))
        return ((total * -self.inv_n).astype(y.dtype).reshape(()),)

    def forward_gpu(self, inputs):
        y, t = inputs
        self.retain_inputs((0, 1))
        loss, self.accuracy = (cuda.cupy.empty((), numpy.float32) for _ in range(2))
        numbers = numpy.int32(y.shape[1]), numpy.float32(1 / len(y))
        _forward()(_rows(len(y)), t, y, *numbers, loss, self.accuracy, axis=0)
        return (loss,)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError('this loss has no second derivative: use chainer.functions')
        *y, t = (variable.array for variable in self.get_retained_inputs())
        gradient = self.gradient_gpu if y else self.gradient_cpu
        gy = gradient(*y, t, grad_outputs[0].array)
        return chainer.Variable(gy, requires_grad=False), None

    def gradient_cpu(self, t, gloss):
        gy = self.p.copy()
        gy[numpy.arange(len(t)), t] -= 1
        gy *= gloss * self.inv_n
        return gy

    def gradient_gpu(self, y, t, gloss):
        gy = cuda.cupy.empty_like(y)
        numbers = numpy.int32(y.shape[1]), numpy.float32(1 / len(y))
        _backward()(y, t, *numbers, gloss, gy)
        return gy


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
    fits = gpu_layer.accept(y.array) or isinstance(y.array, numpy.ndarray)
    fits = fits and y.dtype == numpy.float32 and t.dtype == numpy.int32 and len(t)
    if not fits or not chainer.config.train or chainer.config.keep_graph_on_report:
        return F.softmax_cross_entropy(y, t)
    function = SoftmaxCrossEntropy()
    (loss,) = function.apply((y, t))
    y.accuracy = function.accuracy
    return loss


def accuracy(y, t):
    """:func:`chainer.functions.accuracy`; it is known already if the loss has computed it."""
    known = getattr(y, 'accuracy', None)
    return F.accuracy(y, t) if known is None else known
