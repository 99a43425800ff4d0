#!/usr/bin/env python3
"""Counts where packed and float nets differ, and compares the hidden layer with the CPU's peak.

    .venv/bin/python benchmarks/packed_checks.py MODEL ...

A unit differs where the float net, given the same inputs, computes another level, because it
rounds as it sums and the exact sum is at a threshold. The peak is the rate of XOR, popcount and
addition on data in the level-1 cache, on one core.
"""

import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from chainer_compat import chainer
import numba
import numpy
from numba.extending import intrinsic

from data import read_mnist, to_input
from deploy.fold import fold
from deploy.packed import PackedMLP
from deploy.xnor import NO_SUMS, XnorMLP
from fast import cpu
from net import BinaryMLP
from support import models
from support.program import MNIST
from support.storage import read_npz


def count(path):
    """One row of the table."""
    arrays = read_npz(path)
    net = models.load(path, arrays)
    packed = fold(net)
    plain, fast = PackedMLP(packed), XnorMLP(packed)
    images = read_mnist(MNIST)[2]
    pixels = images.reshape(len(images), -1)
    logits, n = [], plain.activation_levels
    differ = units = 0
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, len(images), 1000):
            x, h = pixels[start : start + 1000], to_input(images[start : start + 1000])
            for i, (W, T) in enumerate(zip(plain.weights, plain.thresholds), 1):
                h = net.activation(net[f'bn{i}'](net[f'l{i}'](h))).array
                S = x.astype(W.dtype) @ W
                V = sum((S >= t).astype(int) for t in T.T)
                x = numpy.rint(h * n).astype(
                    int
                )  # the float net's activations are what the next layer gets in both
                differ += (2 * V - n != x).sum()
                units += V.size
            logits.append(net[f'bn{net.n_layers + 1}'](net[f'l{net.n_layers + 1}'](h)).array)
    classes = numpy.concatenate(logits).argmax(axis=1)
    same = (classes != fast.logits(images).argmax(axis=1)).sum()
    print(
        f'| {models.describe(arrays)[2:]} | {same} of {len(images):,} | {differ:,} of {units:,} |',
        flush=True,
    )


@intrinsic
def popcount(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return numba.types.uint64(numba.types.uint64), codegen


@numba.njit(nogil=True)
def peak(words, x, times):
    total = numpy.uint64(0)
    for i in range(times):
        y = numpy.uint64(x) + numpy.uint64(i)
        for k in range(2048):
            total += popcount(words[k] ^ y)
    return total


def roofline():
    """Prints billions of 64-bit words per second: the peak, and those of the hidden layer."""
    memory = numpy.random.RandomState(0).randint(0, 2**62, 4104).astype(numpy.uint64)
    words = memory[-memory.ctypes.data // 8 % 8 :][:2048]
    numpy.random.seed(0)
    layer, arguments = XnorMLP(fold(BinaryMLP(784, 1024, 10))).layers[1]
    X = numpy.random.RandomState(0).randint(0, 256, (500, 128)).astype(numpy.uint8)
    Y = numpy.empty_like(X)
    rates = {'alone': [], 'in the hidden layer': []}
    for _ in range(100):
        for name, work, n in (
            ('alone', lambda: peak(words, 1, 500), words.size * 500),
            (
                'in the hidden layer',
                lambda: layer(X, *arguments, Y, NO_SUMS),
                1024 * 16 * len(X),
            ),
        ):
            start = time.perf_counter()
            work()
            rates[name].append(n / (time.perf_counter() - start) / 1e9)
    alone, layer = (statistics.median(rate) for rate in rates.values())
    share = statistics.median(b / a for a, b in zip(*rates.values()))
    print(
        f'\n{cpu.describe()}. XOR, popcount and addition: '
        f'{alone:.1f} billion 64-bit words per second; '
        'in the hidden layer (1024 x 1024, '
        f'500 images): {layer:.1f}, {100 * share:.0f} % of that'
    )


if __name__ == '__main__':
    print('| net | classes that differ | activations that differ |\n|---|---|---|')
    for path in sys.argv[1:]:
        count(path)
    roofline()
