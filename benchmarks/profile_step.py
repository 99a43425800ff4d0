#!/usr/bin/env python3
"""Shows where the time of one training step on the CPU goes: each part alone, and the whole step.

    .venv/bin/python benchmarks/profile_step.py [--net quantized] [--rounds 15]

The parts take turns, ten times each a round, with the compiled loops and without; the table has the medians of the
rounds. What the parts leave of the whole step is memory taken and given back, and caches that hold something else.
"""
import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import chainer_compat  # noqa: E402,F401  (before Chainer)
import chainer  # noqa: E402
import chainer.links as L  # noqa: E402
import numpy  # noqa: E402

import compiled  # noqa: E402
from adam import Adam  # noqa: E402
from bst import BST, STEGrad  # noqa: E402
from data import Minibatches, read_mnist  # noqa: E402
from function_binary_linear import BinaryWeight  # noqa: E402
from function_quantized_linear import QuantizedWeight  # noqa: E402
from net import BinaryMLP, QuantizedMLP  # noqa: E402
from program import MNIST  # noqa: E402
from qst import QST  # noqa: E402
from weight_clip import WeightClip  # noqa: E402


def model_and_optimizer(Net, n_in, n_units):
    model = L.Classifier(Net(n_in, n_units, 10))
    optimizer = Adam().setup(model)
    optimizer.add_hook(WeightClip())
    return model, optimizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--net', choices=('binary', 'quantized'), default='binary')
    parser.add_argument('--rounds', type=int, default=15)
    args = parser.parse_args()
    if compiled.missing:
        parser.error(f'there are no compiled loops: {compiled.missing}')
    Net = BinaryMLP if args.net == 'binary' else QuantizedMLP
    weight = BinaryWeight() if args.net == 'binary' else QuantizedWeight(4)
    activation = BST() if args.net == 'binary' else QST(4)

    images, labels, _, _ = read_mnist(MNIST)
    iterator = Minibatches(images, labels, 100, seed=0)
    x, t = next(iterator)
    model, optimizer = model_and_optimizer(Net, 784, 1000)
    tiny, tiny_optimizer = model_and_optimizer(Net, 4, 4)
    optimizer.update(model, x, t)
    net = model.predictor
    rules = [(p.update_rule, p) for p in model.params()]
    weights = [link.W.array for link in model.links() if isinstance(link, L.Linear)]
    inputs = [numpy.random.standard_normal((100, n)).astype(numpy.float32) for n in (784, 1000, 1000, 10)]
    clip = WeightClip()

    def products():
        for i, W in enumerate(weights):
            inputs[i].dot(W.T)
            inputs[i + 1].T.dot(inputs[i])
            if i > 0:
                inputs[i + 1].dot(W)

    def normalize():
        for i, link in enumerate((net.bn1, net.bn2, net.bn3), 1):
            y = link(inputs[i]).creator
            y.backward((0, 1, 2), [chainer.as_variable(inputs[i])])

    def activate():
        for a in inputs[1:3]:
            activation.forward((a,))
            STEGrad(activation.inside).forward((a,))

    parts = {
        'whole step': lambda: optimizer.update(model, x, t),
        'matrix products': products,
        'Adam': lambda: [rule.update_core_cpu(p) for rule, p in rules],
        'weight clip': lambda: [clip(rule, p) for rule, p in rules],
        'quantizing the weights': lambda: [weight.forward((W,)) for W in weights],
        'batch normalization': normalize,
        'activations': activate,
        "Chainer's bookkeeping (whole step of a net of 4 units)":
            lambda: tiny_optimizer.update(tiny, x[:, :4], t),
        'minibatch assembly': lambda: next(iterator)}

    times = {(name, off): [] for name in parts for off in (None, 'switched off')}
    for _ in range(args.rounds):
        for name, part in parts.items():
            for compiled.missing in None, 'switched off':  # with it set, nothing takes a compiled loop
                start = time.perf_counter()
                for _ in range(10):
                    part()
                times[name, compiled.missing].append((time.perf_counter() - start) / 10 * 1000)
    print('| part | ms, median | least - greatest | without the compiled loops |\n|---|---|---|---|')
    for name in parts:
        ms, without = times[name, None], times[name, 'switched off']
        print(f'| {name} | {statistics.median(ms):.2f} | {min(ms):.2f} - {max(ms):.2f} | '
              f'{statistics.median(without):.2f} |')


if __name__ == '__main__':
    main()
