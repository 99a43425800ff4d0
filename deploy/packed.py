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
import functools
import os
import typing

import numpy

VERSION = 1
CHUNK = 500  # images at a time, so that the intermediate results stay in the caches
AFFINE = 'b', 'mean', 'inv_std', 'gamma', 'beta'


@functools.cache
def _threads():
    return ThreadPoolExecutor(os.cpu_count())


def pack_bits(V, bits):
    """Packs whole numbers of shape (M, K) into bit planes: uint8 of shape (bits, M, ceil(K /
    8)).
    """
    planes = V >> numpy.arange(bits)[:, None, None] & 1
    return numpy.packbits(planes.astype(numpy.uint8), axis=2, bitorder='little')


def unpack_bits(planes, n_in):
    """Unpacks bit planes into whole numbers of shape (M, n_in): the inverse of
    :func:`pack_bits`.
    """
    V = numpy.zeros((planes.shape[1], n_in), numpy.int32)
    for p, plane in enumerate(planes):
        bits = numpy.unpackbits(plane, axis=1, count=n_in, bitorder='little')
        V += bits.astype(numpy.int32) << p
    return V


def describe(arrays):
    """Checks everything in a packed model, and says in words which net it holds.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Returns:
        str: For example ``a packed binary net 784-1000-1000-10``.

    Raises:
        ValueError: If the arrays are not those of a packed model, or not of this version.
    """

    def check(truth, problem):
        if not truth:
            raise ValueError(f'not a valid packed model: {problem}')

    def whole(name, low, high):
        check(
            name in arrays
            and arrays[name].shape == ()
            and arrays[name].dtype.kind in 'iu'
            and low <= arrays[name] <= high,
            name,
        )
        return int(arrays[name])

    version = whole('packed_version', 1, 10**6)
    if version != VERSION:
        raise ValueError(
            f'a packed model of version {version}; this program reads version {VERSION}'
        )
    n_in = whole('n_in', 1, 2**24)
    activation_bits = whole('activation_bits', 1, 8)
    n_layers = sum(name.endswith('/W') for name in arrays)
    check(n_layers >= 2, 'it has no hidden layer')
    names = {'packed_version', 'n_in', 'activation_bits'}
    names |= {f'l{n_layers}/{name}' for name in AFFINE}
    names |= {f'l{i}/W' for i in range(1, n_layers + 1)}
    names |= {f'l{i}/T' for i in range(1, n_layers)}
    misplaced = sorted(names ^ (set(arrays) - {'layout', 'accuracy'}))
    check(not misplaced, f'{", ".join(misplaced[:3])} missing or out of place')

    if 'accuracy' in arrays:
        a = arrays['accuracy']
        check(a.shape == () and a.dtype == numpy.float32 and 0 <= a <= 1, 'accuracy')

    sizes, greatest = [n_in], 255
    for i in range(1, n_layers + 1):
        W = arrays[f'l{i}/W']
        check(
            W.dtype == numpy.uint8
            and W.ndim == 3
            and 1 <= len(W) <= 8
            and W.shape[1] >= 1
            and W.shape[2] == -(-sizes[-1] // 8)
            and len(W) == len(arrays['l1/W']),
            f'l{i}/W',
        )
        check(sizes[-1] * greatest * (2 ** len(W) - 1) < 2**31, f'l{i}/W: its sums exceed 32 bits')
        greatest = 2**activation_bits - 1
        sizes.append(W.shape[1])
        if i < n_layers:
            T = arrays[f'l{i}/T']
            check(
                T.dtype == numpy.int32
                and T.shape == (sizes[-1], greatest)
                and (T[:, 1:] >= T[:, :-1]).all(),
                f'l{i}/T',
            )
    for name in AFFINE:
        a = arrays[f'l{n_layers}/{name}']
        check(
            a.dtype == numpy.float32 and a.shape == (sizes[-1],) and numpy.isfinite(a).all(),
            f'l{n_layers}/{name}',
        )
    bits = len(arrays['l1/W']), activation_bits
    kind = 'binary' if bits == (1, 1) else 'quantized'
    words = f'a packed {kind} net {"-".join(map(str, sizes))}'
    return words if kind == 'binary' else f'{words}, W {bits[0]} bits, activations {bits[1]} bits'


def layers(arrays):
    """The layers of a packed model, first to last.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Yields:
        tuple: Weights V, an int32 array of shape (M, K), and thresholds, an int32 array of shape
        (M, n), or None for the last layer.
    """
    n_in = int(arrays['n_in'])
    for i in range(1, sum(name.endswith('/W') for name in arrays) + 1):
        V = unpack_bits(arrays[f'l{i}/W'], n_in)
        yield V, arrays.get(f'l{i}/T')
        n_in = len(V)


class XnorLayer(typing.NamedTuple):
    """A layer as XNOR and popcount alone: what the writers of other formats need of it.

    A number of k bits stands for the sum of 2^p (2 bit_p - 1) over its planes p, so

    .. math:: S = greatest - 2 \\sum_{p, q} 2^{p + q} popcount(w_p \\oplus x_q)

    is the sum of the products of weights and inputs.

    Attributes:
        units, n_in (int): Shape (M, K) of the weight.
        weight_bits, input_bits (int): Bits of weights and inputs; a pixel has 8.
        words (int): 64-bit words of a plane.
        greatest (int): The sum of a unit that agrees with all inputs.
        W (array): uint64 array of shape (M, weight_bits, words); the first input is the lowest
            bit.
        T (array): int32 array of shape (M, n): the level of a unit is the number of its thresholds
            that S reaches. None for the last layer.
        scale (float): What S is divided by in the last layer.
    """

    units: int
    n_in: int
    weight_bits: int
    input_bits: int
    words: int
    greatest: int
    W: numpy.ndarray
    T: numpy.ndarray
    scale: float


def xnor_layers(arrays):
    """The layers of a packed model, the first included, as XNOR and popcount.

    A pixel P of 8 bits stands for 2 P - 255 here, so the sum of the first layer is twice that of
    the pixels minus 255 times that of the weights; its thresholds follow.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Yields:
        XnorLayer: The layers, first to last.
    """
    bits, activation_bits = len(arrays['l1/W']), int(arrays['activation_bits'])
    n, input_bits = 2**bits - 1, 8
    for i, (V, T) in enumerate(layers(arrays)):
        M, K = V.shape
        words = -(-K // 64)
        planes = numpy.zeros((bits, M, 8 * words), numpy.uint8)
        planes[..., : -(-K // 8)] = pack_bits(V, bits)
        W = planes.view('<u8').astype(numpy.uint64).transpose(1, 0, 2)
        greatest = K * n * (2**input_bits - 1)
        if i == 0:
            sums = (2 * V.astype(numpy.int64) - n).sum(axis=1)[:, None]
            T = (2 * T.astype(numpy.int64) - 255 * sums).clip(-greatest - 1, greatest + 1)
            T = T.astype(numpy.int32)
        scale = float(n * (2**activation_bits - 1))
        yield XnorLayer(M, K, bits, input_bits, words, greatest, W, T, scale)
        input_bits = activation_bits


def summary(arrays):
    """The layers of a packed model as a table.

    ``parameters`` are those that were trained (W, b, gamma and beta), ``bytes`` those of the
    packed arrays. A multiply-accumulate of the first layer takes an 8-bit pixel; the others are
    XNOR and popcount, once for each pair of a bit of the weight and a bit of the activation.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Returns:
        str: A line for each layer between a line of headings and one of totals.
    """
    rows, n_in, bits = [], int(arrays['n_in']), 8
    for i in range(1, sum(name.endswith('/W') for name in arrays) + 1):
        weight_bits, units, _ = arrays[f'l{i}/W'].shape
        size = sum(a.nbytes for name, a in arrays.items() if name.startswith(f'l{i}/'))
        parameters, products = (n_in + 3) * units, n_in * units
        kind = 'integer' if i == 1 else 'XNOR'
        rows.append((f'l{i}', n_in, units, parameters, size, products, weight_bits, bits, kind))
        n_in, bits = units, int(arrays['activation_bits'])
    parameters, size, products = (sum(row[k] for row in rows) for k in (3, 4, 5))
    return '\n'.join(
        [
            'layer inputs  units parameters      bytes multiply-accumulates (bits of W x input)',
            *(
                '{:<5} {:>6} {:>6} {:>10,} {:>10,} {:>12,} ({} x {}, {})'.format(*row)
                for row in rows
            ),
            f'total               {parameters:>10,} {size:>10,} {products:>12,}',
        ]
    )


class PackedMLP:
    """A packed net computed by NumPy: the plain form of :class:`~deploy.xnor.XnorMLP`.

    .. math:: S = X W^T, \\quad V = \\#\\{j: S \\ge T_j\\}, \\quad X' = 2 V - n

    for each hidden layer, in integers (or floats that represent every such sum exactly). Only the
    batch normalization of the last layer is in float32, with Chainer's order of operations.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Attributes:
        n_in (int): Number of pixels.
        n_out (int): Number of classes.
        kernels (str): Instruction sets that the kernels use, or None.

    Raises:
        ValueError: If the arrays are not those of a packed model.
    """

    kernels = None

    def __init__(self, arrays):
        describe(arrays)
        self.n_in = int(arrays['n_in'])
        self.n_layers = sum(name.endswith('/W') for name in arrays)
        self.activation_levels = 2 ** int(arrays['activation_bits']) - 1  # n of the activations
        self.weight_levels = 2 ** len(arrays['l1/W']) - 1
        weights, thresholds = zip(*layers(arrays))
        self.n_out = len(weights[-1])
        self.affine = [arrays[f'l{self.n_layers}/{name}'] for name in AFFINE]
        self.scale = numpy.float32(self.weight_levels * self.activation_levels)
        self.prepare(
            weights,
            thresholds[:-1],
            len(arrays['l1/W']),
            int(arrays['activation_bits']),
        )

    def prepare(self, weights, thresholds, weight_bits, activation_bits):
        """Stores weights V of shape (M, K) and thresholds in the form :meth:`_sums` uses."""
        self.weights, greatest = [], 255
        for V in weights:
            exact = (
                numpy.float32
                if V.shape[1] * greatest * self.weight_levels < 2**24
                else numpy.float64
            )
            self.weights.append((2 * V - self.weight_levels).astype(exact).T)
            greatest = self.activation_levels
        self.thresholds = thresholds

    def _sums(self, images):
        """The integer sums of the last layer: array of shape (n, n_out).

        Args:
            images (array): uint8 array of shape (n, n_in).
        """
        x = images
        for W, T in zip(self.weights, self.thresholds):
            S = x.astype(W.dtype) @ W
            V = numpy.zeros(S.shape, numpy.int32)
            for t in T.T:
                V += S >= t
            x = 2 * V - self.activation_levels
        W = self.weights[-1]
        return x.astype(W.dtype) @ W

    def logits(self, images):
        """Computes the unnormalized log probabilities.

        Args:
            images (array): uint8 array of shape (n, rows, columns) or (n, n_in).

        Returns:
            array: float32 array of shape (n, n_out).
        """
        images = images.reshape(len(images), self.n_in)
        if len(images) <= CHUNK:
            return self.chunk_logits(images)
        chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        return numpy.concatenate(list(_threads().map(self.chunk_logits, chunks)))

    def chunk_logits(self, images):
        """:meth:`logits` of uint8 images of shape (n, n_in) that are few enough for the caches."""
        b, mean, inv_std, gamma, beta = self.affine
        y = self._sums(images).astype(numpy.float32)
        y /= self.scale
        y += b
        y -= mean
        y *= inv_std
        y *= gamma
        y += beta
        return y
