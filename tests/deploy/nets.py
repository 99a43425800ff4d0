"""Nets that the writers of every format are tested with."""

import numpy

from deploy.fold import fold
from deploy.packed import PackedNet
from helpers import ROOT
from net import BinaryMLP, QuantizedMLP
from support.files import read_npz

SHAPES = {
    'binary': (BinaryMLP, 35, 70, 12, 2),
    'binary, one layer': (BinaryMLP, 64, 64, 3, 1),
    'W 1 bit, activations 2': (QuantizedMLP, 35, 40, 12, 2, 1, 2),
    'W 3 bits, activations 1': (QuantizedMLP, 35, 40, 12, 3, 3, 1),
    'W 4 bits, activations 4': (QuantizedMLP, 784, 50, 10, 2, 4, 4),
    'W 8 bits, activations 8': (QuantizedMLP, 35, 40, 12, 2, 8, 8),
}


def packed(name, signed=False):
    """A packed net with random parameters, and 300 images for it, of shape (300, 1, pixels)."""
    make, *sizes = SHAPES[name]
    numpy.random.seed(0)
    net = make(*sizes)
    if signed:
        net.use_signed_pixels()
    for i in range(1, net.n_layers + 2):
        for a, low, high in (
            (net[f'bn{i}'].gamma.array, -1, 1),
            (net[f'bn{i}'].beta.array, -0.5, 0.5),
            (net[f'bn{i}'].avg_mean, -2, 2),
            (net[f'bn{i}'].avg_var, 0.1, 2),
            (net[f'l{i}'].b.array, -0.1, 0.1),
        ):
            a[...] = numpy.random.uniform(low, high, a.shape)
    images = numpy.random.randint(0, 256, (300, 1, sizes[0]), numpy.uint8)
    images[:100] *= numpy.random.randint(0, 2, images[:100].shape, numpy.uint8)
    return fold(net), images


def supplied():
    """The packed net in results/."""
    return PackedNet(read_npz(f'{ROOT}/results/binary.packed'))
