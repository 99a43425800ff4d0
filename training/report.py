"""What a training reports: log, table, curves, distribution of the weights, graph."""

import copy
import json
import logging
import math
import os
import re
import time
import types

from chainer_compat import chainer
from chainer import computational_graph
from chainer.backends import cuda
from chainer.training import extensions
import numpy

from support.files import replacing
from training.saved import describe_net

# The columns of the table, and of each row of the log.
MEASURED = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'
COLUMNS = ['epoch', *MEASURED, 'elapsed_time']


def why_no_pictures():
    """The error that Matplotlib raises when it is imported, or None."""
    logging.getLogger('matplotlib').setLevel(logging.ERROR)  # it logs its font cache
    try:
        import matplotlib.figure  # noqa: F401
    except Exception as e:  # A broken installation can raise anything.
        return e
    return None


class Evaluator(extensions.Evaluator):
    """Chainer's Evaluator, except that it weights each minibatch by its size.

    So ``validation/main/accuracy`` is exact for any minibatch size, also if the last is smaller.
    """

    def evaluate(self):
        iterator = self.get_iterator('main')
        iterator.reset()
        summary = chainer.reporter.DictSummary()
        for x, t in iterator:
            observation = {}
            with chainer.report_scope(observation), chainer.no_backprop_mode():
                self.get_target('main')(x, t)
            for name, value in observation.items():
                summary.add({name: (chainer.as_array(value).astype(float), len(t))})
        return {name: float(mean) for name, mean in summary.compute_mean().items()}


class FailOnNonFinite(chainer.training.Extension):
    """Trainer extension that stops a training whose loss is not finite, before more is saved.

    On a GPU it checks once per epoch, since each check waits for the device, and the other
    extensions get the means of the epoch.

    Raises:
        FloatingPointError: If the loss was NaN or infinite; the message says when.
    """

    priority = chainer.training.PRIORITY_EDITOR + 1  # before every other extension

    def __init__(self):
        self.epoch = []  # losses and accuracies of its minibatches, on the GPU

    def __call__(self, trainer):
        updater, observation, when = trainer.updater, trainer.observation, 'at'
        if updater.device.xp is not numpy:
            self.epoch += (chainer.as_array(observation.pop(name)) for name in MEASURED[::2])
            if not updater.is_new_epoch:
                return
            values = cuda.cupy.stack(self.epoch).reshape(-1, 2).astype(float).mean(axis=0)
            observation.update(zip(MEASURED[::2], values.tolist()))
            self.epoch, when = [], 'by'
        loss = float(chainer.as_array(observation['main/loss']))
        if not math.isfinite(loss):
            epoch = updater.epoch + (not updater.is_new_epoch)
            raise FloatingPointError(
                f'the loss became {loss} in epoch {epoch}, {when} iteration {updater.iteration}'
            )


def print_report(bar):
    """Chainer's PrintReport, with codes for a terminal only beside a progress bar."""

    def write(text):
        print(text if bar else text.replace('\033[J', ''), end='', flush=True)

    return extensions.PrintReport(COLUMNS, out=types.SimpleNamespace(write=write))


def graph(trainer):
    """The computational graph of the loss of the next minibatch, in the language of Graphviz.

    The links compute the loss of a graph, with BLAS, whose last bits depend on the number of
    threads. So it is computed apart from the training, by a copy of the model.
    """
    model = trainer.updater.get_optimizer('main').target.copy(mode='copy')
    with chainer.using_config('keep_graph_on_report', True):
        loss = model(*next(copy.copy(trainer.updater.get_iterator('main'))))
    print('graph generated', flush=True)
    return computational_graph.build_computational_graph([loss]).dump().encode()


class Report(chainer.training.Extension):
    """Trainer extension that writes ``cg.dot``, ``log`` and the pictures.

    ``log`` contains what :class:`~chainer.training.extensions.LogReport` collected, as JSON;
    ``loss.png`` and ``accuracy.png`` plot it. ``weights.png`` shows, for each linear layer, how
    its real-valued weights are distributed over [-1, 1] before the training and after each epoch.
    The log is written after each snapshot. The pictures are drawn at the end, and after a snapshot
    if the last are thirty seconds old (drawing takes half a second).

    Args:
        net (~net.MLP): The net.
        images (str): Which images it is evaluated on: ``test`` or ``held-out``.
    """

    trigger = 1, 'epoch'
    priority = chainer.training.PRIORITY_EDITOR + 2  # the graph, before dropout is seeded
    bins = 101

    def __init__(self, net, images='test'):
        # Of many hidden layers, the first and the last.
        self.net = re.sub(r'(-\d+)\1{3,}(?=-)', r'\1-…\1', describe_net(net))[len('a ') :]
        self.images, links = images, net.namedlinks()
        self.layers = {name: l.W for name, l in links if isinstance(l, chainer.links.Linear)}
        self.counts = []  # [epoch][layer][bin], in percent of the layer's weights

    def initialize(self, trainer):
        self.drawn = time.monotonic()
        self.graph = graph(trainer)
        if not self.counts:
            self(trainer)

    def __call__(self, trainer):
        row = []
        for W in self.layers.values():
            counts, _ = numpy.histogram(cuda.to_cpu(W.array), self.bins, (-1, 1))
            row.append((100 * counts / W.size).round(4).tolist())
        self.counts.append(row)

    def write(self, trainer):
        if self.graph:
            with replacing(os.path.join(trainer.out, 'cg.dot'), optional=True) as f:
                f.write(self.graph)
            self.graph = None
        log = trainer.get_extension('LogReport').log
        with replacing(os.path.join(trainer.out, 'log'), optional=True) as f:
            f.write(json.dumps(log, indent=4).encode())
        if time.monotonic() - self.drawn > 30:
            self.draw(trainer)

    def draw(self, trainer, accuracy=None):
        """Draws the three pictures, if Matplotlib can be imported.

        Args:
            trainer (~chainer.training.Trainer): The trainer.
            accuracy (float): Of the finished net, on the test images.
        """
        if why_no_pictures():
            return
        log = trainer.get_extension('LogReport').log
        title = self.title([row['validation/main/accuracy'] for row in log], accuracy)
        figures = {name: self.curves(title, log, name) for name in ('loss', 'accuracy')}
        for name, figure in {**figures, 'weights': self.weights(title)}.items():
            with replacing(os.path.join(trainer.out, f'{name}.png'), optional=True) as f:
                figure.savefig(f, format='png', dpi=150)
        self.drawn = time.monotonic()

    def title(self, accuracies, accuracy):
        """The net and its accuracy, in two lines."""
        epoch, images = len(accuracies), self.images
        if accuracy is None:
            accuracy = accuracies[-1]
        elif images != 'test':
            epoch, images = 1 + numpy.argmax(accuracies), 'test'
        return f'{self.net}\n{images} accuracy {100 * accuracy:.2f} % after epoch {epoch}'

    def curves(self, title, log, name):
        from matplotlib.figure import Figure  # imported late: it takes half a second

        axes = Figure(figsize=(6, 4)).add_axes((0.12, 0.12, 0.85, 0.76))
        axes.set_title(title, loc='left', fontsize='medium')
        for key, label in (f'main/{name}', 'training'), (f'validation/main/{name}', self.images):
            style = {'marker': '.' if len(log) <= 50 else '', 'clip_on': False, 'label': label}
            axes.plot([row['epoch'] for row in log], [row[key] for row in log], **style)
        axes.set(xlabel='epoch', xticks=_ticks(1, len(log), 8), xmargin=0.02, ylabel=name)
        if name == 'accuracy':
            axes.set_ylim(top=min(1, axes.get_ylim()[1]))
        axes.grid(alpha=0.3)
        axes.legend()
        return axes.figure

    def weights(self, title):
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure

        n, epochs = len(self.layers), len(self.counts)
        columns = max(min(n, 6), math.ceil(math.sqrt(n)))
        rows = math.ceil(n / columns)
        width, height = min(2 * columns + 1.7, 50), min(2.6 * rows + 1, 50)  # inches
        left, right, bottom, top = 0.7 / width, 1 - 1.1 / width, 0.5 / height, 1 - 0.8 / height
        figure = Figure(figsize=(width, height))
        figure.suptitle(title, x=0.1 / width, y=1 - 0.1 / height, ha='left', fontsize='medium')
        figure.supxlabel('epoch', y=0.1 / height, fontsize='medium')
        figure.supylabel('real-valued weight', x=0.1 / width, fontsize='medium')
        figure.subplots_adjust(left, bottom, right, top, wspace=0.2, hspace=0.35)
        edges = numpy.arange(epochs + 1) - 0.5, numpy.linspace(-1, 1, self.bins + 1)
        shares = dict(zip(self.layers, numpy.swapaxes(self.counts, 0, 1)))
        norm = LogNorm(0.01, 100)
        for i, name in enumerate(sorted(shares, key=lambda name: int(name[2:]))):
            axes = figure.add_subplot(rows, columns, i + 1, xticks=_ticks(0, epochs - 1, 4))
            mesh = axes.pcolormesh(*edges, shares[name].T, cmap='YlGnBu', norm=norm)
            axes.set(title=name[1:], yticks=[] if i % columns else [-1, 0, 1])
        bar = figure.add_axes((right + 0.1 / width, bottom, 0.15 / width, top - bottom))
        figure.colorbar(mesh, bar, format='{x:g} %', label="share of the layer's weights")
        return figure

    def serialize(self, serializer):
        self.counts = json.loads(serializer('counts', json.dumps(self.counts)))


def _ticks(first, last, most):
    """Ticks for the epochs: whole numbers, the first and the last among them."""
    from matplotlib.ticker import MaxNLocator

    between = MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    room = (last - first) / most / 2
    return sorted({first, last, *(int(t) for t in between if first + room < t < last - room)})
