"""What all contenders share: MNIST, minibatches, and the protocol of train.py and inference.py.

A contender is a process in its own environment that does some work on request, and answers with
the time and the result. This file needs NumPy, and nothing of the project.
"""

import gzip
import json
import os
import sys
import time

import numpy

MNIST = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'mnist')


def read_mnist():
    """Training images as float32 in [0, 1) of shape (60000, 784), and labels."""
    with gzip.open(f'{MNIST}/train-images-idx3-ubyte.gz') as f:
        images = numpy.frombuffer(f.read(), numpy.uint8, offset=16).reshape(60000, 784)
    with gzip.open(f'{MNIST}/train-labels-idx1-ubyte.gz') as f:
        labels = numpy.frombuffer(f.read(), numpy.uint8, offset=8)
    return images.astype(numpy.float32) / numpy.float32(256), labels.astype(numpy.int64)


def read_test_images():
    """The test images, a uint8 array of shape (10000, 784)."""
    with gzip.open(f'{MNIST}/t10k-images-idx3-ubyte.gz') as f:
        return numpy.frombuffer(bytearray(f.read()), numpy.uint8, offset=16).reshape(10000, 784)


def orders(n):
    """The order of the examples, epoch by epoch: the same for every contender."""
    epoch = 0
    while True:
        yield numpy.random.RandomState((0, epoch)).permutation(n)
        epoch += 1


def initial_weights(sizes, recipe=False):
    """The same for every contender, ours included: of shape (outputs, inputs), normal with
    deviation sqrt(1 / inputs), or uniform in [-1, 1] in the paper's recipe.
    """
    random = numpy.random.RandomState(0)
    weights = [random.standard_normal((m, k)) / numpy.sqrt(k) for k, m in zip(sizes, sizes[1:])]
    if recipe:  # drawn after the others, as train_mnist.py does
        weights = [random.uniform(-1, 1, W.shape) for W in weights]
    return [W.astype(numpy.float32) for W in weights]


def serve(work):
    """Obeys lines of standard input: each is a number.

    Args:
        work: Function of that number, which is timed: a training trains so many steps and returns
            the mean loss of the last; an inference classifies the test images in minibatches of
            that size and returns the classes.
    """
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    print('ready', file=out, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        result = work(int(line))
        seconds = time.perf_counter() - start
        with open('/proc/self/status') as f:
            peak = next(int(row.split()[1]) for row in f if row.startswith('VmHWM'))
        if isinstance(result, numpy.ndarray):
            result = result.tolist()
        print(
            json.dumps({'seconds': seconds, 'result': result, 'peak MB': peak / 1024}),
            file=out,
            flush=True,
        )
