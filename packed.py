"""A packed net: what is left of a binary or quantized net when it only has to answer.

A packed model is an npz file of

=====================  =====================================  =====================================================
name                   type and shape
=====================  =====================================  =====================================================
``packed_version``     int                                    1
``n_in``               int                                    number of pixels K of the first layer
``activation_bits``    int                                    bits of the activations, 1 to 8
``lI/W``               uint8 (bits, M, ceil(K / 8))           bit planes of the weights of layer I, from the least
                                                              significant; the first input is a byte's lowest bit
``lI/T``               int32 (M, 2^activation_bits - 1)       thresholds of a hidden layer, ascending
``lI/b, mean,          float32 (M,)                           affine transformation of the last layer
inv_std, gamma, beta``
=====================  =====================================  =====================================================

A weight of k bits whose planes make the number V stands for the integer 2 V - n, n = 2^k - 1: the float
net's weight times n. So does an activation; a pixel is 0 to 255. Batch normalization and activation of a hidden layer
are the thresholds: the level V of a unit is the number of thresholds that its integer sum reaches. ``pack.py`` makes
such a file from a float model.
"""
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy

VERSION = 1
CHUNK = 500  # images at a time: what is computed on them stays in the caches
AFFINE = 'b', 'mean', 'inv_std', 'gamma', 'beta'


@functools.lru_cache(maxsize=None)
def _threads():
    return ThreadPoolExecutor(os.cpu_count())


def pack_bits(V, bits):
    """Bit planes of the whole numbers V of shape (M, K): a uint8 array of shape (bits, M, ceil(K / 8))."""
    planes = V >> numpy.arange(bits)[:, None, None] & 1
    return numpy.packbits(planes.astype(numpy.uint8), axis=2, bitorder='little')


def unpack_bits(planes, n_in):
    """The whole numbers of shape (M, n_in): the reverse of :func:`pack_bits`."""
    V = numpy.zeros((planes.shape[1], n_in), numpy.int32)
    for p, plane in enumerate(planes):
        V += numpy.unpackbits(plane, axis=1, count=n_in, bitorder='little').astype(numpy.int32) << p
    return V


def describe(arrays):
    """Says in words which net a packed model holds, after a check of everything in it.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Returns:
        str: For example ``a packed binary net 784-1000-1000-10``.

    Raises:
        ValueError: If the arrays are not those of a packed model, or not of this version.
    """
    def check(truth, problem):
        if not truth:
            raise ValueError(f'not a sound packed model: {problem}')

    def whole(name, low, high):
        check(name in arrays and arrays[name].shape == () and arrays[name].dtype.kind in 'iu'
              and low <= arrays[name] <= high, name)
        return int(arrays[name])

    version = whole('packed_version', 1, 10 ** 6)
    if version != VERSION:
        raise ValueError(f'a packed model of version {version}; this program reads version {VERSION}')
    n_in = whole('n_in', 1, 2 ** 24)
    activation_bits = whole('activation_bits', 1, 8)
    n_layers = sum(name.endswith('/W') for name in arrays)
    check(n_layers >= 2, 'it has no hidden layer')
    names = {'packed_version', 'n_in', 'activation_bits', *(f'l{n_layers}/{name}' for name in AFFINE)}
    names |= {f'l{i}/W' for i in range(1, n_layers + 1)} | {f'l{i}/T' for i in range(1, n_layers)}
    check(names == set(arrays), f'{", ".join(sorted(names ^ set(arrays))[:3])} missing or out of place')

    sizes, greatest = [n_in], 255
    for i in range(1, n_layers + 1):
        W = arrays[f'l{i}/W']
        check(W.dtype == numpy.uint8 and W.ndim == 3 and 1 <= len(W) <= 8 and W.shape[1] >= 1
              and W.shape[2] == -(-sizes[-1] // 8) and len(W) == len(arrays['l1/W']), f'l{i}/W')
        check(sizes[-1] * greatest * (2 ** len(W) - 1) < 2 ** 31, f'l{i}/W: its sums exceed 32 bits')
        greatest = 2 ** activation_bits - 1
        sizes.append(W.shape[1])
        if i < n_layers:
            T = arrays[f'l{i}/T']
            check(T.dtype == numpy.int32 and T.shape == (sizes[-1], greatest) and (T[:, 1:] >= T[:, :-1]).all(),
                  f'l{i}/T')
    for name in AFFINE:
        a = arrays[f'l{n_layers}/{name}']
        check(a.dtype == numpy.float32 and a.shape == (sizes[-1],) and numpy.isfinite(a).all(), f'l{n_layers}/{name}')
    bits = len(arrays['l1/W']), activation_bits
    kind = 'binary' if bits == (1, 1) else 'quantized'
    words = f'a packed {kind} net {"-".join(map(str, sizes))}'
    return words if kind == 'binary' else f'{words}, W {bits[0]} bits, activations {bits[1]} bits'


class PackedMLP:
    """A packed net, computed by NumPy: the plain form of what :class:`xnor.XnorMLP` computes many times faster.

    .. math:: S = X W^T, \\quad V = \\#\\{j: S \\ge T_j\\}, \\quad X' = 2 V - n

    for each hidden layer, in integers (floats in which every such sum is exact). Only the last layer's batch
    normalization is in float32, in the order of operations of Chainer's.

    Args:
        arrays (dict): The arrays of a packed model, by name.

    Attributes:
        n_in (int): Number of pixels.
        n_out (int): Number of classes.

    Raises:
        ValueError: If the arrays are not those of a packed model.
    """

    def __init__(self, arrays):
        describe(arrays)
        self.n_in = int(arrays['n_in'])
        self.n_layers = sum(name.endswith('/W') for name in arrays)
        self.activation_levels = 2 ** int(arrays['activation_bits']) - 1  # n of the activations
        self.weight_levels = 2 ** len(arrays['l1/W']) - 1
        weights, n_in = [], self.n_in
        for i in range(1, self.n_layers + 1):
            weights.append(unpack_bits(arrays[f'l{i}/W'], n_in))
            n_in = len(weights[-1])
        self.n_out = n_in
        self.affine = [arrays[f'l{self.n_layers}/{name}'][:, None] for name in AFFINE]
        self.prepare(weights, [arrays[f'l{i}/T'] for i in range(1, self.n_layers)],
                     len(arrays['l1/W']), int(arrays['activation_bits']))

    def prepare(self, weights, thresholds, weight_bits, activation_bits):
        """Keeps the weights V of shape (M, K), and the thresholds, as :meth:`sums` wants them."""
        self.weights, greatest = [], 255
        for V in weights:
            exact = numpy.float32 if V.shape[1] * greatest * self.weight_levels < 2 ** 24 else numpy.float64
            self.weights.append((2 * V - self.weight_levels).astype(exact).T)
            greatest = self.activation_levels
        self.thresholds = thresholds

    def sums(self, images):
        """The integer sums of the last layer, of shape (n_out, n), for uint8 images of shape (n, n_in)."""
        x = images
        for W, T in zip(self.weights, self.thresholds):
            S = x.astype(W.dtype) @ W
            V = numpy.zeros(S.shape, numpy.int32)
            for t in T.T:
                V += S >= t
            x = 2 * V - self.activation_levels
        W = self.weights[-1]
        return (x.astype(W.dtype) @ W).T

    def logits(self, images):
        """Computes the unnormalized log probabilities.

        Args:
            images (array): uint8 array of shape (n, rows, columns) or (n, n_in).

        Returns:
            array: float32 array of shape (n, n_out).
        """
        images = images.reshape(len(images), self.n_in)
        if len(images) <= CHUNK:
            return self._affine(self.sums(images)).T
        chunks = [images[i:i + CHUNK] for i in range(0, len(images), CHUNK)]
        return numpy.concatenate(list(_threads().map(
            lambda chunk: self._affine(self.sums(chunk)), chunks)), axis=1).T

    def _affine(self, S):
        b, mean, inv_std, gamma, beta = self.affine
        y = S.astype(numpy.float32)
        y /= numpy.float32(self.weight_levels * self.activation_levels)
        y += b
        y -= mean
        y *= inv_std
        y *= gamma
        y += beta
        return y
