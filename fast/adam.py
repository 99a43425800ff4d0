"""Chainer's Adam and the weight clip in one pass over memory, on the CPU or a GPU."""

from chainer_compat import chainer
from chainer.backends import cuda
from chainer.optimizers import adam
import numpy

from fast import gpu
from fast.available import missing
from fast.function import accept
from weight_clip import WeightClip

if not missing:
    from fast.loops import SLICE, Update, adam as update


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam` for one parameter."""

    clip = None

    def add_hook(self, hook, name=None, timing='auto'):
        """Keeps a WeightClip for the loop; adds any other hook, or another clip, as usual."""
        if isinstance(hook, WeightClip) and timing != 'pre' and not self.clip:
            self.clip = hook
        else:
            super().add_hook(hook, name, timing)

    def update_core(self, param):
        hp = self.hyperparam
        state = self.state or {}  # None while the parameter is not initialized
        arrays = param.array, param.grad, state.get('m'), state.get('v')
        plain = not (hp.weight_decay_rate or hp.amsgrad or hp.adabound)
        on_gpu = accept(cuda.ndarray, *arrays)
        if not plain or not (on_gpu or not missing and accept(numpy.ndarray, *arrays)):
            super().update_core(param)
            if self.clip:
                self.clip(self, param)
            return
        low, high = (self.clip.low, self.clip.high) if self.clip else (-numpy.inf, numpy.inf)
        numbers = 1 - hp.beta1, 1 - hp.beta2, hp.eps, self.alpha_t, hp.eta, low, high
        numbers = map(numpy.float32, numbers)
        if on_gpu:
            gpu.adam(*arrays, *numbers)
        else:
            update(-(-param.size // SLICE), Update(*(a.reshape(-1) for a in arrays), *numbers))


class Adam(chainer.optimizers.Adam):
    """:class:`chainer.optimizers.Adam`, computed faster.

    NumPy passes over memory many times for one update. A compiled loop on the CPU, with exactly
    the same results, or one kernel on a GPU, with the same results up to rounding, passes once. It
    clips on the way if a :class:`~weight_clip.WeightClip` was added to the optimizer or to the
    update rule of the parameter.
    """

    def create_update_rule(self):
        return AdamRule(self.hyperparam)

    def add_hook(self, hook, name=None, timing='auto'):
        """Hands a WeightClip to the update rules; adds any other hook as usual."""
        if isinstance(hook, WeightClip):
            for param in self.target.params():
                param.update_rule.add_hook(hook, name, timing)
        else:
            super().add_hook(hook, name, timing)
