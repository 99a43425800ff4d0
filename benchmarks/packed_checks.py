#!/usr/bin/env python3
"""Counts where packed and float nets differ on the test images.

    .venv/bin/python benchmarks/packed_checks.py MODEL ...

A unit differs where the links of the float net, given the same inputs, compute another level,
because they round as they sum and the exact sum is at a threshold.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from chainer_compat import chainer
import numpy

from data import MNIST, read_mnist
from deploy.fold import fold
from deploy.packed import PackedMLP
from deploy.xnor import XnorMLP
from support import models
from support.files import read_npz


def count(path):
    """One row of the table."""
    saved = models.SavedNet(read_npz(path))
    net = models.load(path, saved)
    packed = fold(net)
    plain, fast = PackedMLP(packed), XnorMLP(packed)
    images = read_mnist(MNIST)[2]
    pixels = images.reshape(len(images), -1)
    logits, n = [], 2**packed.activation_bits - 1
    differ = units = 0
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for start in range(0, len(images), 1000):
            x = pixels[start : start + 1000]
            h = x.astype(numpy.float32) / numpy.float32(net.pixel_scale)
            h = 2 * h - 1 if net.signed_pixels else h
            for i, (W, layer) in enumerate(zip(plain.weights[:-1], packed.layers), 1):
                h = net.activation(net[f'bn{i}'](net[f'l{i}'](h))).array
                S = x.astype(W.dtype) @ W
                V = sum((S >= t).astype(int) for t in layer.T.T)
                # Both nets get the float net's activations as inputs of the next layer.
                x = numpy.rint(h * n).astype(int)
                differ += (2 * V - n != x).sum()
                units += V.size
            logits.append(net[f'bn{net.n_layers + 1}'](net[f'l{net.n_layers + 1}'](h)).array)
    classes = numpy.concatenate(logits).argmax(axis=1)
    same = (classes != fast.logits(images).argmax(axis=1)).sum()
    print(
        f'| {saved.title[2:]} | {same} of {len(images):,} | {differ:,} of {units:,} |',
        flush=True,
    )


if __name__ == '__main__':
    print('| net | classes that differ | activations that differ |\n|---|---|---|')
    for path in sys.argv[1:]:
        count(path)
