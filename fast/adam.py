"""Chainer's Adam and the weight clip in one pass over memory, on the CPU or a GPU."""

from chainer_compat import chainer
from chainer.backends import cuda
from chainer.optimizers import adam
import numpy

from fast import loops
from weight_clip import WeightClip


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam` for one parameter."""

    clip = None

    def add_hook(self, hook, name=None, timing='auto'):
        """Keeps a WeightClip for the loop; adds any other hook as usual."""
        if isinstance(hook, WeightClip) and timing != 'pre':
            self.clip = hook
        else:
            super().add_hook(hook, name, timing)

    def update_core(self, param):
        hp = self.hyperparam
        state = self.state or {}  # None while the parameter is not initialized
        arrays = param.array, param.grad, state.get('m'), state.get('v')
        plain = not (hp.weight_decay_rate or hp.amsgrad or hp.adabound)
        on_gpu = all(isinstance(a, cuda.ndarray) and a.dtype == numpy.float32 for a in arrays)
        if not plain or not (on_gpu or loops.accept(*arrays)):
            super().update_core(param)
            if self.clip:
                self.clip(self, param)
            return
        low, high = (self.clip.low, self.clip.high) if self.clip else (-numpy.inf, numpy.inf)
        numbers = 1 - hp.beta1, 1 - hp.beta2, hp.eps, self.alpha_t, hp.eta, low, high
        numbers = map(param.dtype.type, numbers)
        if on_gpu:
            w, g, m, v = arrays
            _kernel()(g, *numbers, w, m, v)
        else:
            loops.adam_loop(*[a.reshape(-1) for a in arrays], *numbers)


def _kernel():
    """:func:`fast.loops.adam_loop` for a GPU."""
    return cuda.elementwise(
        'T g, T one_minus_beta1, T one_minus_beta2, T eps, T alpha_t, T eta, T low, T high',
        'T w, T m, T v',
        """
        m += one_minus_beta1 * (g - m);
        v += one_minus_beta2 * (g * g - v);
        T moved = w - eta * (alpha_t * m / (sqrt(v) + eps));
        w = moved < low ? low : moved > high ? high : moved;
        """,
        'adam_and_clip',
    )


class Adam(chainer.optimizers.Adam):
    """:class:`chainer.optimizers.Adam` as a compiled loop, with the same results to the bit on the
    CPU, and as one kernel on a GPU, with the same results to rounding.

    NumPy passes over memory many times for one update; the loop passes once and clips on the way
    if a :class:`~weight_clip.WeightClip` was added to the optimizer or to the update rule of the
    parameter. See benchmarks/README.md for the gain.
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
