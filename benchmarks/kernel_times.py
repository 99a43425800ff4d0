#!/usr/bin/env python3
"""Times each layer of packed nets on one core, with the kernels of this CPU or of a lesser one.

    .venv/bin/python benchmarks/kernel_times.py MODEL ...
    NUMBA_CPU_NAME=haswell .venv/bin/python benchmarks/kernel_times.py MODEL ...

MODEL is a packed net. A number is microseconds per image: of each layer and of everything, the
minimum over 15 passes over the test images, in chunks of 500.
"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data import MNIST, read_test_set
from deploy.packed import CHUNK, PackedNet
from deploy.xnor import XnorMLP
from support.files import read_npz


def timed(function, spent, i):
    def call(*arguments):
        start = time.perf_counter()
        function(*arguments)
        spent[i] += time.perf_counter() - start

    return call


images = read_test_set(MNIST)[0].reshape(10000, -1)
for path in sys.argv[1:]:
    net = XnorMLP(PackedNet(read_npz(path)))
    net.chunk_logits(images[:CHUNK])  # compiles
    spent = [0.0] * len(net.layers)
    net.layers = [(timed(f, spent, i), arguments) for i, (f, arguments) in enumerate(net.layers)]
    passes = []
    for _ in range(15):
        spent[:] = [0.0] * len(spent)
        start = time.perf_counter()
        for i in range(0, len(images), CHUNK):
            net.chunk_logits(images[i : i + CHUNK])
        passes.append([*spent, time.perf_counter() - start])
    layers = [f'{min(seconds) / len(images) * 1e6:.2f}' for seconds in zip(*passes)]
    cells = ' | '.join([net.kernels, os.path.basename(path), *layers])
    print(f'| {cells} |', flush=True)
