"""Fused layers on a GPU against the links, up to rounding."""

import chainer
import numpy
import pytest

import fast
import net
from fast import gpu_layer

pytestmark = pytest.mark.gpu

NETS = [('BinaryMLP', ()), ('QuantizedMLP', (4, 4)), ('QuantizedMLP', (1, 2))]


def trained(room, name, bits, n):
    """Outputs, gradients and moving averages of a step from random parameters."""
    numpy.random.seed(0)
    model = getattr(room, name)(33, 70, 10, 2, *bits)
    for path, param in model.namedparams():
        if not path.endswith('/W'):
            param.array[...] = numpy.random.uniform(-0.5, 0.5, param.shape)
    x = numpy.random.randint(0, 2, (n, 33)).astype('f')
    gy = numpy.random.normal(0, 1, (n, 10)).astype('f')
    model.to_device('@cupy:0')
    x = chainer.Variable(model.device.send(x))
    y = model(x)
    y.grad = model.device.send(gy)
    y.backward()
    found = {'y': y.array, 'x': x.grad}
    found.update((path, param.grad) for path, param in model.namedparams())
    for i in 1, 2, 3:
        found[f'mean {i}'] = model[f'bn{i}'].avg_mean
        found[f'var {i}'] = model[f'bn{i}'].avg_var
    return {key: chainer.backends.cuda.to_cpu(a) for key, a in found.items()}


@pytest.mark.parametrize('name, bits', NETS)
@pytest.mark.parametrize('n', [8, 100])
def test_a_step(name, bits, n, monkeypatch):
    calls = []
    forward = gpu_layer.GPULayer.forward
    monkeypatch.setattr(
        gpu_layer.GPULayer, 'forward', lambda *args: (calls.append(1), forward(*args))[1]
    )
    ours = trained(fast, name, bits, n)
    assert len(calls) == 3
    theirs = trained(net, name, bits, n)
    assert len(calls) == 3
    for key, expected in theirs.items():
        assert ours[key].dtype == numpy.float32
        # A bias before batch normalization has a gradient of rounding alone.
        atol = 1e-3 if key.endswith('/b') else 1e-4
        numpy.testing.assert_allclose(ours[key], expected, rtol=1e-3, atol=atol, err_msg=key)


def test_the_links_compute_what_it_cannot():
    model = fast.BinaryMLP(33, 70, 10)
    model.to_device('@cupy:0')
    x = model.device.send(numpy.zeros((5, 33), 'f'))
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        assert not gpu_layer.can_fuse(x, model.l1, model.bn1)
    assert gpu_layer.can_fuse(x, model.l1, model.bn1)
    assert not gpu_layer.can_fuse(x[:1], model.l1, model.bn1)
    assert not gpu_layer.can_fuse(x.astype('d'), model.l1, model.bn1)


def test_there_is_no_second_derivative():
    model = fast.BinaryMLP(33, 70, 10)
    model.to_device('@cupy:0')
    x = chainer.Variable(model.device.send(numpy.ones((5, 33), 'f')))
    y = model(x)
    y.grad = y.xp.ones_like(y.array)
    with pytest.raises(RuntimeError, match='fast has no second derivatives'):
        y.backward(enable_double_backprop=True)
