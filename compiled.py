"""The CPU's loops that NumPy makes in many passes over memory, made in one: compiled by Numba.

Each computes what the NumPy code of its caller does, operation by operation in the same order, and so the same to
the bit (the tests compare them). Where Numba is missing, every name here that ends in ``_loop`` is None, and the
callers do without: a training step of the default nets then takes about twice as long (benchmarks/README.md).
"""
import numpy

missing = None  # why there is no compiled loop, if there is none


def compiled(loop):
    """The loop compiled for the types that it is first called with, and kept beside this file; or None."""
    global missing
    try:
        import numba
        return numba.njit(loop, cache=True, error_model='numpy')
    except (ImportError, RuntimeError) as e:  # Numba raises the second if it finds no folder to cache in
        missing = e
        return None


def fits(*arrays):
    """Whether the loops can take these arrays: contiguous on the CPU, and all float32 or all float64."""
    return missing is None and all(
        isinstance(a, numpy.ndarray) and a.flags.c_contiguous and a.dtype == arrays[0].dtype for a in arrays
    ) and arrays[0].dtype in (numpy.float32, numpy.float64)


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
def adam_loop(w, g, m, v, one_minus_beta1, one_minus_beta2, eps, alpha_t, eta, low, high):
    """Adam's update of the parameter w and its moments m and v, in place, by the gradient g; all of shape (n,).

    w is clipped to [low, high].
    """
    for i in range(w.size):
        gi = g[i]
        mi = m[i] + one_minus_beta1 * (gi - m[i])
        vi = v[i] + one_minus_beta2 * (gi * gi - v[i])
        m[i], v[i] = mi, vi
        wi = w[i] - alpha_t / (numpy.sqrt(vi) + eps) * mi * eta
        w[i] = low if wi < low else high if wi > high else wi


@compiled
def normalize_loop(x, gamma, beta, eps, mean, var, inv_std, y):
    """Batch normalization of x of shape (N, M): writes y and, of shape (M,), the statistics."""
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
    for i in range(len(x)):
        for j in range(units):
            y[i, j] = (x[i, j] - mean[j]) * inv_std[j] * gamma[j] + beta[j]


@compiled
def normalize_backward_loop(x, gy, gamma, mean, inv_std, inv_n, gx, ggamma, gbeta):
    """Its gradients, written to gx, ggamma and gbeta."""
    units = x.shape[1]
    ggamma[:] = 0
    gbeta[:] = 0
    for i in range(len(x)):
        for j in range(units):
            ggamma[j] += gy[i, j] * ((x[i, j] - mean[j]) * inv_std[j])
            gbeta[j] += gy[i, j]
    for i in range(len(x)):
        for j in range(units):
            x_hat = (x[i, j] - mean[j]) * inv_std[j]
            gx[i, j] = gamma[j] * inv_std[j] * (gy[i, j] - (x_hat * ggamma[j] + gbeta[j]) * inv_n)
