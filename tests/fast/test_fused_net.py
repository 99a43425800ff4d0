"""fast.BinaryMLP and fast.QuantizedMLP against the nets of net.py."""

import os
import subprocess
import sys

import chainer
import chainer.functions as F
import numpy
import pytest

import fast
import net
from helpers import ROOT, equal
from weight_clip import WeightClip

pytestmark = pytest.mark.skipif(
    fast.missing is not None, reason=f'Numba cannot be used: {fast.missing}'
)

if not fast.missing:
    from fast.fused_net import can_fuse

NETS = [
    ('BinaryMLP', (784, 100, 10, 2), {}),
    ('BinaryMLP', (5, 64, 3, 1), {}),
    ('BinaryMLP', (130, 33, 65, 3), {'dropout_input': 0.2, 'dropout_hidden': 0.5}),
    ('BinaryMLP', (77, 65, 10, 2), {'signed_pixels': 1}),
    ('BinaryMLP', (77, 65, 10, 2), {'signed_pixels': 1, 'dropout_input': 0.2}),
    ('BinaryMLP', (77, 65, 10, 2), {'pixel_scale': 255}),
    ('QuantizedMLP', (784, 100, 10, 2, 4, 4), {}),
    ('QuantizedMLP', (130, 70, 65, 3, 3, 7), {'dropout_input': 0.3, 'dropout_hidden': 0.3}),
    ('QuantizedMLP', (77, 65, 10, 2, 4, 2), {'signed_pixels': 1, 'dropout_hidden': 0.2}),
    ('QuantizedMLP', (77, 70, 10, 2, 1, 2), {}),
    ('QuantizedMLP', (77, 70, 10, 2, 1, 2), {'dropout_input': 0.2, 'dropout_hidden': 0.2}),
    ('QuantizedMLP', (77, 70, 10, 2, 2, 1), {}),
    ('QuantizedMLP', (77, 70, 10, 2, 8, 8), {}),
]


def make(room, name, sizes, attributes):
    numpy.random.seed(0)
    model = getattr(room, name)(*sizes)
    for path, param in model.namedparams():
        if not path.endswith('/W'):
            param.array[...] = numpy.random.uniform(-0.5, 0.5, param.shape)
    vars(model).update(attributes)
    return model


def digits(n, n_in, seed=0):
    """Images of which a third is not black, and labels."""
    random = numpy.random.RandomState(seed)
    images = random.randint(0, 256, (n, n_in)) * (random.uniform(0, 1, (n, n_in)) < 0.33)
    return images.astype(numpy.uint8), random.randint(0, 3, n).astype(numpy.int32)


def minibatches(n, n_in):
    """Three minibatches, the last of another size."""
    return [digits(m, n_in, seed) for seed, m in enumerate((n, n, n - 1))]


def train(room, name, sizes, attributes, n, check=None):
    """Returns outputs, gradients, parameters and averages by step, and outputs of a test.

    With SGD, since Adam makes large steps of gradients that are rounding alone.
    """
    model = make(room, name, sizes, attributes)
    optimizer = chainer.optimizers.SGD(0.1).setup(model)
    optimizer.add_hook(WeightClip())
    numpy.random.seed(1)
    steps = []
    for x, t in minibatches(n, sizes[0]):
        y = model(x)
        model.cleargrads()
        F.softmax_cross_entropy(y, t).backward()
        if check:
            check(y)
        found = {'y': y.array}
        found.update((f'{path}.grad', p.grad.copy()) for path, p in model.namedparams())
        optimizer.update()
        found.update((path, p.array.copy()) for path, p in model.namedparams())
        for i in range(1, model.n_layers + 2):
            found[f'mean{i}'] = model[f'bn{i}'].avg_mean.copy()
            found[f'var{i}'] = model[f'bn{i}'].avg_var.copy()
        steps.append(found)
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        steps.append({str(m): model(digits(m, sizes[0])[0]).array for m in (n, 1)})
    return steps


def fused(y):
    assert type(y.creator).__name__ == 'FusedNet'


def apart(a, b):
    """How far two arrays are apart, relative to their size."""
    return numpy.linalg.norm(a - b) / max(numpy.linalg.norm(b), 1e-6)


@pytest.mark.parametrize('n', [100, 6])
@pytest.mark.parametrize('name, sizes, attributes', NETS)
def test_a_net_is_the_same(name, sizes, attributes, n):
    ours = train(fast, name, sizes, attributes, n, fused)
    theirs = train(net, name, sizes, attributes, n)
    for key, expected in theirs[0].items():
        assert ours[0][key].dtype == expected.dtype == numpy.float32
        # A bias before batch normalization has a gradient of rounding alone.
        if '/b' not in key:
            assert apart(ours[0][key], expected) < 1e-4, key
    for mine, expected in zip(ours[1:], theirs[1:]):
        for key in expected:
            # Where rounding differs, an activation at a boundary can flip.
            assert '/b' in key or apart(mine[key], expected[key]) < 0.05, key


def test_forward_a_binary_net_is_the_same_to_the_bit():
    ours, theirs = (train(room, *NETS[0], 100) for room in (fast, net))
    for key in 'y', 'mean1', 'var1', 'mean2', 'var2', 'mean3', 'var3':
        assert equal(ours[0][key], theirs[0][key])


THREADS = """
import sys
import numba
import numpy
sys.path.insert(0, 'tests/fast')
sys.path.insert(0, 'tests')
from chainer_compat import chainer
from fast import threads
from test_fused_net import NETS, fast, fused, train

kept = {}
print(threads.describe().split()[0])
for count in 1, 2, 3, 0:
    threads._forked = not count  # then, there are no regions
    numba.set_num_threads(count or 1)
    for i, (name, sizes, attributes) in enumerate(NETS):
        for step, found in enumerate(train(fast, name, sizes, attributes, 100, fused)):
            for key, array in found.items():
                expected = kept.setdefault((i, step, key), array)
                assert numpy.array_equal(array, expected), (count, name, sizes, attributes, key)
print(len(kept))
"""


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


def test_any_number_of_threads_gives_the_same_numbers():
    threads, count = map(int, python(THREADS, NUMBA_NUM_THREADS='3').split())
    assert threads == 3 and count > 1000


FORK = """
import os
import numpy
import fast
from chainer_compat import chainer

def logits():
    numpy.random.seed(0)
    model = fast.BinaryMLP(20, 70, 10)
    return model(numpy.arange(200, dtype=numpy.uint8).reshape(10, 20)).array

def in_a_child():
    child = os.fork()
    if not child:
        os._exit(0 if numpy.array_equal(logits(), expected) else 1)
    return os.waitpid(child, 0)[1]

expected = logits()
print(in_a_child(), in_a_child(), numpy.array_equal(logits(), expected))
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_a_forked_child_computes():
    assert python(FORK, NUMBA_NUM_THREADS='2') == '0 0 True\n'


def test_dropout_differs_from_step_to_step():
    model = make(fast, *NETS[2])
    x = digits(10, 130)[0]
    assert (model(x).array != model(x).array).any()


def test_gradients_add_up():
    """A gradient is not overwritten by the next one while somebody holds it."""
    model = make(fast, *NETS[0])
    gradients = []
    for seed in 0, 1:
        model.cleargrads()
        F.sum(model(digits(9, 784, seed)[0]) ** 2).backward()
        gradients.append(model.l1.W.grad)
    model.cleargrads()
    for seed in 0, 1:
        F.sum(model(digits(9, 784, seed)[0]) ** 2).backward()
    assert apart(model.l1.W.grad, gradients[0] + gradients[1]) < 1e-5


@pytest.mark.parametrize('weight_bits, activation_bits', [(1, 1), (4, 4), (1, 2), (2, 1)])
@pytest.mark.parametrize('training', [True, False])
def test_nan_stays_nan(weight_bits, activation_bits, training):
    sizes, x = (5, 8, 3, 1, weight_bits, activation_bits), digits(4, 5)[0]
    for path in '/l1/W', '/l1/b', '/bn1/gamma', '/bn1/beta':
        found = []
        for room in fast, net:
            model = make(room, 'QuantizedMLP', sizes, {})
            dict(model.namedparams())[path].array.flat[2] = numpy.nan
            with chainer.using_config('train', training), chainer.no_backprop_mode():
                found.append(numpy.isnan(model(x).array))
        assert equal(*found), path
        # The sign of NaN is -1.
        assert found[1].any() == (activation_bits > 1 and (weight_bits > 1 or path != '/l1/W'))


BYTES = digits(6, 5)[0]


@pytest.mark.parametrize(
    'sizes, x',
    [
        ((5, 4, 3, 1), BYTES.astype('f') / 256),
        ((5, 4, 3, 1), BYTES.astype(int)),
        ((5, 4, 3, 1), numpy.ascontiguousarray(BYTES.reshape(6, 5, 1))),
        ((5, 4, 3, 1), chainer.Variable(BYTES)),
    ],
)
def test_inputs_that_the_links_compute(sizes, x):
    y = make(fast, 'BinaryMLP', sizes, {})(x)
    assert type(y.creator).__name__ != 'FusedNet'
    numpy.testing.assert_allclose(y.array, make(net, 'BinaryMLP', sizes, {})(BYTES).array, 1e-5)


@pytest.mark.parametrize(
    'config', [{'train': False}, {'in_recomputing': True}, {'keep_graph_on_report': True}]
)
def test_when_the_links_compute(config):
    model = make(fast, 'BinaryMLP', (5, 4, 3, 1), {})
    fused(model(BYTES))
    ((name, value),) = config.items()
    with chainer.using_config(name, value):
        assert type(model(BYTES).creator).__name__ != 'FusedNet'


def test_levels_that_are_no_bytes_are_computed_by_the_links():
    model = make(fast, 'QuantizedMLP', (5, 4, 3, 1, 8, 8), {})
    fused(model(BYTES))
    model.dropout_hidden = 0.5
    assert type(model(BYTES).creator).__name__ != 'FusedNet'


def test_sums_that_may_overflow_are_computed_by_the_links():
    x, outputs = numpy.full((3, 30000), 255, numpy.uint8), []
    x[1:] = [[0], [99]]
    for room in fast, net:
        model = make(room, 'QuantizedMLP', (30000, 4, 3, 1, 8, 8), {})
        model.l1.W.array[:] = 1
        outputs.append(model(x).array)
    assert apart(*outputs) < 1e-3


def test_layers_of_different_bits_are_computed_by_the_links():
    model = make(fast, 'QuantizedMLP', (5, 4, 3, 1, 4, 4), {})
    fused(model(BYTES))
    model.l2.bits = 1
    assert type(model(BYTES).creator).__name__ != 'FusedNet'


def test_float64_is_computed_by_the_links():
    with chainer.using_config('dtype', numpy.float64):
        model = make(fast, 'BinaryMLP', (5, 4, 3, 1), {})
    assert model(BYTES).dtype == numpy.float64


def test_no_images_are_left_to_the_links():
    model = make(fast, 'BinaryMLP', (5, 4, 3, 1), {})
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        assert can_fuse(model, BYTES) and not can_fuse(model, BYTES[:0])
        assert model(BYTES[:0]).shape == (0, 3)


def test_one_image_has_the_warning_of_the_links():
    with pytest.warns(UserWarning, match='no more than one sample'):
        make(fast, 'BinaryMLP', (5, 4, 3, 1), {})(BYTES[:1])


def test_a_wrong_shape_has_the_error_of_the_links():
    with pytest.raises(chainer.utils.type_check.InvalidType):
        make(fast, 'BinaryMLP', (6, 4, 3, 1), {})(BYTES)


def test_recomputing_updates_the_moving_averages_once():
    """F.forget computes the forward pass again in backward."""
    nets = [make(fast, 'BinaryMLP', (5, 4, 3, 1), {}) for _ in range(2)]
    for model, forward in zip(nets, (lambda x: F.forget(nets[0], x), nets[1])):
        x = chainer.Variable(BYTES.astype('f') / 256)
        F.sum(forward(x) ** 2).backward()
    assert equal(nets[0].bn1.avg_mean, nets[1].bn1.avg_mean)
    assert equal(nets[0].l1.W.grad, nets[1].l1.W.grad)


def test_without_backprop_nothing_is_kept():
    with chainer.no_backprop_mode():
        assert make(fast, 'BinaryMLP', (5, 4, 3, 1), {})(BYTES).creator is None


def test_no_second_derivative():
    y = make(fast, 'BinaryMLP', (5, 4, 3, 1), {})(BYTES)
    with pytest.raises(RuntimeError, match='fast has no second derivatives'):
        F.sum(y).backward(enable_double_backprop=True)


def test_an_impossible_threading_layer_is_named():
    result = subprocess.run(
        [sys.executable, '-c', 'from fast import threads; threads.describe()'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'NUMBA_THREADING_LAYER': 'tpp', 'NUMBA_NUM_THREADS': '2'},
    )
    assert 'ValueError: NUMBA_THREADING_LAYER=tpp: ' in result.stderr
