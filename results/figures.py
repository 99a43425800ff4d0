#!/usr/bin/env python3
"""Draws the plots of README.md and results/README.md, and prints tables, from the logs."""

import csv
import functools
import glob
import json
import os
import sys

from matplotlib.figure import Figure
import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from qst import quantize

COLUMNS = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'


def logs(name):
    """The trainings of that name, an array of shape (seeds, epochs, columns)."""
    runs = []
    for path in sorted(glob.glob(f'{HERE}/{name}-seed*.json')):
        with open(path) as f:
            runs.append([[row[column] for column in COLUMNS] for row in json.load(f)])
    return numpy.array(runs)


def original(net):
    with open(f'{HERE}/original-{net}.csv') as f:
        return numpy.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(f)])


def draw(name, columns, size, plot, **options):
    """Draws axes side by side, which a function fills."""
    figure = Figure(figsize=size, layout='tight')
    all_axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for axes in all_axes:
        axes.grid(alpha=0.3)
    plot(*all_axes)
    figure.savefig(f'{HERE}/{name}.png', dpi=120)


def print_rows(head, rows):
    """Prints a table in Markdown."""
    print(f'\n| {head} |\n{"|---" * head.count(" | ")}|---|')
    for row in rows:
        print('|', ' | '.join(row), '|')


def plot_training(net, *all_axes):
    runs, reference = logs(net), original(net)
    epochs = numpy.arange(1, len(reference) + 1)
    colours = 2 * ['tab:blue', 'tab:orange']
    for column, (what, colour) in enumerate(zip(2 * ['training', 'test'], colours)):
        axes, run = all_axes[column // 2], runs[:, :, column]
        axes.plot(epochs, run.mean(axis=0), color=colour, label=f'ours, {what}')
        axes.fill_between(epochs, run.min(axis=0), run.max(axis=0), color=colour, alpha=0.25, lw=0)
        axes.plot(epochs, reference[:, column], '--', color=colour, label=f'original, {what}')
    for axes, name in zip(all_axes, ('loss', 'accuracy')):
        axes.set(xlabel='epoch', ylabel=name, xticks=[1, 5, 10, 15, 20], xmargin=0.02)
    axes.legend()


def plot_quantizer(*all_axes):
    a = numpy.linspace(-1.5, 1.5, 3001)
    for axes, bits in zip(all_axes, (1, 2, 4)):
        axes.plot(a, quantize(a, bits))
        axes.set(title=f'forward, {bits} bit' + ('s' if bits > 1 else ''), xlabel='a')
    all_axes[3].plot(a, (abs(a) <= 1).astype(float), color='tab:orange')
    all_axes[3].set(title='backward, any bits', xlabel='a', ylim=(-1.1, 1.1))


def print_table(net):
    runs, reference, rows = logs(net), original(net), []
    for epoch in 1, 2, 5, 10, 20:
        run = runs[:, epoch - 1]
        cells = map('{:.4f} ± {:.4f}'.format, run.mean(axis=0), run.std(axis=0, ddof=1))
        rows.append([str(epoch), *cells, f'{reference[epoch - 1, 3]:.4f}'])
    head = 'epoch | training loss | test loss | training accuracy | test accuracy'
    print_rows(f'{head} | original test accuracy', rows)


# The logs of the curves of recipe.png, and what stands beside each.
CURVES = {
    'recipe/1024': '3 x 1024, 1 bit',
    'recipe/256': '3 x 256, 1 bit',
    'recipe/1024-1-2-bit': '3 x 1024, W 1 bit, activations 2',
    'recipe/256-2-bit': '3 x 256, 2 bits',
    'binary': '2 x 1000, 1 bit, the defaults',
}


def plot_recipe(axes):
    for name, net in CURVES.items():
        errors = 100 * (1 - logs(name)[:, :, 3].mean(axis=0))
        (line,) = axes.plot(numpy.arange(1, len(errors) + 1), errors)
        # The label stands at the end of its line, clear of the others.
        place, side = ((0, -12), 'right') if net.endswith('defaults') else ((5, 0), 'left')
        place = (2, 9) if net.startswith('3 x 256') else place
        end, style = (len(errors), errors[-1]), {'color': line.get_color(), 'ha': side}
        axes.annotate(net, end, place, textcoords='offset points', va='center', **style)
    axes.set(xlabel='epoch', ylabel='test error, %', yscale='log', xscale='log', xlim=(0.95, 1800))
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100, 200], map(str, ticks))
    axes.set_yticks(ticks := [1, 1.5, 2, 3, 4, 6], map(str, ticks))


def plot_calibration(nets, *plots):
    titles = 'no temperature', 'fitted to training images', 'fitted to held-out images'
    for axes, title, when in zip(plots, titles, ('before', 'after', 'after')):
        axes.plot([0, 1], [0, 1], color='0.7')
        for name, net in nets.items():
            if ('held out' in name) == ('held-out' in title):
                bins = [(p, right) for p, right, n in net[when]['bins'] if n >= 20]
                label = f'{name.split(",")[0]}: {net[when]["error"]:.3f}'
                axes.plot(*zip(*bins), '.-', label=label)
        axes.set(title=title, xlabel='probability of the answer', xlim=(0, 1), ylim=(0, 1))
        where = 'lower right' if when == 'before' else 'upper left'
        axes.legend(title='calibration error', fontsize='small', loc=where)
    plots[0].set(ylabel='share of right answers')


def draw_calibration():
    """Draws the reliability diagram, and prints the tables of benchmarks/calibration.py."""
    with open(f'{HERE}/calibration.json') as f:
        nets = json.load(f)
    draw('calibration', 3, (10, 3.8), functools.partial(plot_calibration, nets), sharey=True)
    rows = []
    for name, net in nets.items():
        numbers = [net[when][what] for what in ('mean', 'error') for when in ('before', 'after')]
        rows.append([name, *(f'{x:.3f}' for x in (net['temperature'], net['accuracy'], *numbers))])
    print_rows('net | temperature | accuracy | mean before | after | error before | after', rows)
    rows = []
    for rule in nets['1 bit']['unsure']:
        shares = (100 * numpy.array(net['unsure'][rule]) for net in nets.values())
        rows.append([rule, *('{:.1f}, {:.0f}'.format(*share) for share in shares)])
    print_rows('unsure if | ' + ' | '.join(nets), rows)


if __name__ == '__main__':
    draw_calibration()
    draw('quantizer', 4, (9, 3), plot_quantizer)
    for net in 'binary', 'quantized':
        draw(net, 2, (9, 3.5), functools.partial(plot_training, net))
        print_table(net)
    draw('recipe', 1, (9, 4), plot_recipe)
