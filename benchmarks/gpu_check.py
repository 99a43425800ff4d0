#!/usr/bin/env python3
"""Checks everything that needs a CUDA device, in one command, and prints a report.

    python benchmarks/gpu_check.py [--gpu 0]

The report has the versions, the GPU tests, one training step of each net on the CPU and on the
GPU, two epochs of each net on both with the time of the second, and the kernel launches of a
training step. The check needs CuPy, pytest and Hypothesis besides what a training needs, and
PyTorch with CUDA for the launches. The last line and the exit status say whether everything
passed.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from chainer_compat import chainer
import chainer.links as L

import train_mnist
from data import read_mnist
from net import BinaryMLP, QuantizedMLP
from training.arguments import parse_arguments
from support.program import get_device

problems = []


def check(what, good):
    print(f'{"ok  " if good else "FAIL"} {what}', flush=True)
    if not good:
        problems.append(what)


def report_versions(gpu):
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(gpu)
    print(
        f'{properties["name"].decode()}, '
        f'compute capability {properties["major"]}.{properties["minor"]}'
    )
    print(
        f'Python {platform.python_version()}, NumPy {numpy.__version__}, '
        f'Chainer {chainer.__version__}, '
        f'CuPy {cupy.__version__}, CUDA runtime {cupy.cuda.runtime.runtimeGetVersion()}, '
        f'driver {cupy.cuda.runtime.driverGetVersion()}'
    )


def run_tests():
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-m',
            'gpu',
            '-p',
            'no:cacheprovider',
            os.path.join(ROOT, 'tests'),
        ],
        capture_output=True,
        text=True,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-5000:], done.stderr[-2000:])
    # A module of CPU tests may be skipped, if its package is missing: GPU tests pass or are all
    # skipped.
    check(
        f'GPU tests: {lines[-1] if lines else done.stderr[-200:]}',
        done.returncode == 0 and bool(lines) and 'passed' in lines[-1],
    )


def compare_a_step(device):
    """Loss and gradients of one minibatch, with the same weights on both devices."""
    images, labels, _, _ = read_mnist(os.path.join(ROOT, 'mnist'))
    x, t = images[:100].reshape(100, -1), labels[:100]
    for name, Net in ('binary', BinaryMLP), ('quantized', QuantizedMLP):
        numpy.random.seed(0)
        model = L.Classifier(Net(784, 1000, 10))
        gradients = []
        for where in chainer.get_device('@numpy'), device:
            where.use()
            model.to_device(where)
            model.cleargrads()
            loss = model(where.send(x), where.send(t))
            loss.backward()
            gradients.append(
                {path: chainer.backends.cuda.to_cpu(p.grad) for path, p in model.namedparams()}
            )
        on_cpu, on_gpu = gradients
        # Only the last layer: before it, one activation that rounding flips changes much.
        path = '/predictor/l3/W'
        apart = numpy.linalg.norm(on_gpu[path] - on_cpu[path]) / numpy.linalg.norm(on_cpu[path])
        check(f'{name}: gradient of {path} differs by {apart:.1e} of its norm', apart < 1e-2)


def compare_trainings(gpu):
    for net in 'binary', 'quantized':
        logs = []
        for device in -1, gpu:
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(
                    [
                        sys.executable,
                        os.path.join(ROOT, 'train_mnist.py'),
                        '--net',
                        net,
                        '--gpu',
                        str(device),
                        '--epoch',
                        '2',
                        '--out',
                        folder,
                    ],
                    capture_output=True,
                    text=True,
                )
                if done.returncode:
                    check(f'{net}, --gpu {device}: {done.stderr.strip()[-500:]}', False)
                    break
                with open(os.path.join(folder, 'log')) as f:
                    logs.append(json.load(f))
        else:
            (cpu_1, cpu_2), (gpu_1, gpu_2) = logs
            loss, accuracy = (
                abs(gpu_2[key] - cpu_2[key]) for key in ('main/loss', 'validation/main/accuracy')
            )
            check(
                f'{net}: after two epochs test accuracy {gpu_2["validation/main/accuracy"]:.4f}, '
                f'on the CPU {cpu_2["validation/main/accuracy"]:.4f}; '
                f'training loss {gpu_2["main/loss"]:.4f}, on the CPU {cpu_2["main/loss"]:.4f}',
                loss < 0.01 and accuracy < 0.01,
            )
            print(
                f'     {net}: second epoch {gpu_2["elapsed_time"] - gpu_1["elapsed_time"]:.2f} s, '
                f'on the CPU {cpu_2["elapsed_time"] - cpu_1["elapsed_time"]:.2f} s'
            )


def count_launches(gpu):
    """Counts the launches of steps 21 to 40, with all extensions of the training.

    CuPy has no counter. PyTorch's profiler sees every launch of the process, not only its own.
    """
    try:
        import torch
        from torch.profiler import ProfilerActivity, profile
    except ImportError as e:
        print(f'     launches were not counted, which takes PyTorch with CUDA: {e}')
        return
    if not torch.cuda.is_available():
        print('     launches were not counted: this PyTorch cannot use CUDA')
        return
    torch.cuda.init()
    for net in 'binary', 'quantized':
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            options = f'--net {net} --gpu {gpu} --epoch 1 --quiet --out'.split()
            args = parse_arguments([*options, folder])
            trainer, held = train_mnist.prepare(args)
            profiler = profile(activities=[ProfilerActivity.CUDA])
            for act, after in (profiler.start, 20), (profiler.stop, 40):
                trainer.extend(
                    lambda trainer, act=act: act(),
                    name=act.__name__,
                    trigger=lambda trainer, after=after: trainer.updater.iteration == after,
                )
            train_mnist.train(args, trainer, held)
        names = [
            event.name
            for event in profiler.events()
            if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        copies = sum(name.startswith('Mem') for name in names)
        print(
            f'     {net}: {(len(names) - copies) / 20:g} kernel launches a step, '
            f'{copies / 20:g} copies'
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--gpu', type=int, default=0, metavar='ID', help='CUDA device (default: 0)'
    )
    args = parser.parse_args()
    try:
        device = get_device(max(args.gpu, 0))
    except ValueError as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 2
    report_versions(device.device.id)
    run_tests()
    compare_a_step(device)
    compare_trainings(device.device.id)
    count_launches(device.device.id)
    print('everything passed' if not problems else f'{len(problems)} problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
