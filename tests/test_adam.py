"""Adam in blocks, against Chainer's own, to the bit."""
import chainer
import numpy
import pytest

import adam


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


@pytest.mark.parametrize('shape', [
    SCALAR, (0, 3), (10,), (1000, 784), (adam.BLOCK,), (adam.BLOCK - 1,), (adam.BLOCK + 1,)])
@pytest.mark.parametrize('hyperparameters', [
    {}, {'beta1': 0.5, 'beta2': 0.9, 'eps': 0.1, 'eta': 0.3}, {'weight_decay_rate': 0.1}, {'amsgrad': True},
    {'adabound': True}])
def test_it_is_chainers_to_the_bit(shape, hyperparameters, dtype):
    if dtype == numpy.float16:
        hyperparameters = {'eps': 1e-3, **hyperparameters}
    ours = updated(adam.Adam, shape, dtype, **hyperparameters)
    theirs = updated(chainer.optimizers.Adam, shape, dtype, **hyperparameters)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype == dtype
        assert numpy.array_equal(a, b)


def test_a_parameter_in_fortran_order():
    ours = updated(adam.Adam, (30, 20), numpy.float32, order='F')
    theirs = updated(chainer.optimizers.Adam, (30, 20), numpy.float32, order='F')
    assert numpy.array_equal(ours[0], theirs[0])


def test_a_parameter_without_gradient_stays():
    link = chainer.links.Linear(3, 2)
    before = link.W.array.copy()
    optimizer = adam.Adam().setup(link)
    link.cleargrads()
    optimizer.update()
    assert (link.W.array == before).all()
