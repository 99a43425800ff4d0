"""Binarization, and the binary activation with a straight-through estimator (STE)."""

from chainer_compat import chainer
from chainer import utils
from chainer.backends import cuda
from chainer.utils import type_check
import numpy


def binarize(a):
    """Sign of each element, with 0 and -0.0 counted as positive.

    .. math:: binarize(a) = +1 \\text{ if } a \\ge 0, \\text{ else } -1

    NaN gives -1. On a GPU, float32 subnormals count as 0, as in all of CuPy's kernels, so that
    negative ones give +1.

    Args:
        a (numpy.ndarray or cupy.ndarray): Float array of any shape.

    Returns:
        numpy.ndarray or cupy.ndarray: Array of +1 and -1 with the shape and dtype of ``a``.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, equation 1.
    """
    if isinstance(a, cuda.ndarray):
        return cuda.elementwise('T a', 'T y', 'y = a >= (T)0 ? (T)1 : (T)-1', 'binarize')(a)
    # numpy.where with two scalars would take several times as long as this arithmetic.
    y = numpy.empty_like(a)
    numpy.greater_equal(a, 0, out=y)
    y *= 2
    y -= 1
    return y


class BST(chainer.FunctionNode):
    """Binarization whose gradient passes straight through where the input is in [-1, 1]."""

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('x',))
        type_check.expect(in_types[0].dtype.kind == 'f')

    def quantize(self, x):
        return binarize(x)

    def forward(self, inputs):
        (x,) = inputs
        if chainer.config.enable_backprop:
            # Backward needs no more than this: one byte per element.
            self.inside = utils.force_array(abs(x) <= 1)
        return (self.quantize(x),)

    def backward(self, indexes, grad_outputs):
        return STEGrad(self.inside).apply(grad_outputs)


class STEGrad(chainer.FunctionNode):
    """gx = gy inside [-1, 1], 0 outside. It is linear in gy, so it is its own backward."""

    def __init__(self, inside):
        self.inside = inside

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('gy',))
        type_check.expect(in_types[0].dtype.kind == 'f')

    def forward(self, inputs):
        (gy,) = inputs
        return (utils.force_array(gy * self.inside, gy.dtype),)

    def backward(self, indexes, grad_outputs):
        return STEGrad(self.inside).apply(grad_outputs)


def bst(x):
    """Binary activation with a straight-through estimator.

    Forward :math:`y = binarize(x)`; backward

    .. math:: g_x = g_y \\text{ if } |x| \\le 1, \\text{ else } 0.

    The derivative of the sign is 0 almost everywhere and would stop all learning. The estimator
    uses the derivative of the hard tanh, clip(x, -1, 1), instead.

    Args:
        x (:class:`~chainer.Variable` or array): Float array of any shape.

    Returns:
        ~chainer.Variable: Array of +1 and -1 with the shape and dtype of ``x``.

    Raises:
        chainer.utils.type_check.InvalidType: If ``x`` is not a float array.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, equation 4.

    .. admonition:: Example

        >>> x = numpy.array([-2, -0.5, 0, 0.5, 2], 'f')
        >>> bst(x).array
        array([-1., -1.,  1.,  1.,  1.], dtype=float32)
    """
    (y,) = BST().apply((x,))
    return y
