"""fast.Adam against Chainer's Adam and the WeightClip hook, bit for bit."""

import chainer
import numpy
import pytest

import fast
from helpers import equal
from weight_clip import WeightClip

ADAMS = fast.Adam, chainer.optimizers.Adam


def updated(Adam, shape, dtype, order='C', clip=None, add_to='optimizer', **hyperparameters):
    """A parameter after five updates with random gradients, and its two moments."""
    random = numpy.random.RandomState(0)
    link = chainer.Link()
    with link.init_scope():
        initial = numpy.asarray(random.uniform(-1, 1, shape), dtype, order=order)
        link.p = chainer.Parameter(initial)
    optimizer = Adam(alpha=0.01, **hyperparameters).setup(link)
    if clip:
        target = optimizer if add_to == 'optimizer' else link.p.update_rule
        target.add_hook(WeightClip(*clip))
    for _ in range(5):
        link.p.grad = random.uniform(-1, 1, shape).astype(dtype)
        optimizer.update()
    return link.p.array, link.p.update_rule.state['m'], link.p.update_rule.state['v']


SCALAR = pytest.param(
    (),
    marks=pytest.mark.skipif(
        numpy.__version__.startswith('1.'), reason='NumPy 1 computes with a 0-d array in float64'
    ),
)


@pytest.mark.parametrize('shape', [SCALAR, (0, 3), (10,), (1000, 784), (33, 31)])
@pytest.mark.parametrize(
    'hyperparameters',
    [
        {},
        {'beta1': 0.5, 'beta2': 0.9, 'eps': 0.1, 'eta': 0.3},
        {'weight_decay_rate': 0.1},
        {'amsgrad': True},
        {'adabound': True},
        {'clip': (-1, 1)},
        {'clip': (-0.25, 0.5), 'eta': 0.3},
        {'clip': (-0.25, 0.5), 'add_to': 'rule'},
        {'clip': (-0.25, 0.5), 'amsgrad': True},
    ],
)
def test_the_same_as_chainers(shape, hyperparameters, dtype):
    if dtype == numpy.float16:
        hyperparameters = {'eps': 1e-3, **hyperparameters}
    ours, theirs = (updated(Adam, shape, dtype, **hyperparameters) for Adam in ADAMS)
    for a, b in zip(ours, theirs):
        assert a.dtype == dtype and equal(a, b)
    if 'clip' in hyperparameters and ours[0].size > 1000:
        low, high = hyperparameters['clip']
        assert ours[0].min() >= low and ours[0].max() <= high


def test_fortran_order():
    ours, theirs = (updated(Adam, (30, 20), numpy.float32, order='F') for Adam in ADAMS)
    assert equal(ours[0], theirs[0])


def test_the_clip_treats_nan_and_infinity_as_the_hook_does():
    results = []
    for Adam in ADAMS:
        link = chainer.Link()
        with link.init_scope():
            values = [numpy.nan, numpy.inf, -numpy.inf, 2, -2, -0.0, 0.5]
            link.p = chainer.Parameter(numpy.array(values, 'f'))
        optimizer = Adam().setup(link)
        optimizer.add_hook(WeightClip())
        link.p.grad = numpy.zeros(7, 'f')
        optimizer.update()
        results.append(link.p.array)
    assert equal(*results)
    assert numpy.isnan(results[0][0]) and results[0][1:5].tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize('Adam', ADAMS)
@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
@pytest.mark.parametrize('own', [(-0.25, 0.5), (-0.5, 2)])
def test_other_bounds_for_one_parameter(xp, Adam, order, own):
    """In whatever order the clips are added, both apply."""
    model = chainer.Sequential(chainer.links.Linear(20, 30), chainer.links.Linear(30, 9))
    model.to_device(chainer.backend.get_device_from_array(xp.zeros(1)))
    optimizer = Adam(alpha=9).setup(model)
    hooks = (optimizer, WeightClip()), (model[0].W.update_rule, WeightClip(*own))
    for i in order:
        hooks[i][0].add_hook(hooks[i][1])
    for param in model.params():
        param.grad = xp.asarray(numpy.random.RandomState(0).normal(size=param.shape), 'f')
    optimizer.update()
    for param in model.params():
        low, high = own if param is model[0].W else (-1, 1)
        assert (param.array.min(), param.array.max()) == (low, min(high, 1))


def test_other_hooks_are_called_as_usual():
    calls = []

    def hook(optimizer):
        calls.append(optimizer)

    link = chainer.links.Linear(3, 2)
    optimizer = fast.Adam().setup(link)
    optimizer.add_hook(hook)
    optimizer.update(lambda: chainer.functions.sum(link(numpy.ones((4, 3), 'f'))))
    assert calls == [optimizer]


def test_a_clip_before_the_update_stays_there():
    """Where the hook is asked to clip first, the update may leave the interval."""
    link = chainer.Link()
    with link.init_scope():
        link.p = chainer.Parameter(numpy.array([1.0], 'f'))
    optimizer = fast.Adam(alpha=0.5).setup(link)
    optimizer.add_hook(WeightClip(), timing='pre')
    link.p.grad = -numpy.ones(1, 'f')
    optimizer.update()
    assert link.p.array[0] > 1


def test_a_parameter_without_gradient():
    link = chainer.links.Linear(3, 2)
    before = link.W.array.copy()
    optimizer = fast.Adam().setup(link)
    link.cleargrads()
    optimizer.update()
    assert (link.W.array == before).all()


def test_a_parameter_that_is_not_initialized():
    model = chainer.Sequential(chainer.links.Linear(3, 2), chainer.links.Linear(None, 2))
    optimizer = fast.Adam().setup(model)
    optimizer.add_hook(WeightClip())
    before = model[0].W.array.copy()
    # The second link takes no part.
    optimizer.update(lambda: chainer.functions.sum(model[0](numpy.ones((4, 3), 'f'))))
    assert model[1].W.array is None and (model[0].W.array != before).all()


@pytest.mark.gpu
@pytest.mark.parametrize('shape', [(10,), (100, 784)])
@pytest.mark.parametrize('clip', [None, (-1, 1), (-0.25, 0.5)])
def test_the_kernel_on_a_gpu(shape, clip):
    """It is Chainer's Adam and the clip up to rounding, and one launch."""
    random = numpy.random.RandomState(0)
    initial = random.uniform(-1, 1, shape).astype('f')
    gradients = random.uniform(-1, 1, (5, *shape)).astype('f')
    results = []
    for Adam in ADAMS:
        link = chainer.Link()
        with link.init_scope():
            link.p = chainer.Parameter(initial.copy())
        link.to_device('@cupy:0')
        optimizer = Adam(alpha=0.01).setup(link)
        if clip:
            optimizer.add_hook(WeightClip(*clip))
        for gradient in gradients:
            link.p.grad = chainer.get_device('@cupy:0').send(gradient)
            optimizer.update()
        state = link.p.update_rule.state
        results.append(
            [chainer.backends.cuda.to_cpu(a) for a in (link.p.array, state['m'], state['v'])]
        )
    for ours, theirs in zip(*results):
        assert ours.dtype == numpy.float32
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
