#!/usr/bin/env python3
"""Compares the probabilities of trained nets with how often they are right, on the test images.

    .venv/bin/python benchmarks/calibration.py FOLDER > results/calibration.json

trains eight nets in subfolders of FOLDER, or continues there: 8 to 16 minutes on two idle cores.
results/figures.py draws the reliability diagram and prints the tables.
"""

import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import numpy

from data import MNIST, read_test_set
from deploy.fold import fold
from inference import load, softmax, unsure
from support import models
from support.files import npz

NETS = {
    '1 bit': [],
    '2 bits': '--net quantized --weight-bits 2 --activation-bits 2'.split(),
    '4 bits': ['--net', 'quantized'],
    'full precision': ['--net', 'float'],
}
# Name -> whether an answer is unsure, by the two largest probabilities (before: at temperature 1).
RULES = {
    'second > first / 10': lambda first, second, before: second > first / 10,
    'second > first / 2, before': lambda first, second, before: before[1] > before[0] / 2,
    'first < 0.9': lambda first, second, before: first < 0.9,
    'first < 0.95': lambda first, second, before: first < 0.95,
    'second > 0.1': lambda first, second, before: second > 0.1,
    'first - second < 0.8': lambda first, second, before: first - second < 0.8,
}


def reliability(p, labels, n_bins=15):
    """Expected calibration error, in bins of equal width.

    .. math:: \\frac{1}{N} \\sum_b | \\sum_{n in b} (right_n - p_n) |

    where p is the probability of an answer; and of each bin the mean probability, the share of
    right answers and the number of images.
    """
    right, p = p.argmax(axis=1) == labels, p.max(axis=1)
    chosen = [numpy.minimum((p * n_bins).astype(int), n_bins - 1) == b for b in range(n_bins)]
    gaps = [abs((right[bin_] - p[bin_]).sum()) for bin_ in chosen]
    bins = [[p[b].mean(), right[b].mean(), int(b.sum())] for b in chosen if b.any()]
    return {'mean': p.mean(), 'error': sum(gaps) / len(p), 'bins': bins}


def measure(path):
    images, labels = read_test_set(MNIST)
    model, saved = load(path, -1)
    y = model.logits(images)
    raw, p = softmax(y * saved.temperature), softmax(y)
    wrong = p.argmax(axis=1) != labels
    before, after = (numpy.sort(q, axis=1)[:, :-3:-1].T for q in (raw, p))
    chosen = {name: rule(*after, before) for name, rule in RULES.items()}
    assert (chosen['second > first / 10'] == unsure(p)).all()
    packed = saved.weight_bits <= 8
    return {
        'bytes': len(npz(fold(models.load(path, saved)).arrays))
        if packed
        else os.path.getsize(path),
        'temperature': saved.temperature,
        'accuracy': 1 - wrong.mean(),
        'before': reliability(raw, labels),
        'after': reliability(p, labels),
        'unsure': {name: [which.mean(), which[wrong].mean()] for name, which in chosen.items()},
    }


def main(folder):
    results = {}
    for hold_out in 0, 10000:
        for name, options in NETS.items():
            name += ', held out' if hold_out else ''
            out = os.path.join(folder, name.replace(', ', '-').replace(' ', '-'))
            command = [sys.executable, f'{ROOT}/train_mnist.py', '--resume', '--out', out]
            command += ['--hold-out', str(hold_out), *options]
            subprocess.run(command, check=True, stdout=sys.stderr)
            results[name] = measure(f'{out}/mlp.model')
    print(json.dumps(results, default=float))


if __name__ == '__main__':
    main(*sys.argv[1:])
