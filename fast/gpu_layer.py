"""A layer of the net as one function on a GPU: linear, batch normalization and activation.

The results are those of the links, to rounding. A step of the default binary net takes 25 kernel
launches in its three layers, where the links take 72.
"""

from chainer_compat import chainer
from chainer.backends import cuda
import chainer.links as L
import numpy

from qst import quantize


# Two sums at once.
PAIR = """
template <typename T> struct Pair {
    T first, second;
    __device__ Pair() {}
    __device__ Pair(T first, T second) : first(first), second(second) {}
    __device__ Pair operator+(const Pair& other) const {
        return Pair(first + other.first, second + other.second);
    }
};
"""


def accept(*arrays):
    """Whether the kernels can take these arrays: contiguous float32 arrays on a GPU."""
    return all(
        isinstance(a, cuda.ndarray) and a.dtype == numpy.float32 and a.flags.c_contiguous
        for a in arrays
    )


@cuda.memoize()
def _statistics():
    """Mean and 1 / sqrt(variance + eps) of the columns, and batch normalization's averages.

    Two groups of n and m numbers with the sums of squares p and q about their means, which differ
    by d, have the sum p + q + d^2 n m / (n + m) together (Chan, Golub and LeVeque, 1979).
    """
    return cuda.cupy.ReductionKernel(
        'T y, T b, T eps, T decay, T unbiased',
        'T mean, T inv_std, T avg_mean, T avg_var',
        'Moments<T>(y + b)',
        'a + b',
        # One expression, since CuPy makes a macro of it.
        'mean = a.mean, inv_std = rsqrt(a.squares / a.n + eps), '
        'avg_mean = decay * avg_mean + (1 - decay) * a.mean, '
        'avg_var = decay * avg_var + (1 - decay) * unbiased * (a.squares / a.n)',
        'Moments<T>()',
        'batch_statistics',
        reduce_type='Moments<T>',
        preamble="""
        template <typename T> struct Moments {
            T n, mean, squares;
            __device__ Moments() : n(0), mean(0), squares(0) {}
            __device__ Moments(T x) : n(1), mean(x), squares(0) {}
            __device__ Moments operator+(const Moments& other) const {
                Moments sum;
                sum.n = n + other.n;
                if (sum.n == 0) return sum;
                T difference = other.mean - mean, share = other.n / sum.n;
                sum.mean = mean + difference * share;
                sum.squares = squares + other.squares + difference * difference * n * share;
                return sum;
            }
        };
        """,
    )


@cuda.memoize()
def _column_sums():
    """The gradients of beta and gamma."""
    return cuda.cupy.ReductionKernel(
        'T gz, bool inside, T y, T b, T mean, T inv_std',
        'T gbeta, T ggamma',
        'Pair<T>(inside ? gz : T(0), inside ? gz * ((y + b - mean) * inv_std) : T(0))',
        'a + b',
        'gbeta = a.first, ggamma = a.second',
        'Pair<T>(0, 0)',
        'batch_normalization_column_sums',
        reduce_type='Pair<T>',
        preamble=PAIR,
    )


@cuda.memoize(for_each_device=True)
def _zeros(size):
    """The gradient of b is 0: batch normalization cancels any shift."""
    return cuda.cupy.zeros(size, numpy.float32)


class GPULayer(chainer.FunctionNode):
    """Quantized linear function, batch normalization and, unless its bits are 0, activation."""

    def __init__(self, l, bn, activation_bits):
        self.weight_bits = l.bits
        self.bn = bn
        self.activation_bits = activation_bits

    def forward(self, inputs):
        x, W, self.b, gamma, beta = inputs
        self.retain_inputs((0, 3))
        bn, xp = self.bn, cuda.cupy
        self.Wq = quantize(W, self.weight_bits)
        self.y = xp.dot(x, self.Wq.T)
        self.mean, self.inv_std = xp.empty_like(gamma), xp.empty_like(gamma)
        numbers = (numpy.float32(a) for a in (bn.eps, bn.decay, len(x) / (len(x) - 1)))
        moments = self.mean, self.inv_std, bn.avg_mean, bn.avg_var
        _statistics()(self.y, self.b, *numbers, *moments, axis=0)
        z, self.inside = cuda.elementwise(
            'T y, T b, T mean, T inv_std, T gamma, T beta, T limit',
            'T z, bool inside',
            'z = (y + b - mean) * inv_std * gamma + beta; inside = fabs(z) <= limit',
            'normalize',
        )(
            self.y,
            self.b,
            self.mean,
            self.inv_std,
            gamma,
            beta,
            numpy.float32(1 if self.activation_bits else numpy.inf),
        )
        return (quantize(z, self.activation_bits) if self.activation_bits else z,)

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise RuntimeError(
                'a fused layer has no second derivative: use the nets of net.py, without fast'
            )
        x, gamma = (variable.array for variable in self.get_retained_inputs())
        gz, xp = grad_outputs[0].array, cuda.cupy
        gbeta, ggamma = xp.empty_like(gamma), xp.empty_like(gamma)
        before = self.y, self.b, self.mean, self.inv_std
        _column_sums()(gz, self.inside, *before, gbeta, ggamma, axis=0)
        gy = cuda.elementwise(
            'T gz, bool inside, T y, T b, T mean, T inv_std, T gamma, T gbeta, T ggamma, T inv_n',
            'T gy',
            """
            T x_hat = (y + b - mean) * inv_std;
            gy = gamma * inv_std * ((inside ? gz : T(0)) - (x_hat * ggamma + gbeta) * inv_n);
            """,
            'normalize_backward',
        )(gz, self.inside, *before, gamma, gbeta, ggamma, numpy.float32(1 / len(gz)))
        gx = xp.dot(gy, self.Wq) if 0 in indexes else None
        return [
            None if g is None else chainer.Variable(g, requires_grad=False)
            for g in (gx, xp.dot(gy.T, x), _zeros(len(gamma)), ggamma, gbeta)
        ]


def can_fuse(x, l, bn):
    """Whether :func:`gpu_layer` can compute this minibatch; the links compute all others."""
    config = chainer.config
    arrays = x, l.W.array, l.b.array, bn.gamma.array, bn.beta.array, bn.avg_mean, bn.avg_var
    return (
        config.train
        and not config.in_recomputing
        and not config.keep_graph_on_report
        and l.bits <= 8
        and accept(*arrays)
        # A single row has no statistics, and a derived link may have those of several processes.
        and len(x) > 1
        and type(bn) is L.BatchNormalization
        and x.ndim == 2
        and x.shape[1] == l.W.shape[1]
    )


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
