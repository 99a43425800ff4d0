"""Packed nets: the fold, the file, and both ways to compute them give the float net's answers."""

import io

import chainer
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
import numpy
import pytest

from deploy.fold import find_thresholds, fold
from deploy.packed import PackedMLP, PackedNet, pack_bits, summary, unpack_bits
from helpers import ROOT, logits_of, run, trained
from net import BinaryMLP, FloatMLP, QuantizedMLP
from support import models
from support.files import read_npz, save_npz

try:
    from deploy.xnor import XnorMLP
except ImportError:
    XnorMLP = None
needs_numba = pytest.mark.skipif(XnorMLP is None, reason='Numba is not installed')
WAYS = [PackedMLP, pytest.param(XnorMLP, marks=needs_numba)]

NETS = {  # seed, units, hidden layers, bits of weights and activations; two of the default shape
    'binary': (0, 1000, 2, 1, 1),
    'binary, seed 1, 131 units': (1, 131, 3, 1, 1),
    'one layer': (2, 64, 1, 1, 1),
    'W 1 bit, activations 2': (3, 200, 2, 1, 2),
    '2 bits': (4, 128, 2, 2, 2),
    'W 3 bits, activations 1': (5, 77, 2, 3, 1),
    '3 bits': (6, 100, 2, 3, 3),
    '4 bits': (7, 1000, 2, 4, 4),
    '4 bits, seed 8, 63 units': (8, 63, 1, 4, 4),
    '8 bits': (9, 50, 2, 8, 8),
    'signed pixels': (10, 90, 2, 1, 1),
}


@pytest.fixture(scope='module', params=NETS)
def example(request, mnist):
    images, labels, test_images, _ = mnist
    if '131' in request.param:  # a number of pixels that is no multiple of 4
        images, test_images = images[:, 1:, 1:], test_images[:, 1:, 1:]
    net = trained(images, labels, *NETS[request.param], signed='signed' in request.param)
    return net, fold(net), test_images


@pytest.mark.parametrize('Way', WAYS)
def test_the_same_class_for_each_of_the_test_images(example, Way):
    net, packed, images = example
    expected = logits_of(net, images)
    assert len(set(expected.argmax(axis=1))) == 10
    logits = Way(packed).logits(images)
    assert logits.dtype == numpy.float32
    assert numpy.array_equal(logits.argmax(axis=1), expected.argmax(axis=1))
    # Where no sum is within float rounding of a threshold.
    same = (abs(logits - expected) < 1e-4).all(axis=1)
    assert same.mean() > 0.9


@needs_numba
def test_the_saved_net_has_the_same_logits(example, tmp_path):
    """Bit for bit: fast/ also adds whole numbers, unless a float cannot hold the sums."""
    net, packed, images = example
    if packed.weight_bits == 8:
        pytest.skip('its sums need more than 24 bits')
    path = str(tmp_path / 'mlp.model')
    save_npz(path, net)
    saved = models.load(path, models.SavedNet(read_npz(path)))
    assert numpy.array_equal(models.logits(saved, images), PackedMLP(packed).logits(images))


@pytest.mark.parametrize('Way', WAYS)
def test_the_temperature_divides_the_logits(example, Way):
    """Bit for bit as if it had divided the last gamma and beta of the net. No class changes."""
    net, packed, images = example
    T = numpy.float32(0.3)
    expected = Way(packed).logits(images)
    found = Way(PackedNet({**packed.arrays, 'temperature': T})).logits(images)
    numpy.testing.assert_allclose(found * T, expected, rtol=1e-4, atol=1e-5)
    assert numpy.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    net = net.copy('copy')
    last = net[f'bn{net.n_layers + 1}']
    last.gamma.array, last.beta.array = last.gamma.array / T, last.beta.array / T
    assert numpy.array_equal(found, Way(fold(net)).logits(images))


@needs_numba
def test_both_ways_are_equal_to_the_bit(example):
    _, packed, images = example
    images = numpy.concatenate(
        [
            images[:600],
            numpy.random.RandomState(0)
            .randint(0, 256, (600, *images.shape[1:]))
            .astype(numpy.uint8),
            numpy.full_like(images[:1], 255),
        ]
    )
    expected = PackedMLP(packed).logits(images)
    assert numpy.array_equal(XnorMLP(packed).logits(images), expected)
    for n in 1, 2, 249, 251:  # with and without threads, and a last chunk that is not full
        assert numpy.array_equal(XnorMLP(packed).logits(images[:n]), expected[:n])
    assert XnorMLP(packed).logits(images[:0]).shape == (0, 10)


def test_every_activation_of_a_binary_net_behind_the_first_layer(mnist):
    """Given the same inputs, integers and floats agree in every unit, on the threshold too."""
    images, labels, _, _ = mnist
    net = trained(images, labels, 0, 100, 2, 1, 1, steps=20)
    layer = fold(net).layers[1]
    # Inputs whose sums cover all that is possible: the first k inputs agree with the unit's
    # weights.
    W = layer.W
    sign = numpy.where(net.bn2.gamma.array < 0, -1, 1)
    for unit in range(100):
        x = numpy.where(numpy.tri(101, 100, -1, dtype=bool), W[unit], -W[unit])
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            y = net.activation(net.bn2(net.l2(x.astype(numpy.float32)))).array[:, unit]
        assert numpy.array_equal(y > 0, x @ W[unit] >= layer.T[unit, 0])
        assert numpy.array_equal(
            x @ W[unit] * sign[unit], x @ numpy.where(net.l2.W.array[unit] >= 0, 1, -1)
        )


@given(hnp.arrays(numpy.int64, (5, 3), elements=st.integers(-40, 41)))
def test_find_thresholds(thresholds):
    thresholds.sort(axis=0)
    found = find_thresholds(
        lambda S: (S[:, None, :] >= thresholds).sum(axis=1),
        numpy.full(3, -40),
        numpy.full(3, 40),
        5,
    )
    assert found.dtype == numpy.int32
    assert numpy.array_equal(found, thresholds.T)


@given(
    st.integers(1, 8).flatmap(
        lambda bits: st.tuples(
            st.just(bits),
            hnp.arrays(
                numpy.int32,
                hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
                elements=st.integers(0, 2**bits - 1),
            ),
        )
    )
)
def test_bits_there_and_back(bits_and_values):
    bits, V = bits_and_values
    planes = pack_bits(V, bits)
    assert planes.dtype == numpy.uint8 and planes.shape == (bits, len(V), -(-V.shape[1] // 8))
    assert numpy.array_equal(unpack_bits(planes, V.shape[1]), V)


def test_the_weights_are_those_of_the_net(example):
    net, packed, _ = example
    n = 2 ** int(net.l1.bits) - 1
    for i, layer in enumerate(packed.layers, 1):
        V = layer.V
        V = (
            numpy.where(net[f'bn{i}'].gamma.array[:, None] < 0, n - V, V)
            if i <= net.n_layers
            else V
        )
        numpy.testing.assert_allclose((2 * V - n) / n, quantized(net[f'l{i}']), rtol=1e-6)


def quantized(layer):
    with chainer.no_backprop_mode():
        identity = numpy.eye(layer.W.shape[1], dtype=numpy.float32)
        return (layer(identity).array - layer.b.array).T


def test_size_of_the_file(tmp_path):
    path = tmp_path / 'packed'
    save_npz(str(path), fold(BinaryMLP(784, 1000, 10)).arrays)
    assert path.stat().st_size <= 250_000


def test_what_cannot_be_packed():
    with pytest.raises(ValueError, match='sums of 32 bits'):
        fold(QuantizedMLP(40000, 1, 2, 1, 8, 8))
    with pytest.raises(ValueError, match='a float net has no bits to pack'):
        fold(FloatMLP(7, 8, 3))


def damaged(arrays):
    """Name -> arrays in which something is wrong."""

    def changed(**changes):
        return {name: a for name, a in {**arrays, **changes}.items() if a is not None}

    falling = arrays['l1/T'].copy()
    falling[:, 0] = 2**31 - 1
    infinite = arrays['l3/gamma'].copy()
    infinite[0] = numpy.inf
    return {
        'a version to come': changed(packed_version=numpy.int32(2)),
        'no version': changed(packed_version=numpy.array('1')),
        'no pixels': changed(n_in=numpy.int32(0)),
        'pixels without end': changed(n_in=numpy.int64(2**40)),
        'nine bits': changed(activation_bits=numpy.int32(9)),
        'more bits than thresholds': changed(activation_bits=numpy.int32(3)),
        'a layer missing': changed(**{'l2/W': None}),
        'a threshold missing': changed(**{'l2/T': None}),
        'something else': changed(more=numpy.zeros(3)),
        'weights as floats': changed(**{'l1/W': arrays['l1/W'].astype('f')}),
        'a unit too few': changed(**{'l1/W': arrays['l1/W'][:, 1:]}),
        'a word too many': changed(**{'l2/W': numpy.concatenate([arrays['l2/W']] * 2, axis=2)}),
        'no plane': changed(**{'l2/W': arrays['l2/W'][:0]}),
        'another number of planes': changed(**{'l2/W': numpy.concatenate([arrays['l2/W']] * 2)}),
        'thresholds that fall': changed(**{'l1/T': falling}),
        'thresholds of 64 bits': changed(**{'l1/T': arrays['l1/T'].astype('i8')}),
        'infinity': changed(**{'l3/gamma': infinite}),
        'no classes': changed(
            **{
                'l3/W': arrays['l3/W'][:, :0],
                **{
                    f'l3/{name}': arrays[f'l3/{name}'][:0]
                    for name in ('b', 'mean', 'inv_std', 'gamma', 'beta')
                },
            }
        ),
        'a layout that is not one': changed(layout=numpy.array([4, 5, 4, 5, 0, 2], numpy.int32)),
        'an accuracy of two nets': changed(accuracy=numpy.array([0.9, 0.9], numpy.float32)),
        'more than all right': changed(accuracy=numpy.array(1.1, numpy.float32)),
        'a temperature of 0': changed(temperature=numpy.float32(0)),
        'a temperature that is no number': changed(temperature=numpy.float32(numpy.nan)),
        'a temperature too low for gamma': changed(
            temperature=numpy.float32(0.1), **{'l3/gamma': numpy.full(3, 3e38, 'f')}
        ),
        'a temperature of each class': changed(temperature=numpy.ones(3, numpy.float32)),
        'nothing': {},
    }


@pytest.fixture(scope='module')
def small_packed():
    numpy.random.seed(0)
    return fold(QuantizedMLP(20, 9, 3, 2, 2, 2)).arrays


@pytest.mark.parametrize('what', damaged(fold(QuantizedMLP(20, 9, 3, 2, 2, 2)).arrays))
def test_damaged(small_packed, what):
    with pytest.raises(ValueError) as e:
        PackedNet(damaged(small_packed)[what])
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('Way', WAYS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_give_numbers(Way, tmp_path_factory, small_packed, data):
    content = io.BytesIO()
    numpy.savez(content, **small_packed)
    content = bytearray(content.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / 'flipped'
    path.write_bytes(content)
    try:
        net = PackedNet(read_npz(str(path)))
    except ValueError:
        return
    images = numpy.zeros((2, net.n_in), numpy.uint8)
    assert Way(net).logits(images).shape == (2, net.n_out)


def test_summary():
    net = QuantizedMLP(784, 100, 10, 2, 2, 3)
    packed = fold(net)
    rows = [line.split() for line in summary(packed).splitlines()]
    assert ' '.join(rows[1]) == 'l1 784 100 78,700 22,400 78,400 (2 x 8, integer)'
    assert rows[2][:4] == ['l2', '100', '100', '10,300']
    assert rows[2][5:] == ['10,000', '(2', 'x', '3,', 'XNOR)']
    parameters = sum(param.size for param in net.params())
    size = sum(array.nbytes for name, array in packed.arrays.items() if '/' in name)
    assert rows[4] == ['total', f'{parameters:,}', f'{size:,}', '89,400']


def test_the_program(tmp_path):
    net = BinaryMLP(784, 100, 10)
    model, packed = tmp_path / 'mlp.model', tmp_path / 'packed'
    save_npz(str(model), net)
    result = run(f'{ROOT}/pack.py', model, packed)
    assert result.stderr == ''
    before, after = model.stat().st_size, packed.stat().st_size
    packed_net = PackedNet(read_npz(str(packed)))
    assert packed_net.title == 'a packed binary net 784-100-100-10'
    *lines, hint = result.stdout.splitlines()
    assert hint.startswith('to use it: ') and hint.endswith(f'inference.py {packed} [PICTURE ...]')
    assert lines == [
        'a binary net 784-100-100-10',
        *summary(packed_net).splitlines(),
        f'{model}: {before:,} bytes',
        f'{packed}: {after:,} bytes, {before / after:.1f} times smaller',
    ]
