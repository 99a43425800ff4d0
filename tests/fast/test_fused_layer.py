"""fast.BinaryMLP and fast.QuantizedMLP against the nets of net.py, to the bit."""

import chainer
import chainer.functions as F
import numpy
import pytest

import fast
import net
from bst import binarize
from fast.fused_layer import FusedLayer, can_fuse
from helpers import equal

pytestmark = pytest.mark.skipif(
    fast.missing is not None, reason=f'Numba cannot be used: {fast.missing}'
)

FLOATS = [numpy.float32, numpy.float64]
NETS = [
    ('BinaryMLP', ()),
    ('QuantizedMLP', (4, 4)),
    ('QuantizedMLP', (1, 2)),
    ('QuantizedMLP', (2, 1)),
    ('QuantizedMLP', (1, 1)),
]


def make(Net, *arguments, dtype=numpy.float32, **attributes):
    numpy.random.seed(0)
    with chainer.using_config('dtype', dtype):
        made = Net(*arguments)
    for name, param in made.namedparams():
        if not name.endswith('/W'):
            param.array[...] = numpy.random.uniform(-0.5, 0.5, param.shape)
    vars(made).update(attributes)
    return made


def pair(name, *arguments, **kwargs):
    """A net with fused layers, and the same net without."""
    return [make(getattr(room, name), *arguments, **kwargs) for room in (fast, net)]


def train(model, n, dtype=numpy.float32, steps=3):
    """Outputs, gradients and moving averages of some steps, and the outputs of an evaluation."""
    numpy.random.seed(1)
    n_in = model.l1.W.shape[1]
    found = []
    for _ in range(steps):
        x = chainer.Variable(numpy.random.uniform(0, 1, (n, n_in)).astype(dtype))
        model.cleargrads()
        y = model(x)
        y.grad = numpy.random.normal(0, 1, y.shape).astype(dtype)
        y.backward()
        found += [y.array, x.grad] + [param.grad for _, param in sorted(model.namedparams())]
        for i in range(1, model.n_layers + 2):
            found += [model[f'bn{i}'].avg_mean.copy(), model[f'bn{i}'].avg_var.copy()]
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        for m in n, 1:
            found.append(model(numpy.random.uniform(0, 1, (m, n_in)).astype(dtype)).array)
    return found


@pytest.fixture
def fused(monkeypatch):
    """The layers that were fused, one entry for each."""
    layers = []
    apply = FusedLayer.apply
    monkeypatch.setattr(
        FusedLayer, 'apply', lambda self, inputs: layers.append(self) or apply(self, inputs)
    )
    return layers


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize(
    'n, sizes', [(100, (784, 100, 10, 2)), (7, (5, 64, 2, 1)), (2, (130, 33, 65, 3))]
)
@pytest.mark.parametrize('name, bits', NETS)
def test_a_net_is_the_same(name, bits, n, sizes, dtype, fused):
    ours, theirs = (train(m, n, dtype) for m in pair(name, *sizes, *bits, dtype=dtype))
    assert len(ours) == len(theirs) > 40
    assert all(equal(a, b) for a, b in zip(ours, theirs))
    assert len(fused) == 5 * (sizes[3] + 1)  # three steps and two evaluations


@pytest.mark.parametrize(
    'attributes', [{'dropout_input': 0.2}, {'dropout_hidden': 0.5}, {'signed_pixels': 1}]
)
def test_with_dropout_and_signed_pixels(attributes, fused):
    ours, theirs = (train(m, 30) for m in pair('BinaryMLP', 20, 70, 10, **attributes))
    assert all(equal(a, b) for a, b in zip(ours, theirs))
    assert len(fused) == 15


@pytest.mark.parametrize(
    'attributes, expected',
    [
        ({}, [False, True, True]),
        ({'dropout_hidden': 0.5}, [False, False, False]),
    ],
)
def test_which_products_use_xnor(attributes, expected, monkeypatch):
    """Those of signs alone: not of pixels, and not of activations after dropout."""
    from fast import xnor

    all_signs, answers = xnor.all_signs, []
    monkeypatch.setattr(xnor, 'all_signs', lambda x: answers.append(all_signs(x)) or answers[-1])
    train(make(fast.BinaryMLP, 20, 70, 10, **attributes), 30, steps=1)
    assert answers[:3] == expected


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize(
    'n, k, m',
    [(100, 1000, 1000), (3, 64, 64), (1, 1, 1), (5, 63, 65), (2, 129, 10), (4, 7, 200)],
)
def test_product_by_xnor(n, k, m, dtype):
    from fast.xnor import all_signs, binary_linear

    random = numpy.random.RandomState(k)
    x = random.choice([-1.0, 1.0], (n, k)).astype(dtype)
    W, b = random.normal(0, 1, (m, k)).astype(dtype), random.normal(0, 1, m).astype(dtype)
    special = [0.0, -0.0, numpy.nan, numpy.inf, -numpy.inf, 1e-45, -1e-45]
    special = numpy.array(special, dtype)[:k]
    assert all_signs(x)
    W[0, : len(special)] = W[-1, k - len(special) :] = special
    Wb, y = numpy.empty_like(W), numpy.empty((n, m), dtype)
    binary_linear(x, W, b, Wb, y)
    assert equal(Wb, binarize(W))
    assert equal(y, x.dot(binarize(W).T) + b)


@pytest.mark.parametrize('other', [0, 0.5, -1.25, numpy.nan, numpy.inf])
def test_all_signs_sees_other_numbers(other):
    from fast.xnor import all_signs

    x = numpy.ones((3, 70), 'f')
    x[2, 69] = other
    assert not all_signs(x)


def test_nan_stays_nan():
    models = pair('QuantizedMLP', 5, 8, 3)
    for model in models:
        model.l1.W.array[0, 0] = numpy.nan
    ours, theirs = (train(model, 4) for model in models)
    assert all(equal(a, b) for a, b in zip(ours, theirs)) and numpy.isnan(ours[0]).any()


@pytest.mark.parametrize(
    'Net, sizes, x',
    [
        (net.FloatMLP, (5, 4, 3, 1), numpy.zeros((6, 5), 'f')),
        (net.BinaryMLP, (5, 1, 1, 1), numpy.zeros((6, 5), 'f')),
        (net.BinaryMLP, (5, 4, 3, 1), numpy.zeros((5, 6), 'f').T),
        (net.BinaryMLP, (5, 4, 3, 1), numpy.zeros((6, 5), numpy.float16)),
    ],
)
def test_what_the_links_compute(Net, sizes, x):
    model = make(Net, *sizes)
    assert not can_fuse(x, model.l1, model.bn1)


@pytest.mark.parametrize(
    'config',
    [
        {'train': False},
        {'in_recomputing': True},
        {'keep_graph_on_report': True},
    ],
)
def test_when_the_links_compute(config):
    model, x = make(net.BinaryMLP, 5, 4, 3), numpy.zeros((6, 5), 'f')
    assert can_fuse(x, model.l1, model.bn1)
    ((name, value),) = config.items()
    with chainer.using_config(name, value):
        assert not can_fuse(x, model.l1, model.bn1)


def test_a_test_without_gradients_is_fused():
    model, x = make(net.BinaryMLP, 5, 4, 3), numpy.zeros((1, 5), 'f')
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        assert can_fuse(x, model.l1, model.bn1)


def test_one_image_has_the_warning_of_the_links():
    with pytest.warns(UserWarning, match='no more than one sample'):
        make(fast.BinaryMLP, 5, 4, 3)(numpy.zeros((1, 5), 'f'))


def test_a_wrong_shape_has_the_error_of_the_links():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        make(fast.BinaryMLP, 5, 4, 3)(numpy.zeros((6, 4), 'f'))


def test_recomputing_updates_the_moving_averages_once():
    """F.forget computes the forward pass again in backward."""
    nets = [make(fast.BinaryMLP, 5, 4, 3) for _ in range(2)]
    for model, forward in zip(nets, (lambda x: F.forget(nets[0], x), nets[1])):
        x = chainer.Variable(numpy.random.RandomState(0).uniform(0, 1, (6, 5)).astype('f'))
        F.sum(forward(x) ** 2).backward()
    assert equal(nets[0].bn1.avg_mean, nets[1].bn1.avg_mean)
    assert equal(nets[0].l1.W.grad, nets[1].l1.W.grad)


def test_without_backprop_nothing_is_kept():
    with chainer.no_backprop_mode():
        assert make(fast.BinaryMLP, 5, 4, 3)(numpy.zeros((6, 5), 'f')).creator is None


def test_no_second_derivative():
    x = numpy.random.RandomState(0).uniform(0, 1, (6, 5)).astype('f')
    y = make(fast.BinaryMLP, 5, 4, 3)(x)
    assert isinstance(y.creator, FusedLayer)
    with pytest.raises(RuntimeError, match='use the nets of net.py'):
        F.sum(y).backward(enable_double_backprop=True)
