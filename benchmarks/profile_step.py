#!/usr/bin/env python3
"""Shows where the time of one training step on the CPU goes, and what each thing that is there for speed gains.

    .venv/bin/python benchmarks/profile_step.py [--net quantized] [--rounds 15]

The parts are timed inside whole steps, one after another as they are in a training; a round is 20 steps. Then the
whole step is timed without the one thing and the other, in turns.
"""
import argparse
import os
import statistics
import sys
from time import perf_counter
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import chainer_compat  # noqa: E402,F401  (before Chainer)
from chainer import FunctionNode  # noqa: E402
import chainer.links as L  # noqa: E402
from chainer.functions.loss.softmax_cross_entropy import SoftmaxCrossEntropy  # noqa: E402
import numpy  # noqa: E402

import adam  # noqa: E402
import bst  # noqa: E402
import compiled  # noqa: E402
import fused_layer  # noqa: E402
from data import Minibatches, read_mnist  # noqa: E402
from net import BinaryMLP, QuantizedMLP  # noqa: E402
from program import MNIST  # noqa: E402
from weight_clip import WeightClip  # noqa: E402

STEPS = 20


class Clock:
    """Adds up the time that functions take, by label."""

    def __init__(self):
        self.spent = {}

    def timed(self, function, label):
        def call(*args, **kwargs):
            start = perf_counter()
            result = function(*args, **kwargs)
            name = label(*args) if callable(label) else label
            self.spent[name] = self.spent.get(name, 0) + perf_counter() - start
            return result
        return call

    def patch(self, owner, name, label):
        return mock.patch.object(owner, name, self.timed(getattr(owner, name), label))


def table(title, rows):
    print(f'| {title} | ms, median | least - greatest |\n|---|---|---|')
    for name, seconds in rows.items():
        ms = [s / STEPS * 1000 for s in seconds]
        print(f'| {name} | {statistics.median(ms):.2f} | {min(ms):.2f} - {max(ms):.2f} |')
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--net', choices=('binary', 'quantized'), default='binary')
    parser.add_argument('--rounds', type=int, default=15)
    args = parser.parse_args()
    if compiled.missing:
        parser.error(f'there are no compiled loops: {compiled.missing}')
    import xnor

    images, labels, _, _ = read_mnist(MNIST)
    iterator = Minibatches(images, labels, 100, seed=0)
    net = (BinaryMLP if args.net == 'binary' else QuantizedMLP)(784, 1000, 10)
    model = L.Classifier(net)
    optimizer = adam.Adam().setup(model)
    for param in model.params():
        param.update_rule.add_hook(WeightClip())

    def steps(n=STEPS):
        start = perf_counter()
        for _ in range(n):
            optimizer.update(model, *next(iterator))
        return perf_counter() - start

    clock = Clock()
    layers = {id(net[f'bn{i}']): i for i in range(1, net.n_layers + 2)}
    patches = [
        clock.patch(Minibatches, '__next__', 'minibatch'),
        clock.patch(fused_layer.FusedLayer, 'forward', lambda f, _: f'layer {layers[id(f.bn)]} forward'),
        clock.patch(fused_layer.FusedLayer, 'backward', lambda f, *_: f'layer {layers[id(f.bn)]} backward'),
        clock.patch(SoftmaxCrossEntropy, 'forward', 'loss'),
        clock.patch(adam.AdamRule, 'update_core', 'Adam and the weight clip')]
    inner = [
        mock.patch.object(fused_layer, 'numpy', SimpleNamespace(
            **{**vars(numpy), 'dot': clock.timed(numpy.dot, 'matrix products')})),
        clock.patch(xnor, 'all_signs', 'products of bits, and binarizing for them'),
        clock.patch(xnor, 'binary_linear', 'products of bits, and binarizing for them'),
        clock.patch(fused_layer, 'quantize', 'quantizing the other weights'),
        clock.patch(fused_layer, 'normalize_loop', 'batch normalization'),
        clock.patch(fused_layer, 'normalize_backward_loop', 'batch normalization'),
        clock.patch(bst.BST, 'forward', 'activations'),
        clock.patch(bst.STEGrad, 'forward', 'activations')]

    def profile(patches):
        """Seconds of each part, by round, the whole and what the parts leave of it."""
        for patch in patches:
            patch.start()
        rounds = []
        for _ in range(args.rounds):
            clock.spent.clear()
            whole = steps()
            rounds.append({**clock.spent, "Chainer's bookkeeping, and all else": whole - sum(clock.spent.values()),
                           'whole step': whole})
        for patch in patches:
            patch.stop()
        return {name: [spent[name] for spent in rounds] for name in rounds[-1]}

    steps(50)
    outer = profile(patches)
    table(f'part of a step, {args.net} net', outer)
    table('inside the layers', {name: seconds for name, seconds in profile(inner).items()
                                if name not in outer})

    def no(*args):
        return False

    ways = {
        'as it is': [],
        'without products of bits': [mock.patch.object(xnor, 'all_signs', no)],
        'by the links, without fused layers': [mock.patch('net.fits', no)],
        'without any compiled loop': [mock.patch.object(compiled, 'missing', 'switched off')]}
    if args.net == 'quantized':
        del ways['without products of bits']
    times = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, patches in ways.items():
            for patch in patches:
                patch.start()
            steps(3)
            times[name].append(steps())
            for patch in patches:
                patch.stop()
    table('whole step', times)

    def nodes():
        with mock.patch.object(FunctionNode, 'apply', autospec=True, side_effect=FunctionNode.apply) as apply:
            steps(1)
        return apply.call_count

    with mock.patch('net.fits', no):
        by_the_links = nodes()
    print(f'nodes that Chainer makes in a step: {nodes()}, by the links {by_the_links}')


if __name__ == '__main__':
    main()
