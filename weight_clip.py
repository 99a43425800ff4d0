"""Optimizer hook that keeps the real-valued weights in an interval."""

from chainer_compat import chainer


class WeightClip:
    """Optimizer hook that clips every parameter to [low, high], in place, after each update.

    .. math:: w \\leftarrow \\min(\\max(w, low), high)

    Only the sign (or the level) of a weight takes part in the computation, so nothing else would
    keep its real value near the point where the sign changes. Added to an optimizer, the hook
    clips all parameters of its target, including those of batch normalization; added to the update
    rule of one parameter, it clips only that one; with both, the parameter stays within both
    intervals. Uninitialized parameters are skipped.

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
    timing = 'post'  # Chainer calls a hook before the update unless the hook asks for this.

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
