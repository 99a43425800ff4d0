"""The ONNX graph gives the logits of the packed net."""

import numpy
import pytest

from deploy.packed import PackedMLP, PackedNet
from nets import SHAPES, packed, supplied

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
runtime = pytest.importorskip('onnxruntime', reason='ONNX Runtime is not installed')

from deploy.onnx_graph import to_onnx


def run(content, images):
    session = runtime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return session.run(None, {'pixels': images})


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('name', SHAPES)
def test_random_nets(name, signed):
    net, images = packed(name, signed)
    net = PackedNet({**net.arrays, 'temperature': numpy.float32(0.3)})
    logits, classes, probabilities = run(to_onnx(net), images.reshape(-1, *net.image_shape))
    expected = PackedMLP(net).logits(images)
    numpy.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    numpy.testing.assert_array_equal(classes, expected.argmax(axis=1))
    powers = numpy.exp(expected - expected.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    numpy.testing.assert_allclose(probabilities, expected, rtol=1e-3, atol=1e-6)


def test_all_test_images(mnist):
    net = supplied()
    logits, classes, _ = run(to_onnx(net), mnist[2])
    expected = PackedMLP(net).logits(mnist[2])
    numpy.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    numpy.testing.assert_array_equal(classes, expected.argmax(axis=1))


def test_what_it_says_of_itself():
    about = {
        'accuracy': numpy.array(0.978, numpy.float32),
        'layout': numpy.array([5, 7, 5, 5, 0, 0], numpy.int32),
    }
    net = PackedNet({**packed('binary')[0].arrays, **about})
    model = onnx.load_from_string(to_onnx(net))
    assert {p.key: p.value for p in model.metadata_props} == {
        'description': 'a packed binary net 35-70-70-12',
        'classes': '0 1 2 3 4 5 6 7 8 9 10 11',
        'test_accuracy': '0.9780',
    }
    assert all(node.domain == '' for node in model.graph.node)
    sizes = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ['n', 5, 7]
