#!/usr/bin/env python3
"""Checks the kernels of this CPU against NumPy, to the bit, on odd shapes and all bits."""

import os
import sys

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
from deploy.fold import fold
from deploy.packed import PackedMLP
from deploy.xnor import XnorMLP
from fast import cpu
from fast.memory import Memory
from fast.products import Pixels
from net import QuantizedMLP
from qst import quantize

random = numpy.random.RandomState(0)
for weight_bits, activation_bits, n_in, n_units, n_layers in [
    (1, 1, 784, 300, 2),
    (1, 1, 20, 9, 3),
    (1, 1, 31, 2100, 2),
    (1, 1, 783, 131, 1),
    (1, 2, 50, 70, 2),
    (2, 1, 784, 65, 2),
    (2, 2, 100, 64, 3),
    (3, 3, 33, 129, 2),
    (4, 4, 784, 200, 2),
    (5, 6, 40, 63, 2),
    (7, 7, 300, 65, 2),
    (8, 8, 784, 50, 2),
]:
    net = QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
    for i in range(1, n_layers + 2):
        bn = net[f'bn{i}']
        bn.avg_mean[:] = random.normal(0, 0.3, bn.avg_mean.shape)
        for a in bn.gamma.array, bn.beta.array:
            a[:] = random.uniform(-1, 1, a.shape)
    arrays = fold(net)
    plain, fast = PackedMLP(arrays), XnorMLP(arrays)
    images = random.randint(0, 256, (37, n_in)) * (random.uniform(0, 1, (37, n_in)) < 0.4)
    images[:3] = 255
    images[3] = 0
    for n in 1, 2, 3, 4, 5, 37:
        given = images[:n].astype(numpy.uint8)
        assert numpy.array_equal(plain.logits(given), fast.logits(given)), (weight_bits, n_in, n)
    W, none = net.l1.W.array, numpy.zeros(-(-n_units // 64) * 64, 'f')
    pixels = Pixels(images.astype(numpy.uint8), 256, 0, None, 1.0, Memory())
    sums = pixels.linear(W, weight_bits, none, None).planes[0, :, :n_units]
    levels = numpy.rint(quantize(W, weight_bits) * (2**weight_bits - 1)).astype(int)
    assert numpy.array_equal(sums, images @ levels.T)
print(f'{cpu.describe()}: equal')
