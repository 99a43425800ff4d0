"""Contenders: PyTorch and ONNX Runtime, each with the saved net in the form fastest for it.

Weights are ±1. Batch normalization and binary activation are one comparison with a threshold per
unit (the weights of a unit with negative gamma are negated), and the last batch normalization is
one multiplication and addition. The compiled graph covers everything from uint8 pixels to classes.
"""

import os
import sys
import tempfile

import numpy

from worker import read_test_images, serve

how, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
images = read_test_images()


def folded():
    """Weights of each layer, thresholds of the hidden ones, and scale and shift of the last."""
    p = numpy.load(path)
    n = sum(name.endswith('/W') for name in p)
    weights, thresholds = [], []
    for i in range(1, n + 1):
        W = numpy.where(p[f'l{i}/W'] >= 0, 1, -1).astype('f')
        scale = p[f'bn{i}/gamma'] / numpy.sqrt(p[f'bn{i}/avg_var'] + 2e-5)
        shift = p[f'bn{i}/beta'] + (p[f'l{i}/b'] - p[f'bn{i}/avg_mean']) * scale
        if i < n:
            weights.append(W * numpy.where(scale < 0, -1, 1)[:, None].astype('f'))
            thresholds.append((-shift / abs(scale)).astype('f'))
    thresholds[0] *= p['pixel_scale']  # so the graphs need not divide the pixels
    return weights + [W], thresholds, scale.astype('f'), shift.astype('f')


def onnx_graph(integer):
    """The net as ONNX: in floats, or in 8 bits with sums of 32 bits."""
    from onnx import TensorProto, helper, numpy_helper

    weights, thresholds, scale, shift = folded()
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(numpy.ascontiguousarray(array), name))
        return name

    def node(kind, *inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [f'{kind}{len(nodes)}'], **attributes))
        return nodes[-1].output[0]

    x, zero_one = 'pixels', False
    if not integer:
        x = node('Cast', x, to=TensorProto.FLOAT)
    for i, W in enumerate(weights):
        if integer:
            # Activations x are 0 and 1 here; 2 x - 1 makes them -1 and +1.
            x = node('MatMulInteger', x, constant(f'W{i}', W.T.astype(numpy.int8)))
            a, b = (2.0, -W.sum(axis=1)) if zero_one else (1.0, 0.0)
        else:
            x = node('MatMul', x, constant(f'W{i}', W.T))
            a, b = 1.0, 0.0
        if i < len(thresholds):
            t = (thresholds[i].astype('d') - b) / a
            if integer:
                x = node('GreaterOrEqual', x, constant(f't{i}', numpy.ceil(t).astype(numpy.int32)))
                x, zero_one = node('Cast', x, to=TensorProto.UINT8), True
            else:
                x = node('GreaterOrEqual', x, constant(f't{i}', t.astype('f')))
                x = node(
                    'Where',
                    x,
                    constant(f'one{i}', numpy.float32(1)),
                    constant(f'minus{i}', numpy.float32(-1)),
                )
    if integer:
        x = node('Cast', x, to=TensorProto.FLOAT)
    x = node(
        'Add',
        node('Mul', x, constant('scale', (a * scale).astype('f'))),
        constant('shift', (b * scale + shift).astype('f')),
    )
    classes = node('ArgMax', x, axis=1, keepdims=0)
    graph = helper.make_graph(
        nodes,
        'net',
        [helper.make_tensor_value_info('pixels', TensorProto.UINT8, ['n', weights[0].shape[1]])],
        [helper.make_tensor_value_info(classes, TensorProto.INT64, ['n'])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)])
    model.ir_version = 9
    return model.SerializeToString()


def onnx():
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        batches = iter([{'pixels': images[i : i + 100]} for i in range(0, 1000, 100)])

        def get_next(self):
            return next(self.batches, None)

    model = onnx_graph(how == 'integer')
    if how in ('dynamic', 'static'):
        with tempfile.TemporaryDirectory() as folder:
            with open(f'{folder}/float', 'wb') as f:
                f.write(model)
            names = f'{folder}/float', f'{folder}/int8'
            if how == 'static':
                quantize_static(*names, Reader(), weight_type=QuantType.QInt8)
            else:
                quantize_dynamic(*names, weight_type=QuantType.QInt8)
            with open(f'{folder}/int8', 'rb') as f:
                model = f.read()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options)
    return lambda batch: session.run(None, {'pixels': batch})[0], len(model)


def torch():
    os.environ['TORCHINDUCTOR_FREEZING'] = '1'  # lets PyTorch change the layout of the weights
    import torch

    torch.set_num_threads(threads)
    weights, thresholds, scale, shift = folded()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for i, W in enumerate(weights):
                self.register_buffer(f'W{i}', torch.from_numpy(W))
            for i, t in enumerate(thresholds):
                self.register_buffer(f't{i}', torch.from_numpy(t))
            self.register_buffer('scale', torch.from_numpy(scale))
            self.register_buffer('shift', torch.from_numpy(shift))

        def forward(self, x):
            x = x.float()
            for i in range(len(thresholds)):
                x = torch.where(
                    torch.nn.functional.linear(x, getattr(self, f'W{i}'))
                    >= getattr(self, f't{i}'),
                    1.0,
                    -1.0,
                )
            x = torch.nn.functional.linear(x, getattr(self, f'W{len(thresholds)}'))
            return (x * self.scale + self.shift).argmax(1)

    net = Net().eval()
    run = torch.compile(net, dynamic=False) if how == 'compiled' else net

    def classify(batch):
        with torch.inference_mode():
            return run(torch.from_numpy(batch)).numpy()

    return classify, sum(b.numel() * 4 for b in net.buffers())


classify_batch, size_on_disk = torch() if how in ('eager', 'compiled') else onnx()


def classify(size):
    if size == 0:
        return size_on_disk
    chosen = images[:1000] if size < 10 else images
    return numpy.concatenate(
        [classify_batch(chosen[i : i + size]) for i in range(0, len(chosen), size)]
    )


serve(classify)
