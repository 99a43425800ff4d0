"""Saved nets: their description, and loading them."""

import numpy
import pytest

from net import BinaryMLP, QuantizedMLP
from support.models import describe
from support.storage import arrays_of


def test_describe():
    assert describe(arrays_of(BinaryMLP(784, 100, 10))) == 'a binary net 784-100-100-10'
    assert describe(arrays_of(QuantizedMLP(7, 20, 3, 1, 2, 3))) == (
        'a quantized net 7-20-3, W 2 bits, activations 3 bits'
    )


@pytest.mark.parametrize(
    'arrays',
    [
        {},
        {'l1/W': numpy.zeros(3)},
        {'a/W': numpy.zeros((3, 2))},
        {'l1/W': numpy.zeros((3, 2))},
        {
            'l1/W': numpy.zeros((3, 2)),
            'l1/bits': numpy.zeros(2),
            'activation_bits': numpy.array('x'),
        },
        {**arrays_of(BinaryMLP(7, 20, 3)), 'l2/bits': numpy.array(2)},
        {**arrays_of(BinaryMLP(7, 20, 3)), 'activation_bits': numpy.array(numpy.inf)},
    ],
)
def test_describe_something_else(arrays):
    with pytest.raises(ValueError, match='not a saved net of this program'):
        describe(arrays)
