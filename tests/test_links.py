"""BinaryLinear and QuantizedLinear."""

import chainer
import chainer.links as L
import numpy
import pytest

from function_binary_linear import binary_linear
from function_quantized_linear import quantized_linear
from link_binary_linear import BinaryLinear
from link_quantized_linear import QuantizedLinear

LINKS = [BinaryLinear, QuantizedLinear]


@pytest.fixture(params=LINKS)
def Link(request):
    return request.param


def test_forward(xp):
    x = xp.random.uniform(-1, 1, (4, 5)).astype('f')
    binary, quantized = BinaryLinear(5, 3), QuantizedLinear(5, 3, bits=2)
    for link in binary, quantized:
        link.b.array[...] = [1, 2, 3]
        link.to_device(chainer.backend.get_device_from_array(x))
    assert (binary(x).array == binary_linear(x, binary.W, binary.b).array).all()
    assert (quantized(x).array == quantized_linear(x, quantized.W, quantized.b, 2).array).all()


def test_parameters_are_those_of_linear(Link):
    numpy.random.seed(0)
    link = Link(5, 3)
    numpy.random.seed(0)
    linear = L.Linear(5, 3)
    assert (link.W.array == linear.W.array).all()
    assert link.b.array.tolist() == [0, 0, 0]


def test_initializers(Link):
    W = numpy.arange(15, dtype='f').reshape(3, 5)
    link = Link(5, 3, initialW=W, initial_bias=2)
    assert (link.W.array == W).all()
    assert link.b.array.tolist() == [2, 2, 2]


def test_nobias(Link):
    link = Link(5, 3, nobias=True)
    assert link.b is None
    assert link(numpy.ones((2, 5), 'f')).shape == (2, 3)


@pytest.mark.parametrize('sizes', [(None, 3), (3,)])
def test_in_size_from_the_first_input(Link, sizes):
    link = Link(*sizes)
    assert link.W.array is None
    assert link(numpy.ones((2, 5, 4), 'f')).shape == (2, 3)
    assert link.W.shape == (3, 20)


def test_n_batch_axes(Link):
    assert Link(None, 3)(numpy.ones((2, 5, 4), 'f'), n_batch_axes=2).shape == (2, 5, 3)


def test_from_params(Link):
    W, b = numpy.ones((3, 5), 'f'), numpy.ones(3, 'f')
    assert (Link.from_params(W, b).W.array == W).all()


def test_real_valued_weight_gets_the_gradient(Link):
    link = Link(5, 3)
    W = link.W.array.copy()
    link.cleargrads()
    chainer.functions.sum(link(numpy.ones((2, 5), 'f'))).backward()
    assert (link.W.grad == 2).all()
    assert (link.W.array == W).all()


def test_a_saved_link_says_how_many_bits(tmp_path):
    path = str(tmp_path / 'link')
    chainer.serializers.save_npz(path, QuantizedLinear(5, 3, bits=2))
    loaded = QuantizedLinear(5, 3, bits=7)
    chainer.serializers.load_npz(path, loaded)
    assert loaded.bits == 2
    chainer.serializers.save_npz(path, BinaryLinear(5, 3))
    with numpy.load(path) as arrays:
        assert arrays['bits'] == 1


def test_an_uninitialized_link_loads(Link, tmp_path):
    path, saved, loaded = str(tmp_path / 'link'), Link(5, 3), Link(None, 3)
    chainer.serializers.save_npz(path, saved)
    chainer.serializers.load_npz(path, loaded)
    assert (loaded.W.array == saved.W.array).all()


@pytest.mark.parametrize('bits', [0, 9])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match='bits must be a whole number from 1 to 8'):
        QuantizedLinear(5, 3, bits=bits)


def test_repr_tells_the_bits():
    assert 'bits=3' in str(QuantizedLinear(5, 3, bits=3))


def test_copy_and_repeat(Link):
    link = Link(5, 3)
    assert (link.copy().W.array == link.W.array).all()
    assert len(Link(5, 5).repeat(3)) == 3
