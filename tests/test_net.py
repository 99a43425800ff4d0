"""The binary and the quantized multilayer perceptron."""

import chainer
import chainer.functions as F
import numpy
import pytest

from bst import binarize
from net import BinaryMLP, QuantizedMLP
from qst import quantize
from support.files import arrays_of


def by_hand(net, x, weight_bits, activation_bits):
    """The net in test mode, written out in NumPy."""
    p = arrays_of(net)
    for i in range(1, net.n_layers + 2):
        x = x @ quantize(p[f'l{i}/W'], weight_bits).T + p[f'l{i}/b']
        x = (x - p[f'bn{i}/avg_mean']) / numpy.sqrt(p[f'bn{i}/avg_var'] + 2e-5)
        x = x * p[f'bn{i}/gamma'] + p[f'bn{i}/beta']
        if i <= net.n_layers:
            x = quantize(x, activation_bits)
    return x


@pytest.mark.parametrize('n_layers', [1, 2, 4])
@pytest.mark.parametrize(
    'Net, bits', [(BinaryMLP, ()), (QuantizedMLP, (2, 3)), (QuantizedMLP, (1, 1))]
)
def test_forward(Net, bits, n_layers):
    numpy.random.seed(0)
    net = Net(7, 20, 3, n_layers, *bits)
    x = numpy.random.uniform(0, 1, (50, 7)).astype('f')
    for _ in range(20):
        net(x)  # moves the averages of batch normalization
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        y = net(x)
    assert y.shape == (50, 3)
    numpy.testing.assert_allclose(
        y.array, by_hand(net, x, *(bits or (1, 1))), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64])
def test_pixels_may_be_bytes(xp, dtype, monkeypatch):
    """They are divided by the net's own scale, in the type of its weights."""
    with chainer.using_config('dtype', dtype):
        net = BinaryMLP(7, 20, 3)
    net.to_device(chainer.backend.get_device_from_array(xp.zeros(1)))
    x = xp.asarray(numpy.random.RandomState(0).randint(0, 256, (50, 7)).astype(numpy.uint8))
    seen, forward = [], net.l1.forward
    monkeypatch.setattr(net.l1, 'forward', lambda x: seen.append(x) or forward(x))
    for scale in 256, 255:
        net.pixel_scale = scale
        net(x)
        assert seen[-1].dtype == dtype and (seen[-1] == x.astype(dtype) / dtype(scale)).all()


def test_shapes_and_names():
    net = BinaryMLP(784, 1000, 10)
    shapes = {name: param.shape for name, param in net.namedparams() if name.endswith('/W')}
    assert shapes == {'/l1/W': (1000, 784), '/l2/W': (1000, 1000), '/l3/W': (10, 1000)}
    assert (
        sum(param.size for param in net.params())
        == 1000 * 784 + 1000 * 1000 + 10 * 1000 + 3 * 2010
    )


def test_hidden_activations_are_quantized(monkeypatch):
    net = QuantizedMLP(7, 20, 3, activation_bits=2)
    seen = []
    for i in (2, 3):
        link = net[f'l{i}']
        monkeypatch.setattr(
            link, 'forward', lambda x, f=link.forward: seen.append(x.array) or f(x)
        )
    net(numpy.random.uniform(0, 1, (50, 7)).astype('f'))
    assert len(seen) == 2
    for h in seen:
        assert set(numpy.rint(h.ravel() * 3)) == {-3, -1, 1, 3}


def test_one_bit_is_the_binary_net():
    x = numpy.random.uniform(0, 1, (50, 7)).astype('f')
    numpy.random.seed(0)
    binary = BinaryMLP(7, 20, 3)
    numpy.random.seed(0)
    quantized = QuantizedMLP(7, 20, 3, weight_bits=1, activation_bits=1)
    assert (binary(x).array == quantized(x).array).all()


def test_it_learns(xp, mnist):
    device = chainer.backend.get_device_from_array(xp.zeros(1))
    x, t = device.send(mnist[0][:500].reshape(500, -1)), device.send(mnist[1][:500])
    for net in BinaryMLP(784, 100, 10), QuantizedMLP(784, 100, 10):
        net.to_device(device)
        optimizer = chainer.optimizers.Adam(0.003).setup(net)
        for _ in range(60):
            optimizer.update(lambda: F.softmax_cross_entropy(net(x), t))
        with chainer.using_config('train', False):
            assert float(F.accuracy(net(x), t).array) > 0.9


@pytest.mark.parametrize('bits', [(0, 4), (4, 9)])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match='bits must be a whole number from 1 to 8'):
        QuantizedMLP(7, 20, 3, 2, *bits)


def test_weights_that_act_have_two_values():
    net = BinaryMLP(7, 20, 3)
    assert set(binarize(net.l1.W.array).ravel()) == {-1, 1}
