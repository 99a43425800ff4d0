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

    def prepare(self):
        first, *others = self.net.layers
        self.bits = self.net.weight_bits == self.net.activation_bits == 1
        self.layers = [(byte_layer, self._bytes(False, first, first.V, first.T))]
        self.factor, self.shift = 1, numpy.zeros((self.net.n_out, 1), numpy.int64)
        for layer in others:
            padded = _pad(layer.V, 1, UNITS)  # as the layer before pads its units
            if self.bits:
                # The last layer has no thresholds, so it writes its sums.
                T = numpy.empty((layer.units, 0), numpy.int32) if layer.T is None else layer.T
                W = arrange_bits(pack_bits(_pad(padded, 0, UNITS), 1)[0])
                self.layers.append((bit_layer, (_aligned(W), layer.n_in, self._blocks(T))))
            else:
                self.factor, (self.shift, T) = 2, layer.on_levels()
                self.layers.append((byte_layer, self._bytes(True, layer, padded, T)))
        # The bytes of an image that each layer but the last writes.
        blocks = [-(-layer.units // UNITS) for layer in self.net.layers]
        self.widths = [n * (UNITS // 8 if self.bits else UNITS) for n in blocks[:-1]]
        self.n_sums = blocks[-1] * UNITS

    @staticmethod
    def _blocks(T):
        # Padding units reach no threshold, so the next layer sees them as inputs of 0.
        padded = _pad(T, 0, UNITS, 2**31 - 1)
        blocks = padded.reshape(len(padded) // UNITS, UNITS, T.shape[1])
        return _aligned(blocks.transpose(0, 2, 1))

    def _bytes(self, dense, layer, V, T):
        """Arguments of byte_layer for a layer with these weights and thresholds."""
        middle = 0 if cpu.BYTES == 'dotprod' else (layer.n + 1) // 2
        C = _pad(_pad((V - middle).astype(numpy.uint8).view(numpy.int8), 0, UNITS), 1, 4)
        blocks = C.reshape(-1, UNITS, C.shape[1] // 4, 4).transpose(0, 2, 1, 3)
        every = groups_between_widenings(2**layer.input_bits - 1, (layer.n + 1) // 2)
        rest = 2 * middle - layer.n
        return dense, _aligned(blocks), every, rest, self._blocks(T), self.bits

    def chunk_logits(self, images):
        n = len(images)
        x = numpy.ascontiguousarray(_pad(images, 1, 4) if images.shape[1] % 4 else images)
        for (layer, arguments), width in zip(self.layers, self.widths):
            y = numpy.empty((n, width), numpy.uint8)
            layer(x, *arguments, y, NO_SUMS)
            x = y
        S = numpy.empty((n, self.n_sums), numpy.int32)
        layer, arguments = self.layers[-1]
        layer(x, *arguments, NO_LEVELS, S)
        y = numpy.empty((n, self.net.n_out), numpy.float32)
        scale = numpy.float32(self.net.scale)
        affine(S, self.factor, self.shift, scale, *self.net.affine, y)
        return y
