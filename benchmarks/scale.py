#!/usr/bin/env python3
"""Times training on one and two processes, and estimates it on many machines.

    .venv/bin/python benchmarks/scale.py > benchmarks/scale.txt

A run is a number of steps of one net with one number of processes and threads; the runs are
interleaved, and their medians are shown. The estimate is a model, not a measurement: see
benchmarks/README.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from benchmarks.train import cpu

NETS = {'784-1000-1000-10': (1000, 2, 200), '784-4096-4096-4096-10': (4096, 3, 15)}
LATENCY = 50e-6  # seconds that a message takes to another machine


def worker(unit, layer, steps, batchsize, communicator):
    """Prints, as JSON, seconds a step, those of them in MPI, and bytes sent a step."""
    import train_mnist
    from training import distributed
    from training.arguments import parse_arguments

    spent, sent = [0.0], [0]
    options = f'--unit {unit} --layer {layer} --batchsize {batchsize} --quiet'
    args = parse_arguments(options.split() + communicator)
    communicator = distributed.connect(args)
    trainer, held = train_mnist.prepare(args, communicator)
    if communicator:
        mpi = communicator.mpi_comm

        class Timed:
            def __getattr__(self, name):
                return getattr(mpi, name)

            def Allreduce(self, send, receive):
                start = perf_counter()
                mpi.Allreduce(send, receive)
                spent[0] += perf_counter() - start
                sent[0] += (receive[0] if isinstance(receive, list) else receive).nbytes

        communicator.mpi_comm = Timed()
    with held:
        for _ in range(5):
            trainer.updater.update()
        spent[0], sent[0], start = 0.0, 0, perf_counter()
        for _ in range(steps):
            trainer.updater.update()
        seconds = perf_counter() - start
        if not communicator or not communicator.rank:
            print('RESULT', json.dumps([seconds / steps, spent[0] / steps, sent[0] // steps]))


def run(processes, threads, unit, layer, steps, batchsize=100):
    """A worker's result: seconds a step, those of them in MPI, and bytes sent a step."""
    command = [sys.executable, os.path.abspath(__file__), '--worker']
    command += map(str, (unit, layer, steps, batchsize))
    if processes > 1:
        mpiexec = os.path.join(os.path.dirname(sys.executable), 'mpiexec')
        command = [mpiexec, '--oversubscribe', '-n', str(processes), *command, 'naive']
    environment = {**os.environ, 'OPENBLAS_NUM_THREADS': str(threads)}
    with tempfile.TemporaryDirectory() as folder:  # for the results
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, check=True
        )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('RESULT')]
    return json.loads(line.split(' ', 1)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--worker', nargs='+', help=argparse.SUPPRESS)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    if args.worker:
        unit, layer, steps, batchsize, *name = args.worker
        return worker(
            unit, layer, int(steps), batchsize, ['--communicator', *name] if name else []
        )
    print(f'{cpu(None)}; {args.rounds} rounds, minibatches of 100\n')
    print('| net | processes x threads | ms a step | in MPI | s an epoch | MB sent a step |')
    print('|---|---|---|---|---|---|')
    estimates = []
    for net, (unit, layer, steps) in NETS.items():
        settings = {(1, 1): [], (2, 1): [], (1, 2): [], 'half': []}
        for _ in range(args.rounds):
            for setting, results in settings.items():
                if setting == 'half':  # a process of two, without the other
                    results.append(run(1, 1, unit, layer, steps, 50))
                else:
                    results.append(run(*setting, unit, layer, steps))
        median = {
            setting: [statistics.median(column) for column in zip(*results)]
            for setting, results in settings.items()
        }
        for setting in (1, 1), (2, 1), (1, 2):
            seconds, in_mpi, sent = median[setting]
            print(
                f'| {net} | {setting[0]} x {setting[1]} | {1000 * seconds:.1f} | '
                f'{1000 * in_mpi:.1f} | {600 * seconds:.1f} | {sent / 1e6:.1f} |'
            )
        estimates.append((net, median[1, 1][0], median['half'][0], median[2, 1][2]))

    machines = 2, 4, 8, 16, 32, 64
    print('\n| net, minibatch | Gbit/s | ' + ' | '.join(f'{n} machines' for n in machines) + ' |')
    print('|---|---|' + '---|' * 6)
    for net, whole, half, sent in estimates:
        image = (whole - half) / 50
        fixed = whole - 100 * image
        for minibatch, share, label in (
            (100, 1, '100'),
            (1000, 1, '1000'),
            (1000, 0.5, '1000, float16'),
        ):
            alone = fixed + minibatch * image
            for gigabits in 1, 10, 100:
                row = []
                for n in machines:
                    transfer = 2 * (n - 1) / n * sent * share * 8 / (gigabits * 1e9)
                    row.append(
                        alone / (fixed + minibatch / n * image + transfer + 2 * n * LATENCY)
                    )
                times = ' | '.join(f'{faster:.1f}' for faster in row)
                print(f'| {net}, {label} | {gigabits} | {times} |')


if __name__ == '__main__':
    main()
