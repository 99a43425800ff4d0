#!/usr/bin/env python3
"""Times training against the alternatives, interleaved in one run on one machine.

    python benchmarks/train.py [--threads 1 2] [--rounds 25] [--net binary] [--recipe paper]

Each contender is a process in its own environment (``make benchmark`` sets them up), one for each
number of threads. It trains the same net on real MNIST with the same minibatches, optimizer and
clip, and waits while others are timed. In a round, each contender trains for a burst of a few
steps, so short that neighbours of a virtual machine seldom interrupt it; "steal" is what they took
of the CPU. A contender whose loss after all rounds and 200 more steps is too far from the median
of all is marked. All start from the same weights: without dropout, the loss of the first steps is
the same up to rounding. Reading data, evaluation and compilation (the first steps) are not timed.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BAND = 0.03  # largest accepted difference between a loss and the median of all losses


def contenders(args, threads):
    """Name -> (interpreter, script, arguments) of each."""
    ours, torch, larq, brevitas = (
        f'{ROOT}/.venv/bin/python',
        f'{HERE}/.venv-torch/bin/python',
        f'{HERE}/.venv-larq/bin/python',
        f'{HERE}/.venv-brevitas/bin/python',
    )
    sizes = '-'.join(map(str, [784] + [args.unit] * args.layer + [10]))
    common = ['--unit', args.unit, '--layer', args.layer, '--batchsize', args.batchsize, '--quiet']
    # Ours write only the lock of a folder of their own.
    recipe = ['--recipe', 'paper', '--hold-out', 0] if args.recipe else []
    if args.recipe == 'no-dropout':
        recipe += ['--dropout-input', 0, '--dropout-hidden', 0]
    result = {
        f'ours, {net}': (
            ours,
            'train_ours.py',
            ['--net', net, '--out', f'{HERE}/.out-{net}-{threads}', *common]
            + ['--gpu', 0 if args.gpu else -1, *recipe],
        )
        for net in args.net
    }
    device = 'cuda' if args.gpu else 'cpu'
    for net in args.net:
        for how in 'eager', 'compiled':
            result[f'PyTorch {how}, {net}'] = (
                torch,
                'train_torch.py',
                [how, threads, net, sizes, args.batchsize, device, args.recipe],
            )
    if not args.gpu:
        result['products alone'] = ours, 'train_products.py', [sizes, args.batchsize]
        if 'binary' in args.net and not args.recipe:
            result['Larq, binary'] = larq, 'train_larq.py', [threads, sizes, args.batchsize]
            result['Brevitas, binary'] = (
                brevitas,
                'train_brevitas.py',
                [threads, sizes, args.batchsize],
            )
    return result


# What limits each library to an instruction set. ONNX Runtime has no such switch.
LIMITS = {
    'avx2': {
        'ATEN_CPU_CAPABILITY': 'avx2',
        'MKL_ENABLE_INSTRUCTIONS': 'AVX2',
        'NUMBA_CPU_NAME': 'haswell',
        'ONEDNN_MAX_CPU_ISA': 'AVX2',
        'OPENBLAS_CORETYPE': 'Haswell',
    }
}


class Contender:
    def __init__(self, interpreter, script, arguments, threads, isa):
        threads = str(threads)
        # Without a limit, each library chooses its kernels itself.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(('ATEN_', 'MKL_', 'NUMBA_', 'ONEDNN_', 'OPENBLAS_'))
        }
        environment.update(LIMITS.get(isa, {}))
        # PyTorch must not load what it compiled for another instruction set.
        environment['TORCHINDUCTOR_CACHE_DIR'] = f'{HERE}/.out-inductor-{isa}'
        self.process = subprocess.Popen(
            [interpreter, f'{HERE}/{script}', *map(str, arguments)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment, 'OMP_NUM_THREADS': threads, 'OPENBLAS_NUM_THREADS': threads},
        )
        self.times = []
        if self.answer() != 'ready':
            raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1])

    def answer(self):
        return self.process.stdout.readline().strip()

    def do(self, number, pause=0.3):
        # Until the threads of the previous contender, which wait for work by spinning, are asleep.
        time.sleep(pause)
        print(number, file=self.process.stdin, flush=True)
        answer = self.answer()
        if not answer:
            raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1])
        return json.loads(answer)


def version(interpreter, package):
    code = f'import importlib.metadata as m; print(m.version({package!r}))'
    done = subprocess.run([interpreter, '-c', code], capture_output=True, text=True)
    return done.stdout.strip() or 'none'


def finish(running, *packages):
    """Ends the contenders and prints the versions of packages, given with their environments."""
    versions = {
        f'{package} {version(f"{environment}/bin/python", package)}'
        for package, environment in packages
        if os.path.exists(environment)
    }
    print('\n' + ', '.join(sorted(versions)))
    for contender in running.values():
        contender.process.stdin.close()
        contender.process.wait()


def cpu(isa):
    """The CPU and those of its instruction sets that matter here, as a line of text."""
    with open('/proc/cpuinfo') as f:
        values = dict(line.split(':', 1) for line in f if ':' in line)
    values = {name.strip(): value.strip() for name, value in values.items()}
    known = (
        'avx2',
        'avx_vnni',
        'avx512f',
        'avx512_vnni',
        'avx512_vpopcntdq',
        'amx_int8',
        'amx_bf16',
    )
    flags = values.get('flags', values.get('Features', '')).split()
    sets = ', '.join(name for name in known if name in flags)
    line = f'{values.get("model name", platform.machine())} ({sets})'
    return f'{line}, all but ONNX Runtime limited to {isa.upper()}' if isa else line


def kernels(isa):
    """The kernels that this project takes on the CPU."""
    done = subprocess.run(
        [f'{ROOT}/.venv/bin/python', '-c', 'import fast; print(fast.describe())'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **LIMITS.get(isa, {})},
    )
    return done.stdout.strip().split(';')[0] or 'NumPy'


def stolen():
    """The time that neighbours took of this machine's CPUs, and all time, since it started."""
    with open('/proc/stat') as f:
        times = list(map(int, f.readline().split()[1:9]))
    return times[7], sum(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--rounds', type=int, default=25)
    parser.add_argument('--steps', type=int, default=3, help='steps of a burst')
    parser.add_argument(
        '--net', nargs='+', choices=('binary', 'quantized'), default=['binary', 'quantized']
    )
    parser.add_argument('--unit', type=int, default=1000)
    parser.add_argument('--layer', type=int, default=2)
    parser.add_argument('--batchsize', type=int, default=100)
    parser.add_argument(
        '--recipe',
        choices=('paper', 'no-dropout'),
        default='',
        help="the paper's, or the same without dropout, to compare losses",
    )
    parser.add_argument('--isa', choices=LIMITS, help='limit all to an instruction set')
    parser.add_argument(
        '--gpu', action='store_true', help='ours and PyTorch on the first CUDA device'
    )
    args = parser.parse_args()

    running, first = {}, {}
    for threads in args.threads:
        for name, (interpreter, script, arguments) in contenders(args, threads).items():
            key = name, threads
            if not os.path.exists(interpreter):
                print(f'skipped: {name}: there is no {os.path.relpath(interpreter, ROOT)}')
                continue
            try:
                running[key] = Contender(interpreter, script, arguments, threads, args.isa)
                first[key] = running[key].do(5)  # compilation included
                running[key].do(15)
            except RuntimeError as e:
                print(f'skipped: {name}: {e}')
                running.pop(key, None)
    order, before = random.Random(0), stolen()
    for _ in range(args.rounds):
        # In random order, so that none always follows the same one.
        for contender in order.sample(list(running.values()), len(running)):
            contender.times.append(contender.do(args.steps, 0.12)['seconds'])
    steal, time = (after - start for after, start in zip(stolen(), before))
    for contender in running.values():
        contender.last = contender.do(200)

    print(
        f'\n{cpu(args.isa)}; our kernels: {kernels(args.isa)}; '
        f'Python {platform.python_version()}; {args.rounds} bursts of {args.steps} steps; '
        f'steal {100 * steal / time:.1f} %; '
        f'batch {args.batchsize}, {args.layer} x {args.unit} units'
        f'{args.recipe and f"; recipe: {args.recipe}"}\n'
    )
    print('| contender | threads | ms a step, median | quartiles | minimum | / PyTorch compiled '
          '| loss | peak MB | first 5 steps, s | their loss |')  # fmt: skip
    print('|---|---|---|---|---|---|---|---|---|---|')
    for net in args.net + ['alone']:
        group = {key: c for key, c in running.items() if key[0].endswith(net)}
        losses = [c.last['result'] for c in group.values() if c.last['result'] is not None]
        for (name, threads), c in sorted(group.items(), key=lambda item: min(item[1].times)):
            ms = [seconds / args.steps * 1000 for seconds in c.times]
            low, median, high = statistics.quantiles(ms, n=4)
            peer = running.get((f'PyTorch compiled, {net}', threads))
            # Ratios within a round, so that the drift of the machine's speed cancels.
            ratio = peer and statistics.median(a / b for a, b in zip(c.times, peer.times))
            early, loss = first[name, threads], c.last['result']
            learned = '' if loss is None else f'{loss:.4f}'
            if loss is not None and not abs(loss - statistics.median(losses)) <= BAND:
                learned += ' (outside the band)'
            print(
                f'| {name} | {threads} | {median:.2f} | {low:.2f} - {high:.2f} | {min(ms):.2f} '
                f'| {f"{ratio:.2f}" if ratio else ""} | {learned} | {c.last["peak MB"]:.0f} '
                f'| {early["seconds"]:.1f} | {early["result"] or "":.8} |'
            )
    finish(
        running,
        ('chainer', f'{ROOT}/.venv'),
        ('numpy', f'{ROOT}/.venv'),
        ('torch', f'{HERE}/.venv-torch'),
        ('larq', f'{HERE}/.venv-larq'),
        ('tensorflow', f'{HERE}/.venv-larq'),
        ('brevitas', f'{HERE}/.venv-brevitas'),
    )


if __name__ == '__main__':
    sys.exit(main())
