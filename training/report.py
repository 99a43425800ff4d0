"""What a training reports: log, table, curves, distribution of the weights, graph."""

import copy
import json
import logging
import os
import sys
import time

from chainer_compat import chainer
from chainer import computational_graph
from chainer.backends import cuda
from chainer.training import extensions
import numpy

from support.files import replacing_if_free

# The columns of the table, and of each row of the log.
COLUMNS = [
    'epoch',
    'main/loss',
    'validation/main/loss',
    'main/accuracy',
    'validation/main/accuracy',
    'elapsed_time',
]


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

    priority = chainer.training.PRIORITY_EDITOR + 1  # before every other extension but Graph
    sums, count = None, 0

    def __call__(self, trainer):
        updater, observation = trainer.updater, trainer.observation
        loss = chainer.as_array(observation['main/loss'])
        on_cpu = isinstance(loss, (numpy.ndarray, numpy.generic))
        if not on_cpu:
            loss = self.mean_of_epoch(updater, observation)
        if loss is not None and not numpy.isfinite(float(loss)):
            epoch = updater.epoch if updater.is_new_epoch else updater.epoch + 1
            raise FloatingPointError(
                f'the loss became {float(loss)} in epoch {epoch}, '
                + ('at' if on_cpu else 'by')
                + f' iteration {updater.iteration}'
            )

    def mean_of_epoch(self, updater, observation):
        """Adds up losses and accuracies on the GPU, and reports their means once an epoch.

        Returns:
            float: The mean loss at the end of an epoch, otherwise None.
        """
        if self.sums is None:
            self.sums = cuda.cupy.zeros(2, numpy.float64)
        names = 'main/loss', 'main/accuracy'
        values = [chainer.as_array(observation.pop(name)) for name in names]
        cuda.elementwise(
            'raw float32 loss, raw float32 accuracy',
            'float64 sum',
            'sum += i == 0 ? loss[0] : accuracy[0]',
            'add_loss_and_accuracy',
        )(*values, self.sums)
        self.count += 1
        if not updater.is_new_epoch:
            return None
        means = (self.sums.get() / self.count).tolist()
        observation.update(zip(names, means))
        self.sums.fill(0)
        self.count = 0
        return means[0]


class _WithoutTerminalControl:
    """Standard output without the control sequences that Chainer's PrintReport writes."""

    def write(self, text):
        if text != '\033[J':
            sys.stdout.write(text)

    def flush(self):
        sys.stdout.flush()


class PrintReport(extensions.PrintReport):
    """Chainer's PrintReport, in plain text where standard output is not a terminal."""

    def __init__(self):
        out = sys.stdout if sys.stdout.isatty() else _WithoutTerminalControl()
        super().__init__(COLUMNS, out=out)


class Graph(chainer.training.Extension):
    """Trainer extension that writes the computational graph of the first loss to ``cg.dot``.

    The links compute the loss of a graph, by BLAS, whose last bits depend on the number of
    threads. So it is computed apart from the training, by a copy of the model.
    """

    priority = chainer.training.PRIORITY_EDITOR + 2  # before dropout is seeded

    def initialize(self, trainer):
        updater = trainer.updater
        model = updater.get_optimizer('main').target.copy(mode='copy')
        with chainer.using_config('keep_graph_on_report', True):
            loss = model(*next(copy.copy(updater.get_iterator('main'))))
        graph = computational_graph.build_computational_graph([loss])
        self.content = graph.dump().encode()
        print('graph generated', flush=True)

    def __call__(self, trainer):
        pass

    def write(self, trainer):
        if self.content:
            with replacing_if_free(os.path.join(trainer.out, 'cg.dot')) as f:
                f.write(self.content)
            self.content = None


class Report(chainer.training.Extension):
    """Trainer extension that writes ``log``, ``loss.png``, ``accuracy.png`` and ``weights.png``.

    ``log`` contains what :class:`~chainer.training.extensions.LogReport` collected, as JSON; the
    first two pictures plot it. ``weights.png`` shows, for each linear layer, how its real-valued
    weights are distributed over [-1, 1] before the training and after each epoch. The log is
    written after each snapshot. The pictures are drawn at the end, and after a snapshot if the
    last are thirty seconds old (drawing takes half a second).

    Args:
        net (~net.MLP): The net.
    """

    trigger = 1, 'epoch'
    priority = chainer.training.PRIORITY_READER - 1  # after LogReport
    bins = 101

    def __init__(self, net):
        links = net.namedlinks()
        self.layers = {name: l.W for name, l in links if isinstance(l, chainer.links.Linear)}
        self.counts = []  # [epoch][layer][bin], in percent of the layer's weights

    def initialize(self, trainer):
        self.drawn = time.monotonic()
        if not self.counts:
            self(trainer)

    def __call__(self, trainer):
        row = []
        for W in self.layers.values():
            counts, _ = numpy.histogram(cuda.to_cpu(W.array), self.bins, (-1, 1))
            row.append((100 * counts / W.size).round(4).tolist())
        self.counts.append(row)

    def write(self, trainer):
        log = trainer.get_extension('LogReport').log
        with replacing_if_free(os.path.join(trainer.out, 'log')) as f:
            f.write(json.dumps(log, indent=4).encode())
        if time.monotonic() - self.drawn > 30:
            self.draw(trainer)

    def draw(self, trainer):
        """Draws the three pictures, if Matplotlib can be imported."""
        if why_no_pictures():
            return
        log = trainer.get_extension('LogReport').log
        for name, figure in (
            ('loss', self.curves(log, 'loss')),
            ('accuracy', self.curves(log, 'accuracy')),
            ('weights', self.weights()),
        ):
            with replacing_if_free(os.path.join(trainer.out, f'{name}.png')) as f:
                figure.savefig(f, format='png')
        self.drawn = time.monotonic()

    def curves(self, log, name):
        from matplotlib.figure import Figure  # imported late: it takes half a second
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(6, 4))
        axes = figure.add_subplot(xlabel='epoch', ylabel=name)
        for key, label in (f'main/{name}', 'training'), (f'validation/main/{name}', 'test'):
            axes.plot([row['epoch'] for row in log], [row[key] for row in log], '.-', label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        return figure

    def weights(self):
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        n = len(self.layers)
        figure = Figure(figsize=(min(2.5 * n + 1, 50), 4))
        all_axes = figure.subplots(1, n, sharey=True, squeeze=False)[0]
        figure.suptitle(
            'share of the weights: 100 % yellow, 0.01 % dark (log scale)', fontsize='medium'
        )
        all_axes[0].set(ylabel='real-valued weight', yticks=[-1, -0.5, 0, 0.5, 1])
        for axes, layer, percent in zip(all_axes, self.layers, numpy.swapaxes(self.counts, 0, 1)):
            axes.imshow(
                percent.T,
                aspect='auto',
                origin='lower',
                norm=LogNorm(0.01, 100),
                extent=(-0.5, len(percent) - 0.5, -1, 1),
            )
            axes.set(title=layer.strip('/'), xlabel='epoch')
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))  # few: it is narrow
        figure.subplots_adjust(top=0.85, bottom=0.15, wspace=0.1)
        return figure

    def serialize(self, serializer):
        self.counts = json.loads(serializer('counts', json.dumps(self.counts)))
