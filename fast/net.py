"""The nets of net.py as one function on the CPU, or as fused layers on a GPU."""

from chainer_compat import chainer

from fast import gpu_layer
from fast.available import missing
import net

if not missing:
    from fast import fused_net


class FusedMLP:
    """Mixin for :class:`net.MLP`: leaves to the links what is not computed faster."""

    def forward(self, x):
        if not missing and fused_net.can_fuse(self, x):
            return fused_net.fused_net(self, x)
        return super().forward(x)

    def layer(self, i, x):
        x = chainer.as_variable(x)
        l, bn = self[f'l{i}'], self[f'bn{i}']
        if not gpu_layer.can_fuse(x.array, l, bn):
            return super().layer(i, x)
        return gpu_layer.gpu_layer(x, l, bn, self.activation_bits if i <= self.n_layers else 0)


class BinaryMLP(FusedMLP, net.BinaryMLP):
    pass


class QuantizedMLP(FusedMLP, net.QuantizedMLP):
    pass
