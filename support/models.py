"""Saved nets: what they are, and how to load them."""

import math

import numpy

from fast import BinaryMLP, QuantizedMLP
from net import MLP, FloatMLP
from pictures.layout import Layout, measure_layout
from support.files import arrays_of, read_npz, restore


def describe(arrays):
    """Says in words which net a saved model holds.

    Args:
        arrays (dict): The arrays of a saved :class:`~net.MLP`, by name.

    Returns:
        str: For example ``a binary net 784-1000-1000-10``.

    Raises:
        ValueError: If the arrays are not those of such a net.
    """
    try:
        n_layers = sum(name.endswith('/W') for name in arrays)
        weights = [arrays[f'l{i}/W'] for i in range(1, n_layers + 1)]
        sizes = '-'.join(str(n) for n in [weights[0].shape[1]] + [len(W) for W in weights])
        # All layers must have the same number of bits.
        (weight_bits,) = {int(arrays[f'l{i}/bits']) for i in range(1, n_layers + 1)}
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


def describe_net(net):
    """Says in words which net this is, as :func:`describe` does of a saved one."""
    return describe(arrays_of(net))


def remember_layout(net, images, transposed):
    """Makes the net's saved model say how the images that it is trained on look and are scaled."""
    net.add_persistent('pixel_scale', net.pixel_scale)
    layout = measure_layout(images)._replace(transposed=int(transposed))
    net.add_persistent('layout', numpy.array(layout, numpy.int32))


def remember_accuracy(net, accuracy):
    """Makes the net's saved model say its accuracy on the test images."""
    net.add_persistent('accuracy', numpy.array(accuracy, numpy.float32))


def layout_of(arrays, n_in):
    """How the images look that a saved or packed net was trained on.

    Args:
        arrays (dict): The arrays of the model, by name. Without ``layout``, as in older models,
            the images are square and otherwise like those of MNIST.
        n_in (int): Number of pixels.

    Returns:
        ~pictures.layout.Layout: The layout; None if the pixels of an older model do not make up
        a square.

    Raises:
        ValueError: If the model states a layout that cannot be.
    """
    if 'layout' not in arrays:
        side = math.isqrt(n_in)
        box = max(1, round(side * 20 / 28))
        return Layout(side, side, box, box) if side * side == n_in else None
    array = arrays['layout']
    if array.shape == (6,) and array.dtype.kind == 'i':
        rows, columns, height, width, dark, transposed = map(int, array)
        fits = rows * columns == n_in and 1 <= height <= rows and 1 <= width <= columns
        if fits and rows > 0 and dark in (0, 1) and transposed in (0, 1):
            return Layout(rows, columns, height, width, dark, transposed)
    raise ValueError('it states a layout of its images that cannot be')


def load(path, arrays):
    """Makes the net that a saved model holds.

    Args:
        path (str): The file, for messages.
        arrays (dict): What :func:`~support.files.read_npz` read from it.

    Returns:
        ~net.MLP: The net, on the CPU.

    Raises:
        ValueError: If the arrays are not those of such a net; the message names the file.
    """
    try:
        describe(arrays)
        n_layers = sum(name.endswith('/W') for name in arrays) - 1
        n_units, n_in = arrays['l1/W'].shape
        sizes = n_in, n_units, len(arrays[f'l{n_layers + 1}/W']), n_layers
        bits = int(arrays['l1/bits']), int(arrays['activation_bits'])
        net = (
            BinaryMLP(*sizes)
            if bits == (1, 1)
            else FloatMLP(*sizes)
            if bits == (32, 32)
            else QuantizedMLP(*sizes, *bits)
        )
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if 'signed_pixels' in arrays:
        net.use_signed_pixels()
    if 'pixel_scale' in arrays:
        net.add_persistent('pixel_scale', 0)
    else:
        net.pixel_scale = 255  # an older model
    for name in 'layout', 'accuracy':
        if name in arrays:
            net.add_persistent(name, arrays[name].copy())
    restore(path, arrays, net)
    if net.pixel_scale not in (255, MLP.pixel_scale):
        raise ValueError(
            f'{path}: its pixels are divided by {net.pixel_scale}, not by {MLP.pixel_scale}'
        )
    return net


def initialize(path, net):
    """Gives a net the parameters of a saved model.

    Args:
        path (str): The file.
        net (~net.MLP): The net.

    Raises:
        ValueError: If the file is damaged or holds another net; the message says which.
        OSError: If the file cannot be opened.
    """
    arrays = read_npz(path)
    ours = describe_net(net)
    try:
        theirs = describe(arrays)
    except ValueError as e:
        raise ValueError(f'{path}: {e}') from e
    if theirs != ours:
        raise ValueError(f'{path}: holds {theirs}, but this training is of {ours}')
    for name in 'layout', 'pixel_scale':  # the parameters are taken over, but not the data
        if hasattr(net, name):
            arrays[name] = numpy.asarray(getattr(net, name))
    restore(path, arrays, net)
