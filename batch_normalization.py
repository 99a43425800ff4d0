"""Chainer's batch normalization, in fewer passes over memory on the CPU."""
import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import chainer.links as L
from chainer.functions.normalization import batch_normalization
import numpy

from compiled import fits, normalize_backward_loop, normalize_loop


class Loops(batch_normalization.GeneralBatchNormalizationImpl):
    """What :class:`BatchNormalization` has computed in place of Chainer's NumPy code."""

    def forward(self, axis, gamma, x, x_layout, xp, expander, beta, eps, decay, running_mean, running_var):
        y = numpy.empty_like(x)
        mean, var, inv_std = (numpy.empty_like(gamma) for _ in range(3))
        normalize_loop(x, gamma, beta, x.dtype.type(eps), mean, var, inv_std, y)
        unbiased = len(x) / max(len(x) - 1, 1)
        running_mean *= decay
        running_mean += (1 - decay) * mean
        running_var *= decay
        running_var += (1 - decay) * unbiased * var
        return y, x_layout, running_mean, running_var, mean, var, inv_std, None

    def backward(self, axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data):
        if not fits(x, gy):
            return super().backward(
                axis, gamma, gy, x, x_layout, xp, expander, mean, inv_std, eps, var, forward_data)
        gx = numpy.empty_like(x)
        ggamma, gbeta = numpy.empty_like(gamma), numpy.empty_like(gamma)
        normalize_backward_loop(x, gy, gamma, mean, inv_std, x.dtype.type(1 / len(x)), gx, ggamma, gbeta)
        return gx, None, ggamma, gbeta


class BatchNormalization(L.BatchNormalization):
    """:class:`chainer.links.BatchNormalization` of M units; the results are the same, to the bit.

    A training step on the CPU takes compiled loops, where NumPy goes over memory many times (see
    benchmarks/README.md for what that gains). All else, the test mode and the GPU among it, is Chainer's.

    Args:
        size (int): Number of units M.
    """

    def __init__(self, size):
        super().__init__(size)

    def forward(self, x):
        """Normalizes the units of a minibatch.

        Args:
            x (:class:`~chainer.Variable` or array): Float array of shape (N, M).

        Returns:
            ~chainer.Variable: Float array of shape (N, M).

        Raises:
            chainer.utils.type_check.InvalidType: If ``x`` is not a float array, or the shape does not fit.
        """
        x = chainer.as_variable(x)
        config = chainer.config
        if (not config.train or config.in_recomputing or not fits(x.array, self.gamma.array)
                or x.shape[1:] != self.gamma.shape
                or x.shape[1] == 1):  # NumPy adds a single column up in another order
            return super().forward(x)
        function = batch_normalization.BatchNormalization(
            self.eps, self.avg_mean, self.avg_var, self.decay, impl_selector=lambda function, inputs: Loops())
        y, = function.apply((x, self.gamma, self.beta))
        return y
