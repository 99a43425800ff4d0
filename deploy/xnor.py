"""The packed net computed by XNOR and popcount."""

import numpy

from deploy.packed import PackedMLP, pack_bits
from fast import cpu
from fast.kernels import groups_between_widenings
from fast.xnor import UNITS, affine, arrange_bits, bit_layer, byte_layer


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


NO_LEVELS, NO_SUMS = numpy.empty((0, 0), numpy.uint8), numpy.empty((0, 0), numpy.int32)


class XnorMLP(PackedMLP):
    """:class:`~deploy.packed.PackedMLP` with the kernels of fast/: the same sums, faster."""

    kernels = cpu.describe()

    def prepare(self, weights, thresholds, weight_bits, activation_bits):
        bits = weight_bits == activation_bits == 1  # then all layers but the first use XNOR
        # The last layer has no thresholds, so it writes its sums.
        thresholds = [*thresholds, numpy.empty((self.n_out, 0), numpy.int32)]
        self.layers = [(byte_layer, self._bytes(False, weights[0], 255, thresholds[0], bits))]
        self.factor, self.shift = 1, numpy.zeros((self.n_out, 1), numpy.int64)
        n = self.activation_levels
        for V, T in zip(weights[1:], thresholds[1:]):
            n_in = V.shape[1]
            padded = _pad(V, 1, UNITS)  # as the layer before pads its units
            if bits:
                W = arrange_bits(pack_bits(_pad(padded, 0, UNITS), 1)[0])
                self.layers.append((bit_layer, (_aligned(W), n_in, self._blocks(T))))
                continue
            # An activation is 2 v - n, so the sum of w (2 v - n) is twice the sum of w v minus n
            # times the sum of w. The thresholds are compared with the sum of w v.
            self.factor = 2
            self.shift = n * (2 * V.astype(numpy.int64) - self.weight_levels).sum(axis=1)[:, None]
            T = numpy.clip(-(-(T + self.shift) // 2), -(2**31), 2**31 - 1)
            self.layers.append(
                (byte_layer, self._bytes(True, padded, n, T.astype(numpy.int32), bits))
            )
        # The bytes of an image that each layer but the last writes.
        blocks = [-(-len(V) // UNITS) for V in weights]
        self.widths = [n * (UNITS // 8 if bits else UNITS) for n in blocks[:-1]]
        self.n_sums = blocks[-1] * UNITS

    @staticmethod
    def _blocks(T):
        # Padding units reach no threshold, so the next layer sees them as inputs of 0.
        padded = _pad(T, 0, UNITS, 2**31 - 1)
        blocks = padded.reshape(len(padded) // UNITS, UNITS, T.shape[1])
        return _aligned(blocks.transpose(0, 2, 1))

    def _bytes(self, dense, V, greatest, T, as_bits):
        """Arguments of byte_layer for weights V and inputs up to the greatest."""
        levels = self.weight_levels + 1
        middle = 0 if cpu.BYTES == 'dotprod' else levels // 2
        C = _pad(_pad((V - middle).astype(numpy.uint8).view(numpy.int8), 0, UNITS), 1, 4)
        blocks = C.reshape(-1, UNITS, C.shape[1] // 4, 4).transpose(0, 2, 1, 3)
        every = groups_between_widenings(greatest, levels // 2)
        rest = 2 * middle - self.weight_levels
        return dense, _aligned(blocks), every, rest, self._blocks(T), as_bits

    def chunk_logits(self, images):
        n = len(images)
        x = numpy.ascontiguousarray(_pad(images, 1, 4) if self.n_in % 4 else images)
        for (layer, arguments), width in zip(self.layers, self.widths):
            y = numpy.empty((n, width), numpy.uint8)
            layer(x, *arguments, y, NO_SUMS)
            x = y
        S = numpy.empty((n, self.n_sums), numpy.int32)
        layer, arguments = self.layers[-1]
        layer(x, *arguments, NO_LEVELS, S)
        y = numpy.empty((n, self.n_out), numpy.float32)
        affine(S, self.factor, self.shift, self.scale, *self.affine, y)
        return y
