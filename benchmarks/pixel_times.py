#!/usr/bin/env python3
"""Times the products of the first layer (fast/pixels.py) beside BLAS, by share of black pixels.

    OPENBLAS_NUM_THREADS=2 .venv/bin/python benchmarks/pixel_times.py

A number is milliseconds for a minibatch of 100, 784 pixels and 1000 units: the median of 100, in
turns, after a product and a pass over other memory as in a training step. fast/pixels.py leaves
the gradient to BLAS above 0.5 / threads.
"""

import os
import statistics
import sys
from time import perf_counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy

from data import MNIST, SCALE, read_mnist
from fast import cpu, loops, pixels

random = numpy.random.RandomState(0)
W, b = random.normal(0, 0.3, (1000, 784)).astype('f'), numpy.zeros(1000, 'f')
gy, y = (random.normal(0, 1, (100, 1000)).astype('f') for _ in range(2))
other = numpy.zeros(6_000_000, 'f')
mnist = read_mnist(MNIST)[0][:100].reshape(100, -1)
pixels.GREATEST_SHARE = 1

print(f'kernels: {cpu.describe()}; BLAS threads: {pixels.blas_threads()}')
print('| not black | forward | BLAS | backward | BLAS |\n|---|---|---|---|---|')
for share in None, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0:
    if share is None:
        images = mnist
    else:
        images = random.randint(1, 256, mnist.shape) * (random.uniform(0, 1, mnist.shape) < share)
    x = (images / SCALE).astype('f')
    P = pixels.find(x)
    ways = [
        lambda: pixels.linear(pixels.find(x), W, 1, b, y),
        lambda: numpy.dot(x, loops.quantize(W, 1).T),
        lambda: pixels.weight_gradient(P, x, gy),
        lambda: numpy.dot(gy.T, x),
    ]
    times = [[] for _ in ways]
    for i in range(101):
        for way, spent in zip(ways, times):
            other += numpy.dot(gy.T, gy)[0, 0]
            start = perf_counter()
            way()
            spent.append(perf_counter() - start)
    cells = [f'{statistics.median(spent[1:]) * 1000:.2f}' for spent in times]
    share = f'{(images != 0).mean():.2f}' + (' (MNIST)' if images is mnist else '')
    print('| ' + ' | '.join([share, *cells]) + ' |', flush=True)
