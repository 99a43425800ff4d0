#!/usr/bin/env python3
"""Checks the kernels of this CPU against NumPy on odd shapes and all bits."""

import os
import sys

import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
from deploy.fold import fold
from deploy.packed import PackedMLP
from deploy.xnor import XnorMLP
import fast
from fast import cpu
import net as plain_nets

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
    net = plain_nets.QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
    for i in range(1, n_layers + 2):
        bn = net[f'bn{i}']
        bn.avg_mean[:] = random.normal(0, 0.3, bn.avg_mean.shape)
        for a in bn.gamma.array, bn.beta.array:
            a[:] = random.uniform(-1, 1, a.shape)
    arrays = fold(net)
    plain, packed = PackedMLP(arrays), XnorMLP(arrays)
    images = random.randint(0, 256, (37, n_in)) * (random.uniform(0, 1, (37, n_in)) < 0.4)
    images[:3] = 255
    images[3] = 0
    for n in 1, 2, 3, 4, 5, 37:
        given = images[:n].astype(numpy.uint8)
        assert numpy.array_equal(plain.logits(given), packed.logits(given)), (weight_bits, n_in, n)
    gradients = []
    for room in fast, plain_nets:  # a step of training, the same up to rounding
        numpy.random.seed(0)
        net = room.QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
        for i in range(1, n_layers + 2):
            net[f'bn{i}'].beta.array[:] = numpy.random.uniform(-0.5, 0.5, len(net[f'l{i}'].W))
        y = net(images.astype(numpy.uint8))
        net.cleargrads()
        y.grad = numpy.random.normal(0, 1, y.shape).astype('f')
        y.backward()
        gradients.append([y.array] + [net[f'l{i}'].W.grad for i in range(1, n_layers + 2)])
    for ours, theirs in zip(*gradients):
        assert numpy.linalg.norm(ours - theirs) < 1e-4 * numpy.linalg.norm(theirs)
print(f'{cpu.describe()}: equal')
