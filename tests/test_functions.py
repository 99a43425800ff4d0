"""bst, qst, binary_linear and quantized_linear: values and gradients against their formulas."""

import chainer
from chainer import gradient_check
from chainer.backends import cuda
from chainer.utils import type_check
import numpy
import pytest

from bst import binarize, bst
from function_binary_linear import binary_linear
from function_quantized_linear import quantized_linear
from qst import qst, quantize

# Each function with the quantizer it uses.
ACTIVATIONS = [pytest.param(bst, binarize, id='bst')] + [
    pytest.param(lambda x, k=k: qst(x, k), lambda a, k=k: quantize(a, k), id=f'qst{k}')
    for k in (1, 2, 4, 8)
]
LINEARS = [pytest.param(binary_linear, binarize, id='binary')] + [
    pytest.param(
        lambda x, W, b=None, n_batch_axes=1, k=k: quantized_linear(x, W, b, k, n_batch_axes),
        lambda a, k=k: quantize(a, k),
        id=f'quantized{k}',
    )
    for k in (1, 2, 4, 8)
]
TOLERANCE = {numpy.float16: 2e-2, numpy.float32: 1e-5, numpy.float64: 1e-12}


def edges(dtype):
    one = dtype(1)
    below, above = numpy.nextafter(one, dtype(0)), numpy.nextafter(one, dtype(2))
    largest = numpy.finfo(dtype).max
    values = [0.0, 0.5, below, one, above, 2, largest]
    return numpy.array([s * v for v in values for s in (1, -1)], dtype)


@pytest.mark.parametrize('f, quantizer', ACTIVATIONS)
def test_activation(f, quantizer, xp, dtype):
    x = chainer.Variable(xp.asarray(edges(dtype)))
    y = f(x)
    assert y.dtype == dtype
    assert (y.array == quantizer(x.array)).all()

    gy = range(1, x.size + 1)
    y.grad = xp.array(gy, dtype)
    y.backward()
    expected = [g if -1 <= value <= 1 else 0 for g, value in zip(gy, x.array.tolist())]
    assert x.grad.dtype == dtype
    assert x.grad.tolist() == expected


@pytest.mark.parametrize('f, quantizer', ACTIVATIONS)
@pytest.mark.parametrize('shape', [(), (0, 3), (3, 0), (2, 3, 4)])
def test_activation_of_any_shape(f, quantizer, shape, xp):
    x = chainer.Variable(xp.full(shape, 0.5, 'f'))
    y = f(x)
    y.grad = xp.ones_like(y.array)
    y.backward()
    assert y.shape == x.grad.shape == shape


@pytest.mark.parametrize('f, quantizer', ACTIVATIONS)
def test_activation_has_double_backward(f, quantizer, xp):
    x = chainer.Variable(xp.array([-2, -1, 0.5, 1.5], 'f'))
    gy = chainer.Variable(xp.array([1, 2, 3, 4], 'f'))
    (gx,) = chainer.grad([f(x)], [x], [gy], enable_double_backprop=True)
    (ggy,) = chainer.grad([gx], [gy], [chainer.Variable(xp.array([5, 6, 7, 8], 'f'))])
    assert ggy.array.tolist() == [0, 6, 7, 0]


@pytest.mark.parametrize('f, quantizer', ACTIVATIONS)
def test_activation_keeps_a_byte_an_element_for_backward(f, quantizer):
    x = chainer.Variable(numpy.zeros((10, 10), 'f'))
    node = f(x).creator
    assert node.inside.nbytes == 100
    assert node.inputs[0].data is None  # x itself may go


@pytest.mark.parametrize('f', [bst, lambda x: qst(x, 2)])
def test_activation_without_backprop(f):
    x = chainer.Variable(numpy.array([-1, 1], 'f'))
    with chainer.no_backprop_mode():
        y = f(x)
    assert y.array.tolist() == [-1, 1]
    assert y.creator is None


@pytest.mark.parametrize('f', [bst, lambda x: qst(x, 2)])
def test_activation_of_integers_is_a_type_error(f):
    with pytest.raises(type_check.InvalidType, match='x.dtype.kind'):
        f(numpy.zeros(3, 'i'))


def operands(xp, dtype, n=4, k=5, m=3):
    random = numpy.random.RandomState(0)
    arrays = [
        random.uniform(-1.5, 1.5, shape).astype(dtype) for shape in ((n, k), (m, k), (m,), (n, m))
    ]
    arrays[1].flat[:2] = 0.0, -0.0
    return [xp.asarray(a) for a in arrays]


@pytest.mark.parametrize('f, quantizer', LINEARS)
@pytest.mark.parametrize('nobias', [False, True])
@pytest.mark.parametrize('n', [0, 1, 4])
def test_linear(f, quantizer, nobias, n, xp, dtype):
    x, W, b, gy = map(chainer.Variable, operands(xp, dtype, n))
    y = f(x, W) if nobias else f(x, W, b)
    y.grad = gy.array
    y.backward()

    x64, W64, b64, gy64 = [cuda.to_cpu(v.array).astype(numpy.float64) for v in (x, W, b, gy)]
    Wq64 = cuda.to_cpu(quantizer(W.array)).astype(numpy.float64)
    expected = {
        'y': numpy.einsum('nk,mk->nm', x64, Wq64) + (0 if nobias else b64),
        'gx': numpy.einsum('nm,mk->nk', gy64, Wq64),
        'gW': numpy.einsum('nm,nk->mk', gy64, x64),
    }
    actual = {'y': y.array, 'gx': x.grad, 'gW': W.grad}
    if not nobias:
        expected['gb'], actual['gb'] = gy64.sum(axis=0), b.grad
    for name, array in actual.items():
        assert array.dtype == dtype, name
        numpy.testing.assert_allclose(
            cuda.to_cpu(array),
            expected[name],
            err_msg=name,
            rtol=TOLERANCE[dtype],
            atol=10 * TOLERANCE[dtype],
        )


@pytest.mark.parametrize('f, quantizer', LINEARS)
def test_linear_takes_any_number_of_axes(f, quantizer, xp):
    x, W, b, _ = operands(xp, numpy.float32, n=4, k=6)
    y = f(x, W, b).array
    assert (f(x.reshape(4, 3, 2), W, b).array == y).all()
    assert (f(x.reshape(2, 2, 6), W, b, n_batch_axes=2).array.reshape(4, 3) == y).all()


@pytest.mark.parametrize('f, quantizer', LINEARS)
def test_linear_without_backprop(f, quantizer):
    x, W, b, _ = operands(numpy, numpy.float32)
    with chainer.no_backprop_mode():
        y = f(x, chainer.Parameter(W), b)
    assert y.creator is None
    assert (y.array == f(x, W, b).array).all()


@pytest.mark.parametrize('f, quantizer', LINEARS)
def test_linear_has_double_backward(f, quantizer, xp):
    """Through x and b only: small steps of W do not change its levels."""
    x, W, b, gy = operands(xp, numpy.float64)
    gradient_check.check_double_backward(
        lambda x, b: f(x, W, b),
        (x, b),
        gy,
        (xp.ones_like(x), xp.ones_like(b)),
        dtype=numpy.float64,
    )


@pytest.mark.parametrize('f, quantizer', LINEARS)
def test_linear_keeps_nothing_of_the_real_valued_weight(f, quantizer):
    x, W, b, _ = map(chainer.Variable, operands(numpy, numpy.float32))
    weight_node = f(x, W, b).creator.inputs[1].creator_node
    assert weight_node.inputs[0].data is None


@pytest.mark.parametrize('f, quantizer', LINEARS)
@pytest.mark.parametrize('name', ['x', 'W', 'b'])
def test_linear_names_an_argument_of_integers(f, quantizer, name):
    x, W, b, _ = operands(numpy, numpy.float32)
    arguments = {'x': x, 'W': W, 'b': b}
    arguments[name] = arguments[name].astype('i')
    with pytest.raises(type_check.InvalidType, match=rf'{name}\.dtype'):
        f(**arguments)


@pytest.mark.parametrize('f, quantizer', LINEARS)
def test_linear_names_arguments_that_do_not_fit(f, quantizer):
    x, W, b, _ = operands(numpy, numpy.float32)
    with pytest.raises(type_check.InvalidType, match=r'x\.shape\[1\] == W\.shape\[1\]'):
        f(x[:, 1:], W, b)
    with pytest.raises(type_check.InvalidType, match=r'W\.ndim'):
        f(x, W[0], b)
    with pytest.raises(type_check.InvalidType, match=r'b\.shape\[0\]'):
        f(x, W, b[1:])


@pytest.mark.parametrize('bits', [0, 9, 1.5])
def test_bits_out_of_range(bits):
    x, W, b, _ = operands(numpy, numpy.float32)
    with pytest.raises(ValueError, match='bits must be a whole number from 1 to 8'):
        qst(x, bits)
    with pytest.raises(ValueError, match='bits must be a whole number from 1 to 8'):
        quantized_linear(x, W, b, bits)


@pytest.mark.gpu
@pytest.mark.parametrize('bits', range(1, 9))
def test_gpu_quantizes_as_the_cpu_to_the_bit(bits, dtype):
    import cupy

    a = numpy.random.RandomState(0).uniform(-1.2, 1.2, 10**6).astype(dtype)
    assert (cupy.asnumpy(quantize(cupy.asarray(a), bits)) == quantize(a, bits)).all()
    assert (cupy.asnumpy(binarize(cupy.asarray(a))) == binarize(a)).all()
