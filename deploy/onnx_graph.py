"""The packed net as an ONNX graph of the standard operator set, in integers but for the end."""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # of the same age as the operator set, so that older runtimes also read it


class _Graph:
    """Nodes and constants, each with a name of its own."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f'c{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(numpy.ascontiguousarray(array), name))
        return name

    def add(self, operator, *inputs, output=None, **attributes):
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        output = output or f'{operator}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def _product(graph, x, W):
    """The sums of a layer, for bytes x and whole weights W of shape (M, K).

    On CPUs without VNNI, some runtimes add two products in 16 bits. So that these never overflow,
    a weight of more than six bits is multiplied in two parts.
    """
    parts = [W] if abs(W).max() < 64 else [W >> 4, W & 15]
    sums = [graph.add('MatMulInteger', x, part.T.astype(numpy.int8)) for part in parts]
    if len(sums) == 1:
        return sums[0]
    return graph.add('Add', graph.add('Mul', sums[0], numpy.int32(16)), sums[1])


def _level(graph, sums, T):
    """The number of thresholds that each sum reaches, found by bisection, as bytes.

    Args:
        sums (str): Sums of shape (N, M).
        T (array): int32 array of shape (2^bits - 1, M), ascending.
    """
    step = (len(T) + 1) // 2
    first = graph.add('GreaterOrEqual', sums, T[step - 1])
    if step == 1:
        return graph.add('Cast', first, to=TensorProto.UINT8)
    level = graph.add('Mul', graph.add('Cast', first, to=TensorProto.INT64), numpy.int64(step))
    thresholds = graph.constant(T)
    while step > 1:
        step //= 2
        at = graph.add('Add', level, numpy.int64(step - 1))
        threshold = graph.add('GatherElements', thresholds, at, axis=0)
        reached = graph.add('GreaterOrEqual', sums, threshold)
        more = graph.add('Cast', reached, to=TensorProto.INT64)
        level = graph.add('Add', level, graph.add('Mul', more, numpy.int64(step)))
    return graph.add('Cast', level, to=TensorProto.UINT8)


def to_onnx(net):
    """Writes a packed net as an ONNX model.

    The input ``pixels`` is uint8 of shape (n, rows, columns); the outputs are ``logits``, float32
    of shape (n, classes), ``class``, int64 of shape (n,), and ``probabilities``, the softmax of
    the logits. The products take levels, see :meth:`~deploy.packed.Layer.on_levels`.

    Args:
        net (~deploy.packed.PackedNet): The packed net.

    Returns:
        bytes: The model, checked by ``onnx.checker``.

    Source: https://onnx.ai/onnx/operators describes the operators, version 17.
    """
    graph = _Graph()
    x = graph.add('Reshape', 'pixels', numpy.array([-1, net.n_in], numpy.int64))
    first, *others = net.layers
    x, T = _product(graph, x, first.W), first.T
    for layer in others:
        x = _product(graph, _level(graph, x, T.T), layer.W)
        T = layer.on_levels()
    sums = graph.add('Mul', x, numpy.int32(2))
    sums = graph.add('Sub', sums, layer.shift[:, 0].astype(numpy.int32))
    y = graph.add('Cast', sums, to=TensorProto.FLOAT)
    *affine, beta = numpy.float32(net.scale), *net.affine
    for operator, array in zip(['Div', 'Add', 'Sub', 'Mul', 'Mul'], affine):
        y = graph.add(operator, y, array)
    graph.add('Add', y, beta, output='logits')
    graph.add('ArgMax', 'logits', output='class', axis=1, keepdims=0)
    graph.add('Softmax', 'logits', output='probabilities', axis=1)

    tensor = helper.make_tensor_value_info
    inputs = [tensor('pixels', TensorProto.UINT8, ['n', *net.image_shape])]
    outputs = [
        tensor('logits', TensorProto.FLOAT, ['n', net.n_out]),
        tensor('class', TensorProto.INT64, ['n']),
        tensor('probabilities', TensorProto.FLOAT, ['n', net.n_out]),
    ]
    whole = helper.make_graph(graph.nodes, net.title, inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid('', OPSET)]
    model = helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)
    about = {'description': net.title, 'classes': ' '.join(map(str, range(net.n_out)))}
    if net.accuracy is not None:
        about['test_accuracy'] = f'{net.accuracy:.4f}'
    helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
