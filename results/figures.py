#!/usr/bin/env python3
"""Draws the pictures of README.md and prints its tables, from the logs in this folder.

``binary-seed0.json`` and so on are the ``log`` files of our trainings, ``original-binary.csv`` and
``original-quantized.csv`` the runs of the original scripts.
"""
import csv
import glob
import json
import os
import sys

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from packed import PackedMLP  # noqa: E402  (of the folder above, as are the next)
from picture import find_pictures, read_digit  # noqa: E402
from qst import quantize  # noqa: E402
from storage import read_npz  # noqa: E402

COLUMNS = 'main/loss', 'validation/main/loss', 'main/accuracy', 'validation/main/accuracy'


def ours(net):
    """Array of shape (seeds, epochs, columns)."""
    runs = []
    for path in sorted(glob.glob(f'{HERE}/{net}-seed*.json')):
        with open(path) as f:
            runs.append([[row[name] for name in COLUMNS] for row in json.load(f)])
    return numpy.array(runs)


def original(net):
    with open(f'{HERE}/original-{net}.csv') as f:
        return numpy.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(f)])


def draw_training(net):
    figure = Figure(figsize=(9, 3.5), layout='tight')
    runs, reference = ours(net), original(net)
    epochs = numpy.arange(1, len(reference) + 1)
    for axes, name, columns in zip(figure.subplots(1, 2), ('loss', 'accuracy'), ((0, 1), (2, 3))):
        for column, what, colour in zip(columns, ('training', 'test'), ('tab:blue', 'tab:orange')):
            axes.plot(epochs, runs[:, :, column].mean(axis=0), color=colour, label=f'ours, {what}')
            axes.fill_between(epochs, runs[:, :, column].min(axis=0), runs[:, :, column].max(axis=0),
                              color=colour, alpha=0.25, linewidth=0)
            axes.plot(epochs, reference[:, column], '--', color=colour, label=f'original, {what}')
        axes.set(xlabel='epoch', ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(f'{HERE}/{net}.png', dpi=120)


def draw_quantizer():
    figure = Figure(figsize=(9, 3), layout='tight')
    a = numpy.linspace(-1.5, 1.5, 3001)
    plots = figure.subplots(1, 4)
    for axes, bits in zip(plots, (1, 2, 4)):
        axes.plot(a, quantize(a, bits))
        axes.set(title=f'forward, {bits} bit' + ('s' if bits > 1 else ''), xlabel='a')
    plots[3].plot(a, (abs(a) <= 1).astype(float), color='tab:orange')
    plots[3].set(title='backward, any bits', xlabel='a', ylim=(-1.1, 1.1))
    for axes in plots:
        axes.grid(alpha=0.3)
    figure.savefig(f'{HERE}/quantizer.png', dpi=120)


def draw_digits():
    """The pictures of digits/, what is made of them, and what binary.packed says they are."""
    model = PackedMLP(read_npz(f'{HERE}/binary.packed'))
    paths = find_pictures([f'{HERE}/digits'])
    figure = Figure(figsize=(9, 3.4), layout='tight')
    for path, (above, below) in zip(paths, figure.subplots(2, len(paths)).T):
        with Image.open(path) as picture:
            above.imshow(numpy.asarray(picture.convert('RGBA')))
        image = read_digit(path)
        below.imshow(image, cmap='gray')
        logits, = model.logits(image[None])
        probability = numpy.exp(logits) / numpy.exp(logits).sum()
        above.set_title(os.path.basename(path), fontsize=9)
        below.set_title(f'{logits.argmax()}, probability {probability.max():.2f}', fontsize=9)
        above.axis('off')
        below.axis('off')
    figure.savefig(f'{HERE}/digits.png', dpi=120)


def print_table(net):
    runs, reference = ours(net), original(net)
    print(f'\n{net}, {len(runs)} seeds')
    print('| epoch | training loss | test loss | training accuracy | test accuracy | original test accuracy |')
    print('|---|---|---|---|---|---|')
    for epoch in 1, 2, 5, 10, 20:
        cells = [f'{mean:.4f} ± {deviation:.4f}' for mean, deviation in zip(
            runs[:, epoch - 1].mean(axis=0), runs[:, epoch - 1].std(axis=0, ddof=1))]
        print(f'| {epoch} | ' + ' | '.join(cells) + f' | {reference[epoch - 1, 3]:.4f} |')
    apart = abs(runs.mean(axis=0) - reference)[:, 0]
    print(f'largest difference of the mean training loss from the original: {apart.max():.4f}')


WIDE = ('--layer 3 --unit 1024 --loss hinge --glorot --init uniform --signed-pixels --clip weights --alpha 0.003 '
        '--final-alpha 1e-5 --dropout-input 0.2 --dropout-hidden 0.2 --epoch 120')
SMALL = ('--layer 3 --unit 256 --loss hinge --glorot --init uniform --signed-pixels --clip weights --alpha 0.003 '
         '--final-alpha 1e-5')
RUNS = {  # name of the logs in recipe/ -> what the training was given beyond --seed
    'float': '--net float',
    '2-bit': '--net quantized --weight-bits 2 --activation-bits 2',
    'decay': '--alpha 0.003 --final-alpha 1e-5',
    'decay-clip': '--alpha 0.003 --final-alpha 1e-5 --clip weights',
    'decay-dropout': '--alpha 0.003 --final-alpha 1e-5 --dropout-input 0.1',
    'all': SMALL.replace('--layer 3 --unit 256 ', ''),
    '4-bit-decay-clip': '--net quantized --alpha 0.003 --final-alpha 1e-5 --clip weights',
    '256': SMALL + ' --epoch 60',
    '1024': WIDE}
ABLATION = {
    'none': 'none of them', 'all': 'all but dropout', 'noloss': 'softmax in place of hinge', 'noglorot': 'no Glorot scale',
    'noinit': 'normal initial W', 'nosigned': 'pixels in [0, 1]', 'noclip': 'all parameters clipped',
    'nodecay': 'no decay (0.001)', 'dropin': 'with dropout 0.2 of the pixels', 'drophid': 'with dropout 0.2 of the hidden'}


def test_accuracies(name):
    """Array of shape (seeds, epochs), and the seconds of each run."""
    rows = []
    for path in sorted(glob.glob(f'{HERE}/recipe/{name}-seed*.json')):
        with open(path) as f:
            rows.append(json.load(f))
    return (numpy.array([[row['validation/main/accuracy'] for row in run] for run in rows]),
            [run[-1]['elapsed_time'] for run in rows])


def in_percent(accuracies):
    last = 100 * accuracies[:, -1]
    return f'{last.mean():.2f}' + (f' ± {last.std(ddof=1):.2f}' if len(last) > 1 else '')


def print_recipe():
    print('\n| command | epochs | seeds | test accuracy after the last epoch, % | time, min |\n|---|---|---|---|---|')
    for name, command in RUNS.items():
        accuracies, seconds = test_accuracies(name)
        if len(accuracies):
            print(f'| `{command}` | {accuracies.shape[1]} | {len(accuracies)} | {in_percent(accuracies)} | '
                  f'{numpy.mean(seconds) / 60:.0f} |')
    print('\n| 3 x 256 binary, 10 epochs | test accuracy, % | seeds |\n|---|---|---|')
    for name, words in ABLATION.items():
        accuracies, _ = test_accuracies(f'ablation-{name}')
        if len(accuracies):
            print(f'| {words} | {in_percent(accuracies)} | {len(accuracies)} |')


def draw_recipe():
    figure = Figure(figsize=(9, 4), layout='tight')
    axes = figure.subplots()
    for name, label in (('1024', '3 x 1024, the recipe'), ('256', '3 x 256, the recipe without dropout'),
                        ('decay', '2 x 1000, decay'), ('all', '2 x 1000, the recipe without dropout')):
        accuracies, _ = test_accuracies(name)
        if len(accuracies):
            errors = 100 * (1 - accuracies.mean(axis=0))
            axes.plot(numpy.arange(1, len(errors) + 1), errors, label=label)
    errors = 100 * (1 - ours('binary')[:, :, 3].mean(axis=0))
    axes.plot(numpy.arange(1, len(errors) + 1), errors, label='2 x 1000, the defaults (five seeds)')
    axes.set(xlabel='epoch', ylabel='test error, %', yscale='log', xscale='log')
    axes.set_yticks([1, 1.5, 2, 3, 4, 6], ['1', '1.5', '2', '3', '4', '6'], minor=False)
    axes.minorticks_off()
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ['1', '2', '5', '10', '20', '50', '100'])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(f'{HERE}/recipe.png', dpi=120)


if __name__ == '__main__':
    draw_quantizer()
    draw_digits()
    for kind in 'binary', 'quantized':
        draw_training(kind)
        print_table(kind)
    draw_recipe()
    print_recipe()
