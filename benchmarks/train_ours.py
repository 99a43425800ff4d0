"""Contender: this project's own training loop, on its own data reader."""

import sys

from worker import serve

sys.path.insert(0, sys.path[0] + '/..')
import train_mnist
import chainer
from chainer import reporter

trainer, _ = train_mnist.prepare(train_mnist.parse_arguments(sys.argv[1:]))


def train(steps):
    losses = []
    with trainer.reporter.scope({}):
        for _ in range(steps):
            observation = {}
            with reporter.report_scope(observation):
                trainer.updater.update()
            losses.append(chainer.as_array(observation['main/loss']))
    return float(sum(losses[-100:])) / len(losses[-100:])


serve(train)
