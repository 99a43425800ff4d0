"""Linear layer with a binary weight."""

from chainer_compat import chainer

from function_binary_linear import binary_linear


class BinaryLinear(chainer.links.Linear):
    """Linear layer that computes with the signs of its weight.

    It owns the real-valued W that the optimizer updates, and binarizes it in each forward pass:
    see :func:`~function_binary_linear.binary_linear` for the formula. The weight that takes part
    in the computation is ``binarize(layer.W.array)``. The number of bits of that weight, ``bits``,
    is saved with the link.

    Args:
        in_size (int or None): Input size K. If None, it is taken from the first input.
        out_size (int): Output size M. If only one size is given, it is this one.
        nobias (bool): If True, there is no b.
        initialW (initializer): Initial W, of shape (M, K); by default normal with standard
            deviation sqrt(1/K).
        initial_bias (initializer): Initial b, of shape (M,); by default 0.

    Attributes:
        W (~chainer.Parameter): Real-valued weight.
        b (~chainer.Parameter): Bias, or None.
        bits (int): 1.
    """

    def __init__(self, in_size, out_size=None, nobias=False, initialW=None, initial_bias=None):
        super().__init__(in_size, out_size, nobias, initialW, initial_bias)
        self.add_persistent('bits', 1)

    def function(self, x, n_batch_axes):
        return binary_linear(x, self.W, self.b, n_batch_axes)

    def forward(self, x, n_batch_axes=1):
        """Applies the layer.

        Args:
            x (:class:`~chainer.Variable` or array): Float array of shape (N, K), or of more axes;
                all axes after the first ``n_batch_axes`` are flattened into one of size K.
            n_batch_axes (int): Number of leading axes of ``x`` that make up the minibatch.

        Returns:
            ~chainer.Variable: Float array of shape (N, M).
        """
        if self.W.array is None:
            self._initialize_params(chainer.utils.size_of_shape(x.shape[n_batch_axes:]))
        return self.function(x, n_batch_axes)
