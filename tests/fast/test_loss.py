"""The loss against Chainer's."""

import chainer
import chainer.functions as F
import numpy
import pytest

import fast


def results(loss, n, classes, device):
    numpy.random.seed(0)
    y = numpy.random.normal(0, 5, (n, classes)).astype('f')
    t = numpy.random.randint(0, classes, n).astype('i')
    device = chainer.get_device(device)
    device.use()
    y, t = chainer.Variable(device.send(y)), device.send(t)
    value = loss(y, t)
    (3 * value).backward()
    return [chainer.backends.cuda.to_cpu(a) for a in (value.array, y.grad)]


@pytest.mark.parametrize('n, classes', [(1, 10), (100, 10), (37, 47)])
def test_on_the_cpu_it_is_chainers(n, classes):
    ours = results(fast.softmax_cross_entropy, n, classes, '@numpy')
    theirs = results(F.softmax_cross_entropy, n, classes, '@numpy')
    for a, b in zip(ours, theirs):
        numpy.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('device', ['@numpy', pytest.param('@cupy:0', marks=pytest.mark.gpu)])
def test_there_is_no_second_derivative(device):
    device = chainer.get_device(device)
    device.use()
    y = chainer.Variable(device.send(numpy.eye(3, dtype='f')))
    t = device.send(numpy.arange(3, dtype='i'))
    with pytest.raises(RuntimeError, match='fast has no second derivatives'):
        fast.softmax_cross_entropy(y, t).backward(enable_double_backprop=True)


@pytest.mark.gpu
@pytest.mark.parametrize('n, classes', [(1, 10), (100, 10), (37, 47)])
def test_on_a_gpu(n, classes):
    ours = results(fast.softmax_cross_entropy, n, classes, '@cupy:0')
    theirs = results(F.softmax_cross_entropy, n, classes, '@cupy:0')
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype and a.shape == b.shape
        numpy.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_minibatches_on_a_gpu(mnist):
    from data import Minibatches

    device = chainer.get_device('@cupy:0')
    device.use()
    iterator = Minibatches(device.send(mnist[0][:500]), device.send(mnist[1][:500]), 64, seed=0)
    x, t = (chainer.backends.cuda.to_cpu(a) for a in next(iterator))
    order = numpy.random.RandomState((0, 0)).permutation(500)[:64]
    numpy.testing.assert_array_equal(x, mnist[0][order].reshape(64, -1))
    numpy.testing.assert_array_equal(t, mnist[1][order])
