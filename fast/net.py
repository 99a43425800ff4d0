"""The nets of net.py with fused layers."""

from chainer_compat import chainer

import net
from fast.fused_layer import can_fuse, fused_layer


class FusedLayers:
    """Mixin for :class:`net.MLP`: computes each layer as one function where it can."""

    def layer(self, i, x):
        x = chainer.as_variable(x)
        l, bn = self[f'l{i}'], self[f'bn{i}']
        if not can_fuse(x.array, l, bn):
            return super().layer(i, x)
        return fused_layer(x, l, bn, self.activation_bits if i <= self.n_layers else 0)


class BinaryMLP(FusedLayers, net.BinaryMLP):
    pass


class QuantizedMLP(FusedLayers, net.QuantizedMLP):
    pass
