#!/usr/bin/env python3
"""Packs a trained net: one bit a weight (k bits for a k-bit net), integers in place of floats.

    ./pack.py result/mlp.model result/mlp.packed
    ./inference.py result/mlp.packed

Batch normalization and activation of a hidden layer become integer thresholds, found by asking the float net's own
functions; the packed net gives the same answers. README.md has its size and speed.
"""
import os

import chainer_compat  # noqa: F401  (before Chainer)
import chainer
import numpy

from net import describe, load
from packed import VERSION, pack_bits
from program import Parser, run
from qst import quantize
from storage import read_npz, save_arrays


def find_thresholds(level, low, high, n_levels):
    """For each unit, the integer sums from which on it is at level 1, 2, ..., n_levels.

    Args:
        level: Function of an int array of sums, of shape (n_levels, M), that returns the levels, an array of that
            shape. It must not fall as the sum grows.
        low (array): The least sum of each unit, an int array of shape (M,).
        high (array): The greatest.
        n_levels (int): Number of thresholds.

    Returns:
        array: int32 array of shape (M, n_levels); ``high + 1`` where a level is never reached.
    """
    target = numpy.arange(1, n_levels + 1)[:, None]
    below = numpy.broadcast_to(low, (n_levels, len(low))).astype(numpy.int64)
    above = numpy.broadcast_to(high + 1, below.shape).astype(numpy.int64)
    while (below < above).any():  # bisection: the threshold is in [below, above]
        middle = (below + above) // 2
        reached = level(middle) >= target
        above = numpy.where(reached, middle, above)
        below = numpy.where(reached, below, numpy.minimum(middle + 1, above))
    return numpy.ascontiguousarray(above.T.astype(numpy.int32))


def pack(net):
    """Folds a net into integers.

    A hidden unit's float activation is a function of its integer sum S that never falls if gamma is positive and
    never rises if it is negative, in float32 arithmetic too; a unit with a negative gamma has its weights
    negated, so that all rise. The thresholds are found by bisection with the float net's own batch
    normalization and quantizer, so that a unit is at the same level for every sum that the float net computes
    exactly: those of all layers of a binary net but the first. In the first, where pixels are divided by 255, and
    in nets of more bits, the float net rounds as it sums; there the packed net has the exact sum, and the two can
    differ in a unit whose sum lies on a threshold to the float's last bits.

    Args:
        net (MLP): The net, on the CPU.

    Returns:
        dict: The arrays of a packed model, by name (see packed.py).

    Raises:
        ValueError: If it is a float net, holds a value that is not finite, or is too large for sums of 32 bits.
    """
    if int(net.activation_bits) > 8:
        raise ValueError('a float net has no bits to pack')
    for name, param in net.namedparams():
        if not numpy.isfinite(param.array).all():
            raise ValueError(f'{name[1:]} is not finite everywhere; such a net cannot be packed')
    activation_bits = int(net.activation_bits)
    n = 2 ** activation_bits - 1
    arrays = {'packed_version': numpy.int32(VERSION), 'n_in': numpy.int32(net.l1.W.shape[1]),
              'activation_bits': numpy.int32(activation_bits)}
    unit = 255  # the input that stands for 1.0, which is the greatest
    for i in range(1, net.n_layers + 2):
        layer, bn = net[f'l{i}'], net[f'bn{i}']
        bits = int(layer.bits)
        n_w = 2 ** bits - 1
        W = numpy.rint(quantize(layer.W.array, bits) * n_w).astype(numpy.int64)  # odd, from -n_w to n_w
        high = abs(W).sum(axis=1) * unit
        if W.shape[1] * n_w * unit >= 2 ** 31:
            raise ValueError(f'l{i}: {W.shape[1]} inputs are too many for sums of 32 bits')
        if i <= net.n_layers:
            sign = numpy.where(bn.gamma.array < 0, -1, 1)
            signed = i == 1 and net.signed_pixels  # a pixel P stands for 2 P / 255 - 1

            def level(S):
                S = sign * S
                S = 2 * S - 255 * W.sum(axis=1) if signed else S
                z = (S / (n_w * unit)).astype(numpy.float32) + layer.b.array
                with chainer.using_config('train', False), chainer.no_backprop_mode():
                    y = net.activation(bn(z)).array
                return numpy.rint((y * n + n) / 2)

            arrays[f'l{i}/T'] = find_thresholds(level, -high, high, n)
            W = W * sign[:, None]
        else:
            arrays.update({f'l{i}/b': layer.b.array, f'l{i}/mean': bn.avg_mean,
                           f'l{i}/inv_std': numpy.sqrt(numpy.reciprocal(bn.avg_var + bn.eps)),
                           f'l{i}/gamma': bn.gamma.array, f'l{i}/beta': bn.beta.array})
        arrays[f'l{i}/W'] = pack_bits((W + n_w) // 2, bits)
        unit = n
    return {name: numpy.asarray(array) for name, array in arrays.items()}


def main(argv=None):
    parser = Parser(description='Packs a trained net: one bit a weight, integers in place of floats.')
    parser.add_argument('model', metavar='MODEL', help='mlp.model of a training')
    parser.add_argument('packed', metavar='PACKED', help='packed model to write')
    args = parser.parse_args(argv)

    def main():
        if os.path.exists(args.packed) and os.path.samefile(args.model, args.packed):
            raise ValueError(f'{args.packed}: is the model itself; give another name')
        arrays = read_npz(args.model)
        if 'packed_version' in arrays:
            raise ValueError(f'{args.model}: is packed already')
        net = load(args.model, arrays)
        try:
            packed = pack(net)
        except ValueError as e:
            raise ValueError(f'{args.model}: {e}') from e
        save_arrays(args.packed, packed)
        print(describe(arrays))
        before, after = os.path.getsize(args.model), os.path.getsize(args.packed)
        print(f'{args.model}: {before} bytes')
        print(f'{args.packed}: {after} bytes, {before / after:.1f} times less')

    run(main)


if __name__ == '__main__':
    main()
