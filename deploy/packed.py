"""The packed model and the plain way to compute it.

A packed model is an npz file of

==============================  ========================  =========================================
name                            type and shape
==============================  ========================  =========================================
``packed_version``              int                       1
``n_in``                        int                       number of pixels K of the first layer
``activation_bits``             int                       bits of the activations, 1 to 8
``layout``                      int32 (6,)                how the training images look: see
                                                          pictures/layout.py; optional
``accuracy``                    float32                   on the test images, from 0 to 1; optional
``temperature``                 float32                   what the last layer's gamma and beta are
                                                          divided by, for probabilities; optional
``lI/W``                        uint8                     bit planes of the weights of layer I, the
                                (bits, M, ceil(K / 8))    least significant first; the first input
                                                          is the lowest bit of a byte
``lI/T``                        int32                     thresholds of a hidden layer, ascending
                                (M, 2^activation_bits-1)
``lI/b, mean, inv_std, gamma,   float32 (M,)              affine transformation of the last layer
beta``
==============================  ========================  =========================================

A weight of k bits whose planes make up the number V stands for the integer 2 V - n, n = 2^k - 1:
the weight of the float net times n. The same holds for an activation; a pixel is 0 to 255. Batch
normalization and activation of a hidden layer have become thresholds: the level V of a unit is the
number of thresholds that its integer sum reaches. deploy/fold.py makes these arrays.
"""

from concurrent.futures import ThreadPoolExecutor
import os

import numpy

from support.files import naming, read_npz
from support.models import TEMPERATURES, Checked, SavedNet, title

VERSION = 1
CHUNK = 500  # images at a time, so that the intermediate results stay in the caches
AFFINE = 'b', 'mean', 'inv_std', 'gamma', 'beta'


def pack_bits(V, bits):
    """Packs whole numbers of shape (M, K) into bit planes: uint8, (bits, M, ceil(K / 8))."""
    planes = numpy.unpackbits(V.astype(numpy.uint8)[None], axis=0, count=bits, bitorder='little')
    return numpy.packbits(planes, axis=2, bitorder='little')


def unpack_bits(planes, n_in):
    """Unpacks bit planes into int32 of shape (M, n_in): the inverse of :func:`pack_bits`."""
    bits = numpy.unpackbits(planes, axis=2, count=n_in, bitorder='little')
    return numpy.packbits(bits, axis=0, bitorder='little')[0].astype(numpy.int32)


def pad(array, axis, multiple, value=0):
    """Pads an axis so that its size is a multiple of a number."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = 0, -array.shape[axis] % multiple
    return numpy.pad(array, widths, constant_values=value)


class Layer:
    """A layer of a packed net.

    Args:
        planes (array): Bit planes of the weights, of shape (bits, M, ceil(K / 8)).
        T (array): Thresholds, of shape (M, n), of which the last layer has none.
        n_in (int): Number of inputs K.
        input_bits (int): Bits of an input; a pixel has 8.

    Attributes:
        V (array): The numbers that the planes make up: an int32 array of shape (M, K).
        n (int): The largest weight, as an integer: W = 2 V - n.
        greatest (int): The sum of a unit if all its weights and inputs are the largest.
        words (int): Words of 64 bits that hold a bit of each input.
    """

    def __init__(self, planes, T, n_in, input_bits):
        self.planes, self.T, self.n_in, self.input_bits = planes, T, n_in, input_bits
        self.weight_bits, self.units, _ = planes.shape
        self.n, self.words = 2**self.weight_bits - 1, -(-n_in // 64)
        self.greatest = n_in * self.n * (2**input_bits - 1)

    @property
    def V(self):
        return unpack_bits(self.planes, self.n_in)

    @property
    def W(self):
        """The integers 2 V - n that the weights stand for."""
        return 2 * self.V - self.n

    @property
    def shift(self):
        """An int64 array of shape (M, 1): see :meth:`on_levels`."""
        return (2**self.input_bits - 1) * self.W.sum(axis=1, dtype=numpy.int64)[:, None]

    def on_levels(self):
        """The thresholds of a layer after the first, if its inputs 2 V - n are taken as levels V.

        .. math:: S = \\sum W (2 V - n) = 2 \\sum W V - shift, \\quad shift = n \\sum W

        Returns:
            array: Thresholds of the sum of W V, int32 as ``T``.
        """
        T = -(-(self.T + self.shift) // 2)
        return T.clip(-(2**31), 2**31 - 1).astype(numpy.int32)


class PackedNet:
    """A packed net, checked whole as it is made: its users need not check anything.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Attributes:
        arrays (dict): The same.
        n_in, n_out (int): Numbers of pixels and of classes.
        weight_bits, activation_bits (int): 1 to 8.
        layers (list of Layer): First to last.
        scale (int): What the sums of the last layer are divided by.
        affine (list of array): What follows the division: b, mean, inv_std, gamma and beta, of
            which the temperature has divided the last two, so that logits give probabilities.
        layout (~pictures.layout.Layout): How the training images look; None if that is unknown.
        accuracy (float): On the test images; None if that is unknown.
        temperature (float): See training/temperature.py; None if that is unknown.
        title (str): For example ``a packed binary net 784-1000-1000-10``.
        image_shape (tuple): Rows and columns; one row if the layout is unknown.
        nbytes (int): Size of the arrays of all layers.

    Raises:
        ValueError: If the arrays are no packed model, or one of another version.
    """

    def __init__(self, arrays):
        self.arrays, checked = arrays, Checked(arrays, 'a valid packed model')
        version = checked.take_whole('packed_version', range(1, 10**6))
        if version != VERSION:
            raise ValueError(f'a packed model of version {version}, and {VERSION} is read here')
        self.n_in = n_in = checked.take_whole('n_in', range(1, 2**24 + 1))
        self.activation_bits = checked.take_whole('activation_bits', range(1, 9))
        n = 2**self.activation_bits - 1
        shapes = checked.shapes_of_weights(3)
        self.weight_bits = shapes[0][0]
        checked.check(self.weight_bits <= 8, 'l1/W has more than 8 bits')
        self.layers = []
        for i, (_, units, _) in enumerate(shapes, 1):
            W = checked.take(f'l{i}/W', numpy.uint8, (self.weight_bits, units, -(-n_in // 8)))
            last = i == len(shapes)
            T = numpy.empty((units, 0), numpy.int32)
            T = T if last else checked.take(f'l{i}/T', numpy.int32, (units, n))
            checked.check((T[:, 1:] >= T[:, :-1]).all(), f'l{i}/T does not ascend')
            self.layers.append(Layer(W, T, n_in, self.activation_bits if i > 1 else 8))
            checked.check(self.layers[-1].greatest < 2**31, f'l{i}/W: its sums exceed 32 bits')
            n_in = units
        self.n_out, self.scale = n_in, self.layers[0].n * n
        self.affine = [checked.take(f'l{i}/{name}', numpy.float32, (n_in,)) for name in AFFINE]
        self.layout = checked.take_layout(self.n_in)
        self.accuracy = checked.take_number('accuracy', 0, 1)
        self.temperature = checked.take_number('temperature', *TEMPERATURES)
        T = numpy.float32(self.temperature or 1)
        with numpy.errstate(over='ignore'):
            self.affine[3:] = (array / T for array in self.affine[3:])
        checked.check(numpy.isfinite(self.affine).all(), 'temperature is too low for its gamma')
        checked.check(not checked.left, f'{", ".join(sorted(checked.left)[:3])} out of place')
        sizes = [layer.n_in for layer in self.layers] + [self.n_out]
        self.title = 'a packed ' + title(sizes, self.weight_bits, self.activation_bits)
        self.image_shape = self.layout[:2] if self.layout else (1, self.n_in)
        self.nbytes = sum(array.nbytes for name, array in arrays.items() if '/' in name)


def read(path):
    """Reads a saved net.

    Args:
        path (str): The file.

    Returns:
        ~support.models.SavedNet or PackedNet: What it holds.

    Raises:
        ValueError: If it holds neither; the message names it.
        OSError: If it cannot be opened.
    """
    arrays = read_npz(path)
    with naming(path):
        return (PackedNet if 'packed_version' in arrays else SavedNet)(arrays)


def xnor_layers(net):
    """The layers as XNOR and popcount alone, with what the writers of other formats need of them.

    A number of k bits stands for the sum of 2^p (2 bit_p - 1) over its planes p, so

    .. math:: S = greatest - 2 \\sum_{p, q} 2^{p + q} popcount(w_p \\oplus x_q)

    is the sum of the products of weights and inputs. A pixel P stands for 2 P - 255 here, so the
    first layer has :math:`S = 2 \\sum W P - 255 \\sum W`, and its thresholds follow.

    Args:
        net (PackedNet): The packed net.

    Yields:
        dict: ``units`` and ``n_in``, ``weight_bits`` and ``input_bits``, ``words`` of 64 bits in a
        plane, ``greatest``, ``W`` as a uint64 array of shape (M, weight_bits, words), thresholds
        ``T`` of S, and the ``scale`` that S is divided by in the last layer, which has no ``T``.
    """
    for layer in net.layers:
        planes = pack_bits(pad(layer.V, 1, 64), layer.weight_bits).view('<u8').astype(numpy.uint64)
        T, greatest = layer.T, layer.greatest
        if layer is net.layers[0]:
            T = (2 * T.astype(numpy.int64) - layer.shift).clip(-greatest - 1, greatest + 1)
        names = 'units', 'n_in', 'weight_bits', 'input_bits', 'words', 'greatest'
        yield {
            **{name: getattr(layer, name) for name in names},
            'W': planes.transpose(1, 0, 2),
            'T': T.astype(numpy.int32) if T.size else None,
            'scale': float(net.scale),
        }


def summary(net):
    """The layers of a packed net as a table.

    ``parameters`` counts what was trained (W, b, gamma and beta), ``bytes`` the packed arrays. A
    multiply-accumulate of the first layer takes an 8-bit pixel; the others are XNOR and popcount,
    once for each pair of a bit of the weight and a bit of the activation.
    """
    lines = ['layer inputs  units parameters      bytes multiply-accumulates (bits of W x input)']
    totals, columns = 0, '{:>10,} {:>10,} {:>12,}'
    for i, layer in enumerate(net.layers, 1):
        size = sum(a.nbytes for name, a in net.arrays.items() if name.startswith(f'l{i}/'))
        inputs, units, how = layer.n_in, layer.units, 'integer' if i == 1 else 'XNOR'
        numbers = numpy.array([(inputs + 3) * units, size, inputs * units])
        totals += numbers
        end = f' ({layer.weight_bits} x {layer.input_bits}, {how})'
        lines.append(f'l{i:<4} {inputs:>6} {units:>6} ' + columns.format(*numbers) + end)
    return '\n'.join([*lines, f'{"total":<20}' + columns.format(*totals)])


class PackedMLP:
    """A packed net computed by NumPy: the plain form of :class:`~deploy.xnor.XnorMLP`.

    .. math:: S = X W^T, \\quad V = \\#\\{j: S \\ge T_j\\}, \\quad X' = 2 V - n

    for each hidden layer, in integers (or floats that represent every such sum exactly). Only the
    batch normalization of the last layer is in float32, with Chainer's order of operations.

    Args:
        net (PackedNet): The packed net.
    """

    kernels = None  # instruction sets of the CPU, in words, where compiled kernels use them

    def __init__(self, net):
        self.net = net
        self.prepare()

    def prepare(self):
        """Stores the weights in the form that :meth:`chunk_logits` uses."""
        exact = [numpy.float32 if x.greatest < 2**24 else numpy.float64 for x in self.net.layers]
        self.weights = [layer.W.T.astype(dtype) for layer, dtype in zip(self.net.layers, exact)]

    def logits(self, images):
        """The logits, float32 of shape (n, n_out), of n uint8 images of any shape."""
        images = images.reshape(len(images), self.net.n_in)
        if len(images) <= CHUNK:
            return self.chunk_logits(images)
        chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return numpy.concatenate(list(threads.map(self.chunk_logits, chunks)))

    def chunk_logits(self, images):
        """:meth:`logits` of uint8 images of shape (n, n_in) that are few enough for the caches."""
        x = images
        for layer, W in zip(self.net.layers, self.weights):
            S = x.astype(W.dtype) @ W
            V = numpy.zeros(S.shape, numpy.int32)
            for t in layer.T.T:
                V += S >= t
            x = 2 * V - layer.T.shape[1]
        b, mean, inv_std, gamma, beta = self.net.affine
        y = S.astype(numpy.float32) / numpy.float32(self.net.scale)
        return (y + b - mean) * inv_std * gamma + beta
