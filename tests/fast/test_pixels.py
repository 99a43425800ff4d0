"""The products with pixels against NumPy's."""

import chainer
import numpy
import pytest

import fast
from data import Minibatches
from helpers import equal
from qst import quantize
from test_fused_layer import make, pair

pytestmark = pytest.mark.skipif(
    fast.missing is not None, reason=f'Numba cannot be used: {fast.missing}'
)
if not fast.missing:
    from fast import pixels

SHAPES = [(100, 784, 1000), (1, 1, 1), (3, 5, 7), (7, 17, 65), (2, 32, 64), (130, 100, 131)]


def problem(n, k, m, share=0.2):
    random = numpy.random.RandomState(k)
    P = random.randint(0, 256, (n, k)) * (random.uniform(0, 1, (n, k)) < share)
    x = (P / 256).astype('f')
    W, b, gy = (random.normal(0, 1, shape).astype('f') for shape in ((m, k), m, (n, m)))
    return P, x, W, b, gy


@pytest.mark.parametrize('bits', range(1, 9))
@pytest.mark.parametrize('n, k, m', SHAPES)
def test_linear_is_exact(n, k, m, bits):
    P, x, W, b, _ = problem(n, k, m)
    y = numpy.empty((n, m), 'f')
    pixels.linear(pixels.find(x), W, bits, b, y)
    levels = 2**bits - 1
    sums = P @ numpy.rint(quantize(W, bits) * levels).astype(int).T
    assert equal(y, sums.astype('f') / numpy.float32(256 * levels) + b)
    if bits == 1:
        assert equal(y, x.dot(quantize(W, 1).T) + b)


@pytest.mark.parametrize('share', [0.0, 0.2, 1.0])
@pytest.mark.parametrize('n, k, m', SHAPES)
def test_weight_gradient(n, k, m, share, monkeypatch):
    _, x, _, _, gy = problem(n, k, m, share)
    for greatest in 0, 1:  # by BLAS, and by the sparse product
        monkeypatch.setattr(pixels, 'GREATEST_SHARE', greatest)
        gW = pixels.weight_gradient(pixels.find(x), x, gy)
        assert gW.dtype == x.dtype and gW.shape == (m, k) and gW.flags.c_contiguous
        exact = gy.T.astype(float) @ x.astype(float)
        numpy.testing.assert_allclose(gW, exact, rtol=1e-4, atol=1e-4)


def test_what_is_found():
    x = numpy.array([[0, 1, 2], [254, 255, -0.0]], 'f') / 256
    P = pixels.find(x)
    assert P.dtype == numpy.uint8 and P.shape[1] % 32 == 0
    assert P[:, :3].tolist() == [[0, 1, 2], [254, 255, 0]] and not P[:, 3:].any()


@pytest.mark.parametrize('other', [1, -1 / 256, 0.3, 1.5 / 256, 1e30, numpy.nan, numpy.inf])
def test_what_is_no_pixel(other):
    x = numpy.zeros((3, 70), 'f')
    x[2, 69] = other
    assert pixels.find(x) is None
    assert pixels.find(numpy.zeros((3, 70))) is None  # float64


@pytest.mark.parametrize('name, bits', [('BinaryMLP', ()), ('QuantizedMLP', (4, 4))])
def test_a_step_is_that_of_the_links(name, bits, mnist):
    x, _ = next(Minibatches(*mnist[:2], 100, seed=0))
    outputs, gradients = [], []
    for model in pair(name, 784, 100, 10, 1, *bits):
        model.cleargrads()
        h = model.layer(1, x)
        outputs.append(h.array)
        h.grad = numpy.random.RandomState(0).normal(0, 1, h.shape).astype('f')
        h.backward()
        gradients.append(model.l1.W.grad)
    if name == 'BinaryMLP':
        assert equal(*outputs)
    else:
        assert (outputs[0] == outputs[1]).mean() > 0.999  # an activation at a boundary can flip
    apart = numpy.linalg.norm(gradients[0] - gradients[1]) / numpy.linalg.norm(gradients[1])
    assert apart < (1e-5 if name == 'BinaryMLP' else 1e-2)


def test_the_gradient_of_pixels():
    """It is asked for by who looks for images that the net takes for others."""
    x = (numpy.random.RandomState(0).randint(0, 256, (9, 20)) / 256).astype('f')
    gradients = []
    for model in pair('BinaryMLP', 20, 70, 10):
        variable = chainer.Variable(x)
        y = model(variable)
        y.grad = numpy.random.RandomState(1).normal(0, 1, y.shape).astype('f')
        y.backward()
        gradients.append(variable.grad)
    numpy.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('bits', [1, 4])
def test_nan_stays_nan(bits):
    x = numpy.full((3, 5), 0.5, 'f')
    x[:, 0] = 0
    model = make(fast.QuantizedMLP, 5, 8, 3, 1, bits, bits)
    model.l1.W.array[2, 0] = numpy.nan
    y = numpy.empty((3, 8), 'f')
    pixels.linear(pixels.find(x), model.l1.W.array, bits, model.l1.b.array, y)
    expected = numpy.zeros((3, 8), bool)
    expected[:, 2] = bits > 1  # the sign of NaN is -1
    assert numpy.array_equal(numpy.isnan(y), expected)
