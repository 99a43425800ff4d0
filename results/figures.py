#!/usr/bin/env python3
"""Draws the pictures of README.md and results/README.md, and prints their tables, from the logs.

``binary-seed0.json`` and so on are the ``log`` files of our trainings, ``original-binary.csv`` and
``original-quantized.csv`` the runs of the original scripts.
"""

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
    """Array of shape (seeds, epochs, columns), and the seconds of each training."""
    runs = []
    for path in sorted(glob.glob(f'{HERE}/{name}-seed*.json')):
        with open(path) as f:
            runs.append(json.load(f))
    values = numpy.array([[[row[column] for column in COLUMNS] for row in run] for run in runs])
    return values, [run[-1]['elapsed_time'] for run in runs]


def original(net):
    with open(f'{HERE}/original-{net}.csv') as f:
        return numpy.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(f)])


def draw(name, columns, height, plot):
    """Draws axes side by side, which a function fills."""
    figure = Figure(figsize=(9, height), layout='tight')
    all_axes = figure.subplots(1, columns, squeeze=False)[0]
    plot(*all_axes)
    for axes in all_axes:
        axes.grid(alpha=0.3)
    figure.savefig(f'{HERE}/{name}.png', dpi=120)


def plot_training(net, *all_axes):
    runs, reference = logs(net)[0], original(net)
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
    runs, reference = logs(net)[0], original(net)
    print(f'\n{net}, {len(runs)} seeds')
    names = 'training loss', 'test loss', 'training accuracy', 'test accuracy'
    print('| epoch |', *(f'{name} |' for name in (*names, 'original test accuracy')))
    print('|---|---|---|---|---|---|')
    for epoch in 1, 2, 5, 10, 20:
        run = runs[:, epoch - 1]
        of_columns = zip(run.mean(axis=0), run.std(axis=0, ddof=1))
        cells = [f'{mean:.4f} ± {deviation:.4f}' for mean, deviation in of_columns]
        print(f'| {epoch} |', *(f'{cell} |' for cell in cells), f'{reference[epoch - 1, 3]:.4f} |')
    apart = abs(runs.mean(axis=0) - reference)[:, 0]
    print(f'largest difference of the mean training loss from the original: {apart.max():.4f}')


def decay(first='0.003', last='1e-5'):
    return f'--alpha {first} --final-alpha {last}'


def softmax(*rates):
    return f'--glorot --signed-pixels --clip weights {decay(*rates)}'


def hinge(*rates):
    return f'--loss hinge --init uniform {softmax(*rates)}'


WIDE, SMALL = '--layer 3 --unit 1024', '--layer 3 --unit 256'
DROPOUT = '--dropout-input 0.2 --dropout-hidden 0.2'
ONE_TWO, TWO_TWO = (f'--net quantized --weight-bits {bits} --activation-bits 2' for bits in (1, 2))
# Name of the logs in recipe/ -> the net, the published result, and our options besides --seed.
PEERS = {
    '1024': (
        '3 x 1024, 1 bit',
        '98.88 (Brevitas LFC_1W1A)',
        f'{WIDE} {hinge()} {DROPOUT} --epoch 200',
    ),
    '256': ('3 x 256, 1 bit', '97.81 (Brevitas SFC_1W1A)', f'{SMALL} {softmax()} --epoch 60'),
    '1024-1-2-bit': (
        '3 x 1024, W 1 bit, activations 2',
        '98.99 (Brevitas LFC_1W2A)',
        f'{ONE_TWO} {WIDE} {hinge()} {DROPOUT} --epoch 200',
    ),
    '256-2-bit': (
        '3 x 256, 2 bits',
        '98.66 (Brevitas SFC_2W2A)',
        f'{TWO_TWO} {SMALL} {softmax()} --dropout-input 0.1 --epoch 120',
    ),
}
# Heading -> name of the logs -> what is on or off.
ABLATIONS = {
    '784-1000-1000-10, 20 epochs': {
        name: f'`{options}`'
        for name, options in {
            'decay': decay(),
            'decay-clip': f'{decay()} --clip weights',
            'decay-dropout': f'{decay()} --dropout-input 0.1',
            'all': hinge(),
            'all-alpha-0.012': hinge('0.012'),
            'softmax': softmax(),
            '4-bit-decay-clip': f'--net quantized {decay()} --clip weights',
            '4-bit-dropout-0.1': f'--net quantized {softmax()} --dropout-input 0.1',
            '4-bit-dropout-0.2': f'--net quantized {softmax()} --dropout-input 0.2',
            '4-bit-alpha-0.006': f'--net quantized {softmax("0.006")} --dropout-input 0.2',
            '4-bit-alpha-0.012': f'--net quantized {softmax("0.012")} --dropout-input 0.2',
        }.items()
    },
    '3 x 256 binary, 10 epochs': {
        'ablation-none': 'none of them',
        'ablation-all': 'all but dropout',
        'ablation-noloss': 'softmax instead of hinge',
        'ablation-noglorot': 'no Glorot scale',
        'ablation-noinit': 'normal initial W',
        'ablation-nosigned': 'pixels in [0, 1]',
        'ablation-noclip': 'all parameters clipped',
        'ablation-nodecay': 'no decay (0.001)',
        'ablation-dropin': 'with dropout 0.2 of the pixels',
        'ablation-drophid': 'with dropout 0.2 of the hidden',
    },
    '3 x 256, 2 bits, 30 epochs': {
        '2-bit-decay': 'decay, signed pixels, only W clipped',
        '2-bit-glorot': 'and the Glorot scale',
        '2-bit-dropin': 'and dropout 0.1 of the pixels',
        '2-bit-drophid': 'and dropout 0.05 of the hidden',
        '2-bit-hinge': 'and the Glorot scale and hinge',
        '2-bit-uniform': 'and the Glorot scale, hinge and uniform W',
        '2-bit-hinge-dropin': 'and the Glorot scale, hinge and dropout 0.1 of the pixels',
    },
    '3 x 1024': {
        '1024-40-hinge': '1 bit, hinge, uniform W, dropout 0.2 of both, 40 epochs',
        '1024-120': 'the same, 120 epochs',
        '1024': 'the same, 200 epochs',
        '1024-40-softmax': '1 bit, softmax, normal W, dropout 0.2 of both, 40 epochs',
        '1024-40-drophid': 'the same, dropout 0.2 of the pixels, 0.1 of the hidden',
        '1024-1-2-bit-120': 'W 1 bit, activations 2, softmax, normal W, dropout 0.2 of both, '
        '120 epochs',
        '1024-1-2-bit-200': 'the same, 200 epochs',
        '1024-1-2-bit-alpha-0.012': 'the same, 200 epochs, the learning rate from 0.012 to 1e-5',
        '1024-1-2-bit-3e-5': 'the same, 200 epochs, the learning rate from 0.003 to 3e-5',
        '1024-1-2-bit-350': 'the same, 350 epochs, the learning rate from 0.003 to 3e-5',
        '1024-1-2-bit-drophid': 'the same, 200 epochs, dropout 0.3 of the hidden',
        '1024-1-2-bit': 'W 1 bit, activations 2, hinge, uniform W, dropout 0.2 of both, '
        '200 epochs',
    },
}


def in_percent(runs):
    last = 100 * runs[:, -1, 3]
    return f'{last.mean():.2f}' + (f' ± {last.std(ddof=1):.2f}' if len(last) > 1 else '')


def print_recipe():
    print('\n| net | published, % | ours, % | epochs | seeds | min | options |')
    print('|---|---|---|---|---|---|---|')
    for name, (net, stated, command) in PEERS.items():
        runs, seconds = logs(f'recipe/{name}')
        print(
            f'| {net} | {stated} | **{in_percent(runs)}** | {runs.shape[1]} | {len(runs)} | '
            f'{numpy.mean(seconds) / 60:.0f} | `{command}` |'
        )
    for heading, rows in ABLATIONS.items():
        print(f'\n| {heading} | test accuracy, % | seeds |\n|---|---|---|')
        for name, words in rows.items():
            runs, _ = logs(f'recipe/{name}')
            print(f'| {words} | {in_percent(runs)} | {len(runs)} |')


def plot_recipe(axes):
    curves = {net: logs(f'recipe/{name}')[0] for name, (net, _, _) in PEERS.items()}
    curves['2 x 1000, 1 bit, the defaults'] = logs('binary')[0]
    for net, runs in curves.items():
        errors = 100 * (1 - runs[:, :, 3].mean(axis=0))
        (line,) = axes.plot(numpy.arange(1, len(errors) + 1), errors)
        # The label stands at the end of its line, clear of the others.
        place, side = ((0, -12), 'right') if net.endswith('defaults') else ((5, 0), 'left')
        place = (2, 9) if net.startswith('3 x 256') else place
        end, style = (len(errors), errors[-1]), {'color': line.get_color(), 'ha': side}
        axes.annotate(net, end, place, textcoords='offset points', va='center', **style)
    axes.set(xlabel='epoch', ylabel='test error, %', yscale='log', xscale='log', xlim=(0.95, 1800))
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    for set_ticks, ticks in (
        (axes.set_xticks, (1, 2, 5, 10, 20, 50, 100, 200)),
        (axes.set_yticks, (1, 1.5, 2, 3, 4, 6)),
    ):
        set_ticks(ticks, [str(n) for n in ticks])


def draw_calibration():
    """Draws the reliability diagram, and prints the tables of benchmarks/calibration.py."""
    with open(f'{HERE}/calibration.json') as f:
        nets = json.load(f)
    figure = Figure(figsize=(10, 3.8), layout='tight')
    plots = figure.subplots(1, 3, sharey=True)
    titles = 'no temperature', 'fitted to training images', 'fitted to held-out images'
    for axes, title, when in zip(plots, titles, ('before', 'after', 'after')):
        axes.plot([0, 1], [0, 1], color='0.7')
        for name, net in nets.items():
            if ('held out' in name) == ('held-out' in title):
                bins = [(p, right) for p, right, n in net[when]['bins'] if n >= 20]
                label = f'{name.split(",")[0]}: {net[when]["error"]:.3f}'
                axes.plot(*zip(*bins), '.-', label=label)
        axes.set(title=title, xlabel='probability of the answer', xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
        where = 'lower right' if when == 'before' else 'upper left'
        axes.legend(title='calibration error', fontsize='small', loc=where)
    plots[0].set(ylabel='share of right answers')
    figure.savefig(f'{HERE}/calibration.png', dpi=120)

    print('\n| net | temperature | accuracy | mean before | after | error before | after |')
    print('|---|---|---|---|---|---|---|')
    for name, net in nets.items():
        numbers = [net[when][what] for what in ('mean', 'error') for when in ('before', 'after')]
        cells = [f'{x:.3f}' for x in (net['temperature'], net['accuracy'], *numbers)]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')
    print('\n| unsure if | ' + ' | '.join(nets) + ' |\n' + '|---' * (len(nets) + 1) + '|')
    for rule in nets['1 bit']['unsure']:
        shares = (net['unsure'][rule] for net in nets.values())
        cells = (f'{100 * images:.1f}, {100 * errors:.0f}' for images, errors in shares)
        print(f'| {rule} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    draw_calibration()
    draw('quantizer', 4, 3, plot_quantizer)
    for net in 'binary', 'quantized':
        draw(net, 2, 3.5, functools.partial(plot_training, net))
        print_table(net)
    draw('recipe', 1, 4, plot_recipe)
    print_recipe()
