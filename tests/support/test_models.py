"""Saved nets: their description, and loading them."""

import chainer
import numpy
import pytest

from pictures.layout import Layout
from deploy.fold import fold
from deploy.packed import PackedMLP
from helpers import trained
from net import BinaryMLP, QuantizedMLP
from support.models import describe, layout_of, load, remember_layout
from support.files import arrays_of, read_npz, save_arrays, save_npz


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


@pytest.mark.parametrize('packed', [False, True])
def test_the_layout_is_saved(packed):
    images = numpy.full((9, 4, 7), 255, numpy.uint8)
    images[:, 1:3, 2:5] = 0
    net = BinaryMLP(28, 20, 3)
    remember_layout(net, images, transposed=True)
    arrays = fold(net) if packed else arrays_of(net)
    assert layout_of(arrays, 28) == Layout(4, 7, 2, 3, dark=1, transposed=1)


def test_older_models_have_the_layout_of_mnist():
    assert layout_of({}, 784) == Layout()
    assert layout_of({}, 196) == Layout(14, 14, 10, 10)
    assert layout_of({}, 12) is None


def test_the_scale_of_pixels_is_saved(tmp_path, mnist):
    """Older models divide pixels by 255, also after they are saved anew or packed."""
    path, net = str(tmp_path / 'mlp.model'), trained(*mnist[:2], 0, 50, 1, 1, 1, steps=50)
    for scale in 256, 255:
        save_npz(path, net)
        loaded = load(path, read_npz(path))
        assert loaded.pixel_scale == scale
        x = mnist[2][:1000].reshape(1000, 784)
        with chainer.using_config('train', False):
            expected = net((x / scale).astype('f')).array
            given = loaded(x).array
        assert numpy.array_equal(given, expected)
        packed = PackedMLP(fold(loaded)).logits(x).argmax(axis=1)
        assert (packed == expected.argmax(axis=1)).mean() >= (1 if scale == 256 else 0.999)
        net._persistent.discard('pixel_scale')
    save_arrays(path, {**read_npz(path), 'pixel_scale': numpy.int32(3)})
    with pytest.raises(ValueError, match='mlp.model: its pixels are divided by 3, not by 256'):
        load(path, read_npz(path))


@pytest.mark.parametrize(
    'layout',
    [
        [28, 28, 20, 20, 0],
        [28, 28, 20, 20, 0, 2],
        [28, 28, 29, 20, 0, 0],
        [-28, -28, -30, -30, 0, 0],
        [27, 28, 20, 20, 0, 0],
        [28.0, 28, 20, 20, 0, 0],
    ],
)
def test_a_layout_that_cannot_be_is_refused(layout):
    with pytest.raises(ValueError, match='a layout of its images that cannot be'):
        layout_of({'layout': numpy.array(layout)}, 784)
