"""What several tests use: programs, logs, data sets, small trained nets."""

import gzip
import json
import os
import struct
import subprocess
import sys

import chainer
import chainer.links as L
import numpy

import fast
from data import Minibatches
from support.files import read_npz
from weight_clip import WeightClip

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write_idx(path, array):
    """Writes an IDX file, compressed if its name ends in .gz: the inverse of data.read_idx."""
    header = struct.pack(f'>{1 + array.ndim}I', 0x800 + array.ndim, *array.shape)
    with (gzip.open if str(path).endswith('.gz') else open)(path, 'wb') as f:
        f.write(header + array.astype(numpy.uint8).tobytes())


def write_dataset(
    folder, train_images, train_labels, test_images, test_labels, prefix='', test='t10k', ending=''
):
    folder.mkdir(exist_ok=True)
    for name, array in (
        (f'{prefix}train-images-idx3-ubyte', train_images),
        (f'{prefix}train-labels-idx1-ubyte', train_labels),
        (f'{prefix}{test}-images-idx3-ubyte', test_images),
        (f'{prefix}{test}-labels-idx1-ubyte', test_labels),
    ):
        write_idx(folder / (name + ending), array)
    return folder


def train(*arguments, **environment):
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, 'train_mnist.py'), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def small(folder, data, *arguments, **environment):
    """A training that takes seconds: 600 images, a small net."""
    return train(
        '--data', data, '--unit', 50, '--batchsize', 50, '--out', folder, *arguments, **environment
    )


def log_of(folder):
    """The log without its times."""
    with open(os.path.join(folder, 'log')) as f:
        return [{k: v for k, v in row.items() if k != 'elapsed_time'} for row in json.load(f)]


def same(a, b):
    a, b = read_npz(str(a)), read_npz(str(b))
    return a.keys() == b.keys() and all(numpy.array_equal(a[name], b[name]) for name in a)


def trained(
    images, labels, seed, n_units, n_layers, weight_bits, activation_bits, steps=100, signed=False
):
    numpy.random.seed(seed)
    n_in = images[0].size
    if weight_bits == activation_bits == 1:
        net = fast.BinaryMLP(n_in, n_units, 10, n_layers)
    else:
        net = fast.QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
    if signed:
        net.use_signed_pixels()
    model = L.Classifier(net)
    optimizer = fast.Adam(0.003).setup(model)
    optimizer.add_hook(WeightClip())
    net.bn1.gamma.array[::3] *= -1  # training alone hardly ever turns a gamma's sign
    net.bn1.gamma.array[1] = 0
    iterator = Minibatches(images, labels, 100, seed)
    for _ in range(steps):
        optimizer.update(model, *next(iterator))
    net.bn1.gamma.array[1] = 0
    net.add_persistent('pixel_scale', net.pixel_scale)
    return net


def logits_of(net, images):
    images = images.reshape(len(images), -1)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        return numpy.concatenate(
            [net(images[i : i + 1000]).array for i in range(0, len(images), 1000)]
        )


def equal(a, b):
    """Same dtype, shape and bits; any NaN is like another."""
    return a.dtype == b.dtype and numpy.array_equal(a, b, equal_nan=True)
