"""Chainer's Adam and the weight clip in one pass over memory, on the CPU or a GPU."""

from chainer_compat import chainer
from chainer.backends import cuda
from chainer.optimizers import adam
import numpy

from fast import gpu_layer
from fast.available import accept, missing
from weight_clip import WeightClip

if not missing:
    from fast import loops


class AdamRule(adam.AdamRule):
    """Update rule of :class:`Adam` for one parameter."""

    clip = None
    pending = None  # updates that the optimizer launches together

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
        on_gpu = gpu_layer.accept(*arrays)
        if not plain or not (on_gpu or accept(*arrays)):
            super().update_core(param)
            if self.clip:
                self.clip(self, param)
            return
        low, high = (self.clip.low, self.clip.high) if self.clip else (-numpy.inf, numpy.inf)
        numbers = 1 - hp.beta1, 1 - hp.beta2, hp.eps, self.alpha_t, hp.eta, low, high
        numbers = [param.dtype.type(number) for number in numbers]
        if not on_gpu:
            loops.adam(*[a.reshape(-1) for a in arrays], tuple(numbers))
        elif self.pending is None:
            _launch([(arrays, numbers)])
        else:
            self.pending.append((arrays, numbers))


AT_ONCE = 12  # parameters of a launch: the arguments of a kernel must fit into 4 kB


def _launch(updates):
    """:func:`fast.loops.adam` for several parameters on a GPU, as one kernel."""
    ends = numpy.cumsum([arrays[0].size for arrays, _ in updates]).tolist()
    inputs, outputs = [], []
    for (w, g, m, v), numbers in updates:
        inputs += [g, *numbers]
        outputs += [w, m, v]
    _kernel(len(updates))(*inputs, *ends[:-1], *outputs, size=ends[-1])


@cuda.memoize()
def _kernel(count):
    numbers = 'one_minus_beta1', 'one_minus_beta2', 'eps', 'alpha_t', 'eta', 'low', 'high'
    inputs, outputs, code = [], [], []
    for k in range(count):
        inputs += [f'raw float32 g_{k}', *(f'float32 {name}_{k}' for name in numbers)]
        outputs += [f'raw float32 {name}_{k}' for name in 'wmv']
        at = f'i - end_{k - 1}' if k else 'i'
        arrays = ', '.join(f'{name}_{k}[{at}]' for name in 'wgmv')
        call = f'adam_and_clip({arrays}, {", ".join(f"{name}_{k}" for name in numbers)});'
        code.append(f'if (i < end_{k}) {{ {call} }}' if k < count - 1 else f'{{ {call} }}')
    inputs += [f'int64 end_{k}' for k in range(count - 1)]
    return cuda.cupy.ElementwiseKernel(
        ', '.join(inputs),
        ', '.join(outputs),
        ' else '.join(code),
        f'adam_and_clip_{count}',
        preamble="""
        __device__ void adam_and_clip(
            float& w, float g, float& m, float& v, float one_minus_beta1, float one_minus_beta2,
            float eps, float alpha_t, float eta, float low, float high)
        {
            m += one_minus_beta1 * (g - m);
            v += one_minus_beta2 * (g * g - v);
            float moved = w - eta * (alpha_t * m / (sqrtf(v) + eps));
            w = moved < low ? low : moved > high ? high : moved;
        }
        """,
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

    def update(self, lossfun=None, *args, **kwds):
        rules = [param.update_rule for param in self.target.params()]
        pending = None if self._post_update_hooks else []  # hooks look at updated parameters
        for rule in rules:
            rule.pending = pending
        try:
            super().update(lossfun, *args, **kwds)
        finally:
            for rule in rules:
                rule.pending = None
        for k in range(0, len(pending or ()), AT_ONCE):
            _launch(pending[k : k + AT_ONCE])

    def add_hook(self, hook, name=None, timing='auto'):
        """Hands a WeightClip to the update rules; adds any other hook as usual."""
        if isinstance(hook, WeightClip):
            for param in self.target.params():
                param.update_rule.add_hook(hook, name, timing)
        else:
            super().add_hook(hook, name, timing)
