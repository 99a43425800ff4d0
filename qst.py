"""Quantization to a few bits, and the activation with a straight-through estimator (STE)."""

from chainer_compat import chainer
import numpy

from bst import BST, binarize


def check_bits(bits):
    """Returns ``bits`` as an int.

    Raises:
        ValueError: If ``bits`` is not a whole number from 1 to 8.
    """
    if bits not in range(1, 9):
        raise ValueError(f'bits must be a whole number from 1 to 8, not {bits!r}')
    return int(bits)


def quantize(a, bits):
    """The nearest of 2^bits evenly spaced levels from -1 to +1.

    With :math:`n = 2^{bits} - 1`,

    .. math:: quantize(a) = binarize(a) \\min(2 \\lfloor n |a| / 2 \\rfloor + 1, n) / n

    The levels are the odd multiples of 1/n. They are 2/n apart and symmetric about 0, which is
    not one of them. Values beyond -1 and +1 saturate, and ties round away from zero. One bit is
    exactly :func:`~bst.binarize`; with more bits, NaN stays NaN, and subnormals on a GPU have the
    sign that they have there. float16 is computed in float32 and rounded once.

    Args:
        a (numpy.ndarray or cupy.ndarray): Float array of any shape.
        bits (int): Number of bits, 1 to 8.

    Returns:
        numpy.ndarray or cupy.ndarray: Array of levels with the shape and dtype of ``a``.

    Raises:
        ValueError: If ``bits`` is not a whole number from 1 to 8.

    Source: after Hubara et al., Quantized Neural Networks, arXiv:1609.07061, section 4, with the
    levels placed so that one bit is the binary net.
    """
    n = 2 ** check_bits(bits) - 1
    if n == 1:
        return binarize(a)
    if isinstance(a, chainer.backends.cuda.ndarray):
        real = 'double' if a.dtype == numpy.float64 else 'float'
        return chainer.backends.cuda.elementwise(
            'T a, int32 n',
            'T y',
            f"""{real} x = a;
                x = x > 1 ? 1 : x < -1 ? -1 : x;
                y = (T)((2 * trunc(x * n / 2) + (a >= (T)0 ? 1 : -1)) / n)""",
            f'quantize_{real}',
        )(a, n)
    # For a signed a, 2 floor(n |a| / 2) + 1 is 2 trunc(n a / 2) + binarize(a). Clipping first
    # keeps n a from overflowing.
    y = numpy.asarray(numpy.clip(a, -1, 1, dtype=numpy.promote_types(a.dtype, numpy.float32)))
    y *= n / 2
    numpy.trunc(y, out=y)
    y *= 2
    y += binarize(a)
    y /= n
    return numpy.asarray(y, a.dtype)


class QST(BST):
    """:class:`~bst.BST` with more than two levels; the gradient is the same."""

    def __init__(self, bits):
        self.bits = check_bits(bits)

    def quantize(self, x):
        return quantize(x, self.bits)


def qst(x, bits):
    """Quantized activation with a straight-through estimator.

    Forward :math:`y = quantize(x, bits)`; backward

    .. math:: g_x = g_y \\text{ if } |x| \\le 1, \\text{ else } 0.

    Args:
        x (:class:`~chainer.Variable` or array): Float array of any shape.
        bits (int): Number of bits, 1 to 8. One bit is :func:`~bst.bst`.

    Returns:
        ~chainer.Variable: Array of levels in [-1, 1] with the shape and dtype of ``x``.

    Raises:
        ValueError: If ``bits`` is not a whole number from 1 to 8.
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array.

    Source: Hubara et al., Quantized Neural Networks, arXiv:1609.07061.

    .. admonition:: Example

        >>> x = numpy.array([-2, -0.5, 0, 0.5, 2], 'f')
        >>> qst(x, bits=2).array
        array([-1.        , -0.33333334,  0.33333334,  0.33333334,  1.        ],
              dtype=float32)
    """
    (y,) = QST(bits).apply((x,))
    return y
