#!/usr/bin/env python3
"""Shows where the time of a training step on the CPU goes, and what each part of fast/ gains.

    .venv/bin/python benchmarks/profile_step.py [--net quantized] [--rounds 15]

The parts are timed inside whole steps, in sequence as in a training; a round is 20 steps. Then the
whole step is timed without one part of fast/ or another, in turns.
"""

import argparse
import os
import statistics
import sys
from time import perf_counter
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from chainer_compat import chainer
import chainer.links as L
import numpy

import fast
import net as nets
from data import MNIST, Minibatches, read_mnist
from fast import adam, fused_layer, loops, loss
from weight_clip import WeightClip

STEPS = 20


class Clock:
    """Adds up the time spent in functions, by label."""

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
    print(f'| {title} | ms, median | minimum - maximum |\n|---|---|---|')
    for name, seconds in rows.items():
        ms = [s / STEPS * 1000 for s in seconds]
        print(f'| {name} | {statistics.median(ms):.2f} | {min(ms):.2f} - {max(ms):.2f} |')
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--net', choices=('binary', 'quantized'), default='binary')
    parser.add_argument('--rounds', type=int, default=15)
    args = parser.parse_args()
    if fast.missing:
        parser.error(f'there are no compiled loops: {fast.missing}')
    from fast import pixels, xnor

    images, labels, _, _ = read_mnist(MNIST)
    iterator = Minibatches(images, labels, 100, seed=0)
    name = 'BinaryMLP' if args.net == 'binary' else 'QuantizedMLP'

    def training(Net, Adam, *loss):
        """A net, and a function that times a number of its training steps."""
        net = Net(784, 1000, 10)
        optimizer = Adam().setup(L.Classifier(net, *loss))
        optimizer.add_hook(WeightClip())

        def steps(n=STEPS):
            start = perf_counter()
            for _ in range(n):
                optimizer.update(optimizer.target, *next(iterator))
            return perf_counter() - start

        return net, steps

    net, steps = training(
        getattr(fast, name), fast.Adam, fast.softmax_cross_entropy, fast.accuracy
    )
    _, linked_steps = training(getattr(nets, name), fast.Adam)
    _, plain_steps = training(getattr(nets, name), chainer.optimizers.Adam)

    clock = Clock()
    layers = {id(net[f'bn{i}']): i for i in range(1, net.n_layers + 2)}
    patches = [
        clock.patch(Minibatches, '__next__', 'minibatch'),
        clock.patch(
            fused_layer.FusedLayer, 'forward', lambda f, _: f'layer {layers[id(f.bn)]} forward'
        ),
        clock.patch(
            fused_layer.FusedLayer, 'backward', lambda f, *_: f'layer {layers[id(f.bn)]} backward'
        ),
        clock.patch(loss.SoftmaxCrossEntropy, 'forward_cpu', 'loss and accuracy'),
        clock.patch(adam.AdamRule, 'update_core', 'Adam and the weight clip'),
    ]
    dot = clock.timed(numpy.dot, 'matrix products')
    timed_numpy = SimpleNamespace(**{**vars(numpy), 'dot': dot})
    inner = [
        mock.patch.object(fused_layer, 'numpy', timed_numpy),
        mock.patch.object(pixels, 'numpy', timed_numpy),
        clock.patch(xnor, 'all_signs', 'products of bits, and binarizing for them'),
        clock.patch(xnor, 'binary_linear', 'products of bits, and binarizing for them'),
        *[
            clock.patch(pixels, name, 'products of pixels, and quantizing for them')
            for name in ('find', 'linear', '_weight_gradient')
        ],
        clock.patch(loops, 'quantize', 'quantizing'),
        clock.patch(loops, 'statistics_loop', 'batch normalization'),
        clock.patch(loops, 'normalize_loop', 'batch normalization'),
        clock.patch(loops, 'normalize_backward_loop', 'batch normalization'),
    ]

    def profile(patches):
        """Seconds of each part, of the whole and of the remainder, by round."""
        for patch in patches:
            patch.start()
        rounds = []
        for _ in range(args.rounds):
            clock.spent.clear()
            whole = steps()
            rounds.append(
                {
                    **clock.spent,
                    "Chainer's bookkeeping, and all else": whole - sum(clock.spent.values()),
                    'whole step': whole,
                }
            )
        for patch in patches:
            patch.stop()
        return {name: [spent[name] for spent in rounds] for name in rounds[-1]}

    steps(50)
    outer = profile(patches)
    table(f'part of a step, {args.net} net', outer)
    table(
        'inside the layers',
        {name: seconds for name, seconds in profile(inner).items() if name not in outer},
    )

    ways = {
        'as it is': steps,
        'without products by XNOR': steps,
        'without products of pixels': steps,
        'nets of net.py, without fused layers': linked_steps,
        "nets of net.py and Chainer's Adam": plain_steps,
    }
    if args.net == 'quantized':
        del ways['without products by XNOR']
    times = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            all_signs = (lambda x: False) if 'XNOR' in name else xnor.all_signs
            find = (lambda x: None) if 'pixels' in name else pixels.find
            with (
                mock.patch.object(xnor, 'all_signs', all_signs),
                mock.patch.object(pixels, 'find', find),
            ):
                way(3)
                times[name].append(way())
    table('whole step', times)

    def nodes(way):
        apply = chainer.FunctionNode.apply
        with mock.patch.object(
            chainer.FunctionNode, 'apply', autospec=True, side_effect=apply
        ) as count:
            way(1)
        return count.call_count

    print(
        f'nodes that Chainer makes in a step: {nodes(steps)}, by the links {nodes(linked_steps)}'
    )


if __name__ == '__main__':
    main()
