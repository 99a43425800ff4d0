"""The packed net computed by XNOR and popcount."""

import numpy

from deploy.packed import PackedMLP, pack_bits
from fast.xnor import UNITS, hidden_layer, last_layer, pixel_layer


def _aligned(array):
    """A copy that starts at a cache line: loading a vector that straddles two takes longer."""
    memory = numpy.empty(array.nbytes + 64, numpy.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _pad(array, axis, multiple, value=0):
    """Pads an axis so that its size is a multiple of a number."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = 0, -array.shape[axis] % multiple
    return numpy.pad(array, widths, constant_values=value)


class XnorMLP(PackedMLP):
    """:class:`~deploy.packed.PackedMLP` with the kernels of fast/xnor.py: the same sums,
    faster.
    """

    def prepare(self, weights, thresholds, weight_bits, activation_bits):
        self.planes = activation_bits
        first = _pad((weights[0] - 2 ** (weight_bits - 1)).astype(numpy.int8), 0, UNITS)
        first = _pad(first, 1, 4)
        blocks = first.reshape(-1, UNITS, first.shape[1] // 4, 4)
        self.first = _aligned(blocks.transpose(0, 2, 1, 3))
        self.weights = []
        for V in weights[1:]:
            words = pack_bits(_pad(_pad(V, 0, UNITS), 1, 64), weight_bits).view(numpy.uint64)
            blocks = words.reshape(weight_bits, -1, UNITS, words.shape[2])
            greatest = V.shape[1] * self.weight_levels * self.activation_levels
            self.weights.append((_aligned(blocks.transpose(1, 0, 3, 2)), greatest))
        self.thresholds = []
        for i, T in enumerate(thresholds):
            # Padding units reach no threshold, so the next layer sees them as inputs of 0.
            blocks = _pad(T, 0, UNITS, 2**31 - 1).reshape(-1, UNITS, T.shape[1])
            dtype = numpy.int64 if i else numpy.int32
            self.thresholds.append(_aligned(blocks.transpose(0, 2, 1).astype(dtype)))

    def sums(self, images):
        images = numpy.ascontiguousarray(_pad(images, 1, 4) if self.n_in % 4 else images)
        x = numpy.empty((len(images), self.planes, len(self.first)), numpy.uint64)
        pixel_layer(images, self.first, self.thresholds[0], x)
        for (W, greatest), T in zip(self.weights, self.thresholds[1:]):
            y = numpy.empty((len(x), self.planes, len(W)), numpy.uint64)
            hidden_layer(x, W, T, greatest, y)
            x = y
        S = numpy.empty((self.n_out, len(x)), numpy.int32)
        W, greatest = self.weights[-1]
        last_layer(x, W, greatest, S)
        return S
