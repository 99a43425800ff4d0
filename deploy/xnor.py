"""The packed net computed by XNOR and popcount."""

import numpy

from deploy.packed import PackedMLP, pack_bits, pad
from fast import cpu
from fast.kernels import UNITS, UNSIGNED, groups_between_widenings
from fast.memory import Memory
from fast.xnor import affine, arrange_bits, bit_layer, byte_layer


def _aligned(array):
    """A copy that starts at a cache line: loading a vector that straddles two takes longer."""
    copy = Memory().empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class XnorMLP(PackedMLP):
    """:class:`~deploy.packed.PackedMLP` with the kernels of fast/: the same sums, faster."""

    kernels = cpu.describe()

    def prepare(self):
        first, *others = self.net.layers
        self.bits = self.net.weight_bits == self.net.activation_bits == 1
        self.layers = [(byte_layer, self._bytes(False, first, first.T))]
        for layer in others:
            if self.bits:
                W = arrange_bits(pack_bits(self._padded(layer, UNITS), 1)[0])
                self.layers.append((bit_layer, (_aligned(W), layer.n_in, self._blocks(layer.T))))
            else:
                self.layers.append((byte_layer, self._bytes(True, layer, layer.on_levels())))
        # The sums of the last layer are those of levels, but for bits.
        self.factor, self.shift = (1, 0 * layer.shift) if self.bits else (2, layer.shift)
        # The bytes of an image's levels behind each layer; the last writes sums instead.
        units = [-(-layer.units // UNITS) * UNITS for layer in self.net.layers]
        self.widths, self.n_sums = [n // 8 if self.bits else n for n in units], units[-1]

    @staticmethod
    def _padded(layer, multiple):
        return pad(pad(layer.V, 0, UNITS), 1, multiple)

    @staticmethod
    def _blocks(T):
        # Padding units reach no threshold, so the next layer sees them as inputs of 0.
        padded = pad(T, 0, UNITS, 2**31 - 1)
        blocks = padded.reshape(len(padded) // UNITS, UNITS, T.shape[1])
        return _aligned(blocks.transpose(0, 2, 1))

    def _bytes(self, dense, layer, T):
        """Arguments of byte_layer for a layer with these thresholds."""
        rest = -layer.n if UNSIGNED else 1  # a weight is 2 C + rest
        # Inputs are padded as the layer before pads its units, and pixels to groups of four.
        C = self._padded(layer, UNITS if dense else 4) - (layer.n + rest) // 2
        blocks = C.astype(numpy.int8).reshape(-1, UNITS, C.shape[1] // 4, 4).transpose(0, 2, 1, 3)
        every = groups_between_widenings(2**layer.input_bits - 1, (layer.n + 1) // 2)
        return dense, _aligned(blocks), every, rest, self._blocks(T), self.bits

    def chunk_logits(self, images):
        x = numpy.ascontiguousarray(pad(images, 1, 4) if images.shape[1] % 4 else images)
        S = numpy.empty((len(x), self.n_sums), numpy.int32)  # the last layer writes it
        for (layer, arguments), width in zip(self.layers, self.widths):
            levels = numpy.empty((len(x), width), numpy.uint8)
            layer(x, *arguments, levels, S)
            x = levels
        y = numpy.empty((len(x), self.net.n_out), numpy.float32)
        scale = numpy.float32(self.net.scale)
        affine(S, self.factor, self.shift, scale, *self.net.affine, y)
        return y
