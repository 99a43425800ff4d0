"""Temperature scaling: what makes the probabilities of a net agree with how often it is right."""

from chainer_compat import chainer
import numpy

from support.models import TEMPERATURES, logits


def fit_temperature(net, images, labels):
    """Fits the temperature T of a trained net, whose probabilities are softmax(y / T).

    .. math:: T = \\arg\\min_T - \\sum_n \\log softmax(y_n / T)_{t_n}

    The sum is a convex function of 1 / T, so T is where its derivative changes sign.

    Args:
        net (~net.MLP): The net, on any device.
        images (array): uint8 images, on any device.
        labels (array): Their classes t, an int array of shape (N,).

    Returns:
        float: T, within ``TEMPERATURES``. If every image is classified correctly, the sum only
        decreases towards T = 0; so T stays where the mean probability of the answers is at most
        (N + 1) / (N + 2), which is all that N right answers of N promise (rule of succession).

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599, section 4.2.
    """
    y = logits(net, images).astype(numpy.float64)
    y -= y.max(axis=1, keepdims=True)
    right = y[numpy.arange(len(y)), chainer.backends.cuda.to_cpu(labels)].sum()
    low, high = TEMPERATURES
    while high / low > 1 + 1e-6:
        T = (low * high) ** 0.5
        p = numpy.exp(y / T)
        p /= p.sum(axis=1, keepdims=True)
        lower = (p * y).sum() < right and p.max(axis=1).mean() < (len(y) + 1) / (len(y) + 2)
        low, high = (low, T) if lower else (T, high)
    return T
