"""The kernels for other CPUs than this one: what they compute, and with which instructions."""

import json
import os
import platform
import subprocess
import sys

import pytest

import fast
from helpers import ROOT

pytestmark = pytest.mark.skipif(
    fast.missing is not None, reason=f'Numba cannot be used: {fast.missing}'
)
if not fast.missing:
    import llvmlite.binding
X86 = platform.machine() in ('x86_64', 'AMD64')

# What Numba is told of the CPU, the features that running it takes, and for both kinds of kernels
# their names and instructions.
CPUS = {
    'plain': ('generic', '', [], ['plain vectors', None], ['plain vectors', None]),
    'AVX2': ('haswell', '', ['avx2'], ['AVX2', 'vpmaddubsw'], ['AVX2', 'vpshufb']),
    'AVX-VNNI': (
        'alderlake',
        '+avx2,+avxvnni',
        ['avx2', 'avxvnni'],
        ['AVX-VNNI', '{vex}\tvpdpbusd'],
        ['AVX2', 'vpshufb'],
    ),
    'AVX-512': (
        'icelake-server',
        '+avx2,+avx512vnni,+avx512vpopcntdq',
        ['avx512vnni', 'avx512vpopcntdq'],
        ['AVX-512 VNNI', 'vpdpbusd'],
        ['AVX-512 VPOPCNTDQ', 'vpopcntq'],
    ),
}

COMPILE = """
import json
import sys
from numba import boolean, int32, int64, uint8, int8
from fast import cpu, xnor

layers = {
    xnor.byte_layer: (uint8[:, ::1], boolean, int8[:, :, :, ::1], int64, int64, int32[:, :, ::1],
                      boolean, uint8[:, ::1], int32[:, ::1]),
    xnor.bit_layer: (uint8[:, ::1], uint8[:, ::1], int64, int32[:, :, ::1], uint8[:, ::1],
                     int32[:, ::1])}
for layer, types in layers.items():
    layer.compile(types)
print(json.dumps([cpu.describe(), *[str(layer.inspect_asm()) for layer in layers]]))
"""

RUN = """
import numpy
from deploy.fold import fold
from deploy.packed import PackedMLP
from deploy.xnor import XnorMLP
from net import QuantizedMLP

random = numpy.random.RandomState(0)
for weight_bits, activation_bits, n_in, n_units, n_layers in [
        (1, 1, 784, 300, 2), (1, 1, 20, 9, 3), (1, 1, 31, 2100, 2), (1, 1, 783, 131, 1),
        (1, 2, 50, 70, 2), (2, 1, 784, 65, 2), (2, 2, 100, 64, 3), (3, 3, 33, 129, 2),
        (4, 4, 784, 200, 2), (5, 6, 40, 63, 2), (7, 7, 300, 65, 2), (8, 8, 784, 50, 2)]:
    net = QuantizedMLP(n_in, n_units, 10, n_layers, weight_bits, activation_bits)
    for i in range(1, n_layers + 2):
        bn = net[f'bn{i}']
        bn.avg_mean[:] = random.normal(0, 0.3, bn.avg_mean.shape)
        for a in bn.gamma.array, bn.beta.array:
            a[:] = random.uniform(-1, 1, a.shape)
    arrays = fold(net)
    plain, fast = PackedMLP(arrays), XnorMLP(arrays)
    images = random.randint(0, 256, (37, n_in)) * (random.uniform(0, 1, (37, n_in)) < 0.4)
    images[:3] = 255
    images[3] = 0
    for n in 1, 2, 3, 4, 5, 37:
        given = images[:n].astype(numpy.uint8)
        assert numpy.array_equal(plain.logits(given), fast.logits(given)), (weight_bits, n_in, n)
print('equal')
"""


def run(code, name, features, folder):
    """Runs code with Numba set to compile for a CPU."""
    return subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            'NUMBA_CPU_NAME': name,
            'NUMBA_CPU_FEATURES': features,
            'NUMBA_CACHE_DIR': str(folder),
        },
    )


@pytest.mark.parametrize('cpu', CPUS)
def test_kernels_of_another_cpu(cpu, tmp_path):
    """Compiling them takes no CPU that has the instructions; running them does."""
    if cpu != 'plain' and not X86:
        pytest.skip('not an x86 CPU')
    name, features, needed, *kernels = CPUS[cpu]
    result = run(COMPILE, name, features, tmp_path)
    assert result.stderr == ''
    description, *assembly = json.loads(result.stdout)
    assert description == ', '.join(dict.fromkeys(kernel for kernel, _ in kernels))
    for (_, instruction), code in zip(kernels, assembly):
        assert instruction is None or instruction in code.replace('\\t', '\t')

    host = llvmlite.binding.get_host_cpu_features()
    lacking = [feature for feature in needed if not host.get(feature)]
    if lacking:
        pytest.skip(f'compiled, but this CPU has no {", ".join(lacking)}')
    result = run(RUN, name, features, tmp_path)
    assert (result.stdout, result.stderr) == ('equal\n', '')


def test_sums_on_this_cpu(tmp_path):
    result = subprocess.run([sys.executable, '-c', RUN], cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ('equal\n', '')
