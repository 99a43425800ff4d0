"""Folds a trained net into the integers of a packed model."""

from chainer_compat import chainer
import numpy

from deploy.packed import AFFINE, VERSION, PackedNet, pack_bits
from qst import quantize


def find_thresholds(level, low, high, n):
    """For each unit, the smallest integer sums that reach level 1, 2, ..., n.

    Args:
        level: Function of an int array of sums, of shape (n, M), that returns the levels,
            an array of that shape. It must be monotonically increasing in the sums.
        low (array): The smallest possible sum of each unit, an int array of shape (M,).
        high (array): The largest possible sum, likewise.
        n (int): Number of thresholds.

    Returns:
        array: int32 array of shape (M, n); ``high + 1`` where a level is never reached.
    """
    target = numpy.arange(1, n + 1)[:, None]
    below = numpy.broadcast_to(low, (n, len(low))).astype(numpy.int64)
    above = numpy.broadcast_to(high + 1, below.shape).astype(numpy.int64)
    while (below < above).any():  # bisection: the threshold is in [below, above]
        middle = (below + above) // 2
        reached = level(middle) >= target
        above = numpy.where(reached, middle, above)
        below = numpy.where(reached, below, numpy.minimum(middle + 1, above))
    return numpy.ascontiguousarray(above.T.astype(numpy.int32))


def fold(net):
    """Folds a net into integers.

    The activation of a hidden unit is a function of its integer sum S: in float32 as well,
    increasing if gamma is positive and decreasing if it is negative. Where it is negative, the
    weights are negated, so that all units are increasing. The thresholds are found by bisection
    with the net's own batch normalization and quantizer, so a unit has the same level for every
    sum that the float net computes exactly: in a binary net, all; by fast/, which adds whole
    numbers, all of up to 24 bits. Otherwise (also in the first layer of older nets, whose pixels
    were divided by 255) the float net rounds as it sums, and the two can differ in a unit whose
    sum is within float rounding of a threshold.

    Args:
        net (~net.MLP): The net, on the CPU, with finite parameters.

    Returns:
        ~deploy.packed.PackedNet: The packed net.

    Raises:
        ValueError: If it is a float net, or is too large for sums of 32 bits.
    """
    activation_bits = int(net.activation_bits)
    if activation_bits > 8:
        raise ValueError('a float net has no bits to pack')
    n = 2**activation_bits - 1
    arrays = {
        'packed_version': numpy.int32(VERSION),
        'n_in': numpy.int32(net.l1.W.shape[1]),
        'activation_bits': numpy.int32(activation_bits),
    }
    unit = net.pixel_scale  # the integer that stands for an input of 1.0
    for i in range(1, net.n_layers + 2):
        layer, bn = net[f'l{i}'], net[f'bn{i}']
        bits = int(layer.bits)
        n_w = 2**bits - 1
        # Odd integers from -n_w to n_w.
        W = numpy.rint(quantize(layer.W.array, bits) * n_w).astype(numpy.int64)
        high = abs(W).sum(axis=1) * unit
        if W.shape[1] * n_w * unit >= 2**31:
            raise ValueError(f'l{i}: {W.shape[1]} inputs are too many for sums of 32 bits')
        if i <= net.n_layers:
            sign = numpy.where(bn.gamma.array < 0, -1, 1)
            signed = i == 1 and net.signed_pixels  # a pixel P stands for 2 P / unit - 1

            def level(S):
                S = sign * S
                S = 2 * S - unit * W.sum(axis=1) if signed else S
                z = (S / (n_w * unit)).astype(numpy.float32) + layer.b.array
                with chainer.using_config('train', False), chainer.no_backprop_mode():
                    y = net.activation(bn(z)).array
                return numpy.rint((y * n + n) / 2)

            arrays[f'l{i}/T'] = find_thresholds(level, -high, high, n)
            W = W * sign[:, None]
        else:
            inv_std = numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps))
            affine = layer.b.array, bn.avg_mean, inv_std, bn.gamma.array, bn.beta.array
            arrays.update((f'l{i}/{name}', array) for name, array in zip(AFFINE, affine))
        arrays[f'l{i}/W'] = pack_bits((W + n_w) // 2, bits)
        unit = n
    for name in 'layout', 'accuracy', 'temperature':
        if hasattr(net, name):
            arrays[name] = getattr(net, name)
    return PackedNet({name: numpy.asarray(array) for name, array in arrays.items()})
