"""Saved nets: their description, and loading them."""

import chainer
import numpy
import pytest

from pictures.layout import Layout
from deploy.fold import fold
from deploy.packed import PackedMLP, PackedNet
from helpers import trained
from net import BinaryMLP, QuantizedMLP
from support.models import SavedNet, load
from support.files import arrays_of, read_npz, save_npz
from training.saved import describe_net, initialize, remember_layout, remember_numbers


def test_titles():
    assert describe_net(BinaryMLP(784, 100, 10)) == 'a binary net 784-100-100-10'
    assert describe_net(QuantizedMLP(7, 20, 3, 1, 2, 3)) == (
        'a quantized net 7-20-3, W 2 bits, activations 3 bits'
    )


def saved(**changes):
    """The arrays of a net of images of 4 x 7, with changes; what is changed to None is missing."""
    net = QuantizedMLP(28, 20, 3, 2, 2, 2)
    remember_layout(net, numpy.full((1, 4, 7), 255, numpy.uint8), transposed=False)
    remember_numbers(net, accuracy=0.9, temperature=0.3)
    return {name: a for name, a in {**arrays_of(net), **changes}.items() if a is not None}


def filled(*shape, value=0.5):
    return numpy.full(shape, value, numpy.float32)


CHANGES = {
    'nothing': dict.fromkeys(saved()),
    'other names': {'l1/W': None, 'a/W': filled(20, 28)},
    'one axis': {'l1/W': filled(20)},
    'no inputs': {'l1/W': filled(20, 0)},
    'no hidden units': {'l1/W': filled(0, 28), 'l2/W': filled(0, 0), 'l3/W': filled(3, 0)},
    'no classes': {'l3/W': filled(0, 20), 'l3/b': filled(0)},
    'no hidden layer': {'l2/W': None, 'l3/W': None},
    'a matrix of another size': {'l2/W': filled(20, 21)},
    'hidden layers of two sizes': {'l2/W': filled(19, 20), 'l3/W': filled(3, 19)},
    'a bias of another size': {'l2/b': filled(1)},
    'no bias': {'l2/b': None},
    'doubles': {'l2/b': numpy.zeros(20)},
    'words': {'l2/b': numpy.array(['x'] * 20)},
    'not a number': {'bn2/gamma': filled(20, value=numpy.nan)},
    'infinity': {'bn3/avg_mean': filled(3, value=numpy.inf)},
    'a negative variance': {'bn1/avg_var': filled(20, value=-1)},
    'no bits': {'l1/bits': numpy.array(0)},
    'other bits in one layer': {'l2/bits': numpy.array(1)},
    'bits that are words': {'activation_bits': numpy.array('x')},
    'bits without end': {'activation_bits': numpy.array(numpy.inf)},
    'floats of half a net': {'activation_bits': numpy.array(32)},
    'no count of minibatches': {'bn1/N': None},
    'two signs of pixels': {'signed_pixels': numpy.array([1, 1])},
    'another scale of pixels': {'pixel_scale': numpy.array(3)},
    'an accuracy of two nets': {'accuracy': filled(2)},
    'more than all right': {'accuracy': filled(value=1.1)},
    'a temperature below 0': {'temperature': filled(value=-1)},
    'a temperature of 0': {'temperature': filled(value=0)},
    'a temperature without end': {'temperature': filled(value=1e9)},
    'a temperature that is no number': {'temperature': filled(value=numpy.nan)},
    'a temperature of each class': {'temperature': filled(3)},
    'a layout of floats': {'layout': numpy.array([4.0, 7, 4, 7, 0, 0])},
    **{
        f'layout {layout}': {'layout': numpy.array(layout, numpy.int32)}
        for layout in (
            [4, 7, 4, 7, 0],
            [4, 7, 4, 7, 0, 2],
            [4, 7, 5, 7, 0, 0],
            [-4, -7, -5, -8, 0, 0],
            [3, 7, 3, 7, 0, 0],
        )
    },
}


@pytest.mark.parametrize('changes', CHANGES.values(), ids=CHANGES)
def test_a_net_that_cannot_be_is_refused(changes):
    SavedNet(saved())
    with pytest.raises(ValueError) as e:
        SavedNet(saved(**changes))
    assert '\n' not in str(e.value) and 'cannot reshape' not in str(e.value)


@pytest.mark.parametrize('kind', [SavedNet, PackedNet])
def test_more_layers_than_can_be_trained(kind):
    """A file of 3 MB had 5,000, and took minutes."""
    arrays = {f'l{i}/W': filled(1, 1) for i in range(1, 1003)}
    arrays.update(packed_version=numpy.array(1), n_in=numpy.array(1))
    arrays.update(activation_bits=numpy.array(1))
    with pytest.raises(ValueError, match='more hidden layers than 1000'):
        kind(arrays)


@pytest.mark.parametrize('packed', [False, True])
def test_the_layout_is_saved(packed):
    images = numpy.full((9, 4, 7), 255, numpy.uint8)
    images[:, 1:3, 2:5] = 0
    net = BinaryMLP(28, 20, 3)
    remember_layout(net, images, transposed=True)
    checked = fold(net) if packed else SavedNet(arrays_of(net))
    assert checked.layout == Layout(4, 7, 2, 3, dark=1, transposed=1)


def test_older_models_have_the_layout_of_mnist():
    for n_in, layout in (784, Layout()), (196, Layout(14, 14, 10, 10)), (12, None):
        assert SavedNet(arrays_of(BinaryMLP(n_in, 2, 2))).layout == layout


def test_the_scale_of_pixels_is_saved(tmp_path, mnist):
    """Older models divide pixels by 255, also after they are saved anew or packed."""
    path, net = str(tmp_path / 'mlp.model'), trained(*mnist[:2], 0, 50, 1, 1, 1, steps=50)
    for scale in 256, 255:
        save_npz(path, net)
        loaded = load(path, SavedNet(read_npz(path)))
        assert loaded.pixel_scale == scale
        x = mnist[2][:1000].reshape(1000, 784)
        with chainer.using_config('train', False):
            expected = net((x / scale).astype('f')).array
            given = loaded(x).array
        assert numpy.array_equal(given, expected)
        packed = PackedMLP(fold(loaded)).logits(x).argmax(axis=1)
        assert (packed == expected.argmax(axis=1)).mean() >= (1 if scale == 256 else 0.999)
        net._persistent.discard('pixel_scale')


def test_numbers_about_a_net_are_saved_but_not_taken_over(tmp_path):
    path, net = str(tmp_path / 'mlp.model'), BinaryMLP(28, 20, 3)
    remember_numbers(net, accuracy=0.9, temperature=0.3)
    save_npz(path, net)
    saved = SavedNet(read_npz(path))
    assert saved.temperature == numpy.float32(0.3)
    assert load(path, saved).temperature == fold(net).temperature == saved.temperature
    other = BinaryMLP(28, 20, 3)
    initialize(path, other)
    assert numpy.array_equal(other.l1.W.array, net.l1.W.array)
    assert not {'accuracy', 'temperature'} & set(arrays_of(other))
    assert SavedNet(arrays_of(other)).temperature is fold(other).temperature is None
