#!/usr/bin/env python3
"""Times inference against the alternatives, interleaved in one run on one machine.

    .venv/bin/python benchmarks/inference.py MODEL [MORE ...] [--rounds 7] [--isa avx2]

MODEL is the ``mlp.model`` of a binary net, MORE those of nets of the same shape with more bits,
whose packed forms get rows of their own. Each contender is a process that gets the same net in
the form fastest for it and classifies the 10,000 test images, from uint8 pixels to classes, in
minibatches of several sizes; the table shows the best size, and the time of a single image. In a
round, each contender does so in turn for 0.3 s. The last column counts the classes that differ
from those of the float model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

from train import HERE, LIMITS, ROOT, Contender, cpu, finish, kernels

SIZES = [1, 10, 100, 250, 1000, 10000]


def pack(model, folder):
    """Packs a model, and returns the name of its row and the packed file."""
    packed = f'{folder}/{len(os.listdir(folder))}'
    done = subprocess.run(
        [f'{ROOT}/.venv/bin/python', f'{ROOT}/pack.py', model, packed],
        check=True,
        capture_output=True,
        text=True,
    )
    words = done.stdout.splitlines()[0]
    bits = words[words.index(', ') :] if ', ' in words else ''
    return f'ours, packed{bits}', packed


def contenders(model, packed, threads):
    """Name -> (interpreter, script, arguments) of each."""
    ours, torch = f'{ROOT}/.venv/bin/python', f'{HERE}/.venv-torch/bin/python'
    return {
        'ours, float': (ours, 'infer_ours.py', [model]),
        **{name: (ours, 'infer_ours.py', [path]) for name, path in packed.items()},
        **{
            name: (torch, 'infer_peers.py', [how, model, threads])
            for name, how in (
                ('PyTorch eager, fp32', 'eager'),
                ('PyTorch compiled, fp32', 'compiled'),
                ('ONNX Runtime, fp32', 'fp32'),
                ('ONNX Runtime, int8 (quantize_dynamic)', 'dynamic'),
                ('ONNX Runtime, int8 (quantize_static)', 'static'),
                ('ONNX Runtime, int8 (integer graph by hand)', 'integer'),
            )
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', metavar='MODEL')
    parser.add_argument('more', metavar='MORE', nargs='*')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--isa', choices=LIMITS, help='limit all to an instruction set')
    args = parser.parse_args()
    threads = os.cpu_count()

    with tempfile.TemporaryDirectory() as folder:
        packed = dict(pack(model, folder) for model in [args.model, *args.more])
        sizes = {name: os.path.getsize(path) for name, path in packed.items()}
        sizes['ours, float'] = os.path.getsize(args.model)
        running, classes = {}, {}
        for name, (interpreter, script, arguments) in contenders(
            args.model, packed, threads
        ).items():
            if not os.path.exists(interpreter):
                print(f'skipped: {name}: there is no {os.path.relpath(interpreter, ROOT)}')
                continue
            try:
                running[name] = Contender(interpreter, script, arguments, threads, args.isa)
                for size in SIZES:  # warm-up, compilation included
                    classes[name] = running[name].do(size)['result']
                if name not in sizes:
                    sizes[name] = running[name].do(0)['result']
            except RuntimeError as e:
                print(f'skipped: {name}: {e}')
                running.pop(name, None)
        for contender in running.values():
            contender.times = {size: [] for size in SIZES}
        for _ in range(args.rounds):
            for size in SIZES:
                for contender in running.values():
                    seconds = []
                    while sum(seconds) < 0.3:
                        contender.last = contender.do(size, pause=0 if seconds else 0.3)
                        seconds.append(contender.last['seconds'])
                    contender.times[size].append(
                        statistics.median(seconds) / (1000 if size < 10 else 10000)
                    )

    print(
        f'\n{cpu(args.isa)}; our kernels: {kernels(args.isa)}; '
        f'{threads} threads; {args.rounds} rounds\n'
    )
    print(
        '| contender | images / s, median | minimum - maximum | best minibatch '
        '| ours is faster by | single image, µs | '
        'bytes on disk | peak MB | classes that differ |'
    )
    print('|---|---|---|---|---|---|---|---|---|')
    best = {
        name: min(SIZES, key=lambda size: statistics.median(c.times[size]))
        for name, c in running.items()
    }
    ours = running['ours, packed'].times[best['ours, packed']]
    for name, c in sorted(
        running.items(), key=lambda item: statistics.median(item[1].times[best[item[0]]])
    ):
        times = c.times[best[name]]
        differ = sum(a != b for a, b in zip(classes[name], classes['ours, float']))
        if name in packed and name != 'ours, packed':
            differ = ''  # it is another net
        # Ratios within a round, so that the drift of the machine's speed cancels.
        ratio = statistics.median(t / o for t, o in zip(times, ours))
        print(
            f'| {name} | {1 / statistics.median(times):,.0f} '
            f'| {1 / max(times):,.0f} - {1 / min(times):,.0f} | {best[name]} | {ratio:.1f} '
            f'| {statistics.median(c.times[1]) * 1e6:.0f} | {sizes[name]:,} | '
            f'{c.last["peak MB"]:.0f} | {differ} |'
        )
    finish(
        running,
        ('chainer', f'{ROOT}/.venv'),
        ('numba', f'{ROOT}/.venv'),
        ('numpy', f'{ROOT}/.venv'),
        ('torch', f'{HERE}/.venv-torch'),
        ('onnxruntime', f'{HERE}/.venv-torch'),
    )


if __name__ == '__main__':
    sys.exit(main())
