"""Optimizer hook that keeps the real-valued weights inside an interval."""
import chainer_compat  # noqa: F401  (before Chainer)
import chainer


class WeightClip:
    """Optimizer hook that clips every parameter to [low, high], in place, after each update.

    .. math:: w \\leftarrow \\min(\\max(w, low), high)

    Only the sign (or the level) of a weight acts, so nothing else would keep its real value near the
    point where the sign turns. Added to an optimizer, it clips all parameters of its target, those of batch
    normalization included; added to a parameter's update rule, that one (which :class:`adam.Adam` does while
    it updates). One that is not initialized yet is passed over.

    Args:
        low (float): Lower bound.
        high (float): Upper bound.

    Raises:
        ValueError: Unless ``low < high``.

    Source: Courbariaux et al., BinaryNet, arXiv:1602.02830, algorithm 1.

    .. admonition:: Example

        >>> optimizer = chainer.optimizers.Adam().setup(model)
        >>> optimizer.add_hook(WeightClip())
    """
    name = 'WeightClip'
    call_for_each_param = True
    timing = 'post'  # after the update: a hook of Chainer's is called before it unless it says so

    def __init__(self, low=-1.0, high=1.0):
        if not low < high:
            raise ValueError(f'low must be less than high, not {low!r} and {high!r}')
        self.low = low
        self.high = high

    def __call__(self, rule, param):
        w = param.array
        if w is None:
            return
        with chainer.using_device(param.device):
            param.device.xp.clip(w, self.low, self.high, out=w)  # one ufunc on either device
