#!/usr/bin/env python3
"""Measures how training time grows with units, minibatch and layers, and draws growth.png.

    .venv/bin/python benchmarks/growth.py

One of the three varies at a time, starting from 1000 units, minibatches of 100 and 2 hidden
layers, with one BLAS thread and with two. A point is the median of five measurements of at least
30 steps and 6,000 images each, each after five steps that do not count (the first steps after a
pause find cold caches). The configurations take turns in five rounds.
"""

import os
import statistics
import sys

from matplotlib.figure import Figure

from train import HERE, Contender

GRID = {
    'unit': [250, 500, 1000, 2000, 4000],
    'batchsize': [20, 50, 100, 200, 500, 1000, 2000],
    'layer': [1, 2, 3, 4],
}
DEFAULT = {'unit': 1000, 'batchsize': 100, 'layer': 2}
LABELS = {
    'unit': 'units of a hidden layer',
    'batchsize': 'images in a minibatch',
    'layer': 'hidden layers',
}


def main():
    running = {}
    for threads in 1, 2:
        for option, values in GRID.items():
            for value in values:
                chosen = {**DEFAULT, option: value}
                key = threads, *chosen.values()
                if key not in running:
                    running[key] = Contender(
                        sys.executable,
                        'train_ours.py',
                        [
                            *(part for name, v in chosen.items() for part in (f'--{name}', v)),
                            '--out',
                            f'{HERE}/.out-{"-".join(map(str, key))}',
                        ],
                        threads,
                        None,
                    )
    for _ in range(5):
        for (_, _, batch, _), contender in running.items():
            contender.do(5)
            steps = max(30, 6000 // batch)
            contender.times.append(contender.do(steps)['seconds'] / steps / batch * 1e6)
    for contender in running.values():
        contender.process.stdin.close()
        contender.process.wait()

    figure = Figure(figsize=(10, 3.5), layout='tight')
    print(
        '| threads | units | minibatch | layers | microseconds per image, median '
        '| minimum - maximum |'
    )
    print('|---|---|---|---|---|---|')
    for axes, (option, values) in zip(figure.subplots(1, 3, sharey=True), GRID.items()):
        for threads in 1, 2:
            points = []
            for value in values:
                key = threads, *{**DEFAULT, option: value}.values()
                times = running[key].times
                points.append(statistics.median(times))
                print(
                    f'| {" | ".join(map(str, key))} | {points[-1]:.0f} '
                    f'| {min(times):.0f} - {max(times):.0f} |'
                )
            axes.plot(values, points, 'o-', label=f'{threads} thread' + 's' * (threads > 1))
        axes.set(
            xlabel=LABELS[option], yscale='log', xscale='linear' if option == 'layer' else 'log'
        )
        axes.set_xticks(values, values, fontsize='small')
        axes.set_yticks([20, 50, 100, 200, 500], ['20', '50', '100', '200', '500'])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel('microseconds an image')
    figure.axes[0].legend()
    figure.savefig(os.path.join(HERE, 'growth.png'), dpi=120)


if __name__ == '__main__':
    main()
