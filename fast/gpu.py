"""All CUDA source of fast/, under the names of fast/layer.py, fast/loops.py and fast/loss.py."""

from chainer.backends import cuda
import numpy

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

# Two groups of n and m numbers with the sums of squares p and q about their means, which differ
# by d, have the sum p + q + d^2 n m / (n + m) together (Chan, Golub and LeVeque, 1979).
MOMENTS = """
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
"""

# The logarithm of the sum of the exponentials of a row.
ROW = """
__device__ float log_sum_exp(const float* y, int classes) {
    float best = y[0], sum = 0;
    for (int k = 1; k < classes; k++)
        if (y[k] > best) best = y[k];
    for (int k = 0; k < classes; k++) sum += expf(y[k] - best);
    return best + logf(sum);
}
"""


def statistics(y, b, bn):
    """Mean and 1 / sqrt(variance + eps) of the columns of y + b; moves the averages of bn."""
    mean, inv_std = (cuda.cupy.empty_like(b) for _ in range(2))
    numbers = (numpy.float32(a) for a in (bn.eps, bn.decay, len(y) / (len(y) - 1)))
    cuda.reduce(
        'T y, T b, T eps, T decay, T unbiased',
        'T mean, T inv_std, T avg_mean, T avg_var',
        'Moments<T>(y + b)',
        'a + b',
        # One expression, since CuPy makes a macro of it.
        'mean = a.mean, inv_std = rsqrt(a.squares / a.n + eps), '
        'avg_mean = decay * avg_mean + (1 - decay) * a.mean, '
        'avg_var = decay * avg_var + (1 - decay) * unbiased * (a.squares / a.n)',
        'Moments<T>()',
        'statistics',
        reduce_type='Moments<T>',
        preamble=MOMENTS,
    )(y, b, *numbers, mean, inv_std, bn.avg_mean, bn.avg_var, axis=0)
    return mean, inv_std


def normalize(y, b, mean, inv_std, gamma, beta, limit):
    """Batch normalization, and which of its results are in [-limit, limit]."""
    return cuda.elementwise(
        'T y, T b, T mean, T inv_std, T gamma, T beta, T limit',
        'T z, bool inside',
        'z = (y + b - mean) * inv_std * gamma + beta; inside = fabs(z) <= limit',
        'normalize',
    )(y, b, mean, inv_std, gamma, beta, numpy.float32(limit))


def normalize_backward(gz, inside, y, b, mean, inv_std, gamma):
    """The gradients of y, gamma and beta."""
    ggamma, gbeta = (cuda.cupy.empty_like(gamma) for _ in range(2))
    cuda.reduce(
        'T gz, bool inside, T y, T b, T mean, T inv_std',
        'T gbeta, T ggamma',
        'Pair<T>(inside ? gz : T(0), inside ? gz * ((y + b - mean) * inv_std) : T(0))',
        'a + b',
        'gbeta = a.first, ggamma = a.second',
        'Pair<T>(0, 0)',
        'normalize_backward_sums',
        reduce_type='Pair<T>',
        preamble=PAIR,
    )(gz, inside, y, b, mean, inv_std, gbeta, ggamma, axis=0)
    gy = cuda.elementwise(
        'T gz, bool inside, T y, T b, T mean, T inv_std, T gamma, T gbeta, T ggamma, T inv_n',
        'T gy',
        """
        T x_hat = (y + b - mean) * inv_std;
        gy = gamma * inv_std * ((inside ? gz : T(0)) - (x_hat * ggamma + gbeta) * inv_n);
        """,
        'normalize_backward',
    )(gz, inside, y, b, mean, inv_std, gamma, gbeta, ggamma, numpy.float32(1 / len(gz)))
    return gy, ggamma, gbeta


@cuda.memoize(for_each_device=True)
def _rows(n):
    return cuda.cupy.arange(n)


def _numbers(y):
    return numpy.int32(y.shape[1]), numpy.float32(1 / len(y))


def softmax_cross_entropy(y, t):
    """The loss."""
    loss = cuda.cupy.empty((), numpy.float32)
    cuda.reduce(
        'int64 row, int32 t, raw float32 y, int32 classes, float32 inv_n',
        'float32 loss',
        'log_sum_exp(&y[row * classes], classes) - y[row * classes + t]',
        'a + b',
        'loss = a * inv_n',
        '0',
        'softmax_cross_entropy',
        preamble=ROW,
    )(_rows(len(y)), t, y, *_numbers(y), loss, axis=0)
    return loss


def softmax_cross_entropy_gradient(y, t, gloss):
    """The gradient of y."""
    return cuda.elementwise(
        'raw float32 y, raw int32 t, int32 classes, float32 inv_n, raw float32 gloss',
        'float32 gy',
        """
        int row = i / classes, k = i % classes;
        float log_sum = log_sum_exp(&y[row * classes], classes);
        gy = gloss[0] * inv_n * (expf(y[i] - log_sum) - (k == t[row] ? 1 : 0));
        """,
        'softmax_cross_entropy_gradient',
        preamble=ROW,
    )(y, t, *_numbers(y), gloss, cuda.cupy.empty_like(y))


def adam(w, g, m, v, *numbers):
    """:func:`fast.loops.adam`."""
    names = 'one_minus_beta1', 'one_minus_beta2', 'eps', 'alpha_t', 'eta', 'low', 'high'
    cuda.elementwise(
        'T g, ' + ', '.join(f'T {name}' for name in names),
        'T w, T m, T v',
        """
        m += one_minus_beta1 * (g - m);
        v += one_minus_beta2 * (g * g - v);
        T moved = w - eta * (alpha_t * m / (sqrt(v) + eps));
        w = moved < low ? low : moved > high ? high : moved;
        """,
        'adam',
    )(g, *numbers, w, m, v)
