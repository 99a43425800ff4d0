"""Linear layer with a binary weight."""
import chainer_compat  # noqa: F401  (before Chainer)
import chainer.links as L
from chainer.utils import size_of_shape

from function_binary_linear import binary_linear


class BinaryLinear(L.Linear):
    """Linear layer that computes with the signs of its weight.

    It holds the real-valued W that the optimizer moves, and binarizes it whenever it is applied:
    see :func:`~function_binary_linear.binary_linear` for the formula. The weight that acts is
    ``binarize(layer.W.array)``. A file the link is saved to also holds ``bits``, the number of bits of
    that weight.

    Args:
        in_size (int or None): Input size K. If None, it is taken from the first input.
        out_size (int): Output size M. If only one size is given, it is this one.
        nobias (bool): If True, there is no b.
        initialW (initializer): Initial W, of shape (M, K); by default normal with deviation sqrt(1/K).
        initial_bias (initializer): Initial b, of shape (M,); by default 0.

    Attributes:
        W (~chainer.Parameter): Real-valued weight.
        b (~chainer.Parameter): Bias, or None.
        bits (int): 1.
    """

    def __init__(self, in_size, out_size=None, nobias=False, initialW=None, initial_bias=None):
        super().__init__(in_size, out_size, nobias, initialW, initial_bias)
        self.add_persistent('bits', 1)

    def linear(self, x, n_batch_axes):
        return binary_linear(x, self.W, self.b, n_batch_axes)

    def forward(self, x, n_batch_axes=1):
        """Applies the layer.

        Args:
            x (:class:`~chainer.Variable` or array): Float array of shape (N, K), or of more axes, of
                which all after the first ``n_batch_axes`` are taken as one of size K.
            n_batch_axes (int): Number of leading axes of ``x`` that make up the minibatch.

        Returns:
            ~chainer.Variable: Float array of shape (N, M).
        """
        if self.W.array is None:
            self._initialize_params(size_of_shape(x.shape[n_batch_axes:]))
        return self.linear(x, n_batch_axes)
