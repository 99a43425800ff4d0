"""Chainer's Adam, in one pass over memory on the CPU."""
import chainer_compat  # noqa: F401  (before Chainer)
from chainer import optimizers
from chainer.optimizers import adam

from compiled import adam_loop, fits


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam`."""

    def update_core_cpu(self, param):
        hp = self.hyperparam
        arrays = param.array, param.grad, self.state['m'], self.state['v']
        if hp.weight_decay_rate or hp.amsgrad or hp.adabound or not fits(*arrays):
            super().update_core_cpu(param)
            return
        adam_loop(*[a.reshape(-1) for a in arrays], *[param.dtype.type(number) for number in (
            1 - hp.beta1, 1 - hp.beta2, hp.eps, self.alpha_t, hp.eta)])


class Adam(optimizers.Adam):
    """:class:`chainer.optimizers.Adam` as a compiled loop; the results are the same, to the bit.

    NumPy goes over memory many times for an update, the loop once: see benchmarks/README.md for what the loops gain.
    """

    def create_update_rule(self):
        return AdamRule(self.hyperparam)
