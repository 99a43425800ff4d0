"""The multilayer perceptron: linear -> batch normalization -> activation."""
import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import chainer.functions as F
import chainer.links as L

from bst import bst
from fused_layer import fits, fused_layer
from link_binary_linear import BinaryLinear
from link_quantized_linear import QuantizedLinear
from qst import check_bits, qst
from storage import restore


class MLP(chainer.Chain):
    """What the nets below share: all but the linear layer and the activation.

    ``linear -> batch normalization -> activation`` for each hidden layer, and
    ``linear -> batch normalization`` at the end; its outputs are the unnormalized log probabilities
    (logits) of the classes. The layers are ``l1``, ``bn1``, ``l2`` and so on.

    Args:
        n_in (int): Number of inputs (pixels).
        n_units (int): Number of units of each hidden layer.
        n_out (int): Number of outputs (classes).
        n_layers (int): Number of hidden layers.

    Attributes:
        dropout_input (float): Share of the inputs that dropout leaves out in training; 0 at first.
        dropout_hidden (float): Share of the hidden activations, likewise.
    """
    dropout_input = 0.0
    dropout_hidden = 0.0
    signed_pixels = 0

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__()
        self.n_layers = n_layers
        sizes = [n_in] + [n_units] * n_layers + [n_out]
        with self.init_scope():
            for i in range(1, n_layers + 2):
                setattr(self, f'l{i}', self.linear(sizes[i - 1], sizes[i]))
                setattr(self, f'bn{i}', L.BatchNormalization(sizes[i]))

    def use_signed_pixels(self):
        """Has the net compute with pixels in [-1, 1]: it takes them in [0, 1] as ever, and a saved model says so."""
        self.add_persistent('signed_pixels', 1)

    def forward(self, x):
        """Computes the logits.

        Args:
            x (:class:`~chainer.Variable` or array): Float array of shape (N, n_in), pixels in [0, 1].

        Returns:
            ~chainer.Variable: Float array of shape (N, n_out).
        """
        if self.signed_pixels:
            x = 2 * x - 1
        if self.dropout_input:
            x = F.dropout(x, self.dropout_input)
        for i in range(1, self.n_layers + 2):
            l, bn, hidden = self[f'l{i}'], self[f'bn{i}'], i <= self.n_layers
            if fits(x, l, bn):
                x = fused_layer(x, l, bn, self.activation_bits if hidden else 0)  # the same, faster
            else:
                x = bn(l(x))
                if hidden:
                    x = self.activation(x)
            if hidden and self.dropout_hidden:
                x = F.dropout(x, self.dropout_hidden)
        return x

    def describe(self):
        """Says in words which net this is, as :func:`describe` does of a saved one."""
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(self)
        return describe(serializer.target)


class BinaryMLP(MLP):
    """MLP with weights and activations of one bit: see :class:`MLP` for the arguments.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830.
    """

    linear = BinaryLinear

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__(n_in, n_units, n_out, n_layers)
        self.add_persistent('activation_bits', 1)

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

    def linear(self, n_in, n_out):
        return QuantizedLinear(n_in, n_out, bits=self.weight_bits)

    def activation(self, x):
        return qst(x, self.activation_bits)


class FloatMLP(MLP):
    """MLP with full-precision weights, and the hard tanh clip(x, -1, 1) as activation: the yardstick of the others.

    See :class:`MLP` for the arguments. What the others do with a straight-through estimator backward is here
    the derivative itself.
    """

    def __init__(self, n_in, n_units, n_out, n_layers=2):
        super().__init__(n_in, n_units, n_out, n_layers)
        self.add_persistent('activation_bits', 32)

    def linear(self, n_in, n_out):
        link = L.Linear(n_in, n_out)
        link.add_persistent('bits', 32)
        return link

    def activation(self, x):
        return F.clip(x, -1.0, 1.0)


def describe(arrays):
    """Says in words which net a saved model holds.

    Args:
        arrays (dict): The arrays of a saved :class:`MLP`, by name.

    Returns:
        str: For example ``a binary net 784-1000-1000-10``.

    Raises:
        ValueError: If the arrays are not those of such a net.
    """
    try:
        weights = [arrays[f'l{i}/W'] for i in range(1, sum(name.endswith('/W') for name in arrays) + 1)]
        sizes = '-'.join(str(n) for n in [weights[0].shape[1]] + [len(W) for W in weights])
        weight_bits, = {int(arrays[f'l{i}/bits']) for i in range(1, len(weights) + 1)}  # the same in all layers
        bits = weight_bits, int(arrays['activation_bits'])
    except (LookupError, ArithmeticError, TypeError, ValueError) as e:
        raise ValueError('not a saved net of this program') from e
    if arrays.get('signed_pixels', 0):
        sizes += ' of signed pixels'
    if bits == (1, 1):
        return f'a binary net {sizes}'
    if bits == (32, 32):
        return f'a float net {sizes}'
    return f'a quantized net {sizes}, W {bits[0]} bits, activations {bits[1]} bits'


def load(path, arrays):
    """Makes the net that a saved model holds.

    Args:
        path (str): The file, for messages.
        arrays (dict): What :func:`~storage.read_npz` read from it.

    Returns:
        MLP: The net, on the CPU.

    Raises:
        ValueError: If the arrays are not those of such a net; the message names the file.
    """
    try:
        describe(arrays)
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    n_layers = sum(name.endswith('/W') for name in arrays) - 1
    n_units, n_in = arrays['l1/W'].shape
    arguments = n_in, n_units, len(arrays[f'l{n_layers + 1}/W']), n_layers
    weight_bits, activation_bits = int(arrays['l1/bits']), int(arrays['activation_bits'])
    try:
        net = (BinaryMLP(*arguments) if weight_bits == activation_bits == 1 else
               FloatMLP(*arguments) if weight_bits == activation_bits == 32 else
               QuantizedMLP(*arguments, weight_bits, activation_bits))
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if 'signed_pixels' in arrays:
        net.use_signed_pixels()
    restore(path, arrays, net)
    return net
