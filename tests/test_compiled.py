"""The compiled loops against NumPy's and Chainer's own code, to the bit."""
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest

import adam
import compiled
from batch_normalization import BatchNormalization
from bst import binarize
from qst import quantize
from test_train_mnist import log_of, same, small

pytestmark = pytest.mark.skipif(compiled.missing is not None, reason=f'Numba cannot be used: {compiled.missing}')

FLOATS = [numpy.float32, numpy.float64]


def equal(a, b):
    """Same dtype, shape and bits; any NaN is like another."""
    return a.dtype == b.dtype and numpy.array_equal(a, b, equal_nan=True)


def by_numpy(monkeypatch, function, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(compiled, 'missing', 'taken away by a test')
        return function(*arguments)


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('bits', range(1, 9))
def test_quantizers(dtype, bits, monkeypatch):
    random = numpy.random.RandomState(bits)
    n = 2 ** bits - 1
    ties = numpy.arange(-n - 1, n + 2) / n
    special = [0.0, -0.0, numpy.nan, numpy.inf, -numpy.inf, 1e-45, -1e-45, 1e38, -1e38]
    values = numpy.concatenate([random.uniform(-1.5, 1.5, 10001), ties, special]).astype(dtype)
    values = numpy.concatenate([values, numpy.nextafter(values, dtype(2)), numpy.nextafter(values, dtype(-2))])
    assert compiled.fits(values)
    for a in values, values.reshape(3, -1), values[:0], values[3].reshape(()):
        assert equal(quantize(a, bits), by_numpy(monkeypatch, quantize, a, bits))
        assert equal(binarize(a), by_numpy(monkeypatch, binarize, a))


@pytest.mark.parametrize('array', [
    numpy.zeros(3, numpy.float16), numpy.zeros((3, 2), 'f').T, numpy.zeros(3, '>f4'), numpy.zeros(6, 'f')[::2]])
def test_what_the_loops_cannot_take_is_left_to_numpy(array):
    assert not compiled.fits(array)
    assert not compiled.fits(numpy.zeros(3, 'f'), array)
    assert (quantize(array, 2) == array.dtype.type(1 / 3)).all()


def updated(optimizer, shape, dtype, order='C', **hyperparameters):
    """A parameter after five updates with random gradients, and its two moments."""
    random = numpy.random.RandomState(0)
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(numpy.asarray(random.uniform(-1, 1, shape), dtype, order=order))
    optimizer = optimizer(alpha=0.01, **hyperparameters).setup(link)
    for _ in range(5):
        link.p.grad = random.uniform(-1, 1, shape).astype(dtype)
        optimizer.update()
    return link.p.array, link.p.update_rule.state['m'], link.p.update_rule.state['v']


SCALAR = pytest.param((), marks=pytest.mark.skipif(
    numpy.__version__.startswith('1.'), reason='NumPy 1 computes with a 0-d array in float64'))


@pytest.mark.parametrize('shape', [SCALAR, (0, 3), (10,), (1000, 784), (33, 31)])
@pytest.mark.parametrize('hyperparameters', [
    {}, {'beta1': 0.5, 'beta2': 0.9, 'eps': 0.1, 'eta': 0.3}, {'weight_decay_rate': 0.1}, {'amsgrad': True},
    {'adabound': True}])
def test_adam_is_chainers(shape, hyperparameters, dtype):
    if dtype == numpy.float16:
        hyperparameters = {'eps': 1e-3, **hyperparameters}
    ours = updated(adam.Adam, shape, dtype, **hyperparameters)
    theirs = updated(chainer.optimizers.Adam, shape, dtype, **hyperparameters)
    for a, b in zip(ours, theirs):
        assert a.dtype == dtype and equal(a, b)


def test_adam_of_a_parameter_in_fortran_order():
    ours = updated(adam.Adam, (30, 20), numpy.float32, order='F')
    theirs = updated(chainer.optimizers.Adam, (30, 20), numpy.float32, order='F')
    assert equal(ours[0], theirs[0])


def test_adam_of_a_parameter_without_gradient():
    link = chainer.links.Linear(3, 2)
    before = link.W.array.copy()
    optimizer = adam.Adam().setup(link)
    link.cleargrads()
    optimizer.update()
    assert (link.W.array == before).all()


def normalized(link, dtype, n, units, steps=3, order='C'):
    """Outputs, gradients and moving averages of a batch normalization after some steps."""
    random = numpy.random.RandomState(0)
    for p, low in ((link.gamma, 0.5), (link.beta, -0.5)):
        p.array = random.uniform(low, low + 1, units).astype(dtype)
    link.avg_mean, link.avg_var = link.avg_mean.astype(dtype), link.avg_var.astype(dtype)
    found = []
    for _ in range(steps):
        x = chainer.Variable(numpy.asarray(random.normal(1, 3, (n, units)), dtype, order=order))
        link.cleargrads()
        y = link(x)
        y.grad = numpy.asarray(random.normal(0, 1, (n, units)), dtype, order=order)
        y.backward()
        found += [y.array, x.grad, link.gamma.grad, link.beta.grad, link.avg_mean.copy(), link.avg_var.copy()]
    with chainer.using_config('train', False):
        found.append(link(x).array)
    return found


@pytest.mark.filterwarnings('ignore:A batch with no more than one sample')
@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('n, units', [(100, 1000), (300, 2), (7, 33), (100, 1), (1, 5)])
def test_batch_normalization_is_chainers(n, units, dtype, order):
    ours = normalized(BatchNormalization(units), dtype, n, units, order=order)
    theirs = normalized(L.BatchNormalization(units), dtype, n, units, order=order)
    for a, b in zip(ours, theirs):
        assert equal(a, b)


def test_batch_normalization_takes_the_loops():
    """Lest the test above compare Chainer with itself."""
    y = BatchNormalization(3)(numpy.eye(4, 3, dtype='f'))
    assert type(y.creator._impl).__name__ == 'Loops'


def test_batch_normalization_of_other_shapes_is_chainers_business():
    x = numpy.random.RandomState(0).normal(size=(4, 3, 2, 2)).astype('f')
    assert equal(BatchNormalization(3)(x).array, L.BatchNormalization(3)(x).array)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        BatchNormalization(3)(x[:, :2, 0, 0].copy())


def test_batch_normalization_recomputed_has_its_moving_averages_once():
    """F.forget computes forward again in backward."""
    random = numpy.random.RandomState(0)
    links = BatchNormalization(3), L.BatchNormalization(3)
    for link in links:
        random.seed(0)
        x = chainer.Variable(random.normal(size=(5, 3)).astype('f'))
        F.sum(F.forget(link, x) ** 2).backward()
    assert equal(links[0].avg_mean, links[1].avg_mean) and equal(links[0].gamma.grad, links[1].gamma.grad)


@pytest.mark.parametrize('arguments', [[], ['--net', 'quantized']])
def test_a_training_is_the_same_without_numba(small_mnist, tmp_path, arguments):
    (tmp_path / 'numba.py').write_text('raise ImportError("there is no Numba")')
    arguments = [small_mnist, '--epoch', 3, *arguments]
    compiled_run = small(tmp_path / 'a', *arguments)
    numpy_run = small(tmp_path / 'b', *arguments, PYTHONPATH=str(tmp_path))
    assert compiled_run.stderr == numpy_run.stderr == ''
    says = '# computed by NumPy, slower than by Numba, which cannot be imported: there is no Numba'
    assert says in numpy_run.stdout.splitlines() and says not in compiled_run.stdout
    assert log_of(tmp_path / 'a') == log_of(tmp_path / 'b')
    for name in 'mlp.model', 'mlp.state':
        assert same(tmp_path / 'a' / name, tmp_path / 'b' / name)
