"""Linear function with a binary weight."""

from chainer_compat import chainer
import chainer.functions as F
from chainer.utils import type_check

from bst import binarize


class BinaryWeight(chainer.FunctionNode):
    """Binarizes a weight. The gradient passes straight through, so nothing is kept for it."""

    def check_type_forward(self, in_types):
        type_check._argname(in_types, ('W',))
        type_check.expect(in_types[0].dtype.kind == 'f', in_types[0].ndim == 2)

    def forward(self, inputs):
        (W,) = inputs
        return (binarize(W),)

    def backward(self, indexes, grad_outputs):
        return grad_outputs


def binary_linear(x, W, b=None, n_batch_axes=1):
    """Linear function, or affine transformation, with a weight of +1 and -1.

    With :math:`W_b = binarize(W)`,

    .. math:: y = x W_b^T + b

    and the gradients, for a minibatch of N inputs, are

    .. math:: g_x = g_y W_b, \\quad g_W = g_y^T x, \\quad g_b = \\sum_N g_y.

    The gradient with respect to :math:`W_b` is passed unchanged to the real-valued W (the
    straight-through estimator). :class:`~weight_clip.WeightClip` keeps W where its sign can still
    change.

    Args:
        x (:class:`~chainer.Variable` or array): Float array of shape (N, K), or of more axes; all
            axes after the first ``n_batch_axes`` are flattened into one of size K.
        W (:class:`~chainer.Variable` or array): Real-valued weight, a float array of shape (M, K).
        b (:class:`~chainer.Variable` or array): Bias of shape (M,) with the dtype of ``x``;
            optional.
        n_batch_axes (int): Number of leading axes of ``x`` that make up the minibatch.

    Returns:
        ~chainer.Variable: Float array of shape (N, M) with the dtype of ``x``.

    Raises:
        chainer.utils.type_check.InvalidType: If an argument is not a float array, or the shapes
            do not match.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, algorithm 1.
    """
    (Wb,) = BinaryWeight().apply((W,))
    return F.linear(x, Wb, b, n_batch_axes=n_batch_axes)
