"""Saved nets: what they are, and how to load them."""

import math

from chainer_compat import chainer
import numpy

from fast import BinaryMLP, QuantizedMLP
from net import MLP, FloatMLP
from pictures.layout import Layout
from support.files import restore

BITS = {*range(1, 9), 32}  # of a weight or an activation; floats have 32
TEMPERATURES = 1 / 64, 64  # the lowest and the highest


class Checked:
    """The arrays of an untrusted file, each checked as it is taken.

    Args:
        arrays (dict): The arrays by name.
        kind (str): What the file should be, for messages.

    Attributes:
        left (set): Names of the arrays that have not been taken.
    """

    def __init__(self, arrays, kind):
        self.arrays, self.kind, self.left = arrays, kind, set(arrays)

    def check(self, truth, problem):
        """Raises a ValueError that states the problem, unless something is true."""
        if not truth:
            raise ValueError(f'not {self.kind}: {problem}')

    def take(self, name, dtype, shape):
        """An array, which must have this type and shape; floats must be finite."""
        array = self.arrays.get(name, numpy.array(''))
        good = array.dtype == dtype and array.shape == shape
        self.check(good, f'{name} is missing, or of another type or shape')
        if array.dtype.kind == 'f' and not numpy.isfinite(array).all():
            raise ValueError(f'{name} is not finite everywhere')
        self.left.discard(name)
        return array

    def take_whole(self, name, values):
        """A whole number, which must be one of these values."""
        array = self.arrays.get(name, numpy.array(''))
        good = array.shape == () and array.dtype.kind in 'iu' and int(array) in values
        self.check(good, f'{name} is missing or impossible')
        self.left.discard(name)
        return int(array)

    def shapes_of_weights(self, n_axes):
        """The shapes of l1/W, l2/W and so on. There must be two, and none may be empty."""
        n_layers = sum(name.endswith('/W') for name in self.arrays)
        self.check(n_layers <= 1001, 'it has more hidden layers than 1000')
        shapes = [numpy.shape(self.arrays.get(f'l{i}/W')) for i in range(1, n_layers + 1)]
        good = n_layers > 1 and all(len(s) == n_axes and min(s) > 0 for s in shapes)
        self.check(good, 'the weight of a layer is missing or empty')
        return shapes

    def take_layout(self, n_in):
        """The layout of the images, which have n_in pixels.

        Older models do not state it: their images are square and otherwise like MNIST's.
        It is None if the pixels do not make up a square.
        """
        if 'layout' not in self.arrays:
            side = math.isqrt(n_in)
            box = max(1, round(side * 20 / 28))
            return Layout(side, side, box, box) if side * side == n_in else None
        layout = Layout(*self.take('layout', numpy.int32, (6,)).tolist())
        rows, columns, height, width, *flags = layout
        fits = rows * columns == n_in and 1 <= height <= rows and 1 <= width <= columns
        self.check(fits and {*flags} <= {0, 1}, 'it states a layout of its images that cannot be')
        return layout

    def take_number(self, name, low, high):
        """A float from low to high; None if the model does not state it."""
        if name not in self.arrays:
            return None
        number = float(self.take(name, numpy.float32, ()))
        self.check(low <= number <= high, f'{name} is impossible')
        return number


class SavedNet:
    """A saved :class:`~net.MLP`, checked whole.

    Args:
        arrays (dict): The arrays of the model, by name.

    Attributes:
        arrays (dict): The same.
        n_in (int): Number of pixels.
        sizes (list of int): Numbers of inputs, of units of each hidden layer, and of classes.
        weight_bits, activation_bits (int): 1 to 8; both are 32 in a float net.
        layout (~pictures.layout.Layout): See :meth:`Checked.take_layout`.
        temperature (float): What to divide the logits by; None if that is unknown.
        title (str): For example ``a binary net 784-1000-1000-10``.

    Raises:
        ValueError: If the arrays are not those of such a net, or hold a value that cannot be.
    """

    def __init__(self, arrays):
        kind = 'a saved net such as mlp.model, which has links l1, bn1, l2, bn2 and so on, and '
        kind += 'persistents activation_bits and pixel_scale'
        self.arrays, checked = arrays, Checked(arrays, kind)
        shapes = checked.shapes_of_weights(2)
        self.n_in = shapes[0][1]
        self.sizes = [self.n_in, *(units for units, _ in shapes)]
        checked.check(len(set(self.sizes[1:-1])) == 1, 'hidden layers of several sizes')
        self.weight_bits = checked.take_whole('l1/bits', BITS)
        others = BITS - {32} if self.weight_bits != 32 else {32}
        self.activation_bits = checked.take_whole('activation_bits', others)
        for i, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:]), 1):
            checked.take_whole(f'l{i}/bits', {self.weight_bits})
            checked.take_whole(f'bn{i}/N', range(2**63))
            checked.take(f'l{i}/W', numpy.float32, (n_out, n_in))
            for name in f'l{i}/b', f'bn{i}/gamma', f'bn{i}/beta', f'bn{i}/avg_mean':
                checked.take(name, numpy.float32, (n_out,))
            variance = checked.take(f'bn{i}/avg_var', numpy.float32, (n_out,))
            checked.check((variance >= 0).all(), f'bn{i}/avg_var is negative somewhere')
        for name, values in ('signed_pixels', (0, 1)), ('pixel_scale', (255, MLP.pixel_scale)):
            if name in arrays:
                checked.take_whole(name, values)
        self.layout = checked.take_layout(self.n_in)
        checked.take_number('accuracy', 0, 1)
        self.temperature = checked.take_number('temperature', *TEMPERATURES)
        signed = ' of signed pixels' if arrays.get('signed_pixels', 0) else ''
        self.title = 'a ' + title(self.sizes, self.weight_bits, self.activation_bits, signed)


def title(sizes, weight_bits, activation_bits, addition=''):
    """A net in words: see :class:`SavedNet`."""
    bits = weight_bits, activation_bits
    kind = {(1, 1): 'binary', (32, 32): 'float'}.get(bits, 'quantized')
    end = ', W {} bits, activations {} bits'.format(*bits) if kind == 'quantized' else ''
    return f'{kind} net {"-".join(map(str, sizes))}{addition}{end}'


def logits(net, images):
    """The logits of uint8 images in test mode, in float32: images and net on any device."""
    images = images.reshape(len(images), -1)  # as in training: fast/ takes no others
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        batches = (images[i : i + 1000] for i in range(0, len(images), 1000))
        arrays = [net(net.device.send(batch)).array for batch in batches]
    return numpy.concatenate([chainer.backends.cuda.to_cpu(array) for array in arrays])


def load(path, saved):
    """Makes the :class:`~net.MLP` that a :class:`SavedNet` holds, on the CPU."""
    sizes = *saved.sizes[:2], saved.sizes[-1], len(saved.sizes) - 2
    if saved.weight_bits == saved.activation_bits == 1:
        net = BinaryMLP(*sizes)
    elif saved.weight_bits == 32:
        net = FloatMLP(*sizes)
    else:
        net = QuantizedMLP(*sizes, saved.weight_bits, saved.activation_bits)
    if 'pixel_scale' not in saved.arrays:
        net.pixel_scale = 255  # an older model
    others = {'signed_pixels', 'pixel_scale', 'layout', 'accuracy', 'temperature'}
    for name in others & set(saved.arrays):
        array = saved.arrays[name]
        net.add_persistent(name, array.item() if 'pixel' in name else array.copy())
    restore(path, saved.arrays, net)
    return net
