"""Fused layers against the links that they stand for, to the bit."""
import chainer
import chainer.functions as F
import numpy
import pytest

import compiled
from bst import binarize
from fused_layer import FusedLayer, fits
from net import BinaryMLP, FloatMLP, QuantizedMLP
from test_compiled import FLOATS, equal

pytestmark = pytest.mark.skipif(compiled.missing is not None, reason=f'Numba cannot be used: {compiled.missing}')


def make(Net, *arguments, dtype=numpy.float32, **attributes):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        net = Net(*arguments)
    for name, param in net.namedparams():
        if not name.endswith('/W'):
            param.array[...] = numpy.random.uniform(-0.5, 0.5, param.shape)
    vars(net).update(attributes)
    return net


def train(net, n, dtype=numpy.float32, steps=3):
    """Outputs, gradients and moving averages of some steps of a net."""
    numpy.random.seed(1)
    found = []
    for _ in range(steps):
        x = chainer.Variable(numpy.random.uniform(0, 1, (n, net.l1.W.shape[1])).astype(dtype))
        net.cleargrads()
        y = net(x)
        y.grad = numpy.random.normal(0, 1, y.shape).astype(dtype)
        y.backward()
        found += [y.array, x.grad] + [param.grad for _, param in sorted(net.namedparams())]
        for i in range(1, net.n_layers + 2):
            found += [net[f'bn{i}'].avg_mean.copy(), net[f'bn{i}'].avg_var.copy()]
    return found


def by_links(monkeypatch, function, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr('net.fits', lambda x, l, bn: False)
        return function(*arguments)


def count(monkeypatch, function, *arguments):
    """How many layers were fused meanwhile."""
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr('net.fits', lambda x, l, bn: taken.append(fits(x, l, bn)) or taken[-1])
        function(*arguments)
    return sum(taken)


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('n, sizes', [(100, (784, 100, 10, 2)), (7, (5, 64, 2, 1)), (2, (130, 33, 65, 3))])
@pytest.mark.parametrize('Net, bits', [(BinaryMLP, ()), (QuantizedMLP, (4, 4)), (QuantizedMLP, (1, 2)),
                                       (QuantizedMLP, (2, 1)), (QuantizedMLP, (1, 1))])
def test_a_net_is_the_same(Net, bits, n, sizes, dtype, monkeypatch):
    ours, theirs = (make(Net, *sizes, *bits, dtype=dtype) for _ in range(2))
    fused, linked = train(ours, n, dtype), by_links(monkeypatch, train, theirs, n, dtype)
    assert len(fused) == len(linked) > 40
    assert all(equal(a, b) for a, b in zip(fused, linked))
    assert count(monkeypatch, train, ours, n, dtype, 1) == sizes[3] + 1


@pytest.mark.parametrize('attributes', [{'dropout_input': 0.2}, {'dropout_hidden': 0.5}, {'signed_pixels': 1}])
def test_with_dropout_and_signed_pixels(attributes, monkeypatch):
    ours, theirs = (make(BinaryMLP, 20, 70, 10, **attributes) for _ in range(2))
    fused, linked = train(ours, 30), by_links(monkeypatch, train, theirs, 30)
    assert all(equal(a, b) for a, b in zip(fused, linked))
    assert count(monkeypatch, train, ours, 30) == 9


@pytest.mark.parametrize('attributes, expected', [({}, [False, True, True]),
                                                  ({'dropout_hidden': 0.5}, [False, False, False])])
def test_which_products_are_of_bits(attributes, expected, monkeypatch):
    """Those of signs alone: not of the pixels, and not of what dropout has left."""
    import xnor
    all_signs, answers = xnor.all_signs, []
    monkeypatch.setattr(xnor, 'all_signs', lambda x: answers.append(all_signs(x)) or answers[-1])
    train(make(BinaryMLP, 20, 70, 10, **attributes), 30, steps=1)
    assert answers == expected


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('n, k, m', [(100, 1000, 1000), (3, 64, 64), (1, 1, 1), (5, 63, 65), (2, 129, 10), (4, 7, 200)])
def test_product_of_bits(n, k, m, dtype):
    from xnor import all_signs, binary_linear
    random = numpy.random.RandomState(k)
    x = random.choice([-1.0, 1.0], (n, k)).astype(dtype)
    W, b = random.normal(0, 1, (m, k)).astype(dtype), random.normal(0, 1, m).astype(dtype)
    special = numpy.array([0.0, -0.0, numpy.nan, numpy.inf, -numpy.inf, 1e-45, -1e-45], dtype)[:k]
    assert all_signs(x)
    W[0, :len(special)] = W[-1, k - len(special):] = special
    Wb, y = numpy.empty_like(W), numpy.empty((n, m), dtype)
    binary_linear(x, W, b, Wb, y)
    assert equal(Wb, binarize(W))
    assert equal(y, x.dot(binarize(W).T) + b)


@pytest.mark.parametrize('other', [0, 0.5, -1.25, numpy.nan, numpy.inf])
def test_other_numbers_are_seen(other):
    from xnor import all_signs
    x = numpy.ones((3, 70), 'f')
    x[2, 69] = other
    assert not all_signs(x)


def test_what_is_not_a_number_stays_so(monkeypatch):
    ours, theirs = (make(QuantizedMLP, 5, 8, 3) for _ in range(2))
    for net in ours, theirs:
        net.l1.W.array[0, 0] = numpy.nan
    fused, linked = train(ours, 4), by_links(monkeypatch, train, theirs, 4)
    assert all(equal(a, b) for a, b in zip(fused, linked)) and numpy.isnan(fused[0]).any()


@pytest.mark.parametrize('Net, sizes, x', [
    (FloatMLP, (5, 4, 3, 1), numpy.zeros((6, 5), 'f')),
    (BinaryMLP, (5, 1, 1, 1), numpy.zeros((6, 5), 'f')),
    (BinaryMLP, (5, 4, 3, 1), numpy.zeros((5, 6), 'f').T),
    (BinaryMLP, (5, 4, 3, 1), numpy.zeros((6, 5), numpy.float16))])
def test_what_is_left_to_the_links(Net, sizes, x):
    net = make(Net, *sizes)
    assert not fits(x, net.l1, net.bn1)


@pytest.mark.parametrize('config, value', [('train', False), ('in_recomputing', True), ('keep_graph_on_report', True)])
def test_when_it_is_left_to_the_links(config, value):
    net, x = make(BinaryMLP, 5, 4, 3), numpy.zeros((6, 5), 'f')
    assert fits(x, net.l1, net.bn1)
    with chainer.using_config(config, value):
        assert not fits(x, net.l1, net.bn1)


def test_one_image_has_the_warning_of_the_links():
    with pytest.warns(UserWarning, match='no more than one sample'):
        make(BinaryMLP, 5, 4, 3)(numpy.zeros((1, 5), 'f'))


def test_a_wrong_shape_has_the_error_of_the_links():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        make(BinaryMLP, 5, 4, 3)(numpy.zeros((6, 4), 'f'))


def test_recomputed_it_has_its_moving_averages_once():
    """F.forget computes forward again in backward."""
    nets = [make(BinaryMLP, 5, 4, 3) for _ in range(2)]
    for net, forward in zip(nets, (lambda x: F.forget(nets[0], x), nets[1])):
        x = chainer.Variable(numpy.random.RandomState(0).uniform(0, 1, (6, 5)).astype('f'))
        F.sum(forward(x) ** 2).backward()
    assert equal(nets[0].bn1.avg_mean, nets[1].bn1.avg_mean)
    assert equal(nets[0].l1.W.grad, nets[1].l1.W.grad)


def test_without_backprop_nothing_is_kept():
    with chainer.no_backprop_mode():
        assert make(BinaryMLP, 5, 4, 3)(numpy.zeros((6, 5), 'f')).creator is None


def test_no_second_derivative():
    y = make(BinaryMLP, 5, 4, 3)(numpy.random.RandomState(0).uniform(0, 1, (6, 5)).astype('f'))
    assert isinstance(y.creator, FusedLayer)
    with pytest.raises(RuntimeError, match='apply the links'):
        F.sum(y).backward(enable_double_backprop=True)
