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

# Also of a function from the cache, for which Numba's inspect_asm gives nothing.
ASSEMBLY = """
def assembly(function, types):
    function.compile(types)
    code, = (o.library for o in function.overloads.values())
    return code.codegen._tm.emit_assembly(code._get_module_for_linking())
"""
COMPILE = (
    ASSEMBLY
    + """
import json
import runpy
import sys
from numba import boolean, int32, int64, uint8, int8
from fast import cpu, xnor

layers = {
    xnor.byte_layer: (uint8[:, ::1], boolean, int8[:, :, :, ::1], int64, int64, int32[:, :, ::1],
                      boolean, uint8[:, ::1], int32[:, ::1]),
    xnor.bit_layer: (uint8[:, ::1], uint8[:, ::1], int64, int32[:, :, ::1], uint8[:, ::1],
                     int32[:, ::1])}
print(json.dumps([cpu.describe(), *(assembly(*layer) for layer in layers.items())]), flush=True)
for check in sys.argv[1:]:
    runpy.run_path(check)
"""
)

HERE = os.path.dirname(os.path.abspath(__file__))
CHECK = os.path.join(HERE, 'check_kernels.py')
CACHE = os.path.join(HERE, '__pycache__', 'of_other_cpus')


def run(arguments, name, features):
    """Runs Python with Numba set to compile for a CPU, which takes less for one thread."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            'NUMBA_CPU_NAME': name,
            'NUMBA_CPU_FEATURES': features,
            'NUMBA_CACHE_DIR': CACHE,
            'NUMBA_NUM_THREADS': '1',
        },
    )


@pytest.mark.skipif(not X86, reason='not an x86 CPU')
@pytest.mark.parametrize('cpu', CPUS)
def test_kernels_of_another_cpu(cpu):
    """Compiling them takes no CPU that has the instructions; running them does."""
    name, features, needed, *kernels = CPUS[cpu]
    host = llvmlite.binding.get_host_cpu_features()
    lacking = [feature for feature in needed if not host.get(feature)]
    result = run(['-c', COMPILE, *([] if lacking else [CHECK])], name, features)
    assert result.stderr == ''
    compiled, *equal = result.stdout.splitlines()
    description, *assembly = json.loads(compiled)
    assert description == ', '.join(dict.fromkeys(kernel for kernel, _ in kernels))
    for (_, instruction), code in zip(kernels, assembly):
        assert instruction is None or instruction in code
    if lacking:
        pytest.skip(f'compiled, but this CPU has no {", ".join(lacking)}')
    assert equal == [f'{description}: equal']


def test_sums_on_this_cpu():
    result = subprocess.run([sys.executable, CHECK], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.endswith(': equal\n') and result.stderr == ''


@pytest.mark.parametrize('machine', ['aarch64', 'arm64', 'ARM64'])
def test_every_64_bit_arm_cpu_has_neon(machine, monkeypatch):
    """As Linux, macOS and Windows call it."""
    from fast import cpu

    monkeypatch.setattr(platform, 'machine', lambda: machine)
    assert 'neon' in cpu._instruction_sets()
