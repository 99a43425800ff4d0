"""The floor: the matrix products of a training step alone, by NumPy's BLAS."""

import sys

import numpy

from worker import initial_weights, serve

sizes = list(map(int, sys.argv[1].split('-')))
batch = int(sys.argv[2])
weights = initial_weights(sizes)
random = numpy.random.RandomState(0)
inputs = [random.standard_normal((batch, k)).astype(numpy.float32) for k in sizes]


def train(steps):
    for _ in range(steps):
        for i, W in enumerate(weights):
            inputs[i].dot(W.T)
        for i, W in reversed(list(enumerate(weights))):
            inputs[i + 1].T.dot(inputs[i])
            if i > 0:
                inputs[i + 1].dot(W)
    return None


serve(train)
