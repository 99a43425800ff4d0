"""Linear function with a weight of a few bits."""

from chainer_compat import chainer

from function_binary_linear import BinaryWeight
from qst import check_bits, quantize


class QuantizedWeight(BinaryWeight):
    """Quantizes a weight. The gradient passes straight through, as in :class:`BinaryWeight`."""

    def __init__(self, bits):
        self.bits = check_bits(bits)

    def forward(self, inputs):
        (W,) = inputs
        return (quantize(W, self.bits),)


def quantized_linear(x, W, b=None, bits=4, n_batch_axes=1):
    """Linear function, or affine transformation, with a weight of 2^bits levels in [-1, 1].

    With :math:`W_q = quantize(W, bits)`,

    .. math:: y = x W_q^T + b

    and the gradients, for a minibatch of N inputs, are

    .. math:: g_x = g_y W_q, \\quad g_W = g_y^T x, \\quad g_b = \\sum_N g_y

    (the straight-through estimator). With one bit, this is
    :func:`~function_binary_linear.binary_linear`.

    Args:
        x (:class:`~chainer.Variable` or array): Float array of shape (N, K), or of more axes; all
            axes after the first ``n_batch_axes`` are flattened into one of size K.
        W (:class:`~chainer.Variable` or array): Real-valued weight, a float array of shape (M, K).
        b (:class:`~chainer.Variable` or array): Bias of shape (M,) with the dtype of ``x``;
            optional.
        bits (int): Number of bits of the weight, 1 to 8.
        n_batch_axes (int): Number of leading axes of ``x`` that make up the minibatch.

    Returns:
        ~chainer.Variable: Float array of shape (N, M) with the dtype of ``x``.

    Raises:
        ValueError: If ``bits`` is not a whole number from 1 to 8.
        chainer.utils.type_check.InvalidType: If an argument is not a float array, or the shapes
            do not match.

    Source: Hubara et al., Quantized Neural Networks, arXiv:1609.07061.
    """
    (Wq,) = QuantizedWeight(bits).apply((W,))
    return chainer.functions.linear(x, Wq, b, n_batch_axes=n_batch_axes)
