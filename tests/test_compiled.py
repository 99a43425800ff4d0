"""The compiled loops against NumPy's and Chainer's own code, to the bit."""
import chainer
import numpy
import pytest

import adam
import compiled
from bst import binarize
from qst import quantize
from test_train_mnist import log_of, same, small
from weight_clip import WeightClip

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


def updated(optimizer, shape, dtype, order='C', clip=None, **hyperparameters):
    """A parameter after five updates with random gradients, and its two moments."""
    random = numpy.random.RandomState(0)
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(numpy.asarray(random.uniform(-1, 1, shape), dtype, order=order))
    optimizer = optimizer(alpha=0.01, **hyperparameters).setup(link)
    if clip:
        link.p.update_rule.add_hook(WeightClip(*clip))
    for _ in range(5):
        link.p.grad = random.uniform(-1, 1, shape).astype(dtype)
        optimizer.update()
    return link.p.array, link.p.update_rule.state['m'], link.p.update_rule.state['v']


SCALAR = pytest.param((), marks=pytest.mark.skipif(
    numpy.__version__.startswith('1.'), reason='NumPy 1 computes with a 0-d array in float64'))


@pytest.mark.parametrize('shape', [SCALAR, (0, 3), (10,), (1000, 784), (33, 31)])
@pytest.mark.parametrize('hyperparameters', [
    {}, {'beta1': 0.5, 'beta2': 0.9, 'eps': 0.1, 'eta': 0.3}, {'weight_decay_rate': 0.1}, {'amsgrad': True},
    {'adabound': True}, {'clip': (-1, 1)}, {'clip': (-0.25, 0.5), 'eta': 0.3}, {'clip': (-0.25, 0.5), 'amsgrad': True}])
def test_adam_is_chainers(shape, hyperparameters, dtype):
    if dtype == numpy.float16:
        hyperparameters = {'eps': 1e-3, **hyperparameters}
    ours = updated(adam.Adam, shape, dtype, **hyperparameters)
    theirs = updated(chainer.optimizers.Adam, shape, dtype, **hyperparameters)
    for a, b in zip(ours, theirs):
        assert a.dtype == dtype and equal(a, b)


def test_adam_clips_what_is_not_finite_as_the_hook_does():
    results = []
    for Adam in adam.Adam, chainer.optimizers.Adam:
        link = chainer.Link()
        with link.init_scope():
            link.p = chainer.Parameter(numpy.array([numpy.nan, numpy.inf, -numpy.inf, 2, -2, -0.0, 0.5], 'f'))
        optimizer = Adam().setup(link)
        link.p.update_rule.add_hook(WeightClip())
        link.p.grad = numpy.zeros(7, 'f')
        optimizer.update()
        results.append(link.p.array)
    assert equal(*results) and numpy.isnan(results[0][0]) and results[0][1:5].tolist() == [1, -1, 1, -1]


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


def test_adam_of_a_parameter_that_is_not_initialized():
    model = chainer.Sequential(chainer.links.Linear(3, 2), chainer.links.Linear(None, 2))
    optimizer = adam.Adam().setup(model)
    for param in model.params():
        param.update_rule.add_hook(WeightClip())
    before = model[0].W.array.copy()
    optimizer.update(lambda: chainer.functions.sum(model[0](numpy.ones((4, 3), 'f'))))  # the second is not applied
    assert model[1].W.array is None and (model[0].W.array != before).all()


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
