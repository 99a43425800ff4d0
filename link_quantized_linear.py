"""Linear layer with a weight of a few bits."""

from function_quantized_linear import quantized_linear
from link_binary_linear import BinaryLinear
from qst import check_bits


class QuantizedLinear(BinaryLinear):
    """:class:`~link_binary_linear.BinaryLinear` with 2^bits levels in [-1, 1] instead of two.

    Like ``BinaryLinear``, it owns the real-valued W; see
    :func:`~function_quantized_linear.quantized_linear` for the formula. The weight that takes part
    in the computation is ``quantize(layer.W.array, layer.bits)``.

    Args:
        in_size, out_size, nobias, initialW, initial_bias: As for ``BinaryLinear``.
        bits (int): Number of bits of the weight, 1 to 8.

    Attributes:
        W, b: As for ``BinaryLinear``.
        bits (int): Number of bits of the weight. It is saved and loaded with the link.

    Raises:
        ValueError: If ``bits`` is not a whole number from 1 to 8.
    """

    def __init__(
        self, in_size, out_size=None, nobias=False, initialW=None, initial_bias=None, bits=4
    ):
        super().__init__(in_size, out_size, nobias, initialW, initial_bias)
        self.bits = check_bits(bits)

    @property
    def printable_specs(self):
        yield from super().printable_specs
        yield 'bits', self.bits

    def function(self, x, n_batch_axes):
        return quantized_linear(x, self.W, self.b, self.bits, n_batch_axes)
