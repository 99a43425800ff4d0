"""The multilayer perceptron: linear -> batch normalization -> activation."""

from chainer_compat import chainer
import chainer.functions as F
import chainer.links as L

from bst import bst
from link_binary_linear import BinaryLinear
from link_quantized_linear import QuantizedLinear
from qst import check_bits, qst


class MLP(chainer.Chain):
    """Base class of the nets below: everything but the linear layer and the activation.

    Each hidden layer is ``linear -> batch normalization -> activation``, the last layer
    ``linear -> batch normalization``. The outputs are the unnormalized log probabilities (logits)
    of the classes. The links are named ``l1``, ``bn1``, ``l2`` and so on.

    Args:
        n_in (int): Number of inputs (pixels).
        n_units (int): Number of units of each hidden layer.
        n_out (int): Number of outputs (classes).
        n_layers (int): Number of hidden layers.

    Attributes:
        dropout_input (float): Dropout ratio of the inputs; 0 unless set.
        dropout_hidden (float): Dropout ratio of the hidden activations; 0 unless set.
        pixel_scale (int): What pixels are divided by.
        signed_pixels (int): 1 after :meth:`use_signed_pixels`.
    """

    dropout_input = 0.0
    dropout_hidden = 0.0
    # With a power of two, float32 holds every sum of pixels times +1 and -1 exactly, so a binary
    # net's sums are the same on every CPU and GPU.
    pixel_scale = 256
    signed_pixels = 0

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__()
        self.n_layers = n_layers
        sizes = [n_in] + [n_units] * n_layers + [n_out]
        with self.init_scope():
            for i in range(1, n_layers + 2):
                setattr(self, f'l{i}', self.make_linear(sizes[i - 1], sizes[i]))
                setattr(self, f'bn{i}', L.BatchNormalization(sizes[i]))

    def use_signed_pixels(self):
        """Makes the net rescale its inputs from [0, 1) to [-1, 1). This is saved with the net."""
        self.add_persistent('signed_pixels', 1)

    def forward(self, x):
        """Computes the logits.

        Args:
            x (:class:`~chainer.Variable` or array): Pixels, an array of shape (N, n_in): bytes, or
                floats in [0, 1).

        Returns:
            ~chainer.Variable: Float array of shape (N, n_out).
        """
        if x.dtype.kind in 'iu':
            dtype = self.l1.W.dtype
            x = chainer.as_array(x).astype(dtype) / dtype.type(self.pixel_scale)
        if self.signed_pixels:
            x = 2 * x - 1
        if self.dropout_input:
            x = F.dropout(x, self.dropout_input)
        for i in range(1, self.n_layers + 1):
            x = self.layer(i, x)
            if self.dropout_hidden:
                x = F.dropout(x, self.dropout_hidden)
        return self.layer(self.n_layers + 1, x)

    def layer(self, i, x):
        """Applies layer i, counted from 1."""
        x = self[f'l{i}'](x)
        x = self[f'bn{i}'](x)
        return self.activation(x) if i <= self.n_layers else x


class BinaryMLP(MLP):
    """MLP with weights and activations of one bit: see :class:`MLP` for the arguments.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830.
    """

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__(n_in, n_units, n_out, n_layers)
        self.add_persistent('activation_bits', 1)

    def make_linear(self, n_in, n_out):
        return BinaryLinear(n_in, n_out)

    def activation(self, x):
        return bst(x)


class QuantizedMLP(MLP):
    """MLP with weights and activations of a few bits: see :class:`MLP` for the other arguments.

    Args:
        weight_bits (int): Number of bits of the weights, 1 to 8.
        activation_bits (int): Number of bits of the activations, 1 to 8.

    Raises:
        ValueError: If a number of bits is not a whole number from 1 to 8.

    Source: Hubara et al., Quantized Neural Networks, arXiv:1609.07061.
    """

    def __init__(self, n_in, n_units, n_out, n_layers=2, weight_bits=4, activation_bits=4):
        self.weight_bits = check_bits(weight_bits)
        super().__init__(n_in, n_units, n_out, n_layers)
        self.add_persistent('activation_bits', check_bits(activation_bits))

    def make_linear(self, n_in, n_out):
        return QuantizedLinear(n_in, n_out, bits=self.weight_bits)

    def activation(self, x):
        return qst(x, self.activation_bits)


class FloatMLP(MLP):
    """MLP with full-precision weights and the hard tanh clip(x, -1, 1), for comparison.

    See :class:`MLP` for the arguments. The hard tanh is the function whose derivative the
    straight-through estimator uses.
    """

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__(n_in, n_units, n_out, n_layers)
        self.add_persistent('activation_bits', 32)

    def make_linear(self, n_in, n_out):
        link = L.Linear(n_in, n_out)
        link.add_persistent('bits', 32)
        return link

    def activation(self, x):
        return F.clip(x, -1.0, 1.0)
