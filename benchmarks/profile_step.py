#!/usr/bin/env python3
"""Shows where the time of a training step on the CPU goes.

    .venv/bin/python benchmarks/profile_step.py [--net quantized] [--unit 4096 --layer 3]

The parts are timed inside whole steps, in bursts of three with a rest, by one thread and by all.
Then the whole step is timed beside the same without fast/, in turns.
"""

import argparse
import os
import statistics
import sys
from time import perf_counter, sleep
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from chainer_compat import chainer
import chainer.links as L
import numba

import fast
import net as nets
from data import MNIST, Minibatches, read_mnist
from fast import adam, fused_net, loss
from weight_clip import WeightClip


def training(Net, sizes, Adam, *functions):
    """A function that trains for a step."""
    images, labels, _, _ = read_mnist(MNIST)
    iterator = Minibatches(images, labels, 100, seed=0)
    optimizer = Adam().setup(L.Classifier(Net(*sizes), *functions))
    optimizer.add_hook(WeightClip())
    return lambda: optimizer.update(optimizer.target, *next(iterator))


def timed(function, label, spent):
    def call(*args):
        start = perf_counter()
        result = function(*args)
        name = label(*args) if callable(label) else label
        spent[name] = spent.get(name, 0) + perf_counter() - start
        return result

    return call


def bursts(step, rounds):
    """Seconds of so many steps."""
    for i in range(rounds):
        if i % 3 == 0:
            sleep(0.12)
        start = perf_counter()
        step()
        yield perf_counter() - start


def table(title, rows):
    print(f'| {title} | ms, median | minimum |\n|---|---|---|')
    for name, seconds in rows.items():
        ms = [s * 1000 for s in seconds]
        print(f'| {name} | {statistics.median(ms):.2f} | {min(ms):.2f} |')
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--net', choices=('binary', 'quantized'), default='binary')
    parser.add_argument('--unit', type=int, default=1000)
    parser.add_argument('--layer', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=60)
    args = parser.parse_args()
    if fast.missing:
        parser.error(f'there is no compiled code: {fast.missing}')
    name = 'BinaryMLP' if args.net == 'binary' else 'QuantizedMLP'
    sizes = 784, args.unit, 10, args.layer
    step = training(getattr(fast, name), sizes, fast.Adam, fast.softmax_cross_entropy)
    print(f'# {fast.describe()}')
    for _ in range(10):
        step()

    def of(what):
        return lambda _, layer: f'{what} {" x ".join(map(str, layer.W.shape))}'

    spent = {}
    parts = [
        (Minibatches, '__next__', 'minibatch'),
        (fused_net, 'forward', of('forward')),
        (loss.SoftmaxCrossEntropy, 'forward_cpu', 'loss'),
        (fused_net, 'backward', of('backward')),
        (fused_net, 'input_gradient', 'gradient of the inputs'),
        (fused_net, 'input_gradient_by_signs', 'gradient of the inputs'),
        (fused_net, 'list_pixels', 'list of pixels'),
        (adam.AdamRule, 'update_core', 'Adam and the weight clip'),
    ]
    patches = [
        mock.patch.object(owner, name, timed(getattr(owner, name), label, spent))
        for owner, name, label in parts
    ]
    for threads in sorted({1, numba.get_num_threads()}):
        numba.set_num_threads(threads)
        rows = []
        for patch in patches:
            patch.start()
        for seconds in bursts(step, args.rounds):
            rows.append({**spent, 'all else': seconds - sum(spent.values()), 'step': seconds})
            spent.clear()
        for patch in patches:
            patch.stop()
        table(f'{args.net} net, threads: {threads}', {k: [r[k] for r in rows] for k in rows[-1]})

    plain = training(getattr(nets, name), sizes, chainer.optimizers.Adam)
    ways = {'as it is': step, "nets of net.py and Chainer's Adam": plain}
    table('whole step', {name: list(bursts(way, args.rounds)) for name, way in ways.items()})


if __name__ == '__main__':
    main()
