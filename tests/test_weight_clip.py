"""The WeightClip hook."""

import chainer
import chainer.links as L
import numpy
import pytest

from weight_clip import WeightClip


def model_on(xp):
    model = chainer.Sequential(L.Linear(4, 3), L.BatchNormalization(3))
    model.to_device(chainer.backend.get_device_from_array(xp.zeros(1)))
    return model


def update(model, hook, rate=100.0):
    xp = model.device.xp
    optimizer = chainer.optimizers.SGD(rate).setup(model)
    optimizer.add_hook(hook)
    x = xp.asarray(numpy.random.RandomState(0).uniform(-1, 1, (8, 4)).astype('f'))
    weights = xp.arange(24, dtype='f').reshape(8, 3)
    optimizer.update(lambda: chainer.functions.sum(model(x) ** 2 * weights))


@pytest.mark.parametrize('low, high', [(-1, 1), (-0.25, 0.5)])
def test_every_parameter_is_inside_after_an_update(xp, low, high):
    model = model_on(xp)
    update(model, WeightClip(low, high))
    for name, param in model.namedparams():
        assert low <= param.array.min() and param.array.max() <= high, name
    W = model[0].W.array
    assert W.min() == xp.float32(low) and W.max() == xp.float32(high)  # such a step goes past both


def test_without_it_they_are_not():
    model = model_on(numpy)
    update(model, lambda optimizer: None)
    assert abs(model[0].W.array).max() > 1


def test_the_default_is_minus_one_to_one():
    hook = WeightClip()
    assert (hook.low, hook.high) == (-1, 1)


def test_in_place_and_no_more_than_needed(xp, dtype):
    array = xp.array([-2, -1, -0.5, 0, 1, 3], dtype)
    param = chainer.Parameter(array)
    WeightClip()(None, param)
    assert param.array is array
    assert array.dtype == dtype
    assert array.tolist() == [-1, -1, -0.5, 0, 1, 1]


def test_an_uninitialized_parameter_is_skipped():
    WeightClip()(None, chainer.Parameter())


@pytest.mark.parametrize('low, high', [(1, -1), (0, 0), (float('nan'), 1), (0, float('nan'))])
def test_bounds_the_wrong_way_round(low, high):
    with pytest.raises(ValueError, match='low must be less than high'):
        WeightClip(low, high)
