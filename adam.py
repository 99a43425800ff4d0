"""Chainer's Adam and the weight clip, in one pass over memory on the CPU."""
import chainer_compat  # noqa: F401  (before Chainer)
from chainer import optimizers
from chainer.optimizers import adam
import numpy

from compiled import adam_loop, fits
from weight_clip import WeightClip


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam`."""
    clip = None

    def add_hook(self, hook, name=None, timing='auto'):
        """Keeps a WeightClip for the loop; any other hook is called as ever."""
        if isinstance(hook, WeightClip):
            self.clip = hook
        else:
            super().add_hook(hook, name, timing)

    def update_core(self, param):
        hp = self.hyperparam
        state = self.state or {}  # there is none while the parameter is not initialized
        arrays = param.array, param.grad, state.get('m'), state.get('v')
        if hp.weight_decay_rate or hp.amsgrad or hp.adabound or not fits(*arrays):
            super().update_core(param)
            if self.clip:
                self.clip(self, param)
            return
        low, high = (self.clip.low, self.clip.high) if self.clip else (-numpy.inf, numpy.inf)
        adam_loop(*[a.reshape(-1) for a in arrays], *[param.dtype.type(number) for number in (
            1 - hp.beta1, 1 - hp.beta2, hp.eps, self.alpha_t, hp.eta, low, high)])


class Adam(optimizers.Adam):
    """:class:`chainer.optimizers.Adam` as a compiled loop; the results are the same, to the bit.

    NumPy goes over memory many times for an update, the loop once, and clips on the way if the parameter's update rule
    is given a :class:`~weight_clip.WeightClip`: see benchmarks/README.md for what the loops gain.
    """

    def create_update_rule(self):
        return AdamRule(self.hyperparam)
