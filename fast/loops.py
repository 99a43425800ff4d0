"""Loops compiled with Numba: single passes over memory where NumPy needs several.

Each loop performs the operations of the NumPy code it replaces, in the same order, so the results
are the same to the bit (the tests compare them). Where Numba is missing, every name here that ends
in ``_loop`` is None, ``missing`` says why, and :func:`accept` is always False.
"""

import numpy

try:
    from fast.kernels import prefetch_to_read, prefetch_to_write
except (ImportError, OSError):
    pass  # compiled() says why

missing = None

LINE = 16  # numbers of float32 in a cache line
AHEAD = 1024  # numbers that a loop asks for before it uses them


def compiled(loop):
    """Compiles a loop for the types of its first call, and caches it on disk; or returns None."""
    global missing
    try:
        from fast.cache import njit

        return njit(error_model='numpy')(loop)
    except (ImportError, OSError) as e:  # OSError: llvmlite's library cannot be loaded
        missing = e
    return None


def accept(*arrays):
    """Whether the loops can take these arrays: C-contiguous NumPy arrays of one float type."""
    return (
        missing is None
        and all(
            isinstance(a, numpy.ndarray) and a.flags.c_contiguous and a.dtype == arrays[0].dtype
            for a in arrays
        )
        and arrays[0].dtype in (numpy.float32, numpy.float64)
    )


def quantize(a, bits):
    """:func:`qst.quantize` of an array that :func:`accept` takes."""
    y = numpy.empty_like(a)
    if bits == 1:
        binarize_loop(a.reshape(-1), y.reshape(-1))
    else:
        quantize_loop(a.reshape(-1), a.dtype.type(2**bits - 1), y.reshape(-1))
    return y


@compiled
def binarize_loop(a, y):
    """:func:`bst.binarize`: y = binarize(a), of shape (size,)."""
    plus, minus = a.dtype.type(1), a.dtype.type(-1)
    for i in range(a.size):
        y[i] = plus if a[i] >= 0 else minus


@compiled
def quantize_loop(a, n, y):
    """:func:`qst.quantize`: y = quantize(a) with n = 2^bits - 1, of shape (size,)."""
    plus, minus = a.dtype.type(1), a.dtype.type(-1)
    half_n = n / a.dtype.type(2)
    for i in range(a.size):
        cut = plus if a[i] > plus else minus if a[i] < minus else a[i]
        level = numpy.trunc(cut * half_n)
        y[i] = (level + level + (plus if a[i] >= 0 else minus)) / n


@compiled
def _adam_update_loop(
    i, w, g, m, v, one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high
):
    """:func:`adam_loop` for one element."""
    gi = g[i]
    mi = m[i] + one_minus_beta1 * (gi - m[i])
    vi = v[i] + one_minus_beta2 * (gi * gi - v[i])
    m[i], v[i] = mi, vi
    wi = w[i] - alpha_t / (numpy.sqrt(vi) + eps) * mi * eta
    w[i] = low if wi < low else high if wi > high else wi


@compiled
def adam_loop(w, g, m, v, one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high):
    """Adam's update of the parameter w and its moments m and v, in place, by the gradient g; all
    of shape (n,).

    w is clipped to [low, high]. Memory is slower than the arithmetic, so the loop asks for cache
    lines ahead of their use.
    """
    whole = w.size // LINE * LINE
    for start in range(0, whole, LINE):
        ahead = start + AHEAD
        prefetch_to_read(g, ahead)
        prefetch_to_write(w, ahead)
        prefetch_to_write(m, ahead)
        prefetch_to_write(v, ahead)
        for i in range(start, start + LINE):
            _adam_update_loop(
                i, w, g, m, v, one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high
            )
    for i in range(whole, w.size):
        _adam_update_loop(
            i, w, g, m, v, one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high
        )


@compiled
def statistics_loop(x, eps, mean, var, inv_std):
    """Writes mean, variance and 1 / sqrt(variance + eps), of shape (M,), of x of shape (N, M)."""
    units, n, one = x.shape[1], x.dtype.type(len(x)), x.dtype.type(1)
    mean[:] = 0
    for i in range(len(x)):
        for j in range(units):
            mean[j] += x[i, j]
    for j in range(units):
        mean[j] /= n
    var[:] = 0
    for i in range(len(x)):
        for j in range(units):
            difference = x[i, j] - mean[j]
            var[j] += difference * difference
    for j in range(units):
        var[j] /= n
        inv_std[j] = one / numpy.sqrt(var[j] + eps)


@compiled
def normalize_loop(x, gamma, beta, mean, inv_std, y):
    """Batch normalization with given statistics: writes y of shape (N, M)."""
    for i in range(len(x)):
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - mean[j]) * inv_std[j] * gamma[j] + beta[j]


@compiled
def normalize_backward_loop(x, gz, inside, gamma, mean, inv_std, inv_n, gx, ggamma, gbeta):
    """Writes the gradients of batch normalization to gx, ggamma and gbeta.

    The gradient of its output is gz where inside is True, and 0 elsewhere.
    """
    units, zero, one = x.shape[1], x.dtype.type(0), x.dtype.type(1)
    ggamma[:] = 0
    gbeta[:] = 0
    for i in range(len(x)):
        for j in range(units):
            gy = gz[i, j] * (one if inside[i, j] else zero)
            ggamma[j] += gy * ((x[i, j] - mean[j]) * inv_std[j])
            gbeta[j] += gy
    for i in range(len(x)):
        for j in range(units):
            gy = gz[i, j] * (one if inside[i, j] else zero)
            x_hat = (x[i, j] - mean[j]) * inv_std[j]
            gx[i, j] = gamma[j] * inv_std[j] * (gy - (x_hat * ggamma[j] + gbeta[j]) * inv_n)
