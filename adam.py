"""Chainer's Adam, computed block by block on the CPU."""
import chainer_compat  # noqa: F401  (before Chainer)
from chainer import optimizers
from chainer.optimizers import adam
import numpy

BLOCK = 2 ** 15  # elements: a block of the four arrays and the scratch, 640 KB in float32, fits a level-2 cache


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam`."""

    def update_core_cpu(self, param):
        hp = self.hyperparam
        if param.grad is None:
            return
        if (hp.weight_decay_rate or hp.amsgrad or hp.adabound or param.dtype == numpy.float16
                or not param.array.flags.c_contiguous):
            super().update_core_cpu(param)
            return
        flat = [array.reshape(-1) for array in (param.array, param.grad, self.state['m'], self.state['v'])]
        alpha_t = self.alpha_t
        scratch = numpy.empty(min(BLOCK, param.size), param.dtype)
        for start in range(0, param.size, BLOCK):
            w, g, m, v = [array[start:start + BLOCK] for array in flat]
            t = scratch[:w.size]
            # m += (1 - beta1) (g - m)
            numpy.subtract(g, m, out=t)
            t *= 1 - hp.beta1
            m += t
            # v += (1 - beta2) (g g - v)
            numpy.multiply(g, g, out=t)
            t -= v
            t *= 1 - hp.beta2
            v += t
            # w -= eta alpha_t / (sqrt(v) + eps) m
            numpy.sqrt(v, out=t)
            t += hp.eps
            numpy.divide(alpha_t, t, out=t)
            t *= m
            t *= hp.eta
            w -= t


class Adam(optimizers.Adam):
    """:class:`chainer.optimizers.Adam` without its temporaries; the results are the same, to the bit."""

    def create_update_rule(self):
        return AdamRule(self.hyperparam)
